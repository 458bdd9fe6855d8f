// The steps that led to what is shown.

import { nameOf } from "./cards.js";
import { byId, make } from "./dom.js";
import { findPicture } from "./pictures.js";
import { describe } from "./query.js";

/** Show earlier steps as links, and the current one. */
export function showTrail(query, earlier) {
  byId("trail").hidden = !earlier.length;
  const steps = earlier.map((step, number) => {
    const link = make("a", { href: step.address }, ...content(step));
    link.dataset.step = number;
    return make("li", {}, link);
  });
  const here = make("span", { "aria-current": "step" }, ...content({ ...query, label: describe(query, nameOf) }));
  const list = byId("trail").querySelector("ol");
  list.replaceChildren(...steps, make("li", {}, here));
  list.scrollLeft = list.scrollWidth;
}

function content({ item, image, label }) {
  const source = item ? `/v1/items/${encodeURIComponent(item)}/image` : findPicture(image);
  return [source ? make("img", { src: source, alt: "" }) : null, make("span", {}, label)].filter(Boolean);
}
