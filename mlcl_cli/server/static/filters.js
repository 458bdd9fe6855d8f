// Filters, built from what the catalog's fields hold.

import { byId, make } from "./dom.js";

const CHIPS = 8; // values that are shown at once
const wide = matchMedia("(min-width: 60rem)");

/** Build the controls; `onChange` gets the chosen filters by their fields' names. */
export function buildFilters(fields, onChange) {
  const form = byId("filters").querySelector("form");
  const sets = fields.map((field) => [field.name, controls(field)]).filter(([, set]) => set);
  form.append(...sets.map(([, set]) => set));
  form.addEventListener("change", () => onChange(chosen(sets)));
  form.addEventListener("submit", (event) => event.preventDefault());
  byId("clear").addEventListener("click", () => {
    onChange(new Map());
    byId("results").focus({ preventScroll: true });
  });
  const fit = () => (byId("filters").open = wide.matches);
  wide.addEventListener("change", fit);
  fit();
  byId("filters").hidden = !sets.length;
}

/** Show which filters are active. */
export function showFilters(filters) {
  for (const set of byId("filters").querySelectorAll("fieldset")) {
    const { values, from, to } = filters.get(set.name) ?? { values: [], from: "", to: "" };
    for (const input of set.elements) {
      if (input.type === "checkbox") input.checked = values.includes(input.value);
      else if (input.name) input.value = input.name === "from" ? from : to;
    }
  }
  byId("clear").hidden = !filters.size;
  byId("filter-count").textContent = filters.size ? ` (${filters.size})` : "";
}

function chosen(sets) {
  const filters = new Map();
  for (const [name, set] of sets) {
    const inputs = [...set.elements];
    const values = inputs.filter((input) => input.checked).map((input) => input.value);
    const end = (which) => inputs.find((input) => input.name === which)?.value ?? "";
    if (values.length || end("from") || end("to")) filters.set(name, { values, from: end("from"), to: end("to") });
  }
  return filters;
}

function controls(field) {
  const isRange = (field.kind === "number" || field.kind === "date") && field.min !== null;
  const values = field.values?.filter((value) => value !== "" && value !== null) ?? [];
  if (values.length > 1 && field.kind !== "date" && !(isRange && values.length > CHIPS)) return chips(field, values);
  return isRange && field.min !== field.max ? range(field) : null;
}

const fieldset = (field, ...children) => make("fieldset", { name: field.name }, make("legend", {}, spoken(field.name)), ...children);

export const spoken = (name) => name.replaceAll("_", " ");

function chips(field, values) {
  const areColors = field.kind === "text" && values.every((value) => CSS.supports("color", value));
  const made = values.map((value) => {
    const label = field.kind === "boolean" ? (value ? "yes" : "no") : String(value);
    const chip = make("label", { className: "chip" }, make("input", { type: "checkbox", value: String(value) }));
    if (areColors) {
      const swatch = make("i", { "aria-hidden": "true" });
      swatch.style.backgroundColor = value;
      chip.append(swatch);
    }
    chip.append(label);
    return chip;
  });
  const box = make("div", { className: "chips" }, ...made);
  if (values.length > CHIPS + 2) {
    made.slice(CHIPS).forEach((chip) => chip.classList.add("rare"));
    const more = make("button", { type: "button", className: "chip" }, `${values.length - CHIPS} more`);
    more.addEventListener("click", () => {
      box.classList.add("all");
      made[CHIPS].querySelector("input").focus();
      more.remove();
    });
    box.append(more);
  }
  return fieldset(field, box);
}

function range(field) {
  const kind = field.kind === "date" ? { type: "date" } : { type: "number", step: "any", inputMode: "decimal" };
  const bound = (value) => (field.kind === "date" ? String(value).slice(0, 10) : value);
  const end = (name, value) => {
    const input = make("input", { ...kind, name, placeholder: bound(value) });
    if (field.kind === "date") Object.assign(input, { min: bound(field.min), max: bound(field.max) });
    return make("label", {}, make("span", {}, name), input);
  };
  return fieldset(field, make("div", { className: "range" }, end("from", field.min), end("to", field.max)));
}
