// @ts-check
// What `advisor/report/explorer/pack.py` writes into the page, as types. Times in seconds, sizes in bytes, prices in dollars.

/** @typedef {[number, number, number]} Estimate value, low, high */
/** @typedef {{tp: number, pp: number, dp: number, ep: number, adp: number, world: number, label: string}} Degrees */
/** @typedef {{total: number, parts: Record<string, number>, flop: number, bytes: number, wire: number}} Step */
/**
 * @typedef {{device: number, weights: number, activations: number, engine: number, kv: number, free: number, kv_tokens: number,
 *   short: number}} Memory
 */
/**
 * @typedef {{replicas: number, users: number[], ttft: number[], tpot: number[], rate: number[], running: number[],
 *   bands: [number, number][]}} Curve
 */
/** @typedef {[figure: string, title: string, equation: string, numbers: string, result: string, source: string]} Formula */
/**
 * @typedef {Degrees & {tied: boolean, within: boolean, front: boolean, curve: number, ttft: Estimate, tpot: Estimate,
 *   latency: Estimate, rate: Estimate, sequences: number, kv_tokens: number, max_sequences: number, usd: number | null,
 *   bottleneck: string, notes: string[], decode: Step, prefill: Step, memory: Memory, seats: number[][],
 *   groups: Record<string, number[][]>, formulas: Formula[]}} Plan
 */
/** @typedef {Degrees & {fits: boolean, decode: Step[], prefill: Step, memory: Memory, sequence_bytes: number[]}} Rung */
/**
 * @typedef {{batches: number[], contexts: number[], context: number, prefill_tokens: number, peak: number, bandwidth: number,
 *   rungs: Rung[]}} Ladder
 */
/** @typedef {Degrees & {curve: number | null, refused: string, memory: Memory | null}} VariantPlan */
/**
 * @typedef {{gpu: string, weights: string, input: number, gpus: number, price: number | null, refused: string,
 *   plans: VariantPlan[]}} Variant
 */
/**
 * @typedef {{nodes: number, name: string, devices: string[], memory: number, numa: (number | null)[], uplinks: number[][],
 *   link: [string, number], pairs: [number, number, string, number, number][], network: [string, number] | null, layers: number,
 *   assumed: string}} Machine
 */
/**
 * @typedef {{model: string, sentence: string, weights: string, kv: string, machine: string, gpus: number, nodes: number,
 *   engine: string, input: number, output: number, mode: string, users: number, rate: number, ttft_limit: number | null,
 *   tpot_limit: number | null, goal: string, confidence: number, margins: {ttft: number, tpot: number}, gpu: string, price: number | null, price_date: string}} Asked
 */
/**
 * @typedef {{asked: Asked, said: string[], reason: string, notes: string[], first_share: number | null,
 *   limits_met: boolean, launch: string, remedies: {change: string, plan: string}[], most_users: number, plans: Plan[],
 *   others: [string, number, number, number, number, number, number][], others_hidden: number, rejected: [string, string][],
 *   rejected_hidden: number, ladder: Ladder, variants: Variant[], machine: Machine, curves: Curve[]}} Data
 */

/** The data of this page. @returns {Data} */
export function readData() {
  const element = document.getElementById("data");
  return JSON.parse(element?.textContent ?? "{}");
}
