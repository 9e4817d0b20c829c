// @ts-check
// The selected plan in figures. Each figure opens its equation with the reader's own numbers in it.

import { el } from "./dom.js";
import { show, showCount, showEstimate, showSeconds, showWhole } from "./format.js";
import { loadWords } from "./plans.js";

/** @typedef {import("./data.js").Plan} Plan */
/** @typedef {import("./plans.js").Shown} Shown */

/** @param {import("./data.js").Data} data @param {Plan} plan @param {Shown | null} figures @param {string} [load] */
export function card(data, plan, figures, load) {
  const title = el("h2", {}, `${plan.label} on ${showWhole(plan.world)} of ${showWhole(data.asked.gpus)} GPUs`);
  if (!figures)
    return el(
      "section",
      { class: "card", id: "card" },
      title,
      el("p", {}, "One request alone already misses a limit with this plan."),
    );
  const status = figures.misses.length
    ? el("span", { class: "bad" }, `misses ${figures.misses.join(" and ")}`)
    : el("span", { class: "good" }, "within the limits");
  const figure = (
    /** @type {string} */ name,
    /** @type {string} */ label,
    /** @type {string} */ text,
    /** @type {number} */ value,
  ) =>
    el(
      "div",
      { class: "figure" },
      el("dt", {}, label),
      el(
        "dd",
        { "data-figure": name, "data-value": value },
        el(
          "button",
          {
            type: "button",
            class: "link",
            "data-key": `formula-${name}`,
            "aria-label": `${label} ${text}: show the equation`,
            onclick: () => openFormula(plan, name, figures.exact),
          },
          text,
        ),
      ),
    );
  return el(
    "section",
    { class: "card", id: "card" },
    title,
    el(
      "p",
      { class: "note" },
      `${loadWords(data, showCount, load)}: `,
      status,
      figures.exact ? "" : " (by the formula that compares plans; `advisor estimate` simulates this load)",
    ),
    el(
      "dl",
      { class: "figures" },
      figure("ttft", "Time to first token (TTFT)", showEstimate(figures.ttft, showSeconds), figures.ttft[0]),
      figure("tpot", "Time per output token (TPOT)", showEstimate(figures.tpot, showSeconds), figures.tpot[0]),
      figure("latency", "Time of a request", showEstimate(figures.latency, showSeconds), figures.latency[0]),
      figure("rate", "Output tokens/s", showEstimate(figures.rate, showCount), figures.rate[0]),
      figure("per_gpu", "Output tokens/s per GPU", showCount(figures.perGpu), figures.perGpu),
      figures.usd === null ? null : figure("usd", "Dollars per million tokens", `$${showCount(figures.usd)}`, figures.usd),
      figure("users", "Requests in flight", showCount(figures.users), figures.users),
      figure("max_sequences", "Requests that the cache holds", showCount(plan.max_sequences), plan.max_sequences),
    ),
    plan.notes.length && figures.exact ? el("p", { class: "note" }, plan.notes.join("; ")) : null,
  );
}

/** Opens the equation of a figure. @param {Plan} plan @param {string} name @param {boolean} exact */
function openFormula(plan, name, exact) {
  const found = plan.formulas.find((formula) => formula[0] === name) ?? plan.formulas.find((formula) => formula[0] === "latency");
  if (!found) return;
  const back = document.activeElement;
  const close = el("button", { type: "button", onclick: () => dialog.close() }, "Close");
  const dialog = el(
    "dialog",
    {
      "aria-label": found[1],
      onclose: () => {
        dialog.remove();
        if (back instanceof HTMLElement) back.focus();
      },
    },
    formulaBlock(found),
    exact
      ? null
      : el(
          "p",
          { class: "note" },
          "The numbers are those of the question's own load; the figure on the page is that of the load which is set.",
        ),
    close,
  );
  document.body.append(dialog);
  dialog.showModal();
}

/** One equation, its numbers and its source. @param {import("./data.js").Formula} formula */
export function formulaBlock([figure, title, equation, numbers, result, source]) {
  return el(
    "div",
    { class: "formula", "data-formula": figure },
    el("h3", {}, title),
    el("p", { class: "equation" }, equation),
    el("p", { class: "numbers" }, `= ${numbers}`),
    el("p", { class: "result" }, "= ", el("strong", {}, result)),
    el("p", { class: "note" }, `Source: ${source}.`),
  );
}

/** @param {number | null} usd */
export function showDollars(usd) {
  return usd === null ? "no price" : `$${showCount(usd)}`;
}

/** @param {number} bytesPerSecond */
export const showRate = (bytesPerSecond) => show(bytesPerSecond, "B/s");
