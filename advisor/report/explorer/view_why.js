// @ts-check
// Why? Where a step goes as the model is split further (Amdahl's ladder), the roofline, a rank's memory, the share of all-reduce.

import { bars } from "./bars.js";
import { chart } from "./chart.js";
import { choice, nearest, slider } from "./controls.js";
import { el, replaceIn } from "./dom.js";
import { show, showBytes, showCount, showSeconds, showShare } from "./format.js";
import { colourOf } from "./plans.js";
import { get, getNumber, set } from "./state.js";
import { table } from "./table.js";

/** @typedef {import("./data.js").Data} Data */
/** @typedef {import("./data.js").Rung} Rung */
/** @typedef {import("./data.js").Step} Step */

/** Parts of a step in the order and colour of the bars. @type {[string, string][]} */
const PARTS = [
  ["weights", "c0"],
  ["compute", "c1"],
  ["KV read", "c2"],
  ["attention compute", "c2"],
  ["element-wise", "c4"],
  ["all-reduce", "c3"],
  ["all-to-all", "c6"],
  ["host", "c7"],
  ["launch", "c5"],
];

/** @param {HTMLElement} root @param {Data} data */
export function viewWhy(root, data) {
  const { ladder } = data;
  const controls = el(
    "form",
    { class: "controls", "aria-label": "Step", onsubmit: (event) => event.preventDefault() },
    choice("phase", "Step", [
      ["decode", "decode: one token of each sequence"],
      ["prefill", `prefill: a prompt of ${showCount(ladder.prefill_tokens)} tokens`],
    ]),
    slider("batch", "Sequences of a replica (batch)", ladder.batches, showCount),
    choice(
      "context",
      "Tokens of each sequence in memory",
      ladder.contexts.map((tokens) => [String(tokens), showCount(tokens)]),
    ),
    choice(
      "rung",
      "Follow",
      ladder.rungs.map((rung) => [rung.label, rung.label]),
    ),
  );
  const out = el("div", {});
  root.append(controls, out);
  return () =>
    replaceIn(
      out,
      ladderPicture(out, data),
      reading(data),
      stepTable(data),
      rooflinePicture(out, data),
      memoryPicture(out, data),
      memoryTable(data),
      sharePicture(out, data),
    );
}

/** The step of a rung that is set. @param {Data} data @param {Rung} rung @returns {Step} */
function stepOf(data, rung) {
  return get("phase") === "prefill" ? rung.prefill : rung.decode[batchPlace(data)];
}

/** @param {Data} data */
function batchPlace(data) {
  return nearest(data.ladder.batches, getNumber("batch") ?? 1);
}

/** @param {Data} data */
function batch(data) {
  return data.ladder.batches[batchPlace(data)];
}

/** @param {Data} data */
function followed(data) {
  return data.ladder.rungs.find((rung) => rung.label === get("rung")) ?? data.ladder.rungs[0];
}

/** @param {Data} data */
function stepWords(data) {
  return get("phase") === "prefill"
    ? `A prefill of ${showCount(data.ladder.prefill_tokens)} tokens`
    : `A decode step of ${showCount(batch(data))} sequence${batch(data) === 1 ? "" : "s"} at ${showCount(data.ladder.context)} tokens each`;
}

/** @param {HTMLElement} place @param {Data} data */
function ladderPicture(place, data) {
  return bars(place, {
    name: "ladder",
    title: `${stepWords(data)}: where the time goes`,
    description: "One bar a split of the model; the table below has the same figures.",
    text: showSeconds,
    bars: data.ladder.rungs.map((rung) => {
      const step = stepOf(data, rung);
      return {
        label: rung.label,
        parts: parts(step),
        end: `${showSeconds(step.total)}${rung.fits ? "" : ", does not fit"}`,
        faded: !rung.fits,
        strong: rung === followed(data),
        press: () => follow(rung.label),
        mark:
          rung.tp > 1 && rung.pp === 1 && rung.adp === 1 && rung.ep === 1
            ? stepOf(data, data.ladder.rungs[0]).total / rung.tp
            : undefined,
        title: rung.fits
          ? rung.label
          : `${rung.label} does not fit: short of ${showBytes(rung.memory.short)} on a GPU; the time is that of a GPU with enough memory`,
      };
    }),
  });
}

/** @param {Step} step @returns {import("./bars.js").Part[]} */
function parts(step) {
  const known = PARTS.filter(([name]) => step.parts[name]).map(([name, colour]) => ({ name, amount: step.parts[name], colour }));
  const rest = Object.entries(step.parts)
    .filter(([name]) => !PARTS.some(([other]) => other === name))
    .map(([name, amount]) => ({ name, amount, colour: "c6" }));
  return [...known, ...rest];
}

/** @param {string} label */
function follow(label) {
  /** @type {HTMLSelectElement} */ (document.getElementById("rung")).value = label;
  set({ rung: label });
}

/** @param {Data} data */
function reading(data) {
  const first = stepOf(data, data.ladder.rungs[0]);
  const rung = followed(data);
  const step = stepOf(data, rung);
  const gpus = rung.tp * rung.pp * rung.adp;
  const serial = (step.parts["all-reduce"] ?? 0) + (step.parts.host ?? 0) + (step.parts.launch ?? 0);
  return el(
    "div",
    {},
    el(
      "p",
      { class: "note" },
      "The stroke in a bar is the first bar divided by tp: what splitting would give if nothing were lost. All-reduce, host and launches do not shrink with tp, so each doubling gains less (Amdahl). ",
      "Faded rows do not fit in memory; their time is that of a GPU with enough of it.",
    ),
    el(
      "p",
      { class: "verdict", id: "speedup", "data-value": first.total / step.total },
      `${rung.label}: ${showCount(first.total / step.total)}x as fast as ${data.ladder.rungs[0].label} with ${showCount(gpus)}x the GPUs. `,
      rung.pp > 1
        ? `A token passes its ${rung.pp} stages one after the other; they hold more, and several batches are on the way at once. `
        : "",
      `${showShare(serial / step.total)} of the step is all-reduce, host and launches.`,
    ),
  );
}

/** @param {Data} data */
function stepTable(data) {
  const names = [...new Set(data.ladder.rungs.flatMap((rung) => parts(stepOf(data, rung)).map((part) => part.name)))];
  return table({
    caption: `${stepWords(data)}, part by part`,
    name: "steps",
    head: ["split", "step", ...names, "speed-up"],
    rows: data.ladder.rungs.map((rung) => {
      const step = stepOf(data, rung);
      return {
        cells: [
          { text: rung.label, press: () => follow(rung.label), pressed: rung === followed(data), key: `row-${rung.label}` },
          { text: showSeconds(step.total), value: step.total, figure: "step" },
          ...names.map((name) => ({
            text: step.parts[name] ? showSeconds(step.parts[name]) : "-",
            value: step.parts[name] ?? 0,
            figure: name,
          })),
          {
            text: `${showCount(stepOf(data, data.ladder.rungs[0]).total / step.total)}x`,
            value: stepOf(data, data.ladder.rungs[0]).total / step.total,
            figure: "speedup",
          },
        ],
        faded: !rung.fits,
        selected: rung === followed(data),
      };
    }),
  });
}

/** @param {HTMLElement} place @param {Data} data */
function rooflinePicture(place, data) {
  const { ladder } = data;
  const rung = followed(data);
  const ridge = ladder.peak / ladder.bandwidth;
  const now = stepOf(data, rung);
  const at = (/** @type {Step} */ step) => /** @type {[number, number]} */ ([step.flop / step.bytes, step.flop / step.total]);
  const all = [...rung.decode.map(at), at(rung.prefill)];
  const [low, high] = [Math.min(...all.map((p) => p[0]), ridge) / 2, Math.max(...all.map((p) => p[0]), ridge) * 3];
  const reached = now.flop / now.total / Math.min(ladder.peak, (now.flop / now.bytes) * ladder.bandwidth);
  return chart(place, {
    name: "roofline",
    title: `Roofline of a rank, ${rung.label}: ${showShare(reached)} of the roof is reached`,
    description: `The step does ${showCount(now.flop / now.bytes)} FLOP for each byte it moves; the ridge is at ${showCount(ridge)}.`,
    x: { label: "FLOP per byte moved (log)", log: true, text: showCount, min: low, max: high },
    y: { label: "FLOP/s (log)", log: true, text: (value) => show(value, "") },
    lines: [
      {
        key: "roof",
        label: "the roof: memory bandwidth, then compute peak of the sheet",
        colour: "c-front",
        strong: true,
        end: "roof of the sheet",
        points: [
          [low, low * ladder.bandwidth],
          [ridge, ladder.peak],
          [high, ladder.peak],
        ],
      },
      { key: "path", label: "decode steps by batch", colour: "c0", points: rung.decode.map(at), strong: true },
    ],
    dots: [
      ...rung.decode.map((step, index) => ({
        key: `b${ladder.batches[index]}`,
        label: `batch ${ladder.batches[index]}`,
        colour: "c0",
        x: at(step)[0],
        y: at(step)[1],
        named: index === 0 || index === rung.decode.length - 1,
        faded: step !== now,
        title: `batch ${ladder.batches[index]}: ${showSeconds(step.total)}`,
      })),
      {
        key: "prefill",
        label: "prefill",
        colour: "c1",
        x: at(rung.prefill)[0],
        y: at(rung.prefill)[1],
        named: true,
        faded: rung.prefill !== now,
        title: `prefill: ${showSeconds(rung.prefill.total)}`,
      },
      {
        key: "now",
        label: get("phase") === "prefill" ? "" : `batch ${batch(data)}`,
        colour: get("phase") === "prefill" ? "c1" : "c0",
        x: at(now)[0],
        y: at(now)[1],
        strong: true,
        named: true,
        title: showSeconds(now.total),
      },
    ],
    height: 340,
  });
}

/** What the cache holds with the batch and the length that are set. @param {Data} data @param {Rung} rung */
function cacheUse(data, rung) {
  const each = rung.sequence_bytes[nearest(data.ladder.contexts, getNumber("context") ?? 0)];
  const used = (batch(data) / rung.adp) * each;
  const m = rung.memory;
  return { each, used, fits: Math.floor((m.kv / each) * rung.adp), over: Math.max(0, used - m.kv) };
}

/** @param {HTMLElement} place @param {Data} data */
function memoryPicture(place, data) {
  const most = Math.max(...data.ladder.rungs.map((rung) => rung.memory.device));
  const tokens = data.ladder.contexts[nearest(data.ladder.contexts, getNumber("context") ?? 0)];
  return bars(place, {
    name: "memory",
    title: `Memory of the fullest rank: ${showCount(batch(data))} sequences of ${showCount(tokens)} tokens on a replica`,
    text: showBytes,
    most: most * 1.15,
    description: "One bar a split of the model; the stroke is what the GPU has. The table below has the same figures.",
    bars: data.ladder.rungs.map((rung) => {
      const m = rung.memory;
      const use = cacheUse(data, rung);
      const fixed = m.weights + m.activations + m.engine;
      const shown = [
        { name: "weights", amount: m.weights, colour: "c0" },
        { name: "activations", amount: m.activations, colour: "c4" },
        { name: "engine", amount: m.engine, colour: "c7" },
        { name: "KV in use", amount: Math.min(use.used, m.kv), colour: "c2" },
        { name: "KV free", amount: Math.max(0, m.kv - use.used), colour: "c-free" },
        { name: "left free", amount: rung.fits ? m.free : 0, colour: "c-rest" },
      ];
      const over = !rung.fits
        ? "weights do not fit"
        : use.over
          ? `${showCount(use.fits)} fit`
          : `${showBytes(m.kv - use.used)} free`;
      return {
        label: rung.label,
        parts: clipped(shown, most * 1.12),
        end: over,
        mark: m.device,
        faded: !rung.fits,
        strong: rung === followed(data),
        press: () => follow(rung.label),
        title: `${rung.label}: ${showBytes(fixed + m.kv)} of ${showBytes(m.device)}`,
      };
    }),
  });
}

/** Parts cut where the picture ends: weights that do not fit run over the edge. @param {import("./bars.js").Part[]} all @param {number} most */
function clipped(all, most) {
  let left = most;
  return all
    .filter((part) => part.amount > 0)
    .map((part) => {
      const amount = Math.min(part.amount, left);
      left -= amount;
      return { ...part, amount };
    })
    .filter((part) => part.amount > 0);
}

/** @param {Data} data */
function memoryTable(data) {
  return table({
    caption: "Memory of the fullest rank",
    name: "memory",
    head: [
      "split",
      "GPU has",
      "weights",
      "activations",
      "engine",
      "KV cache",
      "KV in use",
      "one sequence",
      "sequences that fit",
      "state",
    ],
    rows: data.ladder.rungs.map((rung) => {
      const m = rung.memory;
      const use = cacheUse(data, rung);
      const cells = [
        ["device", m.device],
        ["weights", m.weights],
        ["activations", m.activations],
        ["engine", m.engine],
        ["kv", m.kv],
        ["used", use.used],
        ["sequence", use.each],
      ];
      return {
        cells: [
          rung.label,
          ...cells.map(([figure, amount]) => ({ text: showBytes(Number(amount)), value: Number(amount), figure: String(figure) })),
          { text: showCount(use.fits), value: use.fits, figure: "fit" },
          rung.fits ? (use.over ? "the batch waits: the cache is full" : "fits") : `${showBytes(m.short)} short`,
        ],
        faded: !rung.fits,
        selected: rung === followed(data),
      };
    }),
  });
}

/** @param {HTMLElement} place @param {Data} data */
function sharePicture(place, data) {
  const { ladder } = data;
  const shown = ladder.rungs.filter((rung) => rung.tp > 1 && rung.decode.some((step) => step.parts["all-reduce"]));
  if (!shown.length) return el("p", { class: "note" }, "No split here has an all-reduce.");
  return chart(place, {
    name: "share",
    title: "Share of all-reduce in a decode step, by batch",
    description: "One line a split of the model.",
    x: {
      label: "sequences of a replica (log)",
      log: true,
      text: showCount,
      min: 1,
      max: Math.max(2, ladder.batches[ladder.batches.length - 1]) * 1.6,
    },
    y: { label: "share of the step", log: false, text: showShare },
    lines: shown.map((rung) => ({
      key: rung.label,
      label: rung.label,
      colour: colourOf(ladder.rungs.indexOf(rung)),
      strong: rung === followed(data),
      faded: rung !== followed(data),
      end: rung.label,
      points: rung.decode.map(
        (step, at) => /** @type {[number, number]} */ ([ladder.batches[at], (step.parts["all-reduce"] ?? 0) / step.total]),
      ),
    })),
    dots: [],
    guides: [{ key: "batch", axis: "x", value: batch(data), label: "batch", text: showCount }],
    height: 280,
  });
}
