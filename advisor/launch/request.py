"""What a target is given: the question, the ranked plan, the servers it needs and the command that starts each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import ModuleType

from advisor.launch.layout import Server, Span
from advisor.launch.script import Options, slug
from advisor.launch.vendor import Vendor
from advisor.launch.words import Command, Variable, Word, needs_online_fp8
from advisor.specs.plan import Plan
from advisor.specs.prediction import Prediction
from advisor.specs.problem import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """All servers start by one `command`; what differs between them is filled in by the target.

    `checkpoint` is the model to serve, empty where the user has to say it, and `wanted` is then what for. `engine` is the
    engine's file in this room. `from_head` says that one node starts everything.
    """

    problem: Problem
    prediction: Prediction
    engine: ModuleType
    servers: tuple[Server, ...]
    command: Command
    options: Options
    checkpoint: str
    wanted: str
    ids: tuple[str, ...]
    image: str
    vendor: Vendor
    from_head: bool = False

    @property
    def plan(self) -> Plan:
        """The ranked plan."""
        return self.prediction.plan

    @property
    def nodes(self) -> int:
        """Nodes the plan uses: the highest one that a server has, and those before it."""
        return max(node for server in self.servers for node in server.nodes) + 1

    @property
    def spans(self) -> bool:
        """Whether a server is larger than a node."""
        return len(self.servers[0].nodes) > 1

    @property
    def balanced(self) -> bool:
        """Whether a balancer stands before several servers."""
        return len(self.servers) > 1

    @property
    def stored_bytes(self) -> float:
        """Bytes of the checkpoint: the weights of one replica, twice as many where 16 bits become fp8 while they load."""
        held = self.prediction.memory.weights_bytes * self.plan.replica_gpus
        return held * (2 if needs_online_fp8(self.problem.model) else 1)

    @property
    def ranks_a_node(self) -> int:
        """Attention-DP ranks on each node of a spanning server."""
        return len(self.servers[0].gpus[0]) // (self.plan.tp * self.plan.pp)

    @property
    def gpus_needed(self) -> int:
        """GPUs a node must show: up to the highest index used where they go by index, else as many as are used."""
        if self.ids:
            return max(len([g for s in self.servers for n, gpus in zip(s.nodes, s.gpus, strict=True) if n == node for g in gpus])
                       for node in range(self.nodes))  # fmt: skip
        return max(gpu for server in self.servers for gpus in server.gpus for gpu in gpus) + 1

    @property
    def name(self) -> str:
        """A short name for containers, jobs and deployments."""
        return slug(f"{self.problem.engine.name}-{self.problem.model.name}")

    @property
    def install(self) -> str:
        """How to get the engine."""
        return f"pip install {self.engine.INSTALL.format(version=self.problem.engine.flags_version)}"

    def gpu_list(self, server: Server, position: int) -> str:
        """The GPUs of a server on the `position`-th of its nodes, in rank order."""
        return ",".join(self.ids[gpu] if self.ids else str(gpu) for gpu in server.gpus[position])

    def bound(self, values: dict[Variable, Word]) -> Command:
        """The command with the target's words filled in."""
        return self.command.bind(values)


def server_command(words: ModuleType, problem: Problem, plan: Plan, span: Span, options: Options) -> Command:
    """The engine's command of one server, with what the user asked for. Raises PlanError where the engine cannot start it."""
    command: Command = with_drafts(words, problem, words.serve(problem, plan, span, ray=options.ray), options.draft_model)
    return replace(command, flags=(*command.flags, *words.asked(options, plan)))


def with_drafts(words: ModuleType, problem: Problem, command: Command, draft_model: str) -> Command:
    """The command with the problem's speculative decoding, where it has any."""
    drafted: Command = words.drafting(problem.speculation, command, draft_model) if problem.speculation else command
    return drafted
