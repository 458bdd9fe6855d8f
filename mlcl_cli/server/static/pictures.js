// Pictures that were added in this browser. They stay in its tab; the page's address only names them.

import { Problem } from "./api.js";

const LONGEST = 1024; // pixels; larger pictures are scaled down before they are sent
const SMALL = 256 * 1024; // bytes; a picture that is no larger is sent as it is
const SENT_AS_THEY_ARE = ["image/jpeg", "image/png", "image/webp"];
const PREFIX = "picture:";
const kept = new Map();

/** The data: URI of a picture, or undefined if this browser does not have it. */
export const findPicture = (key) => kept.get(key) ?? sessionStorage.getItem(PREFIX + key) ?? undefined;

/** Keep a file's picture, and return its key. Throws a Problem for a file that is not a picture. */
export async function keepPicture(file) {
  const picture = await read(file);
  const key = Math.random().toString(36).slice(2, 10);
  kept.set(key, picture);
  try {
    sessionStorage.setItem(PREFIX + key, picture);
  } catch {
    // The storage is full: older pictures go, so that this one survives a reload.
    for (const name of Object.keys(sessionStorage)) if (name.startsWith(PREFIX)) sessionStorage.removeItem(name);
    try {
      sessionStorage.setItem(PREFIX + key, picture);
    } catch {
      return key;
    }
  }
  return key;
}

async function read(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Problem("this browser cannot read that file as a picture", file.name, "Use a JPEG, PNG or WebP");
  }
  const scale = Math.min(1, LONGEST / Math.max(bitmap.width, bitmap.height));
  if (scale === 1 && file.size <= SMALL && SENT_AS_THEY_ARE.includes(file.type)) return asDataUri(file);
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  context.fillStyle = "white"; // behind transparent pictures
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return canvas.toDataURL("image/jpeg", 0.9);
}

function asDataUri(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Problem("the file cannot be read", file.name));
    reader.readAsDataURL(file);
  });
}
