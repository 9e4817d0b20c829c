// @ts-check
// Stacked bars: where a step or a GPU's memory goes, one bar a row.

import { framed } from "./chart.js";
import { el, svg } from "./dom.js";

/** @typedef {{name: string, amount: number, colour: string}} Part */
/** @typedef {{label: string, parts: Part[], end: string, brief?: string, faded?: boolean, strong?: boolean, mark?: number, press?: () => void, title?: string}} Bar */

const ROW = 30;
const NARROW = 620; // px below which the brief words stand at the end of a bar

/**
 * Bars over a common length; `mark` of a bar is a stroke at that amount (what there is, what would be ideal).
 * @param {{clientWidth: number}} place @param {{name: string, title: string, description: string, bars: Bar[], text: (amount: number) => string, most?: number}} picture
 */
export function bars(place, picture) {
  const width = Math.max(300, Math.min(1200, place.clientWidth || 640));
  const ends = picture.bars.map((bar) => (width < NARROW ? (bar.brief ?? bar.end) : bar.end));
  const side = Math.min(width * 0.3, 14 + 7.2 * Math.max(...picture.bars.map((bar) => bar.label.length), 4));
  const room = Math.min(width * 0.42, 16 + 6.6 * Math.max(...ends.map((end) => end.length), 4));
  const totals = picture.bars.map((bar) =>
    Math.max(
      bar.mark ?? 0,
      bar.parts.reduce((sum, part) => sum + part.amount, 0),
    ),
  );
  const unit = (width - side - room) / (picture.most ?? Math.max(...totals, 1e-12));
  const root = svg("svg", {
    viewBox: `0 0 ${width} ${picture.bars.length * ROW + 6}`,
    role: "img",
    "aria-label": `${picture.title}. ${picture.description}`,
    class: "bars",
  });
  root.append(...picture.bars.map((bar, at) => barRow({ ...bar, end: ends[at] }, at * ROW + 4, side, unit, picture.text)));
  return framed(picture, root, legend(picture.bars));
}

/** @param {Bar} bar @param {number} top @param {number} side @param {number} unit @param {(amount: number) => string} text */
function barRow(bar, top, side, unit, text) {
  const group = svg(
    "g",
    { class: `bar ${bar.faded ? "faded" : ""} ${bar.strong ? "strong" : ""}`, onclick: bar.press },
    bar.title ? svg("title", {}, bar.title) : null,
    svg("text", { x: side - 8, y: top + 16, "text-anchor": "end", class: "name" }, bar.label),
  );
  let from = side;
  for (const part of bar.parts) {
    const length = part.amount * unit;
    group.append(
      svg(
        "rect",
        { x: from, y: top, width: Math.max(0, length - 1), height: ROW - 8, class: `part ${part.colour}` },
        svg("title", {}, `${part.name}: ${text(part.amount)}`),
      ),
    );
    if (part.name && length > part.name.length * 6.6 + 10)
      group.append(svg("text", { x: from + 5, y: top + 16, class: `inside ${part.colour}` }, part.name));
    from += length;
  }
  if (bar.mark)
    group.append(
      svg("line", { class: "mark", x1: side + bar.mark * unit, x2: side + bar.mark * unit, y1: top - 3, y2: top + ROW - 5 }),
    );
  group.append(svg("text", { x: Math.max(from, side + (bar.mark ?? 0) * unit) + 6, y: top + 16, class: "end" }, bar.end));
  return group;
}

/** @param {Bar[]} all */
function legend(all) {
  /** @type {Map<string, string>} */
  const names = new Map(all.flatMap((bar) => bar.parts.map((part) => [part.name, part.colour])));
  if (names.size < 2) return el("span");
  return el(
    "ul",
    { class: "legend" },
    ...[...names].map(([name, colour]) => el("li", {}, el("span", { class: `swatch ${colour}`, "aria-hidden": "true" }), name)),
  );
}
