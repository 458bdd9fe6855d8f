// The page: what its address asks for is shown, and every step is a new address.

import { Problem, findItem, listFields, listItems, search } from "./api.js";
import { card, nameOf, noteName } from "./cards.js";
import { byId, counted, make } from "./dom.js";
import { buildFilters, showFilters } from "./filters.js";
import { watchForReferences } from "./intake.js";
import { findPicture, keepPicture } from "./pictures.js";
import { HITS, asText, conditions, describe, isSearch, readQuery, writeQuery } from "./query.js";
import { showTrail } from "./trail.js";

const PAGE = 24; // products at once while browsing
const { name: catalog, maxHits, maxPage } = document.body.dataset;
const hasLevels = "hasLevels" in document.body.dataset; // only a combiner has them
let fields = [];
let query = readQuery(location.search);
let loading = new AbortController();
let more = null; // loads further products, if there are any
let hasGroups = false; // whether a product has several pictures

/** Go to another query. A step is remembered in the trail; `replace` changes the current address instead. */
function go(next, { step = false, replace = false, trail = null } = {}) {
  const { trail: earlier = [], ...rest } = history.state ?? {};
  const here = { address: writeQuery(query), label: describe(query, nameOf), item: query.item, image: query.image };
  const state = { trail: trail ?? (step ? [...earlier, here] : earlier) };
  if (replace) {
    history.replaceState({ ...rest, ...state }, "", writeQuery(next));
  } else {
    history.replaceState({ ...rest, trail: earlier, shown: byId("grid").children.length, scroll: scrollY }, "");
    history.pushState(state, "", writeQuery(next));
  }
  if (step || trail) scrollTo(0, 0);
  return show();
}

/** Show what the address asks for, where it was left if it has been shown before. */
async function show(restore = false) {
  query = readQuery(location.search);
  document.body.classList.toggle("searching", isSearch(query));
  showTitle();
  byId("text").value = query.text;
  byId("explain").checked = query.explain;
  byId("explain").parentElement.hidden = !isSearch(query) || !hasLevels;
  byId("group").checked = !query.everyPicture;
  byId("group").parentElement.hidden = !hasGroups;
  showReference();
  showFilters(query.filters);
  await load();
  if (restore) scrollTo(0, history.state?.scroll ?? 0);
}

function showTitle() {
  const title = describe(query, nameOf);
  document.title = isSearch(query) ? `${title} – ${catalog}` : catalog;
  byId("heading").textContent = title;
  byId("reference").alt = `The reference: ${query.item ? nameOf(query.item) : "your picture"}`;
  showTrail(query, history.state?.trail ?? []);
}

function showReference() {
  const hasReference = Boolean(query.item || query.image);
  const source = query.item ? `/v1/items/${encodeURIComponent(query.item)}/image` : findPicture(query.image);
  showPicture(source);
  byId("remove").hidden = !hasReference;
  byId("text").placeholder = hasReference ? "More like this, but …" : "What are you looking for?";
}

/** Load products, and show them or what went wrong. */
async function load() {
  loading.abort();
  const { signal } = (loading = new AbortController());
  byId("results").setAttribute("aria-busy", "true");
  showMessage();
  more = null;
  try {
    await (isSearch(query) ? loadHits(signal) : loadPage(signal, 0));
  } catch (error) {
    if (signal.aborted) return;
    byId("grid").replaceChildren();
    byId("status").textContent = "";
    showProblem(error);
  } finally {
    if (!signal.aborted) {
      byId("results").removeAttribute("aria-busy");
      byId("more").hidden = !more;
    }
  }
}

async function loadHits(signal) {
  const picture = query.image ? findPicture(query.image) : undefined;
  if (query.image && !picture) {
    const remedy = "Add the picture again to see the same products";
    throw new Problem("this link was made with a picture that only the browser it was added in has", "", remedy);
  }
  const request = { k: Math.min(query.k, maxHits), explain: query.explain && hasLevels, where: conditions(query, fields) };
  if (query.item) request.item = query.item;
  if (picture) request.image = picture;
  if (query.text) request.text = query.text;
  if (hasGroups && !query.everyPicture) request.group_by = "product";
  if (query.item && nameOf(query.item) === query.item) nameReference(query.item, signal);
  const began = performance.now();
  const { hits } = await search(request, signal);
  const milliseconds = Math.round(performance.now() - began);
  showItems(hits);
  byId("status").textContent = hits.length ? `${counted(hits.length, "product")}, best first, in ${milliseconds} ms` : "No products";
  if (hits.length === request.k && request.k < maxHits) {
    more = () => go({ ...query, k: Math.min(query.k + HITS, maxHits) }, { replace: true });
  }
}

/** Show the name of a reference that has not been in the grid, as in an address that was shared. */
async function nameReference(item, signal) {
  try {
    if (noteName(await findItem(item, signal))) showTitle();
  } catch {
    // The search itself says what is wrong.
  }
}

async function loadPage(signal, start) {
  const count = start ? PAGE : Math.min(maxPage, Math.max(PAGE, history.state?.shown ?? 0));
  const { items, total } = await listItems(asText(conditions(query, fields)), start, count, hasGroups && !query.everyPicture, signal);
  showItems(items, start > 0);
  byId("status").textContent = total ? counted(total, "product") : "No products";
  more = start + items.length < total && items.length ? () => loadPage(signal, start + items.length) : null;
  byId("more").hidden = !more;
  end.disconnect(); // it is told anew whether the end is near
  end.observe(byId("more"));
}

function showItems(items, isFurther = false) {
  const noText = { ...query, text: "", image: "", k: HITS };
  const cards = items.map((item) => card(item, writeQuery({ ...noText, item: item.id })));
  if (isFurther) byId("grid").append(...cards);
  else byId("grid").replaceChildren(...cards);
  if (!byId("grid").children.length) showEmpty();
}

function showPicture(source) {
  const image = byId("reference");
  image.hidden = !source;
  if (source) image.src = source;
  else image.removeAttribute("src");
  byId("choose").classList.toggle("filled", Boolean(source));
  byId("choose").querySelector("span").textContent = source ? "Change the picture" : "Add a picture";
}

/** What had the focus is gone. */
const focusResults = () => byId("results").focus({ preventScroll: true });

function showEmpty() {
  if (!query.filters.size) {
    showMessage("There is nothing here yet", "Products that `mlcl index` adds to this catalog are shown here.");
    return;
  }
  const button = make("button", { type: "button" }, "Clear the filters");
  button.addEventListener("click", () => {
    go({ ...query, filters: new Map() });
    focusResults();
  });
  showMessage("No products match these filters", "Take one of them away to see more.", button);
}

function showProblem(error) {
  const sentence = (text) => (text ? text[0].toUpperCase() + text.slice(1).replace(/\.$/, "") + "." : "");
  const button = make("button", { type: "button" }, "Try again");
  button.addEventListener("click", () => {
    load();
    focusResults();
  });
  if (!(error instanceof Problem)) console.error(error);
  const what = error instanceof Problem ? error.message : "something went wrong on this page";
  const where = /^\w+$/.test(error.where ?? "") ? "" : error.where; // a field of the API's says nothing here
  showMessage(sentence(what), [where, sentence(error.remedy)].filter(Boolean).join(": "), button);
}

function showMessage(title = "", text = "", button = null) {
  const parts = title ? [make("p", { className: "what" }, title), text ? make("p", {}, text) : null, button] : [];
  byId("message").replaceChildren(...parts.filter(Boolean));
}

/** Search with a picture of the person's own. */
async function useFile(file) {
  try {
    const image = await keepPicture(file);
    await go({ ...query, item: "", image, text: byId("text").value.trim(), k: HITS }, { step: true });
    byId("text").focus();
  } catch (error) {
    showProblem(error);
  }
}

/** Search with a product as the reference; words that have not been searched with yet are kept. */
function useItem(item) {
  const typed = byId("text").value.trim();
  go({ ...query, item, image: "", text: typed === query.text ? "" : typed, k: HITS }, { step: true });
  if (matchMedia("(pointer: coarse)").matches) focusResults(); // on a phone, the keyboard would cover the products
  else byId("text").focus({ preventScroll: true });
}

async function share() {
  try {
    await navigator.clipboard.writeText(location.href);
    byId("share").textContent = "Copied";
  } catch {
    byId("share").textContent = "Copy it from the address bar";
  }
  if (query.image) showMessage("Your picture is not part of the link", "It stays in this browser. Words and filters are in the link.");
  setTimeout(() => (byId("share").textContent = "Copy link"), 3000);
}

const isPlainClick = (event) => !event.defaultPrevented && !event.button && !event.metaKey && !event.ctrlKey && !event.shiftKey;

function listen() {
  byId("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = byId("text").value.trim();
    if (text === query.text) load();
    else go({ ...query, text, k: HITS }, { step: true });
  });
  byId("remove").addEventListener("click", () => {
    go({ ...query, item: "", image: "", k: HITS }, { step: true });
    byId("text").focus();
  });
  byId("grid").addEventListener("click", (event) => {
    const link = event.target.closest("a[data-item]");
    if (!link || !isPlainClick(event)) return;
    event.preventDefault();
    useItem(link.dataset.item);
  });
  byId("trail").addEventListener("click", (event) => {
    const link = event.target.closest("a");
    if (!link || !isPlainClick(event)) return;
    event.preventDefault();
    const earlier = history.state?.trail ?? [];
    go(readQuery(link.search), { trail: earlier.slice(0, Number(link.dataset.step)) });
    focusResults();
  });
  byId("home").addEventListener("click", (event) => {
    if (!isPlainClick(event)) return;
    event.preventDefault();
    go(readQuery(""), { trail: [] });
  });
  byId("explain").addEventListener("change", (event) => go({ ...query, explain: event.target.checked }, { replace: true }));
  byId("group").addEventListener("change", (event) => go({ ...query, everyPicture: !event.target.checked }));
  byId("more").addEventListener("click", showMore);
  byId("share").addEventListener("click", share);
  watchForReferences(useFile, useItem);
  byId("reference").addEventListener("error", () => showPicture(""));
  addEventListener("popstate", () => show(true));
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.target.matches("input") || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    byId("text").focus();
    byId("text").select();
  });
}

// While browsing, more products come as the end is reached; of a search, there are more by the button.
const end = new IntersectionObserver(([entry]) => entry.isIntersecting && !isSearch(query) && showMore(), { rootMargin: "600px" });

async function showMore() {
  const next = more;
  more = null;
  try {
    await next?.();
  } catch (error) {
    if (error.name !== "AbortError") showProblem(error);
  }
}

history.scrollRestoration = "manual";
listen();
try {
  ({ fields, has_groups: hasGroups } = await listFields());
} catch {
  // Without them there are no filters to choose from; what else is wrong is said where products are shown.
}
buildFilters(fields, (filters) => go({ ...query, filters, k: HITS }));
await show(true);
