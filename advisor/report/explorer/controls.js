// @ts-check
// Controls with their labels. Each is named after what it sets in the state.

import { el } from "./dom.js";
import { get, set } from "./state.js";

/** A list to choose from. @param {string} name @param {string} label @param {[string, string][]} options value and text */
export function choice(name, label, options) {
  const now = get(name);
  const select = el(
    "select",
    { id: name, "data-key": name, onchange: (event) => set({ [name]: event.target.value }) },
    ...options.map(([value, text]) => el("option", { value, selected: value === now }, text)),
  );
  return el("div", { class: "control" }, el("label", { for: name }, label), select);
}

/**
 * A slider over `stops`: whole positions, each standing for a value that the model computed or a load.
 * @param {string} name @param {string} label @param {number[]} stops @param {(value: number) => string} text
 * @param {(value: number) => Record<string, string>} [patch] what a move sets; its own value where left out
 */
export function slider(name, label, stops, text, patch = (value) => ({ [name]: String(value) })) {
  const place = nearest(stops, Number.parseFloat(get(name)));
  const output = el("output", { id: `${name}-shown`, for: name }, text(stops[place]));
  const input = el("input", {
    id: name,
    type: "range",
    min: 0,
    max: stops.length - 1,
    step: 1,
    value: place,
    "data-key": name,
    "aria-valuetext": text(stops[place]),
    oninput: () => {
      const value = stops[Number(input.value)];
      output.textContent = text(value);
      input.setAttribute("aria-valuetext", text(value));
      set(patch(value));
    },
  });
  return el("div", { class: "control" }, el("label", { for: name }, label), el("div", { class: "row" }, input, output));
}

/** The position of the stop nearest to `value`. @param {number[]} stops @param {number} value */
export function nearest(stops, value) {
  let best = 0;
  stops.forEach((stop, at) => {
    if (Math.abs(stop - value) < Math.abs(stops[best] - value)) best = at;
  });
  return best;
}

/**
 * A field for a figure written by hand; what cannot be read is marked and changes nothing.
 * @param {string} name @param {string} label @param {string} hint @param {(text: string) => string | null} read the state's text, or null
 */
export function field(name, label, hint, read) {
  const input = el("input", {
    id: name,
    type: "text",
    value: get(name),
    placeholder: hint,
    autocomplete: "off",
    spellcheck: "false",
    "data-key": name,
    size: 8,
    oninput: () => {
      const found = input.value.trim() === "" ? "" : read(input.value);
      input.setAttribute("aria-invalid", String(found === null));
      if (found !== null) set({ [name]: found });
    },
  });
  return el("div", { class: "control" }, el("label", { for: name }, label), input);
}

/** Loads from 1 to `most`, close enough that a slider feels smooth, and the one that is set. @param {number} most @param {number} now */
export function loadStops(most, now) {
  const stops = [];
  for (let i = 0; i <= 160; i++) {
    const raw = most ** (i / 160);
    stops.push(raw < 100 ? Math.round(raw) : Number(raw.toPrecision(2)));
  }
  return [...new Set([...stops, now, most])].filter((stop) => stop <= most).sort((a, b) => a - b);
}
