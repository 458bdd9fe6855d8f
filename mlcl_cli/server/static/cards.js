// Products as they are shown in the grid.

import { make } from "./dom.js";
import { spoken } from "./filters.js";
import { DRAGGED_ITEM } from "./intake.js";

const SHOWN_FIELDS = 8;
const NAMES = ["name", "title"];
const names = new Map(); // of products by their ids, where they differ
const LEVELS = {
  image: "image only", text: "text only", sum: "sum", cat: "mid level", hybrid: "high level",
};
let ratio = 0; // of the grid's pictures, width to height: that of the first one, within limits

/** The name of a product that has been seen, else its id. */
export const nameOf = (id) => names.get(id) ?? id;

/** Remember a product's name, and return the field that holds it. */
export function noteName({ id, fields }) {
  const field = NAMES.find((name) => typeof fields[name] === "string" && fields[name]);
  if (field) names.set(id, fields[field]);
  return field;
}

/** A product's card; `address` is that of the search for products like it. */
export function card(item, address) {
  const nameField = noteName(item);
  const name = nameOf(item.id);
  const fields = Object.entries(item.fields)
    .filter(([key, value]) => key !== nameField && value !== null && value !== "")
    .slice(0, SHOWN_FIELDS)
    .map(([key, value]) => [spoken(key), shown(value)]);
  const link = make(
    "a", { href: address, className: "picture", draggable: true },
    picture(item.image, [name, ...fields.map(([, value]) => value)].join(", ")),
    make("span", { className: "like" }, likeness(), make("span", {}, "More like this")),
  );
  link.dataset.item = item.id;
  link.addEventListener("dragstart", (event) => event.dataTransfer.setData(DRAGGED_ITEM, item.id));
  const score = "score" in item ? make("span", { className: "score", title: "Score" }, item.score.toFixed(3)) : null;
  const id = nameField ? make("p", { className: "id" }, item.id) : null;
  const list = fields.length ? make("dl", { className: "fields" }, ...fields.map(pair)) : null;
  return make(
    "li", { className: "card" }, link,
    make("div", { className: "name" }, make("h3", { className: nameField ? "" : "code" }, name), score), id, list, item.levels ? levels(item.levels) : null,
  );
}

function likeness() {
  const mark = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  mark.setAttribute("viewBox", "0 0 24 24");
  mark.setAttribute("aria-hidden", "true");
  mark.append(document.createElementNS(mark.namespaceURI, "path"));
  mark.firstChild.setAttribute("d", "M4 4h11v11H4zM15 9h5v11H9v-5");
  return mark;
}

const pair = ([key, value]) => make("div", {}, make("dt", {}, key), make("dd", {}, value));

function shown(value) {
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "number") return value.toLocaleString("en-US", { maximumFractionDigits: 2, useGrouping: Math.abs(value) >= 10_000 });
  if (Array.isArray(value)) return value.map(shown).join(", ");
  if (typeof value === "object") return JSON.stringify(value);
  return value.replace("T00:00:00", "");
}

function picture(address, alt) {
  const image = make("img", { loading: "lazy", decoding: "async", alt });
  image.addEventListener("load", () => fit(image));
  image.addEventListener("error", () => image.replaceWith(make("span", { className: "blank" }, "No picture")));
  image.src = address;
  return image;
}

/** Fill the frame with pictures of about its shape, and show others whole. */
function fit(image) {
  const own = image.naturalWidth / image.naturalHeight;
  if (!ratio) {
    ratio = Math.min(4 / 3, Math.max(3 / 4, own));
    document.documentElement.style.setProperty("--ratio", ratio);
  }
  image.classList.toggle("whole", Math.abs(Math.log(own / ratio)) > 0.2);
}

/** The score of each part of the query alone. */
function levels(scores) {
  const rows = Object.entries(scores).map(([name, score]) => {
    const bar = make("i", { "aria-hidden": "true" });
    bar.style.setProperty("--score", Math.min(1, Math.max(0, score)));
    return make("div", {}, make("dt", {}, LEVELS[name] ?? spoken(name)), make("dd", {}, score.toFixed(3)), bar);
  });
  return make("dl", { className: "levels" }, ...rows);
}
