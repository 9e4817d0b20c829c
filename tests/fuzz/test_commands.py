"""Arguments that nobody would mean, and launch options that try to get out of their quotes."""

from __future__ import annotations

import subprocess
from random import Random

from fuzz.limits import command, fuzzed
from fuzz.mutate import VALUES

MACHINES = (
    ["--gpu", "h100-80g-sxm", "--gpus", "8"],
    ["--gpu", "l40s", "--gpus", "4"],
    ["--gpu", "gb200", "--gpus", "4", "--nodes", "2"],
)
LOADS = (["--users", "64"], ["--preset", "chat"], ["--rate", "2"], ["--goal", "latency"], [])
OPTIONS = (
    "--gpus", "--nodes", "--users", "--rate", "--input-tokens", "--output-tokens", "--prefix-cached-tokens", "--ttft", "--tpot",
    "--goal", "--engine", "--dtype", "--kv-dtype", "--preset", "--gpu", "--network", "--node", "--cluster", "--calibration",
    "--model", "--plan", "--engine-version",
)  # fmt: skip
NUMBERS = ("-1", "0", "1", "3", "131072", "131073", "1e9", "99999999999999999999", "nan", "inf", "1e-320", "", "two", "0x10", "８")
TEXTS = ("x" * 5000, "\x1b[31mred", "a\nb", "../..", "/dev/zero", "/", ".", "", " ", "tp=0", "tp=2,tp=4", "tp=99999999", "dp=4096",
         "-h", "--", "500ms", "-5ms", "1e400s", "$(id)", "'; id; '", "\udcff", "é", "%s%n", "{}", "tp=8,pp=1,dp=1,ep=9",
         "nvfp4", "int4-awq")  # fmt: skip


def _arguments(dice: Random, verb: str) -> list[str]:
    found = [
        "--model",
        dice.choice(("70b", "8b", "deepseek-v3", "mixtral")),
        *dice.choice(MACHINES),
        *dice.choice(LOADS),
        "--offline",
    ]
    if verb in ("explain", "estimate"):
        found += ["--plan", dice.choice(("tp=4", "tp=8", "tp=2,pp=2", "dp=2"))]
    for _ in range(dice.randint(1, 3)):
        value = dice.choice(NUMBERS) if dice.random() < 0.5 else dice.choice(TEXTS)
        found += [dice.choice(OPTIONS), value]
    return found


@fuzzed(200)
def test_arguments(seed: int) -> None:
    dice = Random(seed)
    verb = dice.choice(("recommend", "recommend", "explain", "estimate", "launch", "models", "gpus"))
    arguments = [dice.choice(TEXTS)] if verb in ("models", "gpus") else _arguments(dice, verb)
    command([verb, *arguments])


@fuzzed(30)
def test_words_that_are_no_command(seed: int) -> None:
    dice = Random(seed)
    words = [
        dice.choice((*TEXTS, *NUMBERS, "recommend", "probe", "compare", "calibrate", "--json")) for _ in range(dice.randint(1, 4))
    ]
    if "validate" not in words and not {"probe", "-"} <= set(words) and "calibrate" not in words:
        command(words)


@fuzzed(60)
def test_launch_options_stay_in_their_quotes(seed: int) -> None:
    """Whatever the options hold, the script is one that bash reads, and running it through `bash -n` has no effect."""
    dice = Random(seed)
    hostile = [str(value) for value in VALUES if isinstance(value, str)] + list(TEXTS)
    target = dice.choice(("bash", "docker", "compose", "kubernetes", "slurm"))
    options = ["--checkpoint", dice.choice(hostile)] if dice.random() < 0.6 else ["--image", dice.choice(hostile)]
    question = ["--model", "70b", "--gpu", "h100-80g-sxm", "--gpus", "8", "--plan", "tp=8", "--offline"]
    code, text, _ = command(["launch", *question, "--target", target, *options])
    if code == 0 and target in ("bash", "docker", "slurm") and seed % 4 == 0:
        done = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, timeout=20, check=False, errors="replace")
        assert done.returncode == 0, done.stderr
