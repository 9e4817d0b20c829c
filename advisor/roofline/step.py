"""From ops to a step: kernels, collectives and host time of one forward pass of a replica.

Step time is additive over what it depends on (E1):

    t(batch) = tokens(T) + decode_attention(B, S) + prefill_attention(n, p) + head(B + P)

so each part is evaluated on a grid once and interpolated; a serving prediction asks for thousands of steps.
"""

from __future__ import annotations

import bisect
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from advisor.roofline import draft, graph
from advisor.roofline.attention import Batch
from advisor.roofline.comm import Lines, collective_s
from advisor.roofline.compute import DeviceRates, kernel_s
from advisor.roofline.engine_scales import EngineScales, as_computed
from advisor.roofline.fabric import Fabrics
from advisor.roofline.work import (
    Collective,
    DecodeAttention,
    Experts,
    Gemm,
    IndexScores,
    LatentDecode,
    LatentPrefill,
    StateScan,
    Stream,
    Work,
)
from advisor.specs.calibration import Calibration
from advisor.specs.cluster import Device
from advisor.specs.engine import Engine
from advisor.specs.formats import FORMATS
from advisor.specs.model import count_equal
from advisor.specs.plan import Plan
from advisor.specs.problem import Problem

EXPERT_EXCHANGE = ("experts",)  # kernels that send tokens to their experts: DeepEP's, TensorRT-LLM's over NVLink
EXACT_UP_TO = 16  # token counts up to here are evaluated one by one; above, on a grid of quarter octaves
GRID = sorted({*range(1, EXACT_UP_TO + 1), *(round(2 ** (e / 4)) for e in range(16, 96))})
CONTEXTS = [16, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304]


@dataclass(frozen=True, slots=True)
class Chunks:
    """The prefill chunks of a step: how many, their new tokens, the longest, and how many of each (new, past) there are."""

    count: int
    new_tokens: float
    longest: float
    alike: tuple[tuple[tuple[float, float], int], ...]


NO_CHUNKS = Chunks(0, 0.0, 0.0, ())


def _together(chunks: Sequence[tuple[float, float]]) -> Chunks:
    if not chunks:
        return NO_CHUNKS
    new = [new for new, _ in chunks]
    return Chunks(len(new), sum(new), max(new), tuple(Counter(chunks).items()))


class StepModel:
    """Seconds of a step of one replica of a plan; remembers pure functions of (problem, plan, calibration).

    Batches are those of one attention-DP rank; with `plan.adp` > 1 all ranks carry the same.
    """

    def __init__(self, problem: Problem, plan: Plan, calibration: Calibration, *, fabrics: Fabrics, lines: Lines) -> None:
        self.plan = plan
        self.engine: Engine = problem.engine
        self.device: Device = stage_device(problem, plan)
        self.queries = problem.speculation.verified if problem.speculation else 1
        self.tokens_per_step = problem.speculation.length if problem.speculation else 1.0
        self.problem = replace(problem, model=as_computed(problem.model, self.engine, self.device))
        self._fabrics, self._lines = fabrics, lines
        self._rates = DeviceRates(self.device, calibration, self.engine.name)
        self.stages = [count_equal(graph.stage_layers(problem.model, plan, problem.engine, stage)) for stage in range(plan.pp)]
        self.stage_kinds = graph.stage_kinds(self.stages)
        self._scale = EngineScales(self.engine, calibration, self.device, self.problem.model)
        self._memo: dict[tuple[str, int, float, float], float] = {}
        self._light = (-1.0, -1.0, 0.0, 0.0)

    def work_s(self, work: Work) -> float:
        """Seconds of one work in this engine on this machine: bare kernel times the engine's scale."""
        if isinstance(work, Collective):
            fabric = self._fabrics.axis(work.axis)
            kernels = EXPERT_EXCHANGE if work.op == "all_to_all" else self.engine.all_reduces
            each = collective_s(work.op, work.payload_bytes, fabric, self._lines, kernels=kernels)
            return each * work.count * self._scale.collective
        if isinstance(work, Stream):
            return kernel_s(work, self._rates) * self.engine.fused_elementwise
        if isinstance(work, DecodeAttention) and self.device.architecture in self.engine.paged_kernels_on:
            unsplit = self._scale.unsplit if work.batch * work.heads > UNSPLIT_BEYOND else 1.0
            return kernel_s(replace(work, kv_heads=work.heads), self._rates) * self._scale.attention * unsplit
        return kernel_s(work, self._rates) * self._scale.of(work)

    def works_s(self, works: Iterable[Work]) -> float:
        """Seconds of several works, one after the other."""
        return sum(self.work_s(work) for work in works)

    # The four parts of (E1), by stage.

    def tokens_s(self, stage: int, tokens: float) -> float:
        """Everything that depends on the number of new tokens alone."""
        return self._interpolated("tokens", stage, tokens, 0.0, self._tokens_exact)

    def _tokens_exact(self, stage: int, tokens: float, _: float) -> float:
        model, plan = self.problem.model, self.plan
        works = graph.token_work(model, plan, self.stages[stage], tokens)
        if stage == 0:
            works += graph.embedding_work(model, plan, tokens)
        if stage < plan.pp - 1:
            works += graph.transfer_work(model, plan, tokens)
        return self.works_s(works)

    def experts_s(self, stage: int, tokens: float) -> float:
        """The part of `tokens_s` that all attention-DP ranks share: experts and the exchange, at `tokens` a rank on average."""
        return self._interpolated("experts", stage, tokens, 0.0, self._experts_exact)

    def _experts_exact(self, stage: int, tokens: float, _: float) -> float:
        return self.works_s(graph.expert_work(self.problem.model, self.plan, self.stages[stage], tokens))

    def decode_attention_s(self, stage: int, decodes: float, context: float) -> float:
        """Attention of `decodes` sequences over `context` cached tokens each: one token of each, or those that a step verifies."""
        if decodes <= 0:
            return 0.0
        return self._interpolated("decode", stage, decodes, max(1.0, context), self._decode_exact)

    def _decode_exact(self, stage: int, decodes: float, context: float) -> float:
        batch = Batch(decodes=decodes, context=context, queries=self.queries)
        return self.works_s(graph.sequence_work(self.problem.model, self.plan, self.stages[stage], batch))

    def prefill_attention_s(self, stage: int, new: float, past: float) -> float:
        """Attention of one chunk of `new` tokens over `past` cached ones; lengths are rounded to a percent for the memo."""
        if new <= 0:
            return 0.0
        new, past = _rounded(new), _rounded(past)
        key = ("prefill", stage, new, past)
        found = self._memo.get(key)
        if found is None:
            batch = Batch(prefills=1, new=new, past=past)
            found = self.works_s(graph.sequence_work(self.problem.model, self.plan, self.stages[stage], batch))
            self._memo[key] = found
        return found

    def draft_s(self, decodes: float, context: float) -> float:
        """All passes of the drafter after a verify step of `decodes` sequences, (D3)."""
        if self.problem.speculation is None or decodes <= 0:
            return 0.0
        return self._interpolated("draft", self.plan.pp - 1, decodes, max(1.0, context), self._draft_exact)

    def _draft_exact(self, stage: int, decodes: float, context: float) -> float:
        model, speculation = self.problem.model, self.problem.speculation
        assert speculation is not None
        return self.works_s(draft.draft_step_work(model, self.plan, speculation, sequences=decodes, context=context))

    def draft_prefill_s(self, new: float, past: float) -> float:
        """The drafter's own layer over a prompt chunk of `new` tokens over `past` cached ones."""
        speculation = self.problem.speculation
        if speculation is None or new <= 0:
            return 0.0
        new, past = _rounded(new), _rounded(past)
        key = ("draft_prefill", 0, new, past)
        found = self._memo.get(key)
        if found is None:
            works = draft.draft_prefill_work(self.problem.model, self.plan, speculation, new=new, past=past)
            found = self._memo[key] = self.works_s(works)
        return found

    def head_s(self, sequences: float) -> float:
        """Logits and sampling of the last stage."""
        return self._interpolated("head", self.plan.pp - 1, sequences, 0.0, self._head_exact)

    def _head_exact(self, stage: int, sequences: float, _: float) -> float:
        return self.works_s(graph.head_work(self.problem.model, self.plan, sequences))

    def kernels(self, stage: int) -> float:
        """Kernels one step launches on a stage."""
        batch = Batch(decodes=1, context=16)
        works = graph.step_work(self.problem, self.plan, stage=stage, batch=batch)
        return sum(_launches_of(work) * work.count for work in works)

    # Steps.

    def stage_s(self, stage: int, batch: Batch) -> float:
        """GPU seconds of one stage of one rank; eager steps cannot run faster than their kernels are launched."""
        chunks = _together([(batch.new, batch.past)] * round(batch.prefills))
        return self._stage_mixed_s(stage, batch.decodes, batch.context, chunks, 1)

    def _launches(self, stage: int) -> float:
        key = ("launches", stage, 0.0, 0.0)
        if key not in self._memo:
            self._memo[key] = self.kernels(stage)
        return self._memo[key]

    def host_s(self, sequences: float, chunks: int, cached: float) -> float:
        """Host seconds of a step: step + sequence * B (+ prefill with chunks), times the local correction."""
        host = self.engine.host
        step_s = host.step_s + host.sequence_s * sequences + host.context_s * cached + (host.prefill_s if chunks else 0.0)
        return (step_s + (host.ranks_s if self.plan.stage_gpus > 1 else 0.0)) * self._scale.host

    def with_host_s(self, gpu_s: float, sequences: float, chunks: int, cached: float) -> float:
        """A step as the clock on the wall sees it: the overlapped share of the host hides behind the GPU, the rest adds."""
        host_s, overlap = self.host_s(sequences, chunks, cached), self.engine.host.overlap
        return max(gpu_s, overlap * host_s) + (1.0 - overlap) * host_s

    def hops_s(self) -> float:
        """What a token's way through the stages costs beside kernels and transfers: a hand-over for each boundary (E2)."""
        return (self.plan.pp - 1) * self.engine.host.stage_s

    def decode_s(self, sequences: float, context: float) -> float:
        """Seconds between two tokens of each of `sequences` of one replica."""
        return self.mixed_s(sequences, context, ())

    def mixed_s(self, decodes: float, context: float, chunks: Sequence[tuple[float, float]]) -> float:
        """Seconds of a step that carries `decodes` tokens over `context` each and prefill `chunks` of (new, past) tokens.

        Attention-DP ranks share the decodes evenly and take whole chunks: with fewer chunks than ranks some wait for the
        others. With stages the decodes are spread over the micro-batches in flight and the chunks over as many of them as there
        are: the first micro-batch visits all stages, the slowest stage sets the pace (E2): max(sum of stages and hand-overs, sum
        over micro-batches of the slowest stage). A prompt in k pieces is on several stages at once: its first piece visits all,
        the others follow at the slowest stage's pace.
        """
        pp, adp = self.plan.pp, self.plan.adp
        sequences, carried = decodes + len(chunks), _together(chunks)
        if pp == 1:
            gpu_s = self._stage_mixed_s(0, decodes / adp, context, carried, 1)
            return self.with_host_s(gpu_s, sequences / adp, len(chunks), decodes / adp * context)
        flights = max(1, min(pp, math.ceil(sequences / adp)))
        heavy = min(flights, len(chunks))
        light, slowest_light = self._decodes_s(decodes / adp / flights, context)
        if not heavy:
            gpu_s = max(light + self.hops_s(), flights * slowest_light)
        else:
            full, slowest = self._stages_s(decodes / adp / flights, context, carried, heavy)
            pieces = math.ceil(carried.longest / self.engine.piece_tokens) if self.engine.piece_tokens else 1
            through = (full + (pieces - 1) * slowest) / pieces + self.hops_s()
            gpu_s = max(through, heavy * slowest + (flights - heavy) * slowest_light)
        return self.with_host_s(gpu_s, sequences / adp, len(chunks), decodes / adp * context)

    def _decodes_s(self, decodes: float, context: float) -> tuple[float, float]:
        """`_stages_s` of decodes alone; the last one is remembered, for steps with other chunks follow over the same decodes."""
        if self._light[:2] != (decodes, context):
            self._light = (decodes, context, *self._stages_s(decodes, context, NO_CHUNKS, 1))
        return self._light[2:]

    def _stages_s(self, decodes: float, context: float, chunks: Chunks, heavy: int) -> tuple[float, float]:
        """GPU seconds of all stages one after the other, and of the slowest."""
        each = [(self._stage_mixed_s(stage, decodes, context, chunks, heavy), count) for stage, count in self.stage_kinds]
        return sum(seconds * count for seconds, count in each), max(seconds for seconds, _ in each)

    def _stage_mixed_s(self, stage: int, decodes: float, context: float, chunks: Chunks, heavy: int) -> float:
        """GPU seconds of one stage of the busiest rank: its `decodes`, and its chunks of one of `heavy` micro-batches."""
        adp, count = self.plan.adp, chunks.count
        share = math.ceil(count / adp / heavy) / count if adp > 1 and count else 1 / heavy
        new_tokens = share * chunks.new_tokens
        tokens = decodes * self.queries + new_tokens
        if tokens <= 0:
            return 0.0
        total = self.tokens_s(stage, tokens) + self.decode_attention_s(stage, decodes, context)
        mean = decodes * self.queries + chunks.new_tokens / adp / heavy
        if mean < tokens:  # the experts see all ranks' tokens, not the busiest rank's adp times
            total += self.experts_s(stage, mean) - self.experts_s(stage, tokens)
        for (new, past), alike in chunks.alike:
            total += share * alike * self.prefill_attention_s(stage, new, past)
        if stage == self.plan.pp - 1:
            total += self.head_s(max(1.0, decodes * self.queries + share * count)) + self.draft_s(decodes, context)
            total += share * sum(alike * self.draft_prefill_s(new, past) for (new, past), alike in chunks.alike)
        graphed = not new_tokens and tokens <= self.engine.graphs_up_to
        return total if graphed else _no_faster(total, self._launches(stage) * self.engine.host.kernel_s)

    def _interpolated(
        self, part: str, stage: int, size: float, context: float, exact: Callable[[int, float, float], float]
    ) -> float:
        low, high, weight = _sizes(size)
        if not context:
            return self._point(part, stage, low, 0, exact) * (1 - weight) + self._point(part, stage, high, 0, exact) * weight
        near, far, slope = _contexts(context)
        at_low = self._point(part, stage, low, near, exact) * (1 - slope) + self._point(part, stage, low, far, exact) * slope
        if weight == 0.0:
            return at_low
        at_high = self._point(part, stage, high, near, exact) * (1 - slope) + self._point(part, stage, high, far, exact) * slope
        return at_low * (1 - weight) + at_high * weight

    def _point(self, part: str, stage: int, size: float, context: float, exact: Callable[[int, float, float], float]) -> float:
        key = (part, stage, size, context)
        found = self._memo.get(key)
        if found is None:
            found = self._memo[key] = exact(stage, size, context)
        return found


# vLLM's paged-attention kernels split a sequence's context over blocks up to so many (sequence, query head) pairs (paged_attn.py,
# use_v1); beyond it each pair walks its whole context alone.
UNSPLIT_BEYOND = 512
# Kernels behind one work, as DeepSeek-V3's layers launch them in SGLang (deepseek_v2.py, fused_moe): experts sort the tokens (3),
# quantise twice, multiply twice, activate, sum up and add the shared ones; MLA normalises both latents, absorbs into query and
# output, joins the halves and writes the cache beside the attention itself; a product in 8 or 4 bits quantises its input first.
EXPERT_LAUNCHES, LATENT_LAUNCHES, QUANTISED_LAUNCHES = 12, 8, 2
# A chunked scan (flash-linear-attention, gated_delta_rule/chunk.py): norms of queries and keys, decays summed up, products inside
# the chunk, their inverse, rows and values, states, outputs. An indexer: norm, rotation, two quantisations, scores, selection.
SCAN_LAUNCHES, INDEX_LAUNCHES = 7, 6


def _launches_of(work: Work) -> float:
    if isinstance(work, Stream):
        return work.kernels
    if isinstance(work, Experts):
        return EXPERT_LAUNCHES
    if isinstance(work, LatentPrefill | LatentDecode):
        return LATENT_LAUNCHES
    if isinstance(work, StateScan):
        return SCAN_LAUNCHES
    if isinstance(work, IndexScores):
        return INDEX_LAUNCHES
    quantised = isinstance(work, Gemm) and FORMATS[work.weights].compute not in ("bf16", "fp16")
    return QUANTISED_LAUNCHES if quantised else 1


@lru_cache(maxsize=1 << 14)
def _sizes(size: float) -> tuple[int, int, float]:
    return _bracket(GRID, size)


@lru_cache(maxsize=1 << 14)
def _contexts(context: float) -> tuple[int, int, float]:
    return _bracket(CONTEXTS, context)


def _bracket(grid: list[int], size: float) -> tuple[int, int, float]:
    """Neighbours of `size` in the grid and the weight of the upper one; the last interval extrapolates, below 1 is 1."""
    if size <= grid[0]:
        return grid[0], grid[0], 0.0
    at = min(bisect.bisect_left(grid, size), len(grid) - 1)
    if grid[at] == size:
        return grid[at], grid[at], 0.0
    low, high = grid[at - 1], grid[at]
    return low, high, (size - low) / (high - low)


def _no_faster(kernels_s: float, launches_s: float) -> float:
    """Launches and kernels run side by side and each waits for the other now and then: a smooth maximum of the two."""
    high, low = max(kernels_s, launches_s), min(kernels_s, launches_s)
    return float(high * (1.0 + (low / high) ** 4) ** 0.25) if high else 0.0


def _rounded(tokens: float) -> float:
    """Two significant binary digits more than a percent: 1..64 exact, above to 1/64 of the power of two."""
    if tokens < 64:
        return float(round(tokens))
    unit = 2.0 ** (math.floor(math.log2(tokens)) - 6)
    return round(tokens / unit) * unit


def stage_device(problem: Problem, plan: Plan) -> Device:
    """The device that binds: the slowest memory among those of the plan."""
    node = problem.cluster.node
    if node.is_uniform:
        return node.devices[0]
    size = len(node.devices)
    used = {plan.gpu(rank) % size for rank in range(plan.world)}
    return min((node.devices[gpu] for gpu in used), key=lambda device: device.memory_bytes_per_s)
