// @ts-check
// What if? Another GPU, number format or prompt length, another split, another price: what the same question would answer.

import { bars } from "./bars.js";
import { showDollars } from "./card.js";
import { choice, field, loadStops, slider } from "./controls.js";
import { figuresAt, fullAt } from "./curve.js";
import { el, replaceIn } from "./dom.js";
import { showBytes, showCount, showEstimate, showSeconds, showWhole } from "./format.js";
import { dollars, limits } from "./plans.js";
import { get, getNumber, set } from "./state.js";
import { table } from "./table.js";

/** @typedef {import("./data.js").Data} Data */
/** @typedef {import("./data.js").Variant} Variant */
/** @typedef {import("./data.js").VariantPlan} VariantPlan */

/** @param {HTMLElement} root @param {Data} data */
export function viewWhatIf(root, data) {
  const kinds = [...new Set(data.variants.flatMap((variant) => variant.plans.map(kindOf)))];
  const controls = el(
    "form",
    { class: "controls", "aria-label": "Changes of the question", onsubmit: (event) => event.preventDefault() },
    choice(
      "gpu",
      "GPU",
      values(data, (v) => v.gpu).map((gpu) => [gpu, gpu]),
    ),
    choice(
      "weights",
      "Weights in",
      values(data, (v) => v.weights).map((form) => [form, form]),
    ),
    choice(
      "input",
      "Prompt tokens",
      values(data, (v) => String(v.input)).map((tokens) => [tokens, showWhole(Number(tokens))]),
    ),
    slider("tp", "Tensor parallel (tp)", degrees(data, "tp"), String),
    slider("pp", "Pipeline stages (pp)", degrees(data, "pp"), String),
    slider("dp", "Replicas (dp)", degrees(data, "dp"), String),
    kinds.length > 1
      ? choice(
          "kind",
          "Experts and attention",
          kinds.map((kind) => [kind, kind]),
        )
      : null,
    slider("users", "Users in flight", loadStops(data.most_users, getNumber("users") ?? 1), showCount),
    field("price", "Dollars per GPU-hour", data.variants[0].price === null ? "none" : String(data.variants[0].price), (text) =>
      Number.parseFloat(text) >= 0 ? String(Number.parseFloat(text)) : null,
    ),
  );
  const out = el("div", {});
  root.append(controls, out);
  return () => replaceIn(out, ...answer(out, data));
}

/** @param {Data} data @param {(variant: Variant) => string} of */
function values(data, of) {
  return [...new Set(data.variants.map(of))].sort((a, b) => Number(a) - Number(b) || 0);
}

/** @param {Data} data @param {"tp" | "pp" | "dp"} axis */
function degrees(data, axis) {
  return [...new Set(data.variants.flatMap((variant) => variant.plans.map((plan) => plan[axis])))].sort((a, b) => a - b);
}

/** How experts and attention are spread, in words. @param {VariantPlan} plan */
function kindOf(plan) {
  const words = [plan.ep > 1 ? `ep=${plan.ep}` : "", plan.adp > 1 ? `adp=${plan.adp}` : ""].filter(Boolean);
  return words.join(", ") || "not spread";
}

/** The variant that is set; undefined where this combination was not computed. @param {Data} data */
function variantSet(data) {
  return data.variants.find((v) => v.gpu === get("gpu") && v.weights === get("weights") && String(v.input) === get("input"));
}

/** @param {HTMLElement} place @param {Data} data @returns {Node[]} */
function answer(place, data) {
  const variant = variantSet(data);
  if (!variant) {
    const own = data.variants[0];
    return [
      el(
        "p",
        { class: "verdict", id: "whatif", "data-state": "uncomputed" },
        `Other prompt lengths were computed for ${own.gpu} with ${own.weights} weights only. `,
        el(
          "button",
          { type: "button", onclick: () => reset({ gpu: own.gpu, weights: own.weights }) },
          `Back to ${own.gpu}, ${own.weights}`,
        ),
        " ",
        el(
          "button",
          { type: "button", onclick: () => reset({ input: String(own.input) }) },
          `Back to ${showWhole(own.input)} prompt tokens`,
        ),
      ),
    ];
  }
  if (variant.refused) return [el("p", { class: "verdict bad", id: "whatif", "data-state": "refused" }, variant.refused)];
  return [
    chosenPlan(data, variant),
    splitPicture(place, data, variant),
    el(
      "p",
      { class: "note" },
      "Every split of the GPUs at the same load; faded bars miss a limit. Replicas (dp) share the users and exchange nothing; tensor parallelism (tp) makes each step shorter but talks twice a layer.",
    ),
    splitTable(data, variant),
  ];
}

/** @param {Record<string, string>} patch */
function reset(patch) {
  for (const [name, value] of Object.entries(patch)) /** @type {HTMLSelectElement} */ (document.getElementById(name)).value = value;
  set(patch);
}

/** Figures of a plan of a variant. @param {Data} data @param {Variant} variant @param {VariantPlan} plan */
function figuresOf(data, variant, plan) {
  if (plan.curve === null) return null;
  const curve = data.curves[plan.curve];
  const figures = figuresAt(curve, plan.dp, getNumber("users") ?? 1, data.asked.output);
  const price = getNumber("price") ?? variant.price;
  return { ...figures, usd: dollars(price, plan.world, figures.rate[0]), full: fullAt(curve, plan.dp) };
}

/** Where the sliders stand. @param {Variant} variant */
function planSet(variant) {
  const kind = get("kind");
  const split = variant.plans.filter((p) => p.tp === getNumber("tp") && p.pp === getNumber("pp"));
  const spread = split.some((p) => kindOf(p) === kind) ? split.filter((p) => kindOf(p) === kind) : split;
  return spread.find((p) => p.dp === getNumber("dp") || p.curve === null) ?? null;
}

/** @param {Data} data @param {Variant} variant */
function chosenPlan(data, variant) {
  const [tp, pp, dp] = ["tp", "pp", "dp"].map((axis) => getNumber(axis) ?? 1);
  const plan = planSet(variant);
  const title = el("h2", {}, `tp=${tp}, pp=${pp}, dp=${dp} on ${showWhole(variant.gpus)} x ${variant.gpu}`);
  if (!plan) {
    const over = tp * pp * dp > variant.gpus;
    return el(
      "section",
      { class: "card", id: "whatif", "data-state": "none" },
      title,
      el(
        "p",
        { class: "bad" },
        over
          ? `${showWhole(tp * pp * dp)} GPUs are more than the ${showWhole(variant.gpus)} there are.`
          : "This split was not computed; the table below has those that were.",
      ),
    );
  }
  const figures = figuresOf(data, variant, plan);
  if (!figures)
    return el(
      "section",
      { class: "card", id: "whatif", "data-state": "refused" },
      title,
      el("p", { class: "bad" }, `Does not run: ${plan.refused}.`),
      memoryWords(plan),
    );
  const cell = (/** @type {string} */ name, /** @type {string} */ label, /** @type {string} */ text, /** @type {number} */ value) =>
    el("div", { class: "figure" }, el("dt", {}, label), el("dd", { "data-figure": name, "data-value": value }, text));
  return el(
    "section",
    { class: "card", id: "whatif", "data-state": "ok" },
    title,
    el(
      "p",
      { class: "note" },
      `A load of ${showCount(figures.users)} in flight, ${variant.weights} weights, ${showWhole(variant.input)} prompt tokens; `,
      missed(figures),
    ),
    el(
      "dl",
      { class: "figures" },
      cell("ttft", "TTFT", showEstimate(figures.ttft, showSeconds), figures.ttft[0]),
      cell("tpot", "TPOT", showEstimate(figures.tpot, showSeconds), figures.tpot[0]),
      cell("rate", "Output tokens/s", showEstimate(figures.rate, showCount), figures.rate[0]),
      figures.usd === null
        ? cell("usd", "Dollars per million tokens", "write a price", 0)
        : cell("usd", "Dollars per million tokens", showDollars(figures.usd), figures.usd),
      cell("full", "Full at", `${showCount(figures.full)} users`, figures.full),
    ),
    against(data, figures),
    memoryWords(plan),
  );
}

/** The changed plan beside the recommended one at the same load. @param {Data} data @param {import("./curve.js").Figures & {usd: number | null}} figures */
function against(data, figures) {
  const first = data.plans[0];
  if (!first) return null;
  const own = figuresAt(data.curves[first.curve], first.dp, figures.users, data.asked.output);
  const usd = dollars(getNumber("price") ?? data.variants[0].price, first.world, own.rate[0]);
  const ratio = (/** @type {number} */ a, /** @type {number} */ b) => `${showCount(a / b)}x`;
  return el(
    "p",
    { id: "against", "data-value": figures.rate[0] / own.rate[0] },
    `Against ${first.label} of the question at this load: ${ratio(figures.rate[0], own.rate[0])} the tokens/s, ${ratio(figures.tpot[0], own.tpot[0])} the time per token`,
    usd === null || figures.usd === null ? "." : `, ${ratio(figures.usd, usd)} the price of a token.`,
  );
}

/** @param {VariantPlan} plan */
function memoryWords(plan) {
  const m = plan.memory;
  if (!m) return null;
  return el(
    "p",
    { class: "note" },
    `Fullest rank: ${showBytes(m.weights)} of weights, ${showBytes(m.activations)} of activations and ${showBytes(m.engine)} of the engine on ${showBytes(m.device)}; ${m.short ? `${showBytes(m.short)} short of one request` : `${showBytes(m.kv)} for the KV cache`}.`,
  );
}

/** The limits that are missed. @param {import("./curve.js").Figures} figures */
function misses(figures) {
  const { ttft, tpot } = limits();
  return [ttft !== null && figures.ttft[0] > ttft ? "TTFT" : "", tpot !== null && figures.tpot[0] > tpot ? "TPOT" : ""].filter(
    Boolean,
  );
}

/** @param {import("./curve.js").Figures} figures */
function missed(figures) {
  const found = misses(figures);
  return found.length
    ? el("span", { class: "bad" }, `misses ${found.join(" and ")}`)
    : el("span", { class: "good" }, "within the limits");
}

/** Splits that use as many GPUs as their shape can, one a shape. @param {Variant} variant */
function fullSplits(variant) {
  /** @type {Map<string, VariantPlan>} */
  const found = new Map();
  for (const plan of variant.plans) {
    const shape = [plan.tp, plan.pp, plan.ep, plan.adp].join("/");
    const other = found.get(shape);
    if (!other || plan.world > other.world) found.set(shape, plan);
  }
  return [...found.values()].sort((a, b) => a.pp - b.pp || a.tp - b.tp || a.ep - b.ep || a.adp - b.adp);
}

/** @param {HTMLElement} place @param {Data} data @param {Variant} variant */
function splitPicture(place, data, variant) {
  const now = planSet(variant);
  return bars(place, {
    name: "splits",
    title: `Tokens/s of each split of ${showWhole(variant.gpus)} x ${variant.gpu} at a load of ${showCount(getNumber("users") ?? 1)}`,
    description: "One bar a split; the table below has the same figures.",
    text: showCount,
    bars: fullSplits(variant).map((plan) => {
      const figures = figuresOf(data, variant, plan);
      if (!figures) return { label: plan.label, parts: [], end: plan.refused, faded: true };
      return {
        label: plan.label,
        parts: [{ name: "", amount: figures.rate[0], colour: plan === now ? "c0" : "c7" }],
        strong: plan === now,
        press: () => choose(plan),
        faded: misses(figures).length > 0,
        brief: `${showCount(figures.rate[0])} tok/s`,
        end: `${showCount(figures.rate[0])} tok/s, ${showSeconds(figures.tpot[0])} a token${figures.usd === null ? "" : `, ${showDollars(figures.usd)}/Mtok`}`,
      };
    }),
  });
}

/** Moves the sliders to a plan. @param {VariantPlan} plan */
function choose(plan) {
  const patch = { tp: String(plan.tp), pp: String(plan.pp), dp: String(plan.dp), kind: kindOf(plan) };
  set(patch);
  document.dispatchEvent(new CustomEvent("rebuild"));
}

/** @param {Data} data @param {Variant} variant */
function splitTable(data, variant) {
  const now = planSet(variant);
  return table({
    caption: "Every split that was computed",
    name: "splits",
    head: ["plan", "GPUs", "TTFT", "TPOT", "tok/s", "$/Mtok", "running", "full at", "state"],
    rows: variant.plans.map((plan) => {
      const figures = figuresOf(data, variant, plan);
      const name = { text: plan.label, press: () => choose(plan), pressed: plan === now, key: `row-${plan.label}` };
      if (!figures) return { cells: [name, showWhole(plan.world), "-", "-", "-", "-", "-", "-", plan.refused], faded: true };
      return {
        cells: [
          name,
          { text: showWhole(plan.world), value: plan.world },
          { text: showSeconds(figures.ttft[0]), value: figures.ttft[0], figure: "ttft" },
          { text: showSeconds(figures.tpot[0]), value: figures.tpot[0], figure: "tpot" },
          { text: showCount(figures.rate[0]), value: figures.rate[0], figure: "rate" },
          figures.usd === null ? "-" : { text: showDollars(figures.usd), value: figures.usd, figure: "usd" },
          { text: showCount(figures.running), value: figures.running, figure: "running" },
          { text: showCount(figures.full), value: figures.full, figure: "full" },
          missed(figures).textContent ?? "",
        ],
        selected: plan === now,
      };
    }),
  });
}
