// @ts-check
// The plans of the question under the load and the limits that are set: what each view asks for.

import { breaksAt, figuresAt, mostUsers } from "./curve.js";
import { get, getNumber } from "./state.js";

/** @typedef {import("./data.js").Data} Data */
/** @typedef {import("./data.js").Plan} Plan */
/** @typedef {import("./curve.js").Figures} Figures */
/** @typedef {Figures & {perGpu: number, usd: number | null, misses: string[], exact: boolean}} Shown */

export const COLOURS = 8;

/** The colour class of the plan at a place in the list; those far down share one. @param {number} at */
export function colourOf(at) {
  return at < COLOURS ? `c${at}` : "c-rest";
}

/** The plan that is selected; the first where none is. @param {Data} data @returns {Plan} */
export function selectedPlan(data) {
  return data.plans.find((plan) => plan.label === get("plan")) ?? data.plans[0];
}

/** Limits in seconds; null: none. @returns {{ttft: number | null, tpot: number | null}} */
export function limits() {
  return { ttft: getNumber("ttft"), tpot: getNumber("tpot") };
}

/** Whether the limits are the question's own. @param {Data} data */
function limitsAsAsked(data) {
  const now = limits();
  return now.ttft === data.asked.ttft_limit && now.tpot === data.asked.tpot_limit;
}

/**
 * Figures of a plan under the load that is set: the question's own (as the model computed it), so many users, or as many as the
 * limits allow; null where one request already misses a limit.
 * @param {Data} data @param {Plan} plan @param {string} [load] @returns {Shown | null}
 */
export function shownFigures(data, plan, load = get("load")) {
  const asAsked = load === "asked" || (load === "most" && data.asked.mode === "capacity" && limitsAsAsked(data));
  if (asAsked) return finished(data, plan, ownFigures(plan, data), true);
  const curve = data.curves[plan.curve];
  const { ttft, tpot } = limits();
  const users =
    load === "most"
      ? mostUsers(curve, plan.dp, kept(ttft, data.asked.margins.ttft), kept(tpot, data.asked.margins.tpot))
      : (getNumber("users") ?? 1);
  if (users === null) return null;
  return finished(data, plan, figuresAt(curve, plan.dp, users, data.asked.output), false);
}

/** What of a limit a prediction has to keep for the limit to be kept with the certainty asked for. @param {number | null} limit @param {number} margin */
function kept(limit, margin) {
  return limit === null ? null : limit * margin;
}

/** The figures at the question's own load. @param {Plan} plan @param {Data} data @returns {Figures} */
function ownFigures(plan, data) {
  const inFlight = data.asked.users || (plan.rate[0] / Math.max(1, data.asked.output)) * plan.latency[0];
  return {
    users: inFlight,
    ttft: plan.ttft,
    tpot: plan.tpot,
    latency: plan.latency,
    rate: plan.rate,
    running: plan.sequences,
    waiting: Math.max(0, inFlight - plan.sequences),
  };
}

/** @param {Data} data @param {Plan} plan @param {Figures} figures @param {boolean} exact @returns {Shown} */
function finished(data, plan, figures, exact) {
  const { ttft, tpot } = limits();
  const misses = [];
  if (ttft !== null && figures.ttft[0] > ttft * 1.0005) misses.push("TTFT");
  if (tpot !== null && figures.tpot[0] > tpot * 1.0005) misses.push("TPOT");
  if (exact && !plan.within && !misses.length && limitsAsAsked(data)) misses.push("load");
  return {
    ...figures,
    perGpu: figures.rate[0] / plan.world,
    usd: dollars(price(data), plan.world, figures.rate[0]),
    misses,
    exact,
  };
}

/** Price of a GPU-hour: the reader's, else the sheet's. @param {Data} data @returns {number | null} */
export function price(data) {
  return getNumber("price") ?? data.asked.price;
}

/** Dollars per million output tokens. @param {number | null} perHour @param {number} gpus @param {number} tokensPerSecond */
export function dollars(perHour, gpus, tokensPerSecond) {
  return perHour === null || tokensPerSecond <= 0 ? null : ((perHour * gpus) / 3600 / tokensPerSecond) * 1e6;
}

/** The plan with the best figure of the goal among those within the limits; null where none is. @param {Data} data @param {(Shown | null)[]} shown */
export function bestPlan(data, shown) {
  let best = -1;
  /** @param {number} at */
  const merit = (at) => {
    const figures = /** @type {Shown} */ (shown[at]);
    if (data.asked.goal === "latency") return -figures.latency[0];
    return data.asked.goal === "cost" ? figures.perGpu : figures.rate[0];
  };
  shown.forEach((figures, at) => {
    if (figures && !figures.misses.length && (best < 0 || merit(at) > merit(best) * 1.0001)) best = at;
  });
  return best < 0 ? null : best;
}

/** Users at which each limit breaks, in words. @param {Data} data @param {Plan} plan @param {"ttft" | "tpot"} figure @param {(v: number) => string} text */
export function breaking(data, plan, figure, text) {
  const limit = limits()[figure];
  if (limit === null) return "no limit";
  const found = breaksAt(data.curves[plan.curve], plan.dp, figure, limit);
  if (found === null) return "at once";
  return found > data.most_users ? `not up to ${text(data.most_users)}` : text(found);
}

/** What the load that is set is, in words. @param {Data} data @param {(v: number) => string} text @param {string} [load] */
export function loadWords(data, text, load = get("load")) {
  if (load === "most") {
    const sure = data.asked.confidence > 0.5 ? ` with ${text(data.asked.confidence * 100)}% certainty` : "";
    return `as many users as keep the limits${sure}`;
  }
  if (load === "users") return `${text(getNumber("users") ?? 1)} users in flight`;
  return (
    { single_stream: "one user at a time", offline: "everything queued at once", open_loop: `${text(data.asked.rate)} requests/s` }[
      data.asked.mode
    ] ?? `${text(data.asked.users)} users in flight`
  );
}
