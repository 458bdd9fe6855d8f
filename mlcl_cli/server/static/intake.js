// The ways to a reference: files, the camera, drag and drop, and paste.

import { byId } from "./dom.js";

export const DRAGGED_ITEM = "application/x-mlcl-item";

/** Call `onFile` with each picture's file that arrives, and `onItem` with the id of a product that is dropped. */
export function watchForReferences(onFile, onItem) {
  for (const [button, input] of [["choose", "file"], ["camera", "photo"]]) {
    byId(button).addEventListener("click", () => byId(input).click());
    byId(input).addEventListener("change", () => {
      if (byId(input).files.length) onFile(byId(input).files[0]);
      byId(input).value = ""; // the same file can be chosen again
    });
  }
  document.addEventListener("paste", (event) => {
    const file = pictureOf(event.clipboardData);
    const isForField = event.target.matches?.("input") && event.clipboardData.types.includes("text/plain");
    if (!file || isForField) return;
    event.preventDefault();
    onFile(file);
  });
  let inside = 0;
  const mark = (by) => {
    inside = by === 0 ? 0 : Math.max(0, inside + by);
    document.body.classList.toggle("dragging", inside > 0);
  };
  const isWanted = (event) => ["Files", DRAGGED_ITEM].some((type) => event.dataTransfer?.types.includes(type));
  document.addEventListener("dragenter", (event) => isWanted(event) && mark(1));
  document.addEventListener("dragleave", (event) => isWanted(event) && mark(-1));
  document.addEventListener("dragend", () => mark(0));
  document.addEventListener("dragover", (event) => isWanted(event) && event.preventDefault());
  document.addEventListener("drop", (event) => {
    if (!isWanted(event)) return;
    event.preventDefault();
    mark(0);
    const item = event.dataTransfer.getData(DRAGGED_ITEM);
    if (item) onItem(item);
    else if (event.dataTransfer.files.length) onFile(pictureOf(event.dataTransfer) ?? event.dataTransfer.files[0]);
  });
}

const pictureOf = (transfer) => [...(transfer?.files ?? [])].find((file) => file.type.startsWith("image/"));
