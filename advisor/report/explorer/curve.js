// @ts-check
// Figures of a plan between the points that the model computed. Lines between neighbours, nothing else: no physics here.

/** @typedef {import("./data.js").Curve} Curve */
/** @typedef {import("./data.js").Estimate} Estimate */
/**
 * @typedef {{users: number, ttft: Estimate, tpot: Estimate, latency: Estimate, rate: Estimate, running: number,
 *   waiting: number}} Figures
 */

/** The value of `column` at `users` on the line between its neighbours. @param {Curve} curve @param {number[]} column @param {number} users */
function between(curve, column, users) {
  const at = curve.users;
  if (users <= at[0]) return column[0];
  let low = 0;
  let high = at.length - 1;
  if (users >= at[high]) return column[high];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (at[middle] <= users) low = middle;
    else high = middle;
  }
  const share = (users - at[low]) / (at[high] - at[low]);
  return column[low] + share * (column[high] - column[low]);
}

/** @param {number} value @param {[number, number]} band @returns {Estimate} */
function banded(value, band) {
  return [value, value * band[0], value * band[1]];
}

/**
 * Figures of `replicas` replicas at `users` in flight over all of them: the curve is read where each of its replicas has the same
 * share of users. A replica without a user adds nothing.
 * @param {Curve} curve @param {number} replicas @param {number} users @param {number} outputTokens @returns {Figures}
 */
export function figuresAt(curve, replicas, users, outputTokens) {
  const share = Math.max(1, users / replicas) * curve.replicas;
  const busy = Math.min(replicas, users) / curve.replicas;
  const ttft = between(curve, curve.ttft, share);
  const tpot = between(curve, curve.tpot, share);
  const running = Math.min(users, between(curve, curve.running, share) * busy);
  const rate = between(curve, curve.rate, share) * busy;
  return {
    users,
    ttft: banded(ttft, curve.bands[0]),
    tpot: banded(tpot, curve.bands[1]),
    latency: banded(ttft + Math.max(0, outputTokens - 1) * tpot, curve.bands[2]),
    rate: banded(rate, curve.bands[3]),
    running,
    waiting: Math.max(0, users - running),
  };
}

/**
 * The largest load at which a column stays at or below `limit`, from the left; null where even one user is above.
 * @param {Curve} curve @param {number[]} column @param {number} limit
 */
function lastBelow(curve, column, limit) {
  if (column[0] > limit) return null;
  for (let i = 1; i < column.length; i++) {
    if (column[i] > limit) {
      const share = (limit - column[i - 1]) / (column[i] - column[i - 1]);
      return curve.users[i - 1] + share * (curve.users[i] - curve.users[i - 1]);
    }
  }
  return Number.POSITIVE_INFINITY;
}

/** Users in flight from which a plan answers no more tokens a second: its cache or its batch is full. @param {Curve} curve @param {number} replicas */
export function fullAt(curve, replicas) {
  const most = Math.max(...curve.rate) * 0.999;
  return (curve.users[curve.rate.findIndex((rate) => rate >= most)] * replicas) / curve.replicas;
}

/**
 * Users at which a limit breaks; null: at once, Infinity: nowhere on the axis.
 * @param {Curve} curve @param {number} replicas @param {"ttft" | "tpot"} figure @param {number} limit
 */
export function breaksAt(curve, replicas, figure, limit) {
  const found = lastBelow(curve, curve[figure], limit);
  return found === null ? null : (found * replicas) / curve.replicas;
}

/**
 * As many users as the limits allow, and no more than fill the plan; null where one request already misses a limit.
 * @param {Curve} curve @param {number} replicas @param {number | null} ttftLimit @param {number | null} tpotLimit
 */
export function mostUsers(curve, replicas, ttftLimit, tpotLimit) {
  let most = fullAt(curve, replicas);
  for (const [figure, limit] of /** @type {["ttft" | "tpot", number | null][]} */ ([
    ["ttft", ttftLimit],
    ["tpot", tpotLimit],
  ])) {
    if (limit === null) continue;
    const found = breaksAt(curve, replicas, figure, limit);
    if (found === null) return null;
    most = Math.min(most, found);
  }
  return most;
}
