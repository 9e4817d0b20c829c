// @ts-check
// Formulas: every figure of the selected plan as its equation, with the reader's own numbers in it and where it is from.

import { formulaBlock } from "./card.js";
import { choice } from "./controls.js";
import { el, replaceIn } from "./dom.js";
import { selectedPlan } from "./plans.js";

/** @param {HTMLElement} root @param {import("./data.js").Data} data */
export function viewFormulas(root, data) {
  const controls = el(
    "form",
    { class: "controls", "aria-label": "Plan", onsubmit: (event) => event.preventDefault() },
    choice(
      "plan",
      "Plan",
      data.plans.map((plan) => [plan.label, plan.label]),
    ),
  );
  const out = el("div", { class: "formulas" });
  root.append(
    controls,
    el(
      "p",
      { class: "note" },
      "The numbers are those of the question's own load. Each figure comes from the model's own prediction; the equations show how the figures hang together.",
    ),
    out,
  );
  return () => replaceIn(out, ...selectedPlan(data).formulas.map((formula) => formulaBlock(formula)));
}
