// @ts-check
// From values to places on an axis, linear or logarithmic, with round ticks.

/** @typedef {{place: (value: number) => number, value: (place: number) => number, ticks: number[], min: number, max: number}} Scale */

/**
 * @param {number} min @param {number} max @param {number} from @param {number} to @param {boolean} log @param {number} [count]
 * @returns {Scale}
 */
export function scale(min, max, from, to, log, count = 5) {
  const forward = log ? Math.log : (/** @type {number} */ v) => v;
  const back = log ? Math.exp : (/** @type {number} */ v) => v;
  const a = forward(min);
  const b = forward(max);
  const span = b - a || 1;
  return {
    place: (value) => from + ((forward(log ? Math.max(value, min / 1e3) : value) - a) / span) * (to - from),
    value: (place) => back(a + ((place - from) / (to - from)) * span),
    ticks: log ? logTicks(min, max, count) : linearTicks(min, max, count),
    min,
    max,
  };
}

/** @param {number} min @param {number} max @param {number} count */
function linearTicks(min, max, count) {
  const raw = (max - min) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(raw || 1));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= raw) ?? raw;
  const ticks = [];
  for (let value = Math.ceil(min / step) * step; value <= max * 1.0001; value += step) ticks.push(Number(value.toPrecision(12)));
  return ticks;
}

/** @param {number} min @param {number} max @param {number} count */
function logTicks(min, max, count) {
  for (const marks of [[1, 2, 5], [1, 3], [1]]) {
    const ticks = [];
    for (let power = Math.floor(Math.log10(min)); power <= Math.ceil(Math.log10(max)); power++) {
      for (const mark of marks) {
        const value = mark * 10 ** power;
        if (value >= min * 0.999 && value <= max * 1.001) ticks.push(Number(value.toPrecision(6)));
      }
    }
    if (ticks.length <= count + 2) return ticks.length >= 2 ? ticks : linearTicks(min, max, count);
  }
  const step = Math.ceil(Math.log10(max / min) / count);
  const ticks = [];
  for (let power = Math.ceil(Math.log10(min)); power <= Math.log10(max); power += step)
    ticks.push(Number((10 ** power).toPrecision(6)));
  return ticks;
}
