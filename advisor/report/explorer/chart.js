// @ts-check
// One picture: lines, bands, points with error bars, and limits that can be dragged, on two axes.

import { saveSvg, savePng } from "./export.js";
import { el, svg } from "./dom.js";
import { scale } from "./scale.js";

/** @typedef {{key: string, label: string, colour: string, points: [number, number][], faded?: boolean, dashed?: boolean, strong?: boolean, step?: boolean, end?: string}} Line */
/** @typedef {{colour: string, points: [number, number, number][]}} Ribbon */
/** @typedef {{key: string, label: string, colour: string, x: number, y: number, xs?: [number, number], ys?: [number, number], faded?: boolean, strong?: boolean, named?: boolean, press?: () => void, title: string}} Dot */
/** @typedef {{key: string, axis: "x" | "y", value: number, label: string, text: (value: number) => string, move?: (value: number) => void}} Guide */
/** @typedef {{label: string, log: boolean, text: (value: number) => string, min?: number, max?: number}} Axis */
/**
 * @typedef {{name: string, title: string, description: string, x: Axis, y: Axis, lines: Line[], dots: Dot[], guides?: Guide[],
 *   ribbons?: Ribbon[], height?: number}} Picture
 */

const LETTER = 6.4; // mean width of a letter of 12 px, in px

/** A figure element with the picture, its buttons, and a legend where it is given. @param {{clientWidth: number}} place @param {Picture} picture @param {Node} [legend] */
export function chart(place, picture, legend) {
  const width = Math.max(300, Math.min(1200, place.clientWidth || 640));
  const drawn = draw(picture, width, picture.height ?? Math.round(Math.max(280, Math.min(430, width * 0.5))));
  return framed(picture, drawn, legend);
}

/** A picture with its title and the buttons that save it. @param {{name: string, title: string}} picture @param {SVGElement} drawn @param {Node} [legend] */
export function framed(picture, drawn, legend) {
  const shown = /** @type {SVGSVGElement} */ (drawn);
  return el(
    "figure",
    { id: `figure-${picture.name}` },
    el(
      "figcaption",
      { class: "bar" },
      el("span", { class: "title" }, picture.title),
      el(
        "span",
        {},
        el(
          "button",
          {
            type: "button",
            class: "small",
            "data-key": `svg-${picture.name}`,
            "aria-label": `Save as SVG: ${picture.title}`,
            onclick: () => saveSvg(shown, picture.name),
          },
          "SVG",
        ),
        el(
          "button",
          {
            type: "button",
            class: "small",
            "data-key": `png-${picture.name}`,
            "aria-label": `Save as PNG: ${picture.title}`,
            onclick: () => savePng(shown, picture.name),
          },
          "PNG",
        ),
      ),
    ),
    legend,
    drawn,
  );
}

/** @param {Picture} picture @param {number} width @param {number} height */
function draw(picture, width, height) {
  const frame = { left: 68, right: width - 14, top: 12, bottom: height - 44 };
  const [x, y] = axes(picture, frame);
  const root = svg("svg", {
    viewBox: `0 0 ${width} ${height}`,
    role: "group",
    "aria-label": `${picture.title}. ${picture.description}`,
    class: "chart",
  });
  const clip = `clip-${picture.name}`;
  root.append(
    svg(
      "defs",
      {},
      svg(
        "clipPath",
        { id: clip },
        svg("rect", { x: frame.left, y: frame.top - 2, width: frame.right - frame.left + 2, height: frame.bottom - frame.top + 4 }),
      ),
    ),
  );
  root.append(grid(picture, x, y, frame));
  const inside = svg("g", { "clip-path": `url(#${clip})` });
  for (const ribbon of picture.ribbons ?? []) inside.append(ribbonPath(ribbon, x, y));
  for (const line of picture.lines) inside.append(linePath(line, x, y));
  root.append(inside);
  for (const guide of picture.guides ?? []) {
    if (guide.value >= (guide.axis === "x" ? x : y).min * 0.999 && guide.value <= (guide.axis === "x" ? x : y).max * 1.001)
      root.append(guideLine(guide, guide.axis === "x" ? x : y, frame, root));
  }
  for (const dot of [...picture.dots].sort((a, b) => Number(Boolean(a.strong)) - Number(Boolean(b.strong))))
    root.append(dotMark(dot, x, y));
  root.append(labels(picture, x, y, frame));
  return root;
}

/** @param {Picture} picture @param {{left: number, right: number, top: number, bottom: number}} frame */
function axes(picture, frame) {
  const xs = [
    ...picture.lines.flatMap((line) => line.points.map((p) => p[0])),
    ...picture.dots.flatMap((dot) => [dot.x, ...(dot.xs ?? [])]),
  ];
  const ys = [
    ...picture.lines.flatMap((line) => line.points.map((p) => p[1])),
    ...picture.dots.flatMap((dot) => [dot.y, ...(dot.ys ?? [])]),
  ];
  for (const guide of picture.guides ?? []) (guide.axis === "x" ? xs : ys).push(guide.value);
  const many = frame.right - frame.left > 500 ? 8 : 4;
  return [axis(picture.x, xs, frame.left, frame.right, many), axis(picture.y, ys, frame.bottom, frame.top, 5)];
}

/** @param {Axis} options @param {number[]} values @param {number} from @param {number} to @param {number} count */
function axis(options, values, from, to, count) {
  const fine = values.filter((value) => Number.isFinite(value) && (!options.log || value > 0));
  let min = options.min ?? (options.log ? Math.min(...fine) / 1.15 : 0);
  let max = options.max ?? Math.max(...fine) * (options.log ? 1.15 : 1.06);
  if (!fine.length) [min, max] = [options.log ? 1 : 0, 10];
  if (options.log && max / min < 3) [min, max] = [min / 1.6, max * 1.6];
  return scale(min, max || 1, from, to, options.log, count);
}

/** @param {Picture} picture @param {import("./scale.js").Scale} x @param {import("./scale.js").Scale} y @param {{left: number, right: number, top: number, bottom: number}} frame */
function grid(picture, x, y, frame) {
  const group = svg("g", { class: "grid", "aria-hidden": "true" });
  for (const tick of y.ticks) {
    group.append(
      svg("line", { x1: frame.left, x2: frame.right, y1: y.place(tick), y2: y.place(tick) }),
      svg("text", { x: frame.left - 6, y: y.place(tick) + 4, "text-anchor": "end" }, picture.y.text(tick)),
    );
  }
  for (const tick of x.ticks) {
    group.append(
      svg("line", { x1: x.place(tick), x2: x.place(tick), y1: frame.top, y2: frame.bottom }),
      svg("text", { x: x.place(tick), y: frame.bottom + 16, "text-anchor": "middle" }, picture.x.text(tick)),
    );
  }
  group.append(
    svg(
      "text",
      { class: "axis", x: (frame.left + frame.right) / 2, y: frame.bottom + 36, "text-anchor": "middle" },
      picture.x.label,
    ),
    svg(
      "text",
      { class: "axis", transform: `translate(13 ${(frame.top + frame.bottom) / 2}) rotate(-90)`, "text-anchor": "middle" },
      picture.y.label,
    ),
  );
  return group;
}

/** @param {Line} line @param {import("./scale.js").Scale} x @param {import("./scale.js").Scale} y */
function linePath(line, x, y) {
  const places = line.points
    .filter((p) => Number.isFinite(p[0]) && Number.isFinite(p[1]))
    .map((p) => [x.place(p[0]), y.place(p[1])]);
  const path = places
    .map(([a, b], at) =>
      at === 0
        ? `M${a.toFixed(1)} ${b.toFixed(1)}`
        : line.step
          ? `H${a.toFixed(1)}V${b.toFixed(1)}`
          : `L${a.toFixed(1)} ${b.toFixed(1)}`,
    )
    .join("");
  return svg(
    "path",
    {
      d: path || "M0 0",
      class: `line ${line.colour} ${line.faded ? "faded" : ""} ${line.strong ? "strong" : ""} ${line.dashed ? "dashed" : ""}`,
    },
    svg("title", {}, line.label),
  );
}

/** @param {Ribbon} ribbon @param {import("./scale.js").Scale} x @param {import("./scale.js").Scale} y */
function ribbonPath(ribbon, x, y) {
  const up = ribbon.points.map(([at, , high]) => `${x.place(at).toFixed(1)} ${y.place(high).toFixed(1)}`);
  const down = [...ribbon.points].reverse().map(([at, low]) => `${x.place(at).toFixed(1)} ${y.place(low).toFixed(1)}`);
  return svg("path", { d: `M${[...up, ...down].join("L")}Z`, class: `ribbon ${ribbon.colour}`, "aria-hidden": "true" });
}

/** @param {Dot} dot @param {import("./scale.js").Scale} x @param {import("./scale.js").Scale} y */
function dotMark(dot, x, y) {
  const [a, b] = [x.place(dot.x), y.place(dot.y)];
  const group = svg(
    "g",
    {
      class: `dot ${dot.colour} ${dot.faded ? "faded" : ""} ${dot.strong ? "strong" : ""}`,
      "data-key": `dot-${dot.key}`,
      onclick: dot.press,
    },
    svg("title", {}, dot.title),
  );
  if (dot.xs) group.append(svg("line", { class: "error", x1: x.place(dot.xs[0]), x2: x.place(dot.xs[1]), y1: b, y2: b }));
  if (dot.ys) group.append(svg("line", { class: "error", x1: a, x2: a, y1: y.place(dot.ys[0]), y2: y.place(dot.ys[1]) }));
  group.append(svg("circle", { cx: a, cy: b, r: dot.strong ? 7 : 5 }), svg("circle", { class: "reach", cx: a, cy: b, r: 12 }));
  return group;
}

/** Names beside points, where there is room for them. @param {Picture} picture @param {import("./scale.js").Scale} x @param {import("./scale.js").Scale} y @param {{left: number, right: number, top: number, bottom: number}} frame */
function labels(picture, x, y, frame) {
  const group = svg("g", { class: "names", "aria-hidden": "true" });
  /** @type {[number, number, number, number][]} */
  const taken = picture.dots
    .filter((dot) => dot.named)
    .map((dot) => [x.place(dot.x) - 6, y.place(dot.y) - 6, x.place(dot.x) + 6, y.place(dot.y) + 6]);
  taken.push(...guideBoxes(picture, x, y, frame));
  const named = picture.dots
    .filter((dot) => dot.named)
    .map((dot) => ({ text: dot.label, x: x.place(dot.x), y: y.place(dot.y), strong: dot.strong }));
  const ends = picture.lines
    .filter((line) => line.end)
    .map((line) => ({
      text: line.end ?? "",
      x: x.place(line.points[line.points.length - 1][0]),
      y: y.place(line.points[line.points.length - 1][1]),
      strong: line.strong,
    }));
  for (const name of [...named, ...ends].sort((a, b) => Number(Boolean(b.strong)) - Number(Boolean(a.strong)))) {
    const width = name.text.length * LETTER;
    const spot = [
      [9, 4],
      [-9 - width, 4],
      [-width / 2, -11],
      [-width / 2, 20],
      [9, -9],
      [9, 17],
      [-9 - width, -9],
      [-9 - width, 17],
      [9, 28],
      [-9 - width, 28],
      [9, -22],
      [-9 - width, -22],
    ]
      .map(
        ([dx, dy]) =>
          /** @type {[number, number, number, number]} */ ([name.x + dx, name.y + dy - 11, name.x + dx + width, name.y + dy + 3]),
      )
      .find(
        (box) =>
          box[0] >= frame.left &&
          box[2] <= frame.right + 8 &&
          box[1] >= 0 &&
          box[3] <= frame.bottom &&
          !taken.some((other) => box[0] < other[2] && box[2] > other[0] && box[1] < other[3] && box[3] > other[1]),
      );
    if (!spot) continue;
    taken.push(spot);
    group.append(svg("text", { x: spot[0], y: spot[3] - 3, class: name.strong ? "strong" : null }, name.text));
  }
  return group;
}

/** Where the words of the guides stand. @param {Picture} picture @param {import("./scale.js").Scale} x @param {import("./scale.js").Scale} y @param {{left: number, right: number, top: number, bottom: number}} frame @returns {[number, number, number, number][]} */
function guideBoxes(picture, x, y, frame) {
  return (picture.guides ?? []).map((guide) => {
    const width = `${guide.label} ${guide.text(guide.value)}`.length * LETTER + 8;
    if (guide.axis === "y") return [frame.left, y.place(guide.value) - 18, frame.left + width, y.place(guide.value)];
    const at = x.place(guide.value);
    return at + width > frame.right ? [at - width, frame.top, at, frame.top + 14] : [at, frame.top, at + width, frame.top + 14];
  });
}

/** @param {Guide} guide @param {import("./scale.js").Scale} along @param {{left: number, right: number, top: number, bottom: number}} frame @param {SVGElement} root */
function guideLine(guide, along, frame, root) {
  const at = along.place(guide.value);
  const across = guide.axis === "x";
  const ends = across ? { x1: at, x2: at, y1: frame.top, y2: frame.bottom } : { x1: frame.left, x2: frame.right, y1: at, y2: at };
  const move = guide.move;
  const group = svg(
    "g",
    move
      ? {
          class: `guide ${across ? "across" : "along"}`,
          "data-key": guide.key,
          tabindex: "0",
          role: "slider",
          "aria-label": guide.label,
          "aria-orientation": across ? "horizontal" : "vertical",
          "aria-valuemin": along.min,
          "aria-valuemax": along.max,
          "aria-valuenow": guide.value,
          "aria-valuetext": guide.text(guide.value),
          onkeydown: (event) => {
            const factor = {
              ArrowRight: 1.05,
              ArrowUp: 1.05,
              ArrowLeft: 1 / 1.05,
              ArrowDown: 1 / 1.05,
              PageUp: 1.5,
              PageDown: 1 / 1.5,
            }[/** @type {string} */ (event.key)];
            if (!factor) return;
            event.preventDefault();
            move(Math.min(along.max, Math.max(along.min, guide.value * factor)));
          },
          onpointerdown: (event) => drag(event, root, along, across, move),
        }
      : { class: "guide" },
    svg("line", ends),
  );
  if (move) group.append(svg("line", { ...ends, class: "grip" }));
  const words = `${guide.label} ${guide.text(guide.value)}`;
  const right = across && at + words.length * LETTER > frame.right;
  group.append(
    svg(
      "text",
      across
        ? { x: right ? at - 5 : at + 5, y: frame.top + 10, "text-anchor": right ? "end" : "start" }
        : { x: frame.left + 6, y: at - 5 },
      words,
    ),
  );
  return group;
}

/** Follows the pointer until it is let go. @param {PointerEvent} start @param {SVGElement} root @param {import("./scale.js").Scale} along @param {boolean} across @param {(value: number) => void} move */
function drag(start, root, along, across, move) {
  start.preventDefault();
  const box = root.getBoundingClientRect();
  const view = /** @type {SVGSVGElement} */ (root).viewBox.baseVal;
  /** @param {PointerEvent} event */
  const follow = (event) => {
    const place = across
      ? ((event.clientX - box.left) / box.width) * view.width
      : ((event.clientY - box.top) / box.height) * view.height;
    move(Math.min(along.max, Math.max(along.min, along.value(place))));
  };
  const end = () => {
    window.removeEventListener("pointermove", follow);
    window.removeEventListener("pointerup", end);
    window.removeEventListener("pointercancel", end);
  };
  window.addEventListener("pointermove", follow);
  window.addEventListener("pointerup", end);
  window.addEventListener("pointercancel", end);
}
