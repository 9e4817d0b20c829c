"""Tokens sent to the ranks of their experts: one rank's logits, and on the wire the rows that were routed."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tiny_models import CONFIGS

torch = pytest.importorskip("torch")

from sharded import on_ranks  # noqa: E402

from advisor.catalog.huggingface import model_from_config  # noqa: E402
from advisor.errors import PlanError, QuestionError  # noqa: E402
from advisor.specs.experiment import Cell, Exchange, Job  # noqa: E402
from advisor.specs.model import MoeFfn  # noqa: E402
from advisor.specs.plan import Plan  # noqa: E402
from runner.exchange import check_exchange, exchange_notes, exchange_of, own_tokens  # noqa: E402
from runner.ffn import MoeShard  # noqa: E402
from runner.graphs import DecodeGraph  # noqa: E402
from runner.measure import Bench  # noqa: E402
from runner.mesh import Call, Mesh  # noqa: E402
from runner.transformer import Transformer  # noqa: E402
from runner.weights import initialise  # noqa: E402

PROMPT, STEPS = 11, 3
CPU, GPU = torch.device("cpu"), torch.device("cuda")
EIGHT = {"num_experts": 8}  # four ranks share them
SPECS = {
    name: model_from_config({**CONFIGS[name], **sizes}, None, name=name, source="test")
    for name, sizes in (("qwen3 moe", EIGHT), ("qwen2 moe", EIGHT), ("deepseek v3", {}), ("gpt-oss", {}))
}
PLANS = (  # sequences of all groups; the last leaves one token of a decode step to two tp ranks
    (Plan(adp=2, ep=2), ("qwen3 moe", "qwen2 moe", "deepseek v3", "gpt-oss"), 4),
    (Plan(adp=4, ep=4), ("qwen3 moe", "deepseek v3"), 4),
    (Plan(tp=2, adp=2, ep=4), ("qwen3 moe", "qwen2 moe", "deepseek v3"), 4),
    (Plan(tp=2, adp=2, ep=2), ("qwen3 moe", "deepseek v3", "gpt-oss"), 4),
    (Plan(tp=2, adp=2, ep=4), ("qwen3 moe", "deepseek v3"), 2),
)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What one rank saw of one model: logits of every step, every collective, and the experts chosen at every exchange."""

    logits: list[Any]
    calls: list[Call]
    chosen: list[list[list[int]]]


def steps(mesh: Mesh, names: tuple[str, ...], sequences: int, exchange: Exchange) -> list[Seen]:
    """A prefill and greedy decode steps of each model."""
    found = []
    for name in names:
        spec = SPECS[name]
        model = Transformer(
            spec, mesh.plan, mesh.coordinates, mesh, device="cpu", dtype=torch.float32,
            max_batch=sequences, max_context=PROMPT + STEPS, exchange=exchange,
        )  # fmt: skip
        initialise(model, spec, 7)
        chosen: list[list[list[int]]] = []
        for module in model.modules():
            if isinstance(module, MoeShard):
                module.route = _noting(module.route, chosen)  # type: ignore[method-assign]
        mesh.calls.clear()
        prompts = torch.randint(0, spec.vocab_size, (sequences, PROMPT), generator=torch.Generator().manual_seed(3))
        own = prompts.chunk(mesh.plan.adp)[mesh.coordinates.adp_rank]
        logits = [model.prefill(own)]
        for step in range(STEPS):
            logits.append(model.decode(logits[-1].argmax(-1), torch.full((len(own),), PROMPT + step)))
        found.append(Seen(logits=logits, calls=list(mesh.calls), chosen=chosen))
    return found


def _noting(route: Any, chosen: list[list[list[int]]]) -> Any:
    def noted(x: Any) -> Any:
        found = route(x)
        chosen.append(found[0].tolist())
        return found

    return noted


@pytest.fixture(scope="module")
def sent() -> dict[tuple[Plan, int], list[list[Seen]]]:
    """By plan and sequences, by rank, by model: one start of two ranks and one of four."""
    found: dict[tuple[Plan, int], list[list[Seen]]] = {}
    for world in (2, 4):
        jobs = [(plan, names, sequences, "all_to_all") for plan, names, sequences in PLANS if plan.world == world]
        found |= zip(((plan, sequences) for plan, _, sequences, _ in jobs), on_ranks(steps, jobs), strict=True)
    return found


CASES = pytest.mark.parametrize(("plan", "names", "sequences"), PLANS, ids=lambda x: x.label if isinstance(x, Plan) else "")


@CASES
def test_logits_are_one_ranks(plan: Plan, names: tuple[str, ...], sequences: int, sent: Any) -> None:
    """fp32 on both sides: only the order of sums differs, of some hundred terms of size one."""
    whole = steps(Mesh.single(), names, sequences, "all_gather")
    for rank, results in enumerate(sent[plan, sequences]):
        group, each = plan.coordinates(rank).adp_rank, sequences // plan.adp
        for got, expected in zip(results, whole, strict=True):
            for one, all_of_them in zip(got.logits, expected.logits, strict=True):
                torch.testing.assert_close(one, all_of_them[group * each : (group + 1) * each], atol=3e-5, rtol=3e-5)


@CASES
def test_payloads_are_the_routed_rows(plan: Plan, names: tuple[str, ...], sequences: int, sent: Any) -> None:
    """A token goes once to each rank that has any of its experts, with its k experts and gates, and one sum comes back."""
    ranks = sent[plan, sequences]
    for index, name in enumerate(names):
        spec = SPECS[name]
        row_bytes, top_k = 4 * spec.hidden_size, len(ranks[0][index].chosen[0][0])
        experts = next(layer.ffn.experts for layer in spec.layers if isinstance(layer.ffn, MoeFfn))
        rows = [[_rows(chosen, experts // plan.ep, plan.ep) for chosen in seen[index].chosen] for seen in ranks]
        for group in plan.groups("ep"):
            for place, rank in enumerate(group):
                expected = []
                for exchange, own in enumerate(rows[rank]):
                    here = sum(rows[other][exchange][place] for other in group)
                    expected += [8 * plan.ep, sum(own) * row_bytes, sum(own) * 2 * 4 * top_k, here * row_bytes]
                calls = ranks[rank][index].calls
                assert [c.payload_bytes for c in calls if c.op == "all_to_all"] == expected
                assert {(c.op, c.axis) for c in calls} <= {("all_to_all", "ep"), ("all_reduce", "tp"), ("all_gather", "tp")}


def _rows(chosen: list[list[int]], local: int, ranks: int) -> list[int]:
    """Tokens that have an expert of each rank."""
    return [sum(any(expert // local == rank for expert in token) for token in chosen) for rank in range(ranks)]


def test_tp_ranks_share_the_tokens_of_each_part() -> None:
    """With the experts whole (expert_tp=1) two tp ranks halve the tokens; with experts in two parts each sends all of them."""
    for count in (0, 1, 2, 7):
        shares = [own_tokens(Mesh.shard(Plan(tp=2, adp=2, ep=4), rank), count) for rank in (0, 1)]
        assert [*range(count)[shares[0]], *range(count)[shares[1]]] == list(range(count))
        assert own_tokens(Mesh.shard(Plan(tp=2, adp=2, ep=2), 1), count) == slice(0, count)


@pytest.mark.parametrize("plan", [Plan(adp=4, ep=2), Plan(tp=4, ep=4), Plan(adp=2), Plan()], ids=lambda p: p.label)
def test_plans_without_such_an_exchange_are_refused(plan: Plan) -> None:
    with pytest.raises(PlanError, match="cannot exchange tokens by all_to_all, which needs adp above 1 and ep a multiple"):
        check_exchange("all_to_all", plan)
    check_exchange("all_gather", plan)
    with pytest.raises(PlanError, match="use all_gather"):
        Transformer(
            SPECS["qwen3 moe"], plan, plan.coordinates(0), Mesh.shard(plan), device="cpu", dtype=torch.float32,
            max_batch=1, max_context=8, exchange="all_to_all",
        )  # fmt: skip


def test_a_captured_step_refuses_and_the_measurement_says_what_it_did_instead() -> None:
    with pytest.raises(QuestionError, match="cannot be captured as a graph"):
        DecodeGraph(cast(Any, SimpleNamespace(device=GPU, exchange="all_to_all")), cast(Any, None), batch=1, span=8)
    assert exchange_of("all_to_all", "decode", GPU) == "all_gather"
    assert exchange_of("all_to_all", "decode", CPU) == exchange_of("all_to_all", "prefill", GPU) == "all_to_all"
    assert exchange_notes("all_to_all", {"prefill", "decode"}, GPU)[0].startswith("decode exchanged its tokens by all_gather")
    assert not exchange_notes("all_to_all", {"prefill"}, GPU)
    assert not exchange_notes("all_gather", {"decode"}, GPU)


@pytest.mark.parametrize("exchange", ["all_gather", "all_to_all"])
def test_a_jobs_exchange_is_the_one_that_is_timed(exchange: Exchange) -> None:
    """On one rank alone: the others are taken for its equals, so as many rows come as four times what it keeps."""
    plan, cell = Plan(adp=4, ep=4), Cell(phase="prefill", batch=8, context_tokens=16)
    job = Job(
        id="x", model=SPECS["qwen3 moe"], plan=plan, cells=(cell,), device="cpu", shard=True, warmup=1, repeats=1, exchange=exchange
    )
    mesh = Mesh.shard(plan, 2)
    bench = Bench(job, mesh, CPU, layers=0, beat=lambda _: None)
    mesh.recording = True
    chosen: list[list[list[int]]] = []
    first = next(m for m in bench.model.modules() if isinstance(m, MoeShard))
    first.route = _noting(first.route, chosen)  # type: ignore[method-assign]
    assert bench.time(cell, most_s=1.0)
    ops = [c.op for c in mesh.calls]
    if exchange == "all_gather":
        assert set(ops) == {"all_gather", "reduce_scatter"}
        return
    assert set(ops) == {"all_to_all"}
    own = _rows(chosen[0], 2, 4)
    assert [c.payload_bytes for c in mesh.calls[:4]] == [32, sum(own) * 192, sum(own) * 16, 4 * own[2] * 192]
