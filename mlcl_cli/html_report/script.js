// Without this script, all panels are visible, one below the other, and the queries cannot be searched.
const SVG = "http://www.w3.org/2000/svg";
const format = (number) => number.toLocaleString("en-US");

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// Tabs.
for (const tabs of document.querySelectorAll("[data-tabs]")) {
  const list = tabs.querySelector("[role=tablist]");
  const buttons = [...list.children];
  const panels = buttons.map((button) => document.getElementById(button.getAttribute("aria-controls")));
  const choose = (chosen) => {
    buttons.forEach((button, number) => {
      const on = number === chosen;
      button.setAttribute("aria-selected", on);
      button.tabIndex = on ? 0 : -1;
      panels[number].hidden = !on;
    });
  };
  buttons.forEach((button, number) => {
    button.addEventListener("click", () => choose(number));
    button.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = (number + step + buttons.length) % buttons.length;
      choose(next);
      buttons[next].focus();
    });
  });
  list.hidden = false;
  choose(0);
}

// A link to a run opens it.
const open = () => document.getElementById(location.hash.slice(1))?.closest("details")?.setAttribute("open", "");
addEventListener("hashchange", open);
open();

// A picture opens in a dialog; the arrow keys go through the pictures of its query.
const viewer = document.getElementById("viewer");
let shown = null;
function show(button) {
  shown = button;
  const picture = button.querySelector("svg");
  viewer.querySelector("use").setAttribute("href", picture.querySelector("use")?.getAttribute("href") ?? "#");
  const query = button.closest(".strip, .query")?.querySelector("q")?.textContent ?? "";
  viewer.querySelector("figcaption").replaceChildren(make("b", {}, picture.getAttribute("aria-label")), make("br"), query);
}
function step(by) {
  const buttons = [...shown.closest(".strip, .query").querySelectorAll(".zoom")].filter((one) => one.offsetParent);
  show(buttons[(buttons.indexOf(shown) + by + buttons.length) % buttons.length]);
}
document.addEventListener("click", (event) => {
  const button = event.target.closest(".zoom");
  if (button) {
    show(button);
    viewer.showModal();
  }
});
viewer.addEventListener("click", (event) => {
  if (event.target === viewer || event.target.closest("[data-close]")) viewer.close();
  const by = event.target.closest("[data-step]")?.dataset.step;
  if (by) step(Number(by));
});
viewer.addEventListener("keydown", (event) => {
  const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (by) step(by);
});

// The values of a chart under the pointer, or at the epoch that the arrow keys choose.
for (const figure of document.querySelectorAll("figure[data-lines]")) {
  const lines = JSON.parse(figure.dataset.lines);
  const epochs = [...new Set(lines.flatMap((line) => line.epochs))].sort((a, b) => a - b);
  const svg = figure.querySelector("svg");
  const path = svg.querySelector(`[id="${figure.dataset.chart}-line-0"] path`);
  const xs = path.getAttribute("d").match(/[ML] [\d.e+-]+/g).map((text) => Number(text.slice(2)));
  const first = lines[0].epochs[0];
  const slope = (xs[xs.length - 1] - xs[0]) / (lines[0].epochs[xs.length - 1] - first || 1);
  const box = path.parentNode.parentNode.querySelector("path").getBBox(); // the area between the axes
  const mark = document.createElementNS(SVG, "path");
  mark.setAttribute("class", "mark");
  svg.append(mark);
  const output = make("output");
  figure.append(output);
  figure.tabIndex = 0;
  let place = 0;
  const read = (position) => {
    place = Math.max(0, Math.min(epochs.length - 1, position));
    const epoch = epochs[place];
    mark.setAttribute("d", `M ${xs[0] + slope * (epoch - first)} ${box.y} v ${box.height}`);
    const values = lines.flatMap((line) => {
      const at = line.epochs.indexOf(epoch);
      return at < 0 ? [] : [`${line.label} ${line.values[at]}`];
    });
    output.textContent = `Epoch ${format(epoch)}: ${values.join("; ")}`;
  };
  svg.addEventListener("pointermove", (event) => {
    const x = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse()).x;
    const epoch = first + (x - xs[0]) / (slope || 1);
    read(epochs.reduce((best, one, at) => (Math.abs(one - epoch) < Math.abs(epochs[best] - epoch) ? at : best), 0));
  });
  figure.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    read(place + by);
  });
  const best = epochs.indexOf(Number(figure.dataset.best));
  read(best < 0 ? epochs.length - 1 : best);
}

// Tables as LaTeX, for booktabs.
const LATEX = { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "±": "$\\pm$",
  "−": "$-$", "→": "$\\rightarrow$", "τ": "$\\tau$", "·": "$\\cdot$" };
const escape = (text) =>
  text.replace(/\s+/g, " ").trim().replace(/[\\~^±−→τ·&%$#_{}]/g, (sign) => LATEX[sign] ?? `\\${sign}`);
function cellAsLatex(cell) {
  const copy = cell.cloneNode(true);
  copy.querySelector("q")?.remove();  // a note
  const small = copy.querySelector("small");
  small?.remove();
  const text = escape(copy.textContent);
  const best = cell.closest(".best") ? `\\textbf{${text}}` : text;
  return small ? `${best} {\\scriptsize ${escape(small.textContent)}}` : best;
}
function asLatex(table) {
  const rows = [...table.rows].map((row) => [...row.cells].filter((cell) => cell.getAttribute("aria-hidden") !== "true"));
  const columns = rows[0].map((cell) => (cell.classList.contains("number") ? "r" : "l")).join("");
  const lines = rows.map((row) => `${row.map(cellAsLatex).join(" & ")} \\\\`);
  return ["\\begin{tabular}{" + columns + "}", "\\toprule", lines[0], "\\midrule", ...lines.slice(1), "\\bottomrule",
    "\\end{tabular}", ""].join("\n");
}
for (const table of document.querySelectorAll("table[data-latex]")) {
  const button = make("button", { type: "button", class: "copy" }, "Copy as LaTeX");
  const text = make("textarea", { "aria-label": "The table as LaTeX", readonly: "", rows: "8", hidden: "" });
  button.addEventListener("click", async () => {
    text.value = asLatex(table);
    try {
      await navigator.clipboard.writeText(text.value);
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = "Copy as LaTeX"), 2000);
    } catch {  // a browser that keeps the clipboard from pages: show the text to copy it by hand
      text.hidden = false;
      text.select();
    }
  });
  table.after(button, text);
}

// All queries: search, filter, and show a few at a time.
const PAGE = 6;
document.querySelectorAll("script.queries").forEach((data, number) => {
  const queries = JSON.parse(data.textContent);
  const root = document.querySelectorAll(".explorer")[number];
  const form = root.querySelector("form");
  const list = root.querySelector(".results");
  const more = root.querySelector(".more");
  const count = queries.caption.length;
  const text = (at) => [queries.caption[at], queries.names[queries.reference[at]],
    ...queries.targets[at].map((name) => queries.names[name])].join("\n").toLowerCase();
  const texts = queries.caption.map((_, at) => text(at));
  const pictured = (at) => [queries.reference[at], queries.targets[at][0], ...queries.top[at].slice(0, queries.shown)]
    .every((name) => queries.pictures[name] >= 0);
  const rank = (value) => (value === null ? "not ranked" : format(value));
  const isHit = (at) => queries.rank[at] !== null && queries.rank[at] <= queries.hit;
  const orders = {
    best: (at) => queries.rank[at] ?? Infinity,
    worst: (at) => -(queries.rank[at] ?? 0),
    gain: (at) => (queries.rank[at] ?? Infinity) / (queries.parts.sum?.[at] ?? 1),
  };

  function picture(name, role) {
    const title = `${role}: ${queries.names[name]}`;
    if (queries.pictures[name] < 0) return make("span", { class: "picture blank", title }, queries.names[name]);
    const svg = document.createElementNS(SVG, "svg");
    const use = document.createElementNS(SVG, "use");
    for (const [key, value] of Object.entries({ class: "picture", role: "img", "aria-label": title })) svg.setAttribute(key, value);
    for (const [key, value] of Object.entries({ href: `#p${queries.pictures[name]}`, width: "100%", height: "100%" })) use.setAttribute(key, value);
    svg.append(use);
    return make("button", { type: "button", class: "zoom" }, svg);
  }
  function found(at, start, end) {
    return queries.top[at].slice(start, end).map((name, position) => {
      const right = queries.targets[at].includes(name);
      const label = `${start + position + 1}${right ? " · target" : ""}`;
      return make("li", right ? { class: "target" } : {}, picture(name, right ? "target" : "retrieved"), make("span", {}, label));
    });
  }
  function strip(at) {
    const hit = isHit(at);
    const chip = make("span", { class: `chip ${hit ? "good" : "bad"}` }, `${hit ? "hit" : "miss"}, rank ${rank(queries.rank[at])}`);
    const ask = make("div", { class: "ask" }, picture(queries.reference[at], "reference"),
      make("div", {}, make("q", {}, queries.caption[at]), chip));
    const first = make("ol", { class: "found" }, ...found(at, 0, queries.shown));
    if (!isHit(at) || queries.rank[at] > queries.shown) first.append(make("li", { class: "target late" },
      picture(queries.targets[at][0], "target"), make("span", {}, `${rank(queries.rank[at])} · target`)));
    const ranks = make("dl", { class: "parts" });
    const columns = { [queries.label]: queries.rank, ...queries.parts, ...queries.others };
    for (const [name, column] of Object.entries(columns)) ranks.append(make("div", {}, make("dt", {}, name), make("dd", {}, rank(column[at]))));
    const names = [queries.sets[queries.set[at]], `${queries.names[queries.reference[at]]} → ${queries.targets[at].map((name) => queries.names[name]).join(", ")}`];
    const details = make("details", {}, make("summary", {}, "Ranks and further images"));
    details.addEventListener("toggle", () => {
      if (details.children.length > 1) return;
      details.append(make("p", { class: "soft" }, names.join(" · ")), make("p", { class: "soft" }, "The target's rank by the whole query, by its parts alone, and by other runs:"),
        ranks, make("ol", { class: "found", start: queries.shown + 1 }, ...found(at, queries.shown)));
    });
    return make("li", { class: "strip", "data-query": at, "data-rank": queries.rank[at] ?? "" }, ask, first, details);
  }

  let chosen = [];
  function extend() {
    const start = list.children.length;
    list.append(...chosen.slice(start, start + PAGE).map(strip));
    const left = chosen.length - list.children.length;
    more.hidden = left === 0;
    more.textContent = `Show ${Math.min(PAGE, left)} more`;
  }
  function search() {
    const { text, result, kind, set, order, pictured: only } = form.elements;
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    chosen = texts.map((_, at) => at).filter((at) =>
      words.every((word) => texts[at].includes(word)) &&
      (result.value === "" || { hit: isHit(at), miss: !isHit(at), first: queries.rank[at] === 1 }[result.value]) &&
      (kind.value === "" || queries.kind[at].includes(Number(kind.value))) &&
      (set.value === "" || queries.set[at] === Number(set.value)) && (!only.checked || pictured(at)));
    const key = orders[order.value];
    if (key) chosen.sort((a, b) => key(a) - key(b) || a - b);
    const hits = chosen.filter(isHit).length;
    root.querySelector("[role=status]").textContent = chosen.length === 0 ? "No query matches." :
      `${format(chosen.length)} of ${format(count)} queries; the target of ${format(hits)} (${((100 * hits) / chosen.length).toFixed(1)} %) is among the first ${queries.hit}.`;
    list.replaceChildren();
    extend();
  }
  const options = (select, names) => names.forEach((name, value) => select.append(make("option", { value }, name)));
  options(form.elements.kind, queries.kinds);
  options(form.elements.set, queries.sets);
  form.elements.set.parentElement.hidden = queries.sets.length < 2;
  if (!queries.parts.sum) form.elements.order.querySelector("[value=gain]").remove();
  form.elements.pictured.parentElement.hidden = queries.pictured === count;
  root.querySelector(".coverage").textContent = queries.pictured === count ? "All queries are shown with pictures." :
    `Ranks of all queries are in this page, and pictures for ${format(queries.pictured)} of ${format(count)}: more would make the file too large.`;
  form.addEventListener("input", search);
  form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => {
    const before = list.children.length;
    extend();
    list.children[before]?.querySelector("button, summary")?.focus();
  });
  root.hidden = false;
  root.nextElementSibling.hidden = true;
  form.elements.pictured.checked = queries.pictured > 0 && queries.pictured < count;
  search();
});
