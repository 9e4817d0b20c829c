// @ts-check
// Files out of the page: a table as CSV, a picture as SVG or PNG. All of it is made here and handed to the browser to save.

import { el } from "./dom.js";

const PAINT = [
  "fill",
  "stroke",
  "stroke-width",
  "stroke-dasharray",
  "opacity",
  "fill-opacity",
  "font-size",
  "font-weight",
  "font-family",
  "text-anchor",
];

/** @param {Blob} blob @param {string} name */
function save(blob, name) {
  const address = URL.createObjectURL(blob);
  el("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}

/** One cell as CSV; a leading sign that a spreadsheet would run as a formula is quoted away. @param {string} text */
function cell(text) {
  const safe = /^[=+\-@\t\r]/.test(text) && !/^[+-]?[\d.]/.test(text) ? `'${text}` : text;
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

/** @param {string[]} head @param {string[][]} rows */
export function csvOf(head, rows) {
  return `${[head, ...rows].map((row) => row.map(cell).join(",")).join("\r\n")}\r\n`;
}

/** @param {string[]} head @param {string[][]} rows @param {string} name */
export function saveCsv(head, rows, name) {
  save(new Blob([csvOf(head, rows)], { type: "text/csv;charset=utf-8" }), `${name}.csv`);
}

/** A picture that stands alone: the colours and letters that the page's style gave it are written into it. @param {SVGSVGElement} picture */
function standalone(picture) {
  const copy = /** @type {SVGSVGElement} */ (picture.cloneNode(true));
  const originals = [picture, ...picture.querySelectorAll("*")];
  [copy, ...copy.querySelectorAll("*")].forEach((element, at) => {
    const style = getComputedStyle(originals[at]);
    for (const name of PAINT) element.setAttribute(name, style.getPropertyValue(name));
    for (const name of ["class", "data-key", "tabindex", "style"]) element.removeAttribute(name);
  });
  const box = picture.viewBox.baseVal;
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  copy.setAttribute("width", String(box.width));
  copy.setAttribute("height", String(box.height));
  const ground = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  ground.setAttribute("width", "100%");
  ground.setAttribute("height", "100%");
  ground.setAttribute("fill", getComputedStyle(document.body).backgroundColor);
  copy.prepend(ground);
  return new XMLSerializer().serializeToString(copy);
}

/** @param {SVGSVGElement} picture @param {string} name */
export function saveSvg(picture, name) {
  save(new Blob([standalone(picture)], { type: "image/svg+xml" }), `${name}.svg`);
}

/** @param {SVGSVGElement} picture @param {string} name */
export async function savePng(picture, name) {
  const box = picture.viewBox.baseVal;
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(standalone(picture))}`;
  await image.decode();
  const canvas = el("canvas", { width: Math.round(box.width * 2), height: Math.round(box.height * 2) });
  canvas.getContext("2d")?.drawImage(image, 0, 0, canvas.width, canvas.height);
  canvas.toBlob((blob) => blob && save(blob, `${name}.png`), "image/png");
}
