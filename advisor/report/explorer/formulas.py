"""Each figure of a plan as its equation with the reader's own numbers in it. What the page shows is put together here, in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from advisor.specs.prediction import Prediction
from advisor.specs.problem import Problem
from advisor.units import show, show_bytes, show_count

PHYSICS = "docs/physics.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Formula:
    """`figure` names the number it explains; `value` is what `numbers` come to, in SI units, and `result` the same as text."""

    figure: str
    title: str
    equation: str
    numbers: str
    value: float
    result: str
    source: str


def formulas(problem: Problem, prediction: Prediction) -> tuple[Formula, ...]:
    """The formulas of a plan at the question's load: service, throughput and price, memory, one decode step."""
    return (
        *_service(problem, prediction),
        *_throughput(problem, prediction),
        *_memory(problem, prediction),
        *_step(problem, prediction),
    )


def _service(problem: Problem, p: Prediction) -> Iterator[Formula]:
    outputs = max(0.0, problem.workload.output_tokens - 1)
    ttft, tpot, step = p.ttft_s.value, p.tpot_s.value, p.decode.total_s
    entry = problem.engine.host.request_s
    waits = ttft - entry - p.prefill.total_s
    if waits >= 0:
        yield Formula(
            figure="ttft", title="Time to first token", equation="TTFT = entry + prefill + waiting",
            numbers=f"{show(entry, 's')} + {show(p.prefill.total_s, 's')} + {show(waits, 's')}",
            value=entry + p.prefill.total_s + waits, result=show(ttft, "s"),
            source=f"{PHYSICS} (E5): entry is the front end of {problem.engine.name}, prefill one step of the prompt; waiting "
            "is the step in flight, other prompts and the queue",
        )  # fmt: skip
    others = tpot - step
    if others >= 0:
        yield Formula(
            figure="tpot", title="Time per output token", equation="TPOT = t(B) + prefills of other requests between two tokens",
            numbers=f"{show(step, 's')} + {show(others, 's')}", value=step + others, result=show(tpot, "s"),
            source=f"{PHYSICS} (E4): t(B) is the decode step of {show_count(p.sequences / p.plan.dp)} sequences a replica",
        )  # fmt: skip
    yield Formula(
        figure="latency", title="Time of a request", equation="latency = TTFT + (output tokens - 1) x TPOT",
        numbers=f"{show(ttft, 's')} + {show_count(outputs)} x {show(tpot, 's')}", value=ttft + outputs * tpot,
        result=show(p.latency_s.value, "s"), source=f"{PHYSICS} (E4); means of a simulated run add up to within 2%",
    )  # fmt: skip
    low, high = (p.tpot_s.low / tpot, p.tpot_s.high / tpot) if tpot else (1.0, 1.0)
    yield Formula(
        figure="interval", title="90% interval of TPOT", equation="low = TPOT x exp(-1.645 s), high = TPOT x exp(1.645 s)",
        numbers=f"{show(tpot, 's')} x {show_count(low)} and x {show_count(high)}", value=tpot * high,
        result=f"{show(p.tpot_s.low, 's')} to {show(p.tpot_s.high, 's')}",
        source=f"residuals of published measurements, {PHYSICS} (How sure); calibration {p.calibration}",
    )  # fmt: skip


def _throughput(problem: Problem, p: Prediction) -> Iterator[Formula]:
    outputs, rate = problem.workload.output_tokens, p.requests_per_s.value
    yield Formula(
        figure="rate", title="Output tokens per second", equation="tokens/s = requests/s x output tokens",
        numbers=f"{show_count(rate)}/s x {show_count(outputs)}", value=rate * outputs,
        result=f"{show_count(p.output_tokens_per_s.value)} tokens/s", source=f"{PHYSICS} (E4)",
    )  # fmt: skip
    yield Formula(
        figure="per_gpu", title="Output tokens per second and GPU", equation="tokens/s per GPU = tokens/s / GPUs of the plan",
        numbers=f"{show_count(p.output_tokens_per_s.value)} / {p.plan.world:,}", value=p.output_tokens_per_s.value / p.plan.world,
        result=f"{show_count(p.output_tokens_per_s.value / p.plan.world)} tokens/s", source="definition",
    )  # fmt: skip
    price, tokens = problem.cluster.device.price_usd_per_hour, p.output_tokens_per_s.value
    if price is not None and tokens > 0:
        usd = price * p.plan.world / 3600 / tokens * 1e6
        yield Formula(
            figure="usd", title="Dollars per million output tokens",
            equation="$/Mtok = price of a GPU-hour x GPUs / 3600 s / (tokens/s) x 1,000,000",
            numbers=f"{show(price, 'USD/h')} x {p.plan.world:,} / 3600 s / {show_count(tokens)} x 1,000,000", value=usd,
            result=f"{show_count(usd)} USD", source=f"price of {problem.cluster.device.name}: its sheet in profiles/hardware",
        )  # fmt: skip


def _memory(problem: Problem, p: Prediction) -> Iterator[Formula]:
    m, rule, settings = p.memory, problem.engine.memory, p.plan.settings
    fraction = settings.memory_fraction if settings else rule.fraction
    yield Formula(
        figure="kv_bytes", title="Memory for the KV cache on a rank",
        equation="KV = device - weights - activations - engine - left free",
        numbers=f"{show_bytes(m.device_bytes)} - {show_bytes(m.weights_bytes)} - {show_bytes(m.activations_bytes)} - "
        f"{show_bytes(m.other_bytes)} - {show_bytes(m.reserved_bytes)}",
        value=m.device_bytes - m.weights_bytes - m.activations_bytes - m.other_bytes - m.reserved_bytes,
        result=show_bytes(m.kv_bytes),
        source=f"{PHYSICS} (M1); what {problem.engine.name} leaves free follows from its memory fraction, {fraction:g}",
    )  # fmt: skip
    tokens = m.kv_bytes / m.kv_bytes_per_token * p.plan.adp * p.plan.dp if m.kv_bytes_per_token else float(p.kv_tokens)
    yield Formula(
        figure="kv_tokens", title="Tokens in the cache of all replicas",
        equation="tokens = KV bytes of a rank / bytes of a token on it x attention groups x replicas",
        numbers=f"{show_bytes(m.kv_bytes)} / {show_bytes(m.kv_bytes_per_token)} x {p.plan.adp} x {p.plan.dp}", value=tokens,
        result=f"{show_count(p.kv_tokens)} tokens (whole pages of {problem.engine.page_tokens})",
        source=f"{PHYSICS} (Memory)",
    )  # fmt: skip
    length = problem.workload.context_tokens
    yield Formula(
        figure="max_sequences", title="Requests that the cache holds at once",
        equation="requests = tokens in the cache / (input + output tokens), at most the engine's batch ceiling",
        numbers=f"{show_count(p.kv_tokens)} / {show_count(length)}", value=p.kv_tokens / length,
        result=show_count(p.max_sequences), source=f"{PHYSICS} (Memory)",
    )  # fmt: skip


def _step(problem: Problem, p: Prediction) -> Iterator[Formula]:
    step, device = p.decode, problem.cluster.device
    parts = sorted(step.parts, key=lambda part: -part.amount)
    yield Formula(
        figure="decode", title="One decode step of a rank", equation="t(B) = " + " + ".join(part.name for part in parts),
        numbers=" + ".join(show(part.amount, "s") for part in parts), value=sum(part.amount for part in parts),
        result=show(step.total_s, "s"), source=f"{PHYSICS} (E1), kernels by (K1)",
    )  # fmt: skip
    ideal = step.hbm_bytes / device.memory_bytes_per_s
    yield Formula(
        figure="ideal", title="The same step if memory bandwidth were all", equation="bytes moved / memory bandwidth of the sheet",
        numbers=f"{show_bytes(step.hbm_bytes)} / {show(device.memory_bytes_per_s, 'B/s')}", value=ideal, result=show(ideal, "s"),
        source=f"sheet of {device.name} in profiles/hardware; {PHYSICS} (K1) has what kernels reach of it",
    )  # fmt: skip
    reduce = sum(part.amount for part in step.parts if part.name == "all-reduce")
    if reduce:
        yield Formula(
            figure="all_reduce", title="Share of all-reduce in a decode step", equation="all-reduce / t(B)",
            numbers=f"{show(reduce, 's')} / {show(step.total_s, 's')}", value=reduce / step.total_s,
            result=f"{reduce / step.total_s * 100:.0f}%",
            source=f"{PHYSICS} (C1), (C2): a rank sends {show(step.wire_bytes, 'B')} a step, 2 p (n - 1) / n of each payload p",
        )  # fmt: skip
