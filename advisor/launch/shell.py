"""The parts that the bash and docker scripts share: variables, early checks, start, wait until ready, clean stop."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from advisor.launch import words as c
from advisor.launch.words import Command, Flag, Variable, Word, quoted, words

# How the command's variables are called inside `start_server`.
LOCAL: dict[Variable, Word] = {
    c.HOST: Variable("listen"),
    c.PORT: Variable("port"),
    c.NODE_RANK: Variable("rank"),
    c.START_RANK: Variable("start_rank"),
    c.HEAD_ADDRESS: Variable("head"),
    c.DIST_PORT: Variable("dist_port"),
    c.DIST_ADDRESS: c.Raw('"$head:$dist_port"'),
    c.CONFIG: c.Raw('"$RUN_DIR/trtllm.yaml"'),
}


def setting(name: str, default: Word, why: str = "", *, width: int = 34) -> str:
    """`NAME=${NAME:-default}  # why`; the default is quoted."""
    text = f"{name}=${{{name}:-{'' if default == '' else quoted(default)}}}"
    return f"{text:<{width}} # {why}" if why else text


def required(name: str, what: str) -> str:
    """The check that a variable is set, with the sentence that says so."""
    return f"[[ -n ${name} ]] || die {quoted(f'set {name} to {what}')}"


def array(name: str, command: Command, *, indent: str = "  ") -> list[str]:
    """The command as a bash array, a flag a line, each unusual one with its reason."""
    lines = [f"{indent}local {name}=("]
    lines.append(f"{indent}  {' '.join(map(quoted, command.program))}")
    lines += [_flag_line(flag, indent + "  ") for flag in command.flags]
    return [*lines, f"{indent})"]


def _flag_line(flag: Flag, indent: str) -> str:
    text = indent + " ".join(quoted(word) for word in words(flag))
    return f"{text:<46} # {flag.why}" if flag.why else text


def more(name: str, flags: Sequence[Flag], *, indent: str = "  ") -> list[str]:
    """Flags added on the nodes that are not the head."""
    if not flags:
        return []
    text = " ".join(quoted(word) for flag in flags for word in words(flag))
    why = next((flag.why for flag in flags if flag.why), "")
    return [f"{indent}((rank == 0)) || {name}+=({text})" + (f" # {why}" if why else "")]


def config_rows(command: Command) -> list[str]:
    """TensorRT-LLM's YAML file; JSON is YAML, and its values are numbers, booleans and fixed words."""
    return [f"{key}: {json.dumps(value)}" for key, value in command.config.items()]


def config_file(command: Command) -> list[str]:
    """The heredoc that writes the engine's YAML file where it needs one."""
    if not command.config:
        return []
    return ["cat >\"$RUN_DIR/trtllm.yaml\" <<'EOF'", *config_rows(command), "EOF"]


def comment(lines: Iterable[str]) -> list[str]:
    """Lines as shell comments."""
    return [f"# {line}".rstrip() for line in lines]


def indented(lines: Iterable[str]) -> list[str]:
    """Lines inside a function."""
    return [f"  {line}" for line in lines]
