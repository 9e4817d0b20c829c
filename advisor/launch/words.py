"""The engine's command as data: words, flags with the reason for each unusual one, environment, and how a shell reads it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from advisor.errors import PlanError, QuestionError
from advisor.specs.formats import FORMATS
from advisor.specs.model import ModelSpec

HUB_CHECKPOINT = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_DEVICE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./:-]*")


@dataclass(frozen=True, slots=True)
class Variable:
    """A word that the script fills in: `$name` in a shell."""

    name: str


@dataclass(frozen=True, slots=True)
class Raw:
    """A word that already is in the target's own language, e.g. `$(LWS_LEADER_ADDRESS):20000`; never from a user."""

    text: str


Word = str | Variable | Raw

# What a target fills in. The servers of a script differ in these only.
MODEL, HOST, PORT = Variable("MODEL"), Variable("HOST"), Variable("PORT")
NODE_RANK, START_RANK = Variable("NODE_RANK"), Variable("START_RANK")
HEAD_ADDRESS, DIST_PORT, DIST_ADDRESS = Variable("HEAD_ADDRESS"), Variable("DIST_PORT"), Variable("DIST_ADDRESS")
CONFIG = Variable("CONFIG")


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """One option of the engine; a switch has no `value`, and one that takes several has the others in `more`.

    `why` is the comment beside it, empty where the name says it all.
    """

    name: str
    value: Word | None = None
    more: tuple[Word, ...] = ()
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """How one server is started. `worker_flags` come on the nodes that are not its head.

    `config` is the content of the YAML file that `CONFIG` names (TensorRT-LLM). `per_rank` says that a launcher starts the
    command once for each GPU (MPI) rather than once a node.
    """

    program: tuple[Word, ...]
    flags: tuple[Flag, ...]
    env: tuple[tuple[str, Word], ...] = ()
    worker_flags: tuple[Flag, ...] = ()
    config: Mapping[str, object] = field(default_factory=dict)
    per_rank: bool = False

    @property
    def argv(self) -> tuple[Word, ...]:
        """Program and flags of the head as words."""
        return (*self.program, *(word for flag in self.flags for word in words(flag)))

    def bind(self, values: Mapping[Variable, Word]) -> Command:
        """The command with variables filled in."""

        def fill(word: Word) -> Word:
            return values.get(word, word) if isinstance(word, Variable) else word

        def filled(flags: tuple[Flag, ...]) -> tuple[Flag, ...]:
            return tuple(f if f.value is None else replace(f, value=fill(f.value)) for f in flags)

        return replace(
            self, program=tuple(fill(w) for w in self.program), flags=filled(self.flags),
            env=tuple((name, fill(w)) for name, w in self.env), worker_flags=filled(self.worker_flags),
        )  # fmt: skip


def words(flag: Flag) -> tuple[Word, ...]:
    """A flag as its words."""
    return (flag.name,) if flag.value is None else (flag.name, flag.value, *flag.more)


def quoted(word: Word) -> str:
    """A word as a shell reads it: literals quoted, variables in double quotes."""
    if isinstance(word, Variable):
        return f'"${word.name}"'
    return word.text if isinstance(word, Raw) else shlex.quote(word)


def checked_name(what: str, text: str) -> str:
    """`text` if it can stand in a script as one argument. Raises QuestionError on control characters and leading dashes.

    Everything else is quoted where it is written; line breaks and control characters would leave the line or the comment that
    holds them, and a leading dash would be read as an option.
    """
    if not text.strip():
        raise QuestionError(f"the {what} is empty: give a name or a path.")
    if not text.isprintable():
        raise QuestionError(f"the {what} {text!r} holds a control character or a line break: give a plain name or path.")
    if text.startswith("-"):
        raise QuestionError(f"the {what} {text!r} starts with a dash and would be read as an option: write ./{text} for a path.")
    if len(text) > 1000:
        raise QuestionError(f"the {what} has {len(text)} characters: give a name or path of at most 1000.")
    return text


def checked_ids(ids: tuple[str, ...]) -> tuple[str, ...]:
    """GPU ids as CUDA_VISIBLE_DEVICES takes them. Raises QuestionError on anything else."""
    for text in ids:
        if not _DEVICE_ID.fullmatch(text):
            raise QuestionError(
                f"GPU id {text!r} of the cluster file is none: write an index, or a UUID as `nvidia-smi -L` prints it."
            )
    return ids


def wanted_checkpoint(model: ModelSpec, *, online_fp8: bool) -> str:
    """What the engine has to be given in place of `model.repo`, in words; empty where `model.repo` is the right checkpoint.

    The plan was ranked with the formats of `model`; 16-bit weights become fp8 while loading where `online_fp8`, any other
    format has to be in the checkpoint.
    """
    form = model.weight_format
    if not model.repo:
        return f"the checkpoint of {model.name}: its sizes came from a file that does not say where the weights are"
    if FORMATS[form].bytes_per_value >= 2:
        right = not model.quantisation
    else:
        right = not model.requantised if model.quantisation else form == "fp8" and online_fp8
    if right:
        return ""
    stored = model.quantisation or "16-bit"
    return f"a checkpoint in {form}: the plan was ranked with {form} weights and {model.repo} has {stored} ones"


def needs_online_fp8(model: ModelSpec) -> bool:
    """Whether 16-bit weights have to become fp8 while loading."""
    return model.weight_format == "fp8" and not model.quantisation


def template_note(template: str) -> str:
    """What a tool parser needs beside it, as a comment."""
    return f"reliable with --chat-template and the engine's examples/{template}" if template else ""


def refuse(engine: str, reason: str) -> PlanError:
    """The plan cannot be launched on `engine`, as an error to raise."""
    return PlanError(f"{engine} cannot start this plan: {reason}.")
