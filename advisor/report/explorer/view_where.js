// @ts-check
// Where? The machine with its links by kind, the ranks on it, and the groups that talk, by colour.

import { framed } from "./chart.js";
import { choice } from "./controls.js";
import { el, replaceIn, svg } from "./dom.js";
import { show, showBytes, showWhole } from "./format.js";
import { COLOURS, selectedPlan } from "./plans.js";
import { get } from "./state.js";
import { table } from "./table.js";

/** @typedef {import("./data.js").Data} Data */
/** @typedef {import("./data.js").Plan} Plan */
/** @typedef {{gpu: number, replica: number, stage: number, tp: number, adp: number, first: number, last: number}} Seat */

const BOX = { width: 118, height: 64, gap: 46 };
const MOST_NODES = 4;

/** What each kind of link is, best first. @type {Record<string, [string, string]>} */
const KINDS = {
  nvswitch: ["NVSwitch", "l-fast"],
  nvlink: ["NVLink", "l-fast"],
  xgmi: ["xGMI", "l-fast"],
  c2c: ["NVLink C2C", "l-fast"],
  pix: ["one PCIe switch", "l-pcie"],
  pxb: ["several PCIe switches", "l-pcie"],
  phb: ["PCIe host bridge", "l-host"],
  node: ["PCIe within a socket", "l-host"],
  sys: ["between sockets", "l-sys"],
  network: ["network", "l-sys"],
  unknown: ["unknown link", "l-sys"],
};

/** @param {HTMLElement} root @param {Data} data */
export function viewWhere(root, data) {
  const controls = el(
    "form",
    { class: "controls", "aria-label": "Plan and colours", onsubmit: (event) => event.preventDefault() },
    choice(
      "plan",
      "Plan",
      data.plans.map((plan) => [plan.label, plan.label]),
    ),
    choice("colour", "Colour by", [
      ["replica", "replica"],
      ["stage", "pipeline stage"],
      ["tp", "tensor-parallel group"],
      ["ep", "expert group"],
      ["adp", "attention group"],
    ]),
  );
  const out = el("div", {});
  root.append(controls, out);
  return () => {
    const plan = selectedPlan(data);
    replaceIn(
      out,
      machinePicture(out, data, plan),
      el("p", { class: "note" }, words(data, plan)),
      seatTable(data, plan),
      groupTable(plan),
    );
  };
}

/** @param {Plan} plan @returns {Seat[]} */
function seats(plan) {
  return plan.seats.map(([gpu, replica, stage, tp, adp, first, last]) => ({ gpu, replica, stage, tp, adp, first, last }));
}

/** The number of the group that a rank belongs to under the colouring that is set. @param {Plan} plan @param {Seat} seat */
function groupOf(plan, seat) {
  const by = get("colour");
  if (by === "replica") return seat.replica;
  if (by === "stage") return seat.stage;
  const found = (plan.groups[by] ?? []).findIndex((group) => group.includes(seat.gpu));
  return found < 0 ? seat.replica : found;
}

/** @param {HTMLElement} place @param {Data} data @param {Plan} plan */
function machinePicture(place, data, plan) {
  const { machine } = data;
  const width = Math.max(300, Math.min(1200, place.clientWidth || 640));
  const columns = Math.max(2, Math.min(4, Math.floor(width / (BOX.width + BOX.gap)), Math.ceil(machine.devices.length / 2)));
  const perNode = Math.min(machine.devices.length, 16);
  const rows = Math.ceil(perNode / columns);
  const nodeHeight = rows * (BOX.height + BOX.gap) + 8;
  const nodes = Math.min(machine.nodes, MOST_NODES);
  const root = svg("svg", {
    viewBox: `0 0 ${width} ${nodes * nodeHeight + 10}`,
    role: "img",
    "aria-label": `${machineWords(data)}; ${plan.label} on it. The tables below have the same.`,
    class: "machine",
  });
  const byGpu = new Map(seats(plan).map((seat) => [seat.gpu, seat]));
  const step = width / columns;
  for (let node = 0; node < nodes; node++) {
    const top = node * nodeHeight + 6;
    root.append(
      svg("rect", { x: 2, y: top, width: width - 4, height: nodeHeight - 14, class: "node" }),
      svg("text", { x: 14, y: top + 20, class: "axis" }, machine.nodes > 1 ? `node ${node}` : machine.name),
    );
    const centre = (/** @type {number} */ gpu) => [
      step * (gpu % columns) + step / 2,
      top + 58 + Math.floor(gpu / columns) * (BOX.height + BOX.gap),
    ];
    root.append(links(data, perNode, centre));
    for (let gpu = 0; gpu < perNode; gpu++)
      root.append(
        gpuBox(data, plan, byGpu.get(node * machine.devices.length + gpu), node * machine.devices.length + gpu, centre(gpu)),
      );
  }
  return framed({ name: "machine", title: `${machineWords(data)}, ${plan.label}` }, root, linkLegend(data));
}

/** Links of a node: a bus where all are alike, else a line a pair that differs. @param {Data} data @param {number} gpus @param {(gpu: number) => number[]} centre */
function links({ machine }, gpus, centre) {
  const group = svg("g", { "aria-hidden": "true" });
  const [kind] = machine.link;
  if (gpus > 1) {
    const lines = [...Array(gpus).keys()].map((gpu) => centre(gpu));
    const middle = lines.map(([, y]) => y).reduce((sum, y) => sum + y, 0) / lines.length;
    for (const [x, y] of lines) group.append(svg("line", { x1: x, y1: y, x2: x, y2: middle, class: `link ${KINDS[kind][1]}` }));
    group.append(
      svg("line", {
        x1: Math.min(...lines.map(([x]) => x)),
        x2: Math.max(...lines.map(([x]) => x)),
        y1: middle,
        y2: middle,
        class: `link bus ${KINDS[kind][1]}`,
      }),
    );
  }
  for (const [a, b, pair] of machine.pairs) {
    if (a >= gpus || b >= gpus || pair === kind) continue;
    const [[x1, y1], [x2, y2]] = [centre(a), centre(b)];
    const bend = y1 === y2 && Math.abs(x1 - x2) > BOX.width * 2 ? 46 : 0;
    group.append(
      svg("path", { d: `M${x1} ${y1}Q${(x1 + x2) / 2} ${(y1 + y2) / 2 + bend} ${x2} ${y2}`, class: `link ${KINDS[pair][1]}` }),
    );
  }
  return group;
}

/** @param {Data} data @param {Plan} plan @param {Seat | undefined} seat @param {number} gpu @param {number[]} at */
function gpuBox({ machine }, plan, seat, gpu, [x, y]) {
  const colour = seat ? `c${groupOf(plan, seat) % COLOURS}` : "c-free";
  const lines = seat
    ? [
        `replica ${seat.replica}`,
        [plan.pp > 1 ? `stage ${seat.stage}` : "", `tp ${seat.tp}`, plan.adp > 1 ? `adp ${seat.adp}` : ""]
          .filter(Boolean)
          .join(", "),
      ]
    : ["idle"];
  return svg(
    "g",
    { class: `gpu ${seat ? "" : "faded"}` },
    svg(
      "rect",
      { x: x - BOX.width / 2, y: y - BOX.height / 2, width: BOX.width, height: BOX.height, rx: 6, class: `part ${colour}` },
      svg("title", {}, machine.devices[gpu % machine.devices.length]),
    ),
    svg("text", { x, y: y - 12, "text-anchor": "middle", class: `inside strong ${colour}` }, `GPU ${gpu}`),
    ...lines.map((text, line) =>
      svg("text", { x, y: y + 6 + line * 16, "text-anchor": "middle", class: `inside ${colour}` }, text),
    ),
  );
}

/** @param {Data} data */
function linkLegend({ machine }) {
  /** @type {Map<string, number>} */
  const kinds = new Map([
    [machine.link[0], machine.link[1]],
    ...machine.pairs.map((pair) => /** @type {[string, number]} */ ([pair[2], pair[3]])),
  ]);
  const lines =
    machine.devices.length > 1
      ? [...kinds].map(([kind, rate]) =>
          el(
            "li",
            {},
            el("span", { class: `swatch ${KINDS[kind][1]}`, "aria-hidden": "true" }),
            `${KINDS[kind][0]}, ${show(rate, "B/s")} a GPU and direction`,
          ),
        )
      : [];
  return el(
    "ul",
    { class: "legend" },
    ...lines,
    machine.network
      ? el(
          "li",
          {},
          el("span", { class: "swatch l-sys", "aria-hidden": "true" }),
          `between nodes: ${machine.network[0]}, ${show(machine.network[1], "B/s")} a GPU`,
        )
      : null,
  );
}

/** @param {Data} data */
function machineWords({ machine, asked }) {
  return machine.nodes > 1 ? `${asked.machine}` : `${asked.machine}, ${showBytes(machine.memory)} each`;
}

/** @param {Data} data @param {Plan} plan */
function words(data, plan) {
  const idle = data.asked.gpus - plan.world;
  const hidden =
    plan.world > plan.seats.length
      ? ` The first ${showWhole(plan.seats.length)} of ${showWhole(plan.world)} ranks are listed.`
      : "";
  const more = data.machine.nodes > MOST_NODES ? ` ${showWhole(data.machine.nodes - MOST_NODES)} more nodes are like these.` : "";
  const layers = plan.pp > 1 ? `Each stage holds a slice of the ${showWhole(data.machine.layers)} layers. ` : "";
  return `${layers}Ranks of one tensor-parallel group exchange twice a layer, so they sit on the best links.${idle ? ` ${showWhole(idle)} GPUs stay idle.` : ""}${hidden}${more}`;
}

/** @param {Data} data @param {Plan} plan */
function seatTable(data, plan) {
  const nodes = data.machine.nodes > 1;
  return table({
    caption: "Who is where",
    name: "seats",
    head: [
      "rank",
      ...(nodes ? ["node"] : []),
      "GPU",
      "replica",
      "stage",
      "tp rank",
      ...(plan.adp > 1 ? ["adp rank"] : []),
      "layers",
    ],
    rows: seats(plan).map((seat, rank) => ({
      cells: [
        String(rank),
        ...(nodes ? [String(Math.floor(seat.gpu / data.machine.devices.length))] : []),
        { text: String(nodes ? seat.gpu % data.machine.devices.length : seat.gpu), value: seat.gpu, figure: "gpu" },
        String(seat.replica),
        String(seat.stage),
        String(seat.tp),
        ...(plan.adp > 1 ? [String(seat.adp)] : []),
        `${seat.first} to ${seat.last}`,
      ],
    })),
  });
}

/** @param {Plan} plan */
function groupTable(plan) {
  const rows = Object.entries(plan.groups).flatMap(([axis, groups]) =>
    groups.map((group) => ({ cells: [axis, group.join(", ")] })),
  );
  if (!rows.length) return el("p", { class: "note" }, "No groups: every GPU works alone.");
  return table({ caption: "Groups that communicate", name: "groups", head: ["axis", "GPUs"], rows });
}
