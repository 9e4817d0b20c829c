"""The page of `advisor explain`: where a step and a prefill go, the roofline, the memory of a rank, and which GPU is which rank."""

from __future__ import annotations

from collections.abc import Sequence

from advisor.report.screen import PLAIN, Screen
from advisor.report.words import asked_for, assumed_lines, count, rate, seconds
from advisor.specs.advice import Asked
from advisor.specs.cluster import Device
from advisor.specs.formats import FORMATS
from advisor.specs.plan import Plan, layer_bounds
from advisor.specs.prediction import Prediction, RankMemory, Share, StepTime
from advisor.specs.problem import Problem
from advisor.units import show, show_bytes, show_count

BAR = 44
MOST_RANKS = 64  # a longer assignment table shows the first replica only
MOST_GROUPS = 16


def page(
    problem: Problem,
    prediction: Prediction,
    *,
    asked: Asked,
    said: Sequence[str] = (),
    decode_title: str,
    prefill_title: str,
    screen: Screen = PLAIN,
) -> str:
    """One plan explained, as text."""
    plan, device = prediction.plan, problem.cluster.device
    answers = count(round(prediction.sequences), "answer")
    through = f" through {plan.pp} stages" if plan.pp > 1 else ""
    peak = device.peak(FORMATS[asked.weight_format].compute)
    lines = [
        screen.wrap(f"Asked: {asked_for(asked)}", indent="  ", first=""),
        "",
        screen.bold(f"{plan.label} on {plan.world:,} of {problem.cluster.gpus:,} GPUs"),
        f"  TTFT {seconds(prediction.ttft_s)}, TPOT {seconds(prediction.tpot_s)}",
        f"  {rate(prediction.output_tokens_per_s, 'output tokens/s')}, {answers} written at once, "
        f"bottleneck {prediction.bottleneck}",
        *(screen.wrap(note[0].upper() + note[1:] + ".", indent="  ") for note in prediction.notes),
        "",
        *step_lines(f"{decode_title}{through}", prediction.decode, device, peak, screen),
        "",
        *step_lines(f"{prefill_title}{through}", prediction.prefill, device, peak, screen),
        "",
        *memory_lines(prediction.memory, plan, screen),
        "",
        *assignment_lines(problem, plan, screen),
        "",
        *group_lines(plan, screen),
        *assumed_lines(said, screen),
    ]
    return "\n".join(lines)


def step_lines(title: str, step: StepTime, device: Device, peak_flop_per_s: float, screen: Screen) -> list[str]:
    """A step as bars, longest part first, and where it stands on the roofline."""
    lines = [screen.bold(f"{title}: {show(step.total_s, 's')}")]
    lines += _bars(sorted(step.parts, key=lambda part: -part.amount), step.total_s, "s", screen)
    return [*lines, screen.wrap(_roofline(step, device, peak_flop_per_s), indent="  ")]


def _bars(parts: list[Share], total: float, unit: str, screen: Screen) -> list[str]:
    widest = max((len(part.name) for part in parts), default=0)
    lines = []
    for part in parts:
        share = part.amount / total if total else 0.0
        amount = show(part.amount, unit) if unit == "s" else show_bytes(part.amount)
        lines.append(f"  {part.name.ljust(widest)}  {amount:>9}  {share * 100:3.0f}%  {screen.bar(share, width=BAR)}".rstrip())
    return lines


def _roofline(step: StepTime, device: Device, peak_flop_per_s: float) -> str:
    """Arithmetic intensity against the ridge, and what of either roof is reached over the whole step."""
    if not (step.hbm_bytes and step.total_s and peak_flop_per_s):
        return "Roofline: the sheet of this GPU has no peak for this number format."
    intensity, ridge = step.flop / step.hbm_bytes, peak_flop_per_s / device.memory_bytes_per_s
    bound = "memory" if intensity < ridge else "compute"
    reached = step.hbm_bytes / step.total_s if bound == "memory" else step.flop / step.total_s
    roof = device.memory_bytes_per_s if bound == "memory" else peak_flop_per_s
    unit = "B/s" if bound == "memory" else "FLOP/s"
    return (
        f"Roofline: {show_count(intensity)} FLOP per byte, the ridge is at {show_count(ridge)}: {bound}-bound; the step reaches "
        f"{show(reached, unit)} of {show(roof, unit)} ({reached / roof * 100:.0f}%)."
    )


def memory_lines(memory: RankMemory, plan: Plan, screen: Screen) -> list[str]:
    """The memory of the fullest rank as bars."""
    parts = [
        Share(name="weights", amount=memory.weights_bytes),
        Share(name="KV cache", amount=memory.kv_bytes),
        Share(name="activations", amount=memory.activations_bytes),
        Share(name="engine", amount=memory.other_bytes),
        Share(name="left free", amount=memory.reserved_bytes),
    ]
    title = f"Memory of the fullest rank: {show_bytes(memory.device_bytes)}"
    return [
        screen.bold(title),
        *_bars([p for p in parts if p.amount > 0], memory.device_bytes, "B", screen),
        f"  {show_bytes(memory.kv_bytes_per_token)} of cache a token on this rank: {memory.kv_tokens:,} tokens a replica, "
        f"{memory.kv_tokens * plan.dp:,} in all",
    ]


def assignment_lines(problem: Problem, plan: Plan, screen: Screen) -> list[str]:
    """Which GPU is which rank: one row a rank, or the first replica where there are too many."""
    bounds = layer_bounds(len(problem.model.layers), plan, problem.engine.layer_split)
    node = len(problem.cluster.node.devices)
    ranks = plan.world if plan.world <= MOST_RANKS else plan.replica_gpus
    head = ["GPU", "replica", "stage", "tp rank", "layers"]
    if problem.cluster.nodes > 1:
        head.insert(0, "node")
    if plan.adp > 1:
        head.insert(-1, "adp rank")
    rows = []
    for rank in range(ranks):
        at, gpu = plan.coordinates(rank), plan.gpu(rank)
        first, last = bounds[at.stage]
        row = [
            str(gpu % node if problem.cluster.nodes > 1 else gpu),
            str(at.replica),
            str(at.stage),
            str(at.tp_rank),
            f"{first}-{last - 1}",
        ]
        if problem.cluster.nodes > 1:
            row.insert(0, str(gpu // node))
        if plan.adp > 1:
            row.insert(-1, str(at.adp_rank))
        rows.append(row)
    lines = [screen.bold("Assignment"), *("  " + line for line in screen.table(head, rows, right=range(len(head) - 1)))]
    if ranks < plan.world:
        lines.append(f"  ... and {plan.dp - 1:,} more replicas like it")
    return lines


def group_lines(plan: Plan, screen: Screen) -> list[str]:
    """The groups of GPUs that communicate, axis by axis."""
    lines = [screen.bold("Communication groups")]
    whole = plan if plan.world <= MOST_RANKS else plan.replica()
    for axis, degree in (("tp", plan.tp), ("pp", plan.pp), ("ep", plan.ep), ("adp", plan.adp)):
        if degree < 2:
            continue
        groups = ["{" + ",".join(str(whole.gpu(rank)) for rank in group) + "}" for group in whole.groups(axis)]
        text = " ".join(groups[:MOST_GROUPS]) + (f" and {len(groups) - MOST_GROUPS:,} more" if len(groups) > MOST_GROUPS else "")
        lines.append(screen.wrap(text, first=f"  {axis:<4}", indent="      "))
    if len(lines) == 1:
        lines.append("  none: every GPU works alone")
    return lines
