// @ts-check
// What the reader has set, kept in the part of the address after `#`, so that a link shows the same view.

/** @typedef {Record<string, string>} State */

/** @type {State} */
let current = {};
/** @type {State} */
let defaults = {};
/** @type {Record<string, (value: string) => boolean>} */
let allowed = {};
/** @type {(() => void)[]} */
const listeners = [];

/**
 * Sets the defaults, reads the address, and listens to its changes. What `may` refuses in an address is left at its default.
 * @param {State} initial @param {Record<string, (value: string) => boolean>} may @param {() => void} onAddress
 */
export function startState(initial, may, onAddress) {
  defaults = initial;
  allowed = may;
  current = readAddress();
  window.addEventListener("hashchange", () => {
    current = readAddress();
    onAddress();
  });
}

/** @returns {State} */
function readAddress() {
  /** @type {State} */
  const found = { ...defaults };
  for (const [name, value] of new URLSearchParams(location.hash.slice(1))) {
    if (Object.hasOwn(defaults, name) && allowed[name](value)) found[name] = value;
  }
  return found;
}

/** What is set under `name`. @param {string} name */
export function get(name) {
  return current[name] ?? "";
}

/** The number set under `name`; null where there is none. @param {string} name @returns {number | null} */
export function getNumber(name) {
  const value = Number.parseFloat(get(name));
  return Number.isFinite(value) ? value : null;
}

/** Sets values and writes those that differ from the defaults into the address. @param {State} patch */
export function set(patch) {
  current = { ...current, ...patch };
  const words = new URLSearchParams();
  for (const [name, value] of Object.entries(current)) {
    if (value !== defaults[name]) words.set(name, value);
  }
  history.replaceState(null, "", `#${words}`);
  for (const listener of listeners) listener();
}

/** Calls `listener` after each change; only one view listens at a time. @param {() => void} listener */
export function listen(listener) {
  listeners.length = 0;
  listeners.push(listener);
}
