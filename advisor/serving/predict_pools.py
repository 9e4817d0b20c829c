"""The door of the pools: what a deployment of prefill and decode workers does under the workload."""

from __future__ import annotations

import math
from dataclasses import replace

from advisor.errors import PlanError
from advisor.roofline.fabric import Fabric, LinkGraph, group_fabric
from advisor.roofline.kv_transfer import transfer_s
from advisor.serving.capacity import Capacity
from advisor.serving.familiarity import spread_for
from advisor.serving.pools import Pools, Tandem, carried, closed_loop, tandem
from advisor.serving.pools_run import run_pools
from advisor.serving.predict import Z90, Predictor, fitted
from advisor.specs.deployment import Deployment, DeploymentPrediction
from advisor.specs.plan import Plan
from advisor.specs.prediction import Estimate, RankMemory
from advisor.specs.problem import Problem
from advisor.specs.workload import Workload

# What pools add to the error of an engine: the spread of ln(measured / predicted) on published rows of separate workers without
# speculation (docs/accuracy.md), none of which is fitted; TTFT there holds the wait of a closed loop that starts at once.
POOLS_SPREAD = {"tpot": 0.2, "throughput": 0.25, "latency": 0.25, "ttft": 0.8}


class PoolsPredictor:
    """Answers about deployments of one question; `decode` may be of another GPU, joined by the network."""

    def __init__(self, prefill: Predictor, decode: Predictor | None = None) -> None:
        self.prefill = prefill
        self._apart = decode is not None
        self.decode = _without_entry(decode or prefill)

    def predict(self, deployment: Deployment) -> DeploymentPrediction:
        """TTFT, TPOT and throughput of the whole deployment, with intervals. Raises PlanError where a pool cannot run or hold a
        sequence, or the machine has fewer GPUs."""
        problem = self.prefill.problem
        if not self._apart and deployment.world > problem.cluster.gpus:
            raise PlanError(
                f"{deployment.label} uses {deployment.world} GPUs and the machine has {problem.cluster.gpus}; use fewer workers."
            )
        pools, memories = self.pools(deployment)
        found, notes = _served(pools, problem.workload)
        return self._prediction(deployment, pools, memories, found, notes)

    def pools(self, deployment: Deployment) -> tuple[Pools, tuple[RankMemory, RankMemory]]:
        """What the formulas see of a deployment, and the memory of the fullest rank of each pool."""
        (first, prefill_memory, prefill_capacity) = _worker(self.prefill.problem, deployment.prefill)
        (second, decode_memory, decode_capacity) = _worker(self.decode.problem, deployment.decode)
        problem = self.prefill.problem
        pools = Pools(
            prefill=self.prefill.step_model(first),
            decode=self.decode.step_model(second),
            prefill_capacity=prefill_capacity,
            decode_capacity=decode_capacity,
            prefill_workers=deployment.prefill.dp,
            decode_workers=deployment.decode.dp,
            transfer_s=transfer_s(
                problem.model,
                deployment,
                problem.workload.input_tokens,
                self._link(deployment),
                self.prefill.lines_of(self.prefill.calibration),
            ),
        )
        return pools, (prefill_memory, decode_memory)

    def _link(self, deployment: Deployment) -> Fabric:
        """What two ranks of the pools share: the first of the prefill and the last of the decode workers, or the slower network."""
        cluster = self.prefill.problem.cluster
        if not self._apart:
            return group_fabric(LinkGraph(cluster), (0, min(deployment.world, cluster.gpus) - 1))
        networks = [c.network for c in (cluster, self.decode.problem.cluster) if c.network is not None]
        if not networks:
            raise PlanError("pools of different GPUs are joined by a network that is not stated; name it with --network.")
        slowest = min(networks, key=lambda network: network.bytes_per_s)
        each = len(cluster.node.devices)
        return group_fabric(LinkGraph(replace(cluster, nodes=2, network=slowest)), (0, each))

    def _prediction(
        self, deployment: Deployment, pools: Pools, memories: tuple[RankMemory, RankMemory], found: Tandem, notes: tuple[str, ...]
    ) -> DeploymentPrediction:
        problem, calibration = self.prefill.problem, self.prefill.calibration
        workload = problem.workload

        def estimate(figure: str, value: float) -> Estimate:
            spread, apart = spread_for(problem.engine, calibration, figure, problem.model), POOLS_SPREAD[figure]
            accepted = 0.0 if figure == "ttft" or not problem.speculation else problem.speculation.log_width
            width = math.hypot(Z90 * math.hypot(spread.shared, spread.independent, apart), accepted)
            own = math.hypot(spread.independent, apart)
            return Estimate(value=value, low=value * math.exp(-width), high=value * math.exp(width), independent=own)

        rate, outputs = found.requests_per_s, workload.output_tokens
        by_prefill, by_decode = carried(pools, workload)
        prices = [predictor.problem.cluster.device.price_usd_per_hour for predictor in (self.prefill, self.decode)]
        gpus = (deployment.prefill.world, deployment.decode.world)
        usd = None
        if rate > 0 and prices[0] is not None and prices[1] is not None:
            usd = (prices[0] * gpus[0] + prices[1] * gpus[1]) / 3600 / (rate * outputs) * 1e6
        return DeploymentPrediction(
            deployment=deployment,
            ttft_s=estimate("ttft", found.ttft_s),
            tpot_s=estimate("tpot", found.tpot_s),
            latency_s=estimate("latency", found.latency_s),
            requests_per_s=estimate("throughput", rate),
            output_tokens_per_s=estimate("throughput", rate * outputs),
            total_tokens_per_s=estimate("throughput", rate * workload.context_tokens),
            transfer_s=pools.transfer_s,
            prefill_busy=found.prefill_busy,
            decode_busy=found.decode_busy,
            running=found.running,
            waiting=found.waiting,
            prefill_carries_per_s=by_prefill,
            decode_carries_per_s=by_decode,
            decode_tokens_per_s=estimate("tpot", found.running * deployment.decode.dp / found.tpot_s if found.tpot_s else 0.0),
            kv_tokens=memories[1].kv_tokens * deployment.decode.dp,
            max_sequences=int(memories[1].kv_tokens // workload.context_tokens) * deployment.decode.dp,
            prefill_memory=memories[0],
            decode_memory=memories[1],
            within_limits=_within(workload, found) and not notes,
            usd_per_million_tokens=usd,
            calibration=calibration.name,
            notes=notes,
        )


def _without_entry(predictor: Predictor) -> Predictor:
    """A decode worker gets its requests from a prefill worker, which has tokenised them."""
    host = replace(predictor.problem.engine.host, request_s=0.0, admit_s=0.0)
    return Predictor(replace(predictor.problem, engine=replace(predictor.problem.engine, host=host)), predictor.calibration)


def _worker(problem: Problem, plan: Plan) -> tuple[Plan, RankMemory, Capacity]:
    """One worker of a pool as a replica alone."""
    return fitted(problem, plan.replica())


def _served(pools: Pools, workload: Workload) -> tuple[Tandem, tuple[str, ...]]:
    """The load on both pools: a burst is simulated, the long run is the formula's."""
    if workload.mode == "open_loop":
        most = min(carried(pools, workload))
        if workload.rate_per_s >= most:
            why = f"overloaded: it carries {most:.3g} of {workload.rate_per_s:.3g} requests/s, the queue grows"
            return tandem(pools, workload, most), (why,)
        return tandem(pools, workload, workload.rate_per_s), ()
    if workload.mode == "closed_loop" and workload.start == "burst":
        return run_pools(pools, workload, users=workload.users, requests=workload.requests), ()
    if workload.mode in ("closed_loop", "static_batch", "single_stream"):
        return closed_loop(pools, workload, workload.users), ()
    if workload.mode == "offline":
        return tandem(pools, workload, min(carried(pools, workload))), ()
    return _as_much_as_fits(pools, workload)


STEPS = 24  # of the bisection: the rate is found to within 1e-6


def _as_much_as_fits(pools: Pools, workload: Workload) -> tuple[Tandem, tuple[str, ...]]:
    """The largest rate within the limits of TTFT and TPOT."""
    high = min(carried(pools, workload))
    low, found = 0.0, tandem(pools, workload, high * 1e-6)
    if not _within(workload, found):
        return found, ("a single request already misses the limits",)
    for _ in range(STEPS):
        middle = (low + high) / 2
        state = tandem(pools, workload, middle)
        if _within(workload, state):
            low, found = middle, state
        else:
            high = middle
    return found, ()


def _within(workload: Workload, found: Tandem) -> bool:
    return (workload.ttft_limit_s is None or found.ttft_s <= workload.ttft_limit_s) and (
        workload.tpot_limit_s is None or found.tpot_s <= workload.tpot_limit_s
    )
