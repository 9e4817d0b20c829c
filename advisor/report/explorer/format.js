// @ts-check
// Figures as people read them, three digits and a unit: the same as `advisor/units.py` prints.

/** @type {[number, string][]} */
const TIMES = [
  [1, ""],
  [1e-3, "m"],
  [1e-6, "u"],
  [1e-9, "n"],
];
/** @type {[number, string][]} */
const LARGE = [
  [1e15, "P"],
  [1e12, "T"],
  [1e9, "G"],
  [1e6, "M"],
  [1e3, "k"],
  [1, ""],
];
/** @type {[number, string][]} */
const BINARY = [
  [2 ** 40, "TiB"],
  [2 ** 30, "GiB"],
  [2 ** 20, "MiB"],
  [2 ** 10, "KiB"],
];

/** `value` with three significant digits, without trailing zeros. @param {number} value @param {number} [digits] */
function digitsOf(value, digits = 3) {
  if (value === 0) return "0";
  return String(Number(value.toPrecision(digits)));
}

/** A figure with its unit: `42.1 ms`, `3.35 TB/s`. @param {number} value @param {string} unit */
export function show(value, unit) {
  if (value === 0 || !Number.isFinite(value)) return `${value} ${unit}`;
  const prefixes = unit === "s" ? TIMES : LARGE;
  for (const [scale, prefix] of prefixes) {
    if (Number(digitsOf(Math.abs(value) / scale)) >= 1) return `${digitsOf(value / scale)} ${prefix}${unit}`;
  }
  const [scale, prefix] = prefixes[prefixes.length - 1];
  return `${digitsOf(value / scale)} ${prefix}${unit}`;
}

/** Bytes in binary units: `80 GiB`. @param {number} value */
export function showBytes(value) {
  for (const [scale, name] of BINARY) {
    if (Math.abs(value) >= scale) return `${digitsOf(value / scale)} ${name}`;
  }
  return `${digitsOf(value)} B`;
}

/** A count with separators, three digits: `1,230`. @param {number} value */
export function showCount(value) {
  if (!Number.isFinite(value)) return "-";
  const rounded = Number(value.toPrecision(3));
  return rounded.toLocaleString("en-US", { maximumFractionDigits: 12 });
}

/** A whole number with separators. @param {number} value */
export function showWhole(value) {
  return Math.round(value).toLocaleString("en-US");
}

/** `12%`. @param {number} share */
export function showShare(share) {
  return `${digitsOf(share * 100, 2)}%`;
}

/** An estimate as `42.1 ms (38 ms to 47.2 ms)`. @param {import("./data.js").Estimate} e @param {(v: number) => string} as */
export function showEstimate(e, as) {
  return `${as(e[0])} (${as(e[1])} to ${as(e[2])})`;
}

/** @param {number} seconds */
export const showSeconds = (seconds) => show(seconds, "s");

/** Seconds of a text with a unit (`500ms`, `2 s`, `0.5`); null where it is none. @param {string} text */
export function parseSeconds(text) {
  const match = /^\s*([0-9]*\.?[0-9]+)\s*(us|ms|s|)\s*$/.exec(text);
  if (!match) return null;
  const value = Number(match[1]) * { us: 1e-6, ms: 1e-3, s: 1, "": 1 }[/** @type {"us" | "ms" | "s" | ""} */ (match[2])];
  return value > 0 ? value : null;
}
