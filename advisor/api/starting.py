"""Whether the engine can be started with a plan: the search is told by the room that writes the commands."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from advisor.errors import PlanError
from advisor.specs.plan import Plan
from advisor.specs.problem import Problem


def cannot_start(problem: Problem) -> Callable[[Plan], str]:
    """A function of a plan: why no command starts it, in one phrase; "" where one does.

    Always "" for an engine whose commands are not known: then none of its plans has one.
    """
    from advisor.launch import command, engine_words

    try:
        engine_words(problem.engine)
    except PlanError:
        return lambda plan: ""

    def why(plan: Plan) -> str:
        try:
            command(problem, _as_different(problem, plan))
        except PlanError as error:
            return str(error).rstrip(".")
        return ""

    return why


def _as_different(problem: Problem, plan: Plan) -> Plan:
    """The plan with no more replicas than lie differently on the nodes: the others repeat them."""
    each = problem.cluster.node.gpus_per_host
    return plan if plan.gpus else replace(plan, dp=min(plan.dp, each // math.gcd(plan.replica_gpus, each)))
