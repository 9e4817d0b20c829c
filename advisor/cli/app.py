"""The command line: which verbs there are, and how a mistake becomes one sentence and an exit code.

A verb's module is imported only when that verb is called, so that `advisor --help` stays quick. Exit codes: 0 advice, 1 no plan
fits, 2 a bad question, 3 the machine failed, 130 interrupted, 141 the reader of a pipe went away.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from types import FrameType
from typing import Any, cast

import typer

from advisor.errors import AdvisorError, one_line

# Each verb is the function of the same name in `advisor/cli/<verb>.py`.
VERBS: dict[str, str] = {
    "recommend": "The best plan, why it is the best, and how to launch it.",
    "explain": "Where one plan's time and memory go, and who is which rank.",
    "explore": "The answer as one HTML file with sliders.",
    "estimate": "Figures of one plan, or of a CSV file of configurations.",
    "simulate": "Percentiles of a plan under a load: a trace, arrivals or users.",
    "size": "The fewest GPUs, or dollars, for a service within its limits.",
    "launch": "Scripts that start a plan.",
    "compare": "A load generator's result beside the prediction.",
    "probe": "The GPUs and links of this machine, or of a pasted topology.",
    "validate": "Measure plans on this machine against the prediction.",
    "calibrate": "Learn what this machine reaches.",
    "accuracy": "Predicted against published figures: the scoreboard.",
    "models": "The model catalogue, or one model's sheet.",
    "gpus": "The GPU catalogue, or one GPU's sheet.",
}

# Typer carries its own copy of click or depends on click, by version: its exceptions are reached through its public names.
_LONGEST = 2000  # characters of a sentence: whatever it quotes, a terminal shows it
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]
_ClickError: type[Exception] = typer.BadParameter.__mro__[2]


# Entry points of every installed distribution would be read in search of pydantic plugins; none is wanted here.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    _keep_streams_apart()
    _clean_up_when_ended()
    gc.set_threshold(100_000)  # a short process allocates much that lives to its end: looking for garbage early finds none
    sys.exit(run(list(sys.argv[1:] if arguments is None else arguments)))


def _keep_streams_apart() -> None:
    """Where standard input, output or errors are closed, put the null device there: the next file opened would take their place."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _clean_up_when_ended() -> None:
    """SIGTERM and SIGHUP end the program as an exception does, so that temporary files go and other processes are ended."""

    def stop(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:  # nohup's choice stays
            signal.signal(number, stop)


def run(arguments: list[str]) -> int:
    """Run one command; the exit code comes back."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that cannot show a character gets a question mark, never a traceback
            stream.reconfigure(errors="replace")
    try:
        code = _app(arguments)(arguments, prog_name="advisor", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except AdvisorError as error:
        return _say(str(error), error.exit_code)
    except _ClickError as error:
        return _say(_usage(error), 2)
    except (KeyboardInterrupt, typer.Abort):
        return _say("interrupted", 130)
    except BrokenPipeError:
        return _reader_left()
    except SystemExit as ended:
        if ended.code == 1:  # click's own answer to a broken pipe, and its only use of 1
            return _reader_left()
        raise
    except MemoryError:
        return _say("there is not enough memory for this question on this machine; ask for fewer GPUs, nodes or rows.", 3)
    except OSError as error:
        return _say(f"the system refused: {error.strerror or error}{f' ({error.filename})' if error.filename else ''}", 3)


def _reader_left() -> int:
    """The reader of a pipe has what it wanted (`advisor gpus | head`); what is still buffered goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 141


def _app(arguments: Sequence[str]) -> typer.Typer:
    """The application with the called verb loaded and the others as names."""
    called = next((word for word in _typed() or arguments if not word.startswith("-")), "")
    app = typer.Typer(
        help="How should I split this model over these GPUs? Parallel plans, predicted, explained, measured and launched.",
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    app.callback(invoke_without_command=True)(_root)
    for verb, summary in VERBS.items():
        app.command(verb, help=None if verb == called else summary, no_args_is_help=False)(
            _verb(verb) if verb == called else _unloaded
        )
    return app


def _typed() -> list[str]:
    """The words after the program's name on a command line that the shell wants completed; none in an ordinary call."""
    if "_ADVISOR_COMPLETE" not in os.environ:
        return []
    return (os.environ.get("_TYPER_COMPLETE_ARGS") or os.environ.get("COMP_WORDS", "")).split()[1:]


def _root(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print the version and exit.", is_eager=True),
) -> None:
    if version:
        from advisor.version import version as installed

        typer.echo(f"advisor {installed()}")
        raise typer.Exit(0)
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _verb(name: str) -> Callable[..., Any]:
    return cast(Callable[..., Any], getattr(import_module(f"advisor.cli.{name}"), name))


def _unloaded() -> None:
    raise AssertionError("only the called verb is loaded")


def _usage(error: Exception) -> str:
    """Click's own sentence, with where to look."""
    text = " ".join(cast(Any, error).format_message().split())
    context = getattr(error, "ctx", None)
    path = getattr(context, "command_path", "") or "advisor"
    if not isinstance(error, _UsageError):
        return text
    return f"{text} See `{path} --help`." if text.endswith("?") else f"{text.rstrip('.')}; see `{path} --help`."


def _say(sentence: str, code: int) -> int:
    """One sentence on stderr, one line, and the code."""
    try:
        if sys.stderr is not None:
            sys.stderr.write(f"advisor: {one_line(sentence, most=_LONGEST)}\n")
            sys.stderr.flush()
    except OSError:  # nobody is listening; the exit code still says it
        pass
    return code


if __name__ == "__main__":
    main()
