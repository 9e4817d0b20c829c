// @ts-check
// The page: its head, its views, and which of them is shown.

import { readData } from "./data.js";
import { el, replaceIn } from "./dom.js";
import { showCount, showShare } from "./format.js";
import { get, listen, set, startState } from "./state.js";
import { viewFormulas } from "./view_formulas.js";
import { viewPlan } from "./view_plan.js";
import { viewUsers } from "./view_users.js";
import { viewWhatIf } from "./view_whatif.js";
import { viewWhere } from "./view_where.js";
import { viewWhy } from "./view_why.js";

/** @typedef {import("./data.js").Data} Data */

/** @type {Record<string, [string, (root: HTMLElement, data: Data) => () => void]>} */
const VIEWS = {
  plan: ["Which plan?", viewPlan],
  users: ["How many users?", viewUsers],
  why: ["Why?", viewWhy],
  whatif: ["What if?", viewWhatIf],
  where: ["Where?", viewWhere],
  formulas: ["Formulas", viewFormulas],
};

/** The views that have something to show: without a plan that fits, why not, and what would. @param {Data} data */
function viewsOf(data) {
  const names = data.plans.length ? Object.keys(VIEWS) : ["why", "whatif"];
  return names.map((name) => ({ name, title: VIEWS[name][0], view: VIEWS[name][1] }));
}

/** What is set before the reader sets anything. @param {Data} data */
function defaults(data) {
  const { asked } = data;
  const first = data.plans[0];
  const own = data.variants[0];
  const users = asked.users || Math.max(1, Math.round(first?.sequences ?? 1));
  const replica = first ? first.sequences / first.dp : 1;
  return {
    view: "plan",
    plan: first?.label ?? "",
    load: asked.mode === "capacity" ? "most" : "asked",
    x: "latency",
    users: String(users),
    ttft: asked.ttft_limit === null ? "" : String(asked.ttft_limit),
    tpot: asked.tpot_limit === null ? "" : String(asked.tpot_limit),
    phase: "decode",
    batch: String(data.ladder.batches.findLast((batch) => batch <= replica) ?? 1),
    context: String(Math.round(asked.input + asked.output)),
    rung:
      data.ladder.rungs.find(
        (rung) => rung.tp === first?.tp && rung.pp === first?.pp && rung.ep === first?.ep && rung.adp === first?.adp,
      )?.label ??
      data.ladder.rungs[0]?.label ??
      "",
    gpu: own?.gpu ?? "",
    weights: own?.weights ?? "",
    input: String(own?.input ?? ""),
    tp: String(first?.tp ?? Math.max(1, ...(own?.plans ?? []).filter((plan) => plan.pp === 1).map((plan) => plan.tp))),
    pp: String(first?.pp ?? 1),
    dp: String(first?.dp ?? 1),
    kind: first
      ? [first.ep > 1 ? `ep=${first.ep}` : "", first.adp > 1 ? `adp=${first.adp}` : ""].filter(Boolean).join(", ") || "not spread"
      : "",
    price: "",
    colour: first && first.dp > 1 ? "replica" : "tp",
  };
}

/** What an address may set: one of the values offered, or a figure that makes sense. @param {Data} data */
function permitted(data) {
  const among = (/** @type {unknown[]} */ values) => (/** @type {string} */ value) =>
    values.some((other) => String(other) === value);
  const figure = (/** @type {number} */ least, /** @type {number} */ most) => (/** @type {string} */ value) =>
    value !== "" && Number(value) >= least && Number(value) <= most;
  const optional = (/** @type {string} */ value) => value === "" || figure(1e-6, 1e6)(value);
  const degree = figure(1, data.asked.gpus);
  const { ladder, variants } = data;
  return {
    view: among(viewsOf(data).map(({ name }) => name)),
    plan: among(data.plans.map((plan) => plan.label)),
    load: among(["asked", "most", "users"]),
    x: among(["latency", "ttft", "tpot"]),
    users: figure(1, data.most_users),
    ttft: optional,
    tpot: optional,
    phase: among(["decode", "prefill"]),
    batch: among(ladder.batches),
    context: among(ladder.contexts),
    rung: among(ladder.rungs.map((rung) => rung.label)),
    gpu: among(variants.map((variant) => variant.gpu)),
    weights: among(variants.map((variant) => variant.weights)),
    input: among(variants.map((variant) => variant.input)),
    tp: degree,
    pp: degree,
    dp: degree,
    kind: (/** @type {string} */ value) => value.length < 40,
    price: (/** @type {string} */ value) => value === "" || figure(0, 1e6)(value),
    colour: among(["replica", "stage", "tp", "ep", "adp"]),
  };
}

/** @param {Data} data */
function head(data) {
  const { asked } = data;
  const first = data.plans[0];
  const verdict = first
    ? el(
        "p",
        { class: "lead" },
        data.limits_met ? "Recommended: " : "Closest to the limits: ",
        el("strong", { id: "recommended" }, first.label),
        `. ${data.reason}`,
        data.first_share === null
          ? ""
          : ` It comes first in ${data.first_share > 0.99 ? "more than 99%" : showShare(data.first_share)} of draws from the error bars.`,
      )
    : el(
        "p",
        { class: "lead" },
        el("strong", { id: "recommended" }, "No plan fits."),
        " ",
        data.remedies.map((remedy) => `${remedy.change}: then ${remedy.plan} fits.`).join(" "),
        ` Nearest: ${data.rejected
          .slice(0, 3)
          .map(([plan, reason]) => `${plan} ${reason}`)
          .join("; ")}.`,
      );
  const details = [...data.said, ...data.notes].map((text) => el("li", {}, text));
  return [
    el("h1", {}, `${asked.model} on ${asked.machine}`),
    el("p", { class: "note" }, asked.sentence),
    verdict,
    details.length || data.launch
      ? el(
          "details",
          {},
          el("summary", {}, "What was assumed, and how to launch it"),
          el("ul", {}, ...details),
          data.launch ? el("pre", { tabindex: "0" }, el("code", {}, data.launch)) : null,
        )
      : null,
  ];
}

/** @param {Data} data */
function start(data) {
  const main = /** @type {HTMLElement} */ (document.getElementById("main"));
  const views = viewsOf(data);
  const show = () => {
    const shown = views.find(({ name }) => name === get("view")) ?? views[0];
    main.replaceChildren();
    replaceIn(
      /** @type {Element} */ (document.getElementById("views")),
      el(
        "ul",
        {},
        ...views.map(({ name, title }) =>
          el(
            "li",
            {},
            el(
              "a",
              {
                href: `#view=${name}`,
                "data-key": `view-${name}`,
                "aria-current": name === shown.name ? "page" : null,
                onclick: (event) => {
                  event.preventDefault();
                  set({ view: name });
                  show();
                },
              },
              title,
            ),
          ),
        ),
      ),
    );
    const root = el("div", { class: `view view-${shown.name}` }, el("h2", { class: "hidden" }, shown.title));
    main.append(root);
    const draw = shown.view(root, data);
    listen(draw);
    draw();
  };
  startState(defaults(data), permitted(data), show);
  replaceIn(/** @type {Element} */ (document.getElementById("head")), ...head(data));
  replaceIn(
    /** @type {Element} */ (document.getElementById("foot")),
    `Made by advisor with ${data.asked.engine}. Figures are predictions with 90% intervals. Those at other loads than the question's are the formula's that compares plans, read from straight lines between computed points. Loads up to ${showCount(data.most_users)} users. This page requests nothing.`,
  );
  document.addEventListener("rebuild", show);
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth !== width) show();
    width = window.innerWidth;
  });
  show();
}

start(readData());
