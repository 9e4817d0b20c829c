"""Back from a script to its plan: degrees and settings are read from the engine's command, and must agree with the plan line.

The plan line says what no command can: whether vLLM's data-parallel ranks share experts, and where each rank was placed.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from advisor.errors import ProfileError
from advisor.launch.script import PLAN_MARK
from advisor.specs.plan import Plan, Settings
from advisor.untrusted import json_value, parse_documents

_ARRAY = re.compile(r"^ *local command=\($", re.MULTILINE), re.compile(r"\n *\)$", re.MULTILINE)
_CALL = re.compile(r"^ *start_server (\d+) \S", re.MULTILINE)
_SPLIT = re.compile(r"^export (?:VLLM|SGLANG)_PP_LAYER_PARTITION=(\S+)", re.MULTILINE)
_CONFIG = re.compile(r"^cat >\"\$RUN_DIR/trtllm.yaml\" <<'EOF'$", re.MULTILINE), re.compile(r"\nEOF$", re.MULTILINE)
_PROGRAMS = (("vllm", "serve"), ("sglang", "serve"), ("trtllm-serve",))


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """What a file starts: the engine's words, how many such servers (0: this file shows a part), and their surroundings."""

    argv: tuple[str, ...]
    servers: int
    layer_split: tuple[int, ...]
    config: Mapping[str, Any]


def read(text: str) -> Plan:
    """The plan of a script or manifest. Raises ProfileError with one sentence."""
    said, part = _said(text)
    try:
        started = _yaml(text) if "\n---\n" in text else _shell(text)
    except ValueError as error:  # an open quote, a layer split that is not a list of numbers
        raise ProfileError(f"the commands of the script cannot be read: {error}.") from None
    if started is None:
        node_of_ranks = part and "openssh-server" in text  # the engine's command is in the head's file
        names_another = "kind: Kustomization" in text  # a base that points at the manifest
        if node_of_ranks or names_another or re.search(r"^ *(vllm bench serve|aiperf profile) ", text, re.MULTILINE):
            return said
        raise ProfileError("the file starts no vllm, sglang or trtllm-serve; it is not a launch script of the advisor.")
    try:
        found = _plan(started, said, part=part)
    except (ValueError, KeyError, TypeError) as error:
        raise ProfileError(f"the commands of the script do not make a plan: {error}.") from None
    if found != said:
        raise ProfileError(
            f"the script was changed: its commands start {_words(found)} and its plan line says {_words(said)}; write it anew."
        )
    return found


def _words(plan: Plan) -> str:
    s = plan.settings
    settings = f" with {s.max_sequences} sequences, {s.token_budget} tokens a step, context {s.max_context_tokens}" if s else ""
    fraction = f", memory {s.memory_fraction}" if s else ""
    layers = f", layers {'+'.join(map(str, plan.layer_split))}" if plan.layer_split else ""
    return plan.label + layers + settings + fraction


def _said(text: str) -> tuple[Plan, bool]:
    """The plan line, and whether the file is one node's part of it."""
    match = re.search(rf"^# {re.escape(PLAN_MARK)} (.*)$", text, re.MULTILINE)
    if not match:
        raise ProfileError("the file has no plan line; it is not a launch script of the advisor.")
    label, *rest = match[1].split()
    try:
        named = dict(part.split("=", 1) for part in rest)
        settings = None
        if "max_sequences" in named:
            settings = Settings(
                max_sequences=int(named["max_sequences"]), token_budget=int(named["token_budget"]),
                max_context_tokens=int(named["max_context_tokens"]), memory_fraction=float(named["memory_fraction"]),
            )  # fmt: skip
        plan = Plan.parse(label)
        return replace(
            plan, layer_split=_numbers(named.get("layers", "")), gpus=_numbers(named.get("gpus", "")), settings=settings
        ), "node" in named
    except (ValueError, KeyError) as error:
        raise ProfileError(f"the plan line cannot be read: {error}.") from None


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in text.split(",")) if text else ()


def _shell(text: str) -> Started | None:
    array = _between(_ARRAY, text)
    argv = tuple(shlex.split(array, comments=True)) if array else ()
    if not argv:
        return None
    split, config = _SPLIT.search(text), _between(_CONFIG, text)
    return Started(
        argv=argv,
        servers=len(set(_CALL.findall(text))),
        layer_split=_numbers(split[1]) if split else (),
        config=_config(config),
    )


def _between(ends: tuple[re.Pattern[str], re.Pattern[str]], text: str) -> str:
    """The lines after the first match of one pattern and before the next of the other; empty where there are none."""
    first = ends[0].search(text)
    last = ends[1].search(text, first.end()) if first else None
    return text[first.end() + 1 : last.start()] if first and last else ""


def _config(text: object) -> dict[str, Any]:
    rows = (line.partition(": ") for line in text.strip().splitlines()) if isinstance(text, str) else ()
    return {key: json_value(value, origin=f"the value of {key[:40]!r} in the script") for key, _, value in rows}


def _yaml(text: str) -> Started | None:
    documents = parse_documents(text, origin="the script")
    found = [s for d in documents for s in (_compose(d) if "services" in d else _manifest(d))]
    if not found:
        return None
    first = found[0]
    if any(s.layer_split != first.layer_split for s in found):
        raise ProfileError("the servers of the file split the layers differently.")
    config = next((c for d in documents for c in _yaml_config(d)), {})
    return replace(first, config=config, servers=sum(s.servers for s in found))


def _yaml_config(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if document.get("kind") == "ConfigMap":
        yield _config(_at(document, "data", "trtllm.yaml"))
    if _at(document, "configs", "trtllm"):
        yield _config(_at(document, "configs", "trtllm", "content"))


def _compose(document: Mapping[str, Any]) -> Iterator[Started]:
    for service in _mapping(_at(document, "services")).values():
        argv = _engine_words([*_list(_at(service, "entrypoint")), *_list(_at(service, "command"))])
        if argv:
            yield Started(argv=argv, servers=1, layer_split=_split_of(_mapping(_at(service, "environment")).items()), config={})


def _manifest(document: Mapping[str, Any]) -> Iterator[Started]:
    if document.get("kind") not in ("Deployment", "LeaderWorkerSet"):
        return
    where = ("template",) if document["kind"] == "Deployment" else ("leaderWorkerTemplate", "leaderTemplate")
    container = next(iter(_list(_at(document, "spec", *where, "spec", "containers"))), None)
    argv = _engine_words([*_list(_at(container, "command")), *_list(_at(container, "args"))])
    replicas = _at(document, "spec", "replicas")
    if argv and isinstance(replicas, int):
        environment = ((str(_at(entry, "name")), _at(entry, "value")) for entry in _list(_at(container, "env")))
        yield Started(argv=argv, servers=replicas, layer_split=_split_of(environment), config={})


def _at(data: object, *keys: str) -> object:
    """What lies under these keys, None where nothing does: a manifest may hold anything anywhere."""
    for key in keys:
        data = data.get(key) if isinstance(data, Mapping) else None
    return data


def _mapping(data: object) -> Mapping[str, object]:
    return data if isinstance(data, Mapping) else {}


def _list(data: object) -> Sequence[object]:
    return data if isinstance(data, list) else ()


def _split_of(environment: Iterable[tuple[str, Any]]) -> tuple[int, ...]:
    return next((_numbers(str(value)) for name, value in environment if name.endswith("_PP_LAYER_PARTITION")), ())


def _engine_words(words: list[Any]) -> tuple[str, ...]:
    """The engine's own words inside a longer command; empty where there are none."""
    argv = [str(word) for word in words]
    for program in _PROGRAMS:
        for at in range(len(argv) - len(program) + 1):
            if tuple(argv[at : at + len(program)]) == program:
                return tuple(argv[at:])
    return ()


def _flags(argv: Iterable[str]) -> dict[str, str]:
    """`--name value` and `--name=value` alike; a switch has an empty value."""
    found: dict[str, str] = {}
    name = ""
    for word in argv:
        if word.startswith("--"):
            name, _, value = word.partition("=")
            found[name] = value
        elif name and not found[name]:
            found[name] = word
    return found


def _plan(started: Started, said: Plan, *, part: bool) -> Plan:
    read_plan = {"vllm": _vllm, "sglang": _sglang, "trtllm-serve": _trtllm}[started.argv[0]]
    plan, inside = read_plan(_flags(started.argv), started, said)
    dp = said.dp if part else started.servers * inside
    return replace(plan, dp=dp, gpus=said.gpus if len(said.gpus) in (0, plan.replica_gpus * dp) else ())


def _settings(flags: Mapping[str, str], names: tuple[str, str, str, str], groups: int = 1) -> Settings | None:
    context, sequences, budget, fraction = names
    if context not in flags:
        return None
    return Settings(
        max_sequences=int(flags[sequences]) // groups, token_budget=int(flags[budget]) // groups,
        max_context_tokens=int(flags[context]), memory_fraction=float(flags.get(fraction, "0")),
    )  # fmt: skip


def _vllm(flags: Mapping[str, str], started: Started, said: Plan) -> tuple[Plan, int]:
    tp, pp = int(flags.get("--tensor-parallel-size", "1")), int(flags.get("--pipeline-parallel-size", "1"))
    ranks = int(flags.get("--data-parallel-size", "1"))
    adp = ranks if said.adp > 1 else 1
    names = ("--max-model-len", "--max-num-seqs", "--max-num-batched-tokens", "--gpu-memory-utilization")
    ep = tp * adp if "--enable-expert-parallel" in flags else 1
    return Plan(tp=tp, pp=pp, adp=adp, ep=ep, layer_split=started.layer_split, settings=_settings(flags, names)), ranks // adp


def _sglang(flags: Mapping[str, str], started: Started, said: Plan) -> tuple[Plan, int]:
    ranks, adp = int(flags.get("--tp-size", "1")), int(flags.get("--attn-dp-size", "1"))
    names = ("--context-length", "--max-running-requests", "--chunked-prefill-size", "--mem-fraction-static")
    plan = Plan(
        tp=ranks // adp, adp=adp, pp=int(flags.get("--pp-size", "1")), ep=int(flags.get("--ep-size", "1")),
        layer_split=started.layer_split, settings=_settings(flags, names, adp),
    )  # fmt: skip
    return plan, int(flags.get("--dp-size", "1"))


def _trtllm(flags: Mapping[str, str], started: Started, said: Plan) -> tuple[Plan, int]:
    ranks = int(flags.get("--tp_size", "1"))
    adp = ranks if started.config.get("enable_attention_dp") else 1
    names = ("--max_seq_len", "--max_batch_size", "--max_num_tokens", "--free_gpu_memory_fraction")
    plan = Plan(
        tp=ranks // adp, adp=adp, pp=int(flags.get("--pp_size", "1")), ep=int(flags.get("--ep_size", "1")),
        layer_split=tuple(started.config.get("pp_partition", ())), settings=_settings(flags, names),
    )  # fmt: skip
    return plan, 1
