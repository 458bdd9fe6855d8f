const MAX_WAIT = 5; // seconds before a busy server is asked again
const PATIENCE = 30_000; // milliseconds

/** Why a request failed: what is wrong, where, and what to do about it. */
export class Problem extends Error {
  constructor(detail, where = "", remedy = "") {
    super(detail);
    Object.assign(this, { where, remedy });
  }
}

export const listFields = (signal) => ask("/v1/fields", { signal });

export const findItem = (id, signal) => ask(`/v1/items/${encodeURIComponent(id)}`, { signal });

export function listItems(where, start, count, isGrouped, signal) {
  const parameters = new URLSearchParams({ start, count });
  if (isGrouped) parameters.set("group_by", "product");
  if (where) parameters.set("where", where);
  return ask(`/v1/items?${parameters}`, { signal });
}

export function search(request, signal) {
  const headers = { "Content-Type": "application/json" };
  return ask("/v1/search", { method: "POST", headers, body: JSON.stringify(request), signal });
}

async function ask(address, options, again = true) {
  const timeout = AbortSignal.timeout(PATIENCE);
  const signal = options.signal ? AbortSignal.any([options.signal, timeout]) : timeout;
  let response;
  try {
    response = await fetch(address, { ...options, signal });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    if (timeout.aborted) throw new Problem("the server takes too long to answer", "", "Try again later");
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
