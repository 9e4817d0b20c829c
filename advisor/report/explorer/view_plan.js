// @ts-check
// Which plan? Throughput per GPU against a time, each plan as its line over the load, with the limits on it.

import { card, showDollars } from "./card.js";
import { chart } from "./chart.js";
import { choice, field, loadStops, slider } from "./controls.js";
import { el, replaceIn } from "./dom.js";
import { parseSeconds, showCount, showSeconds, showWhole } from "./format.js";
import { figuresAt } from "./curve.js";
import { bestPlan, colourOf, limits, loadWords, selectedPlan, shownFigures } from "./plans.js";
import { get, getNumber, set } from "./state.js";
import { table } from "./table.js";

/** @typedef {import("./data.js").Data} Data */
/** @typedef {import("./data.js").Plan} Plan */
/** @typedef {import("./plans.js").Shown} Shown */

/** @type {Record<string, string>} */
const AXES = { latency: "time of a request", ttft: "time to first token (TTFT)", tpot: "time per output token (TPOT)" };

/** Times this close to each other count as one on the front. */
const SAME = 1.02;

/** The controls of the load and the limits, shared by two views. @param {Data} data */
export function loadControls(data) {
  /** @type {[string, string][]} */
  const loads = [
    ["most", "as many users as the limits allow"],
    ["users", "so many users in flight"],
  ];
  if (data.asked.mode !== "capacity") loads.unshift(["asked", "the load of the question"]);
  return [
    choice("load", "Load", loads),
    slider("users", "Users in flight", loadStops(data.most_users, getNumber("users") ?? 1), showCount, (value) => {
      /** @type {HTMLSelectElement} */ (document.getElementById("load")).value = "users";
      return { users: String(value), load: "users" };
    }),
    ...limitControls(),
  ];
}

/** Fields for the two limits. */
export function limitControls() {
  /** @param {string} text */
  const read = (text) => parseSeconds(text)?.toString() ?? null;
  return [field("ttft", "TTFT limit (s, or 500ms)", "none", read), field("tpot", "TPOT limit (s, or 50ms)", "none", read)];
}

/** Writes the limits that were dragged into their fields. @param {"ttft" | "tpot"} name @param {number} seconds */
export function moveLimit(name, seconds) {
  const text = String(Number(seconds.toPrecision(3)));
  const input = /** @type {HTMLInputElement | null} */ (document.getElementById(name));
  if (input) input.value = text;
  set({ [name]: text });
}

/** @param {HTMLElement} root @param {Data} data */
export function viewPlan(root, data) {
  const controls = el(
    "form",
    { class: "controls", "aria-label": "Load, limits and axis", onsubmit: (event) => event.preventDefault() },
    choice("x", "Horizontal axis", Object.entries(AXES)),
    ...loadControls(data),
  );
  const out = el("div", {});
  root.append(controls, out);
  return () => {
    const shown = data.plans.map((plan) => shownFigures(data, plan));
    replaceIn(
      out,
      verdict(data, shown),
      picture(out, data, shown),
      hint(data),
      card(data, selectedPlan(data), shown[data.plans.indexOf(selectedPlan(data))]),
      planTable(data, shown),
      rejectedList(data),
    );
  };
}

/** @param {Data} data @param {(Shown | null)[]} shown */
function verdict(data, shown) {
  const best = bestPlan(data, shown);
  const goal = { latency: "the shortest answers", throughput: "the most tokens/s", cost: "the cheapest tokens" }[data.asked.goal];
  if (best === null)
    return el(
      "p",
      { class: "verdict", id: "best", "data-plan": "" },
      `No plan keeps the limits with ${loadWords(data, showCount)}.`,
    );
  const figures = /** @type {Shown} */ (shown[best]);
  return el(
    "p",
    { class: "verdict", id: "best", "data-plan": data.plans[best].label, role: "status" },
    el("strong", {}, data.plans[best].label),
    ` has ${goal} with ${loadWords(data, showCount)}: ${showCount(figures.rate[0])} tokens/s, ${showCount(figures.perGpu)} a GPU, TPOT ${showSeconds(figures.tpot[0])}.`,
  );
}

/** @param {Data} data */
function hint(data) {
  const hidden = data.others_hidden
    ? ` ${showWhole(data.others_hidden)} further plans that others beat in both are not drawn.`
    : "";
  return el(
    "p",
    { class: "note" },
    "Each line is a plan from one user (left) to a full cache (right); its point is the load that is set, with its 90% interval. ",
    "The stepped line joins plans that no other beats in both. Faint points miss a limit; small grey points are the other plans at the question's load.",
    hidden,
  );
}

/** @param {HTMLElement} place @param {Data} data @param {(Shown | null)[]} shown */
function picture(place, data, shown) {
  const x = /** @type {"latency" | "ttft" | "tpot"} */ (get("x"));
  const selected = selectedPlan(data);
  const lines = data.plans.map((plan, at) => planLine(data, plan, at, x, plan === selected));
  const dots = data.plans.flatMap((plan, at) => planDot(plan, shown[at], at, x, plan === selected));
  const others = shown.some((figures) => figures?.exact) ? data.others.map((other) => otherDot(other, x)) : [];
  return chart(place, {
    name: "plans",
    title: `Output tokens/s per GPU against the ${AXES[x]}`,
    description: "One line a plan over the load, one point at the load that is set. The table below has the same figures.",
    x: { label: `${AXES[x]} (log)`, log: true, text: showSeconds },
    y: { label: "output tokens/s per GPU", log: false, text: showCount },
    lines: [...lines, frontLine(dots)],
    dots: [...others, ...dots],
    guides: guides(x),
  });
}

/** @param {Data} data @param {Plan} plan @param {number} at @param {"latency" | "ttft" | "tpot"} x @param {boolean} strong @returns {import("./chart.js").Line} */
function planLine(data, plan, at, x, strong) {
  const curve = data.curves[plan.curve];
  const most = Math.max(...curve.rate) * 0.9999;
  const end = curve.rate.findIndex((rate) => rate >= most);
  const copies = plan.dp / curve.replicas;
  const points = curve.users.slice(0, end + 1).map((users) => {
    const figures = figuresAt(curve, plan.dp, users * copies, data.asked.output);
    return /** @type {[number, number]} */ ([figures[x][0], figures.rate[0] / plan.world]);
  });
  return { key: plan.label, label: plan.label, colour: colourOf(at), points, faded: !strong, strong };
}

/** @param {Plan} plan @param {Shown | null} figures @param {number} at @param {"latency" | "ttft" | "tpot"} x @param {boolean} strong @returns {import("./chart.js").Dot[]} */
function planDot(plan, figures, at, x, strong) {
  if (!figures) return [];
  const share = figures.perGpu / figures.rate[0];
  return [
    {
      key: plan.label,
      label: plan.label,
      colour: colourOf(at),
      x: figures[x][0],
      y: figures.perGpu,
      faded: figures.misses.length > 0,
      strong,
      named: true,
      xs: strong ? [figures[x][1], figures[x][2]] : undefined,
      ys: strong ? [figures.rate[1] * share, figures.rate[2] * share] : undefined,
      press: () => set({ plan: plan.label }),
      title: `${plan.label}: ${showSeconds(figures[x][0])}, ${showCount(figures.perGpu)} tokens/s per GPU${figures.misses.length ? `, misses ${figures.misses.join(" and ")}` : ""}`,
    },
  ];
}

/** @param {Data["others"][number]} other @param {"latency" | "ttft" | "tpot"} x @returns {import("./chart.js").Dot} */
function otherDot([label, world, , ttft, tpot, latency, rate], x) {
  return { key: `other-${label}`, label, colour: "c-other", x: { latency, ttft, tpot }[x], y: rate / world, title: label };
}

/** The points that no other beats in both, joined. @param {import("./chart.js").Dot[]} dots @returns {import("./chart.js").Line} */
function frontLine(dots) {
  /** @type {[number, number][]} */
  const points = [];
  for (const dot of dots.filter((d) => !d.faded).sort((a, b) => a.x - b.x || b.y - a.y)) {
    const last = points[points.length - 1];
    if (last && dot.y <= last[1]) continue;
    if (last && dot.x < last[0] * SAME) points.pop();
    points.push([dot.x, dot.y]);
  }
  return {
    key: "front",
    label: "the front: no other plan beats these in both",
    colour: "c-front",
    points,
    dashed: true,
    step: true,
  };
}

/** @param {"latency" | "ttft" | "tpot"} x @returns {import("./chart.js").Guide[]} */
function guides(x) {
  if (x === "latency") return [];
  const limit = limits()[x];
  return limit === null
    ? []
    : [
        {
          key: `limit-${x}`,
          axis: "x",
          value: limit,
          label: `${x.toUpperCase()} limit`,
          text: showSeconds,
          move: (value) => moveLimit(x, value),
        },
      ];
}

/** @param {Data} data @param {(Shown | null)[]} shown */
function planTable(data, shown) {
  const selected = selectedPlan(data);
  const rows = data.plans.map((plan, at) => {
    const figures = shown[at];
    const name = {
      text: plan.label,
      press: () => set({ plan: plan.label }),
      pressed: plan === selected,
      key: `row-${plan.label}`,
      mark: colourOf(at),
    };
    if (!figures)
      return { cells: [name, showWhole(plan.world), "-", "-", "-", "-", "-", "-", "one request misses a limit", ""], faded: true };
    const status = figures.misses.length ? `misses ${figures.misses.join(" and ")}` : "yes";
    return {
      cells: [
        name,
        { text: showWhole(plan.world), value: plan.world },
        { text: showCount(figures.users), value: figures.users, figure: "users" },
        { text: showSeconds(figures.ttft[0]), value: figures.ttft[0], figure: "ttft" },
        { text: showSeconds(figures.tpot[0]), value: figures.tpot[0], figure: "tpot" },
        { text: showCount(figures.rate[0]), value: figures.rate[0], figure: "rate" },
        { text: showCount(figures.perGpu), value: figures.perGpu, figure: "per_gpu" },
        figures.usd === null ? "-" : { text: showDollars(figures.usd), value: figures.usd, figure: "usd" },
        status,
        plan.tied ? "cannot be told from the best" : "",
      ],
      faded: figures.misses.length > 0,
      selected: plan === selected,
    };
  });
  return table({
    caption: `Plans with ${loadWords(data, showCount)}`,
    name: "plans",
    rows,
    head: ["plan", "GPUs", "users", "TTFT", "TPOT", "tok/s", "tok/s per GPU", "$/Mtok", "within limits", "tie"],
    note: "Plans of a tie cannot be told from the best by the model at the question's load; what decides between them is said at the top.",
  });
}

/** @param {Data} data */
function rejectedList(data) {
  if (!data.rejected.length) return el("p", { class: "note" }, "Every plan that the model and the engine allow fits.");
  const rest = data.rejected_hidden ? ` ${showWhole(data.rejected_hidden)} more are left out.` : "";
  return table({
    caption: "Cannot run",
    name: "rejected",
    head: ["plan", "reason"],
    rows: data.rejected.map(([label, reason]) => ({ cells: [label, reason], faded: true })),
    note: `Replica shapes that were refused, nearest misses of memory first.${rest}`,
  });
}
