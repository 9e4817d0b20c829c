// @ts-check
// Tables: the figures behind each picture, for eyes, for screen readers and as CSV.

import { el } from "./dom.js";
import { saveCsv } from "./export.js";

/** @typedef {string | {text: string, value?: number, figure?: string, press?: () => void, pressed?: boolean, key?: string, mark?: string}} Cell */
/** @typedef {{cells: Cell[], faded?: boolean, selected?: boolean}} Row */

/** @param {Cell} cell */
const textOf = (cell) => (typeof cell === "string" ? cell : cell.text);

/** Whether a column holds figures: they stand to the right, words to the left. @param {Row[]} rows @param {number} at */
function isNumeric(rows, at) {
  return (
    at > 0 &&
    rows.some((row) => typeof row.cells[at] !== "string" || /^\$?\d[\d,.]*x?$/.test(/** @type {string} */ (row.cells[at])))
  );
}

/** @param {Cell} cell @param {boolean} heads @param {boolean} numeric */
function cellElement(cell, heads, numeric) {
  const tag = heads ? "th" : "td";
  const side = numeric ? "number" : null;
  if (typeof cell === "string") return el(tag, { scope: heads ? "row" : null, class: side }, cell);
  const inner = cell.press
    ? el(
        "button",
        { type: "button", class: "link", "aria-pressed": String(Boolean(cell.pressed)), "data-key": cell.key, onclick: cell.press },
        cell.text,
      )
    : cell.text;
  const mark = cell.mark ? el("span", { class: `swatch ${cell.mark}`, "aria-hidden": "true" }) : null;
  return el(tag, { scope: heads ? "row" : null, "data-figure": cell.figure, "data-value": cell.value, class: side }, mark, inner);
}

/**
 * A table with a caption and a button that saves it. The first column heads its row.
 * @param {{caption: string, head: string[], rows: Row[], name: string, note?: string}} options
 */
export function table({ caption, head, rows, name, note }) {
  const numeric = head.map((_, at) => isNumeric(rows, at));
  const csv = el(
    "button",
    {
      type: "button",
      class: "small",
      "data-key": `csv-${name}`,
      "aria-label": `Save as CSV: ${caption}`,
      onclick: () =>
        saveCsv(
          head,
          rows.map((row) => row.cells.map((cell) => exported(cell))),
          name,
        ),
    },
    "CSV",
  );
  return el(
    "div",
    { class: "table" },
    el("div", { class: "bar" }, el("h3", {}, caption), csv),
    el(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-label": caption, "data-key": `table-${name}` },
      el(
        "table",
        { id: `table-${name}` },
        el(
          "thead",
          {},
          el("tr", {}, ...head.map((text, at) => el("th", { scope: "col", class: numeric[at] ? "number" : null }, text))),
        ),
        el(
          "tbody",
          {},
          ...rows.map((row) =>
            el(
              "tr",
              { class: `${row.faded ? "faded" : ""} ${row.selected ? "selected" : ""}`.trim() || null },
              ...row.cells.map((cell, at) => cellElement(cell, at === 0, numeric[at])),
            ),
          ),
        ),
      ),
    ),
    note ? el("p", { class: "note" }, note) : null,
  );
}

/** What a cell says in a CSV file: its number in SI units where it has one. @param {Cell} cell */
function exported(cell) {
  return typeof cell !== "string" && cell.value !== undefined ? String(cell.value) : textOf(cell);
}
