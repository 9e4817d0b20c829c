"""Continuous batching step by step, deterministic, with runs of equal steps taken at once.

Carries what a formula cannot: the first burst, waves when the cache is full, admission and preemption, clumped arrivals.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from advisor.roofline.step import StepModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request: when it is sent (closed loop: ignored, it follows the one before), and its lengths in tokens."""

    arrival_s: float
    input_tokens: float
    output_tokens: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What bounds a replica: sequences at once, cache tokens, tokens a step."""

    max_sequences: int
    kv_tokens: float
    token_budget: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Means over requests, in seconds, and totals until the last token."""

    ttft_s: float
    tpot_s: float
    latency_s: float
    makespan_s: float
    output_tokens: float
    input_tokens: float
    requests: int
    mean_running: float


class _Sequence:
    """A request inside the engine: tokens still to prefill, then tokens still to generate."""

    __slots__ = ("arrival_s", "done", "first_s", "generated", "output", "prompt", "started_step")

    def __init__(self, arrival_s: float, prompt: float, output: float) -> None:
        self.arrival_s, self.prompt, self.output = arrival_s, prompt, output
        self.done = 0.0  # prompt tokens prefilled
        self.generated = 0.0
        self.first_s = math.nan
        self.started_step = 0


def frontend_stretch(token_s: float, tokens_per_s: float) -> float:
    """How much longer a request's entry takes while the front end streams tokens: 1 / (1 - utilisation), at most tenfold."""
    return 1.0 / max(0.1, 1.0 - token_s * tokens_per_s)


def simulate(model: StepModel, requests: Sequence[Request], room: Room, *, users: int = 0) -> Outcome:
    """Serve `requests` on one replica. `users` > 0 closes the loop: so many in flight, each answer sends the next request.

    The engine's rules: prefill chunks share each step's token budget with the decodes (or stall them, `mixed_steps` False);
    "reserve" admits when prompt and output fit, "preempt" while the prompt fits and pushes the youngest back when full.
    """
    engine, plan = model.engine, model.plan
    request_s, admit_s, reserve = engine.host.request_s, engine.host.admit_s, engine.admission == "reserve"
    unseen_steps = engine.host.wait_steps + (engine.polling_steps - 1) / 2
    budget = room.token_budget * plan.pp * plan.adp
    waiting: deque[_Sequence] = deque()
    prefilling: list[_Sequence] = []
    finishing: list[tuple[int, int, _Sequence]] = []  # heap of (step of the last token, order, sequence)
    alive: list[_Sequence] = []  # running, in order of admission: the last is preempted first
    upcoming = deque(requests)
    entering: list[tuple[float, int, _Sequence]] = []
    order = step = running = 0
    now = used = ctx_sum = reserved = busy_s = door_s = last_s = 0.0
    ttft = tpot = latency = produced = consumed = 0.0
    counted = answered = 0

    def send(request: Request, at_s: float) -> None:
        nonlocal order, door_s
        order += 1
        busy = frontend_stretch(engine.host.token_s, running / last_s if last_s else 0.0)
        door_s = max(door_s, at_s) + admit_s * busy
        enters_s = max(door_s, at_s + request_s * busy) + unseen_steps * last_s
        heapq.heappush(entering, (enters_s, order, _Sequence(at_s, request.input_tokens, request.output_tokens)))

    if users:
        for _ in range(min(users, len(upcoming))):
            send(upcoming.popleft(), 0.0)
    else:
        while upcoming:
            first = upcoming.popleft()
            send(first, first.arrival_s)

    def finish(sequence: _Sequence) -> None:
        nonlocal running, ctx_sum, reserved, ttft, tpot, latency, counted, answered, produced, consumed
        running -= 1
        ctx_sum -= sequence.prompt + sequence.output
        reserved -= sequence.prompt + sequence.output
        answered += 1
        ttft += sequence.first_s - sequence.arrival_s
        latency += now - sequence.arrival_s
        if sequence.output > 1:
            tpot += (now - sequence.first_s) / (sequence.output - 1)
            counted += 1
        produced += sequence.output
        consumed += sequence.prompt
        if users and upcoming:
            send(upcoming.popleft(), now)

    def retire() -> None:
        while finishing and finishing[0][0] <= step:
            sequence = heapq.heappop(finishing)[2]
            alive.remove(sequence)
            finish(sequence)

    while True:
        while entering and entering[0][0] <= now + 1e-12:
            waiting.append(heapq.heappop(entering)[2])
        if not running and not prefilling and not waiting:
            if not entering:
                break
            now = entering[0][0]
            continue
        # Admission, first come first served, as far as this step's budget reaches.
        ahead = sum(s.prompt + s.generated - s.done for s in prefilling)
        while waiting and running + len(prefilling) < room.max_sequences and ahead < budget:
            head = waiting[0]
            need = head.prompt + head.generated
            held = reserved if reserve else ctx_sum + used
            if held + (head.prompt + head.output if reserve else need) > room.kv_tokens and (running or prefilling):
                break
            waiting.popleft()
            prefilling.append(head)
            used += need
            reserved += head.prompt + head.output
            ahead += need
        if prefilling:
            decodes = running if engine.mixed_steps else 0
            left = max(budget - decodes, 1.0)
            chunks: list[tuple[float, float]] = []
            ended: list[_Sequence] = []
            for sequence in prefilling:
                total = sequence.prompt + sequence.generated
                new = min(total - sequence.done, left)
                if new <= 0 or (not engine.chunked_prefill and new < total - sequence.done and chunks):
                    break
                if not engine.chunked_prefill:
                    new = total - sequence.done
                chunks.append((new, sequence.done))
                sequence.done += new
                left -= new
                if sequence.done >= total:
                    ended.append(sequence)
            taken = model.mixed_s(decodes, ctx_sum / running if running else 0.0, chunks)
            now, last_s = now + taken, taken
            busy_s += taken * (running + len(ended))
            if decodes:
                step += 1
                ctx_sum += running
                retire()
            for sequence in ended:
                prefilling.remove(sequence)
                used -= sequence.prompt + sequence.generated
                if math.isnan(sequence.first_s):
                    sequence.first_s = now
                sequence.generated += 1
                ctx_sum += sequence.prompt + sequence.generated
                running += 1
                sequence.started_step = step
                last = step + math.ceil(sequence.output - sequence.generated)
                order += 1
                alive.append(sequence)
                heapq.heappush(finishing, (last, order, sequence))
            retire()
        elif running:
            span = finishing[0][0] - step
            if not reserve and not math.isinf(room.kv_tokens):
                span = min(span, max(1, int((room.kv_tokens - ctx_sum - used) / running)))
            each = model.decode_s(running, ctx_sum / running + span / 2)
            if entering:
                span = min(span, max(1, math.ceil((entering[0][0] - now) / each)))
                each = model.decode_s(running, ctx_sum / running + span / 2)
            now, last_s = now + each * span, each
            busy_s += each * span * running
            step += span
            ctx_sum += running * span
            retire()
            while not reserve and running > 1 and ctx_sum + used + running > room.kv_tokens:
                victim = alive.pop()
                victim.generated += step - victim.started_step
                victim.done = 0.0
                ctx_sum -= victim.prompt + victim.generated
                reserved -= victim.prompt + victim.output
                running -= 1
                finishing[:] = [entry for entry in finishing if entry[2] is not victim]
                heapq.heapify(finishing)
                waiting.appendleft(victim)
        else:  # nothing runs and the head of the queue does not fit an empty cache: it never will
            break
    return Outcome(
        ttft_s=ttft / max(1, answered),
        tpot_s=tpot / counted if counted else 0.0,
        latency_s=latency / max(1, answered),
        makespan_s=now,
        output_tokens=produced,
        input_tokens=consumed,
        requests=answered,
        mean_running=busy_s / now if now else 0.0,
    )
