// @ts-check
// How many users? Times over the load with their intervals, who runs and who waits, and where each limit breaks.

import { card } from "./card.js";
import { chart } from "./chart.js";
import { choice, loadStops, slider } from "./controls.js";
import { figuresAt, fullAt } from "./curve.js";
import { el, replaceIn } from "./dom.js";
import { showCount, showSeconds } from "./format.js";
import { breaking, colourOf, limits, selectedPlan, shownFigures } from "./plans.js";
import { get, getNumber, set } from "./state.js";
import { table } from "./table.js";
import { limitControls, moveLimit } from "./view_plan.js";

/** @typedef {import("./data.js").Data} Data */
/** @typedef {import("./data.js").Plan} Plan */

/** @param {HTMLElement} root @param {Data} data */
export function viewUsers(root, data) {
  const controls = el(
    "form",
    { class: "controls", "aria-label": "Plan, load and limits", onsubmit: (event) => event.preventDefault() },
    choice(
      "plan",
      "Plan",
      data.plans.map((plan) => [plan.label, plan.label]),
    ),
    slider("users", "Users in flight", loadStops(data.most_users, getNumber("users") ?? 1), showCount),
    ...limitControls(),
  );
  const out = el("div", {});
  root.append(controls, out);
  return () => {
    const plan = selectedPlan(data);
    replaceIn(
      out,
      card(data, plan, shownFigures(data, plan, "users"), "users"),
      el("div", { class: "pair" }, timePicture(out, data, plan, "ttft"), timePicture(out, data, plan, "tpot")),
      queuePicture(out, data, plan),
      el(
        "p",
        { class: "note" },
        "Users in flight are requests that someone waits for, over the whole deployment: a closed loop in its steady state. The bands are 90% intervals. Grey lines are the other plans.",
      ),
      usersTable(data),
    );
  };
}

/** Points of the axis: those computed for the plan, and the load that is set. @param {Data} data @param {Plan} plan */
function loads(data, plan) {
  const curve = data.curves[plan.curve];
  const found = curve.users.map((users) => (users * plan.dp) / curve.replicas);
  return [...new Set([1, ...found, getNumber("users") ?? 1])].filter((users) => users <= data.most_users).sort((a, b) => a - b);
}

/** @param {Element} place @param {Data} data @param {Plan} plan @param {"ttft" | "tpot"} figure */
function timePicture(place, data, plan, figure) {
  const at = (/** @type {Plan} */ p, /** @type {number} */ users) =>
    figuresAt(data.curves[p.curve], p.dp, users, data.asked.output);
  const name = { ttft: "Time to first token", tpot: "Time per output token" }[figure];
  const users = getNumber("users") ?? 1;
  const now = at(plan, users);
  const limit = limits()[figure];
  return chart(half(place), {
    name: figure,
    title: `${name} over the load, ${plan.label}`,
    description: `With ${showCount(users)} users ${showSeconds(now[figure][0])}.`,
    x: { label: "users in flight (log)", log: true, text: showCount, min: 1, max: data.most_users },
    y: { label: `${figure.toUpperCase()} (log)`, log: true, text: showSeconds },
    lines: data.plans
      .map((other, index) => ({
        key: other.label,
        label: other.label,
        colour: other === plan ? colourOf(index) : "c-other",
        strong: other === plan,
        faded: other !== plan,
        points: loads(data, other).map((load) => /** @type {[number, number]} */ ([load, at(other, load)[figure][0]])),
      }))
      .sort((a, b) => Number(a.strong) - Number(b.strong)),
    ribbons: [
      {
        colour: colourOf(data.plans.indexOf(plan)),
        points: loads(data, plan).map((load) => [load, at(plan, load)[figure][1], at(plan, load)[figure][2]]),
      },
    ],
    dots: [
      {
        key: "now",
        label: `${showCount(users)} users`,
        colour: colourOf(data.plans.indexOf(plan)),
        x: users,
        y: now[figure][0],
        ys: [now[figure][1], now[figure][2]],
        strong: true,
        named: true,
        title: showSeconds(now[figure][0]),
      },
    ],
    guides:
      limit === null
        ? []
        : [
            {
              key: `limit-${figure}`,
              axis: "y",
              value: limit,
              label: `${figure.toUpperCase()} limit`,
              text: showSeconds,
              move: (value) => moveLimit(figure, value),
            },
          ],
    height: 320,
  });
}

/** A measure for pictures of which two stand side by side where there is room. @param {Element} place */
function half(place) {
  const width = place.clientWidth;
  return { clientWidth: width > 900 ? Math.floor(width / 2) - 12 : width };
}

/** @param {Element} place @param {Data} data @param {Plan} plan */
function queuePicture(place, data, plan) {
  const points = loads(data, plan).map((users) => figuresAt(data.curves[plan.curve], plan.dp, users, data.asked.output));
  const full = fullAt(data.curves[plan.curve], plan.dp);
  const now = figuresAt(data.curves[plan.curve], plan.dp, getNumber("users") ?? 1, data.asked.output);
  return chart(place, {
    name: "queue",
    title: `Who runs and who waits, ${plan.label}`,
    description: `${showCount(now.running)} run and ${showCount(now.waiting)} wait or are read in; no more run from ${showCount(full)} users on.`,
    x: { label: "users in flight (log)", log: true, text: showCount, min: 1, max: data.most_users },
    y: { label: "requests (log)", log: true, text: showCount, min: 0.5 },
    lines: [
      {
        key: "running",
        label: "running (decoding)",
        colour: "c1",
        points: points.map((f) => [f.users, f.running]),
        strong: true,
        end: "running",
      },
      {
        key: "waiting",
        label: "waiting or in prefill",
        colour: "c3",
        points: points.filter((f) => f.waiting > 0.4).map((f) => [f.users, f.waiting]),
        strong: true,
        end: points.some((f) => f.waiting > 0.4) ? "waiting or in prefill" : undefined,
        dashed: true,
      },
    ],
    dots: [
      { key: "run", label: showCount(now.running), colour: "c1", x: now.users, y: now.running, named: true, title: "running" },
    ],
    guides:
      full < data.most_users
        ? [{ key: "full", axis: "x", value: full, label: "full at", text: (value) => `${showCount(value)} users` }]
        : [],
    height: 260,
  });
}

/** @param {Data} data */
function usersTable(data) {
  const users = getNumber("users") ?? 1;
  const rows = data.plans.map((plan, at) => {
    const figures = figuresAt(data.curves[plan.curve], plan.dp, users, data.asked.output);
    return {
      cells: [
        {
          text: plan.label,
          press: () => choose(plan.label),
          pressed: plan.label === get("plan"),
          key: `row-${plan.label}`,
          mark: colourOf(at),
        },
        { text: showSeconds(figures.ttft[0]), value: figures.ttft[0], figure: "ttft" },
        { text: showSeconds(figures.tpot[0]), value: figures.tpot[0], figure: "tpot" },
        { text: showCount(figures.rate[0]), value: figures.rate[0], figure: "rate" },
        { text: showCount(figures.running), value: figures.running, figure: "running" },
        { text: showCount(figures.waiting), value: figures.waiting, figure: "waiting" },
        breaking(data, plan, "ttft", showCount),
        breaking(data, plan, "tpot", showCount),
        showCount(fullAt(data.curves[plan.curve], plan.dp)),
      ],
      selected: plan.label === get("plan"),
    };
  });
  return table({
    caption: `Plans with ${showCount(users)} users in flight`,
    name: "users",
    rows,
    head: [
      "plan",
      "TTFT",
      "TPOT",
      "tok/s",
      "running",
      "waiting or in prefill",
      "TTFT limit breaks at",
      "TPOT limit breaks at",
      "full at",
    ],
  });
}

/** @param {string} label */
function choose(label) {
  /** @type {HTMLSelectElement} */ (document.getElementById("plan")).value = label;
  set({ plan: label });
}
