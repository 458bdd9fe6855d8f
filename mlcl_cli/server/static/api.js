const MAX_WAIT = 5; // seconds before a busy server is asked again

/** Why a request failed: what is wrong, where, and what to do about it. */
export class Problem extends Error {
  constructor(detail, where = "", remedy = "") {
    super(detail);
    Object.assign(this, { where, remedy });
  }
}

export const listFields = (signal) => ask("/v1/fields", { signal });

export const findItem = (id, signal) => ask(`/v1/items/${encodeURIComponent(id)}`, { signal });

export function listItems(where, start, count, signal) {
  const parameters = new URLSearchParams({ start, count });
  if (where) parameters.set("where", where);
  return ask(`/v1/items?${parameters}`, { signal });
}

export function search(request, signal) {
  const headers = { "Content-Type": "application/json" };
  return ask("/v1/search", { method: "POST", headers, body: JSON.stringify(request), signal });
}

async function ask(address, options, again = true) {
  let response;
  try {
    response = await fetch(address, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("the server did not answer", "", "Check that it is running and that you are online");
  }
  if (response.ok) return response.json();
  if (response.status === 503 && again) {
    const seconds = Math.min(Number(response.headers.get("Retry-After")) || 1, MAX_WAIT);
    await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
    options.signal?.throwIfAborted();
    return ask(address, options, false);
  }
  const problem = await response.json().catch(() => ({}));
  throw new Problem(problem.detail ?? `the server answered with status ${response.status}`, problem.where, problem.remedy);
}
