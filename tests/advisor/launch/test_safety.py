"""Hostile names end as one quoted argument or are refused; files are written whole or not at all; any plan reads back."""

from __future__ import annotations

import shlex
import subprocess

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from launch_questions import FLAGS, cluster, model, prediction, problem

from advisor.errors import AdvisorError, PlanError, QuestionError
from advisor.launch import TARGETS, launch_line, parse, render
from advisor.launch.reading import _engine_words
from advisor.launch.script import Options, ScriptFile, write
from advisor.specs.plan import Plan, Settings

NASTY = [
    "x; rm -rf ~",
    'a "quoted" one',
    "it's",
    "$(touch oops)",
    "`id`",
    "${HOME}",
    "a b\\c",
    "#x",
    "*",
    "a}b",
    "é ✓",
    "$$(A)",
    "!!x",
]


@pytest.mark.parametrize("name", NASTY)
def test_a_hostile_model_is_one_argument(name, tmp_path):
    line = launch_line(problem(spec=model(repo=name)), Plan())
    assert shlex.split(line)[2] == name
    for target in ("bash", "docker", "slurm"):
        text = render(problem(spec=model(repo=name)), prediction(Plan()), target=target)[0].text
        start = next(row for row in text.splitlines() if row.startswith("MODEL="))
        script = f'cd {shlex.quote(str(tmp_path))}\nunset MODEL\n{start}\nprintf %s "$MODEL"'
        assert subprocess.run(["bash", "-uc", script], capture_output=True, text=True).stdout == name
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", NASTY)
def test_a_hostile_model_is_one_string_of_yaml(name):
    text = render(problem(spec=model(repo=name)), prediction(Plan()), target="compose")[0].text
    words = yaml.safe_load(text)["services"]["server-0"]["command"]
    assert words[0].replace("$$", "$") == name
    assert "$" not in words[0].replace("$$", "")
    text = render(problem(spec=model(repo=name)), prediction(Plan()), target="kubernetes")[0].text
    (container,) = next(d for d in yaml.safe_load_all(text) if d["kind"] == "Deployment")["spec"]["template"]["spec"]["containers"]
    assert _engine_words([*container["command"], *container["args"]])[2] == "$(MODEL)"
    value = next(e["value"] for e in container["env"] if e["name"] == "MODEL")
    assert value.replace("$$", "$") == name


@pytest.mark.parametrize("name", ["a\nb", "a\rb", "a\tb", "a\x00b", "a\u2028b", "--enable-lora", "  ", "x" * 2000, "a\udc80"])
@pytest.mark.parametrize("target", TARGETS)
def test_line_breaks_and_options_are_refused(name, target):
    with pytest.raises(QuestionError):
        render(problem(), prediction(Plan()), target=target, options=Options(checkpoint=name))


def test_hostile_gpu_ids_and_images_are_refused():
    with pytest.raises(QuestionError, match="GPU id"):
        render(problem(machine=cluster(gpus=2, ids=("0", "1; reboot"))), prediction(Plan()), target="bash")
    with pytest.raises(QuestionError, match="image"):
        render(problem(), prediction(Plan()), target="docker", options=Options(image="a\nb"))


def test_ids_of_the_node_are_used():
    ids = ("GPU-aa", "GPU-bb", "GPU-cc")
    text = render(problem(machine=cluster(gpus=3, ids=ids)), prediction(Plan(tp=2, gpus=(2, 0))), target="bash")[0].text
    assert "start_server 0 GPU-cc,GPU-aa" in text


def test_no_token_is_written(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_verysecret")
    for target in TARGETS:
        assert all("verysecret" not in f.text for f in render(problem(), prediction(Plan()), target=target))


def test_all_files_are_written_or_none(tmp_path):
    one, two = ScriptFile(name="a.sh", text="a\n", executable=True), ScriptFile(name="b.sh", text="b\n")
    write([one, two], tmp_path / "new")
    assert (tmp_path / "new" / "a.sh").stat().st_mode & 0o111
    assert not (tmp_path / "new" / "b.sh").stat().st_mode & 0o111
    write([one, two], tmp_path / "new")  # the same text again is no conflict
    (tmp_path / "new" / "b.sh").write_text("mine\n")
    other = ScriptFile(name="a.sh", text="changed\n")
    with pytest.raises(QuestionError, match="--force"):
        write([other, two], tmp_path / "new")
    assert (tmp_path / "new" / "a.sh").read_text() == "a\n"
    write([other, two], tmp_path / "new", force=True)
    assert (tmp_path / "new" / "b.sh").read_text() == "b\n"
    (tmp_path / "dir" / "b.sh").mkdir(parents=True)
    with pytest.raises(QuestionError, match="is a folder"):
        write([one, two], tmp_path / "dir", force=True)
    assert [p.name for p in (tmp_path / "dir").iterdir()] == ["b.sh"]


@st.composite
def asked(draw):
    """An engine, a target, a machine and any plan on it with any settings and placement."""
    nodes, each = draw(st.sampled_from([1, 1, 1, 2, 4])), draw(st.sampled_from([1, 2, 3, 4, 6, 8]))
    total = nodes * each
    tp, pp, adp = (draw(st.integers(1, 8)) for _ in range(3))
    if tp * pp * adp > total:
        pp, adp = 1, 1
        tp = min(tp, total)
    moe = draw(st.booleans())
    size = tp * pp * adp
    dp = draw(st.integers(1, max(1, total // size)))
    ep = draw(st.sampled_from([n for n in range(1, tp * adp + 1) if tp * adp % n == 0])) if moe else 1
    split = ()
    if pp > 1 and draw(st.booleans()):
        cuts = sorted(draw(st.lists(st.integers(1, 31), min_size=pp - 1, max_size=pp - 1, unique=True)))
        split = tuple(b - a for a, b in zip([0, *cuts], [*cuts, 32], strict=True))
    gpus = ()
    if draw(st.booleans()):
        gpus = tuple(draw(st.permutations(range(total)))[: size * dp]) if nodes == 1 else tuple(range(size * dp))
    sequences = draw(st.integers(1, 4096))
    chosen = Settings(
        max_sequences=sequences, token_budget=draw(st.integers(sequences, 65536)), max_context_tokens=draw(st.integers(1, 1 << 20)),
        memory_fraction=draw(st.floats(0.01, 0.99)),
    )  # fmt: skip
    plan = Plan(tp=tp, pp=pp, dp=dp, ep=ep, adp=adp, layer_split=split, gpus=gpus, settings=chosen)
    name = draw(st.sampled_from(sorted(FLAGS)))
    question = problem(name, spec=model(moe=moe), machine=cluster(gpus=each, nodes=nodes))
    return question, plan, draw(st.sampled_from(TARGETS))


@settings(max_examples=3000, deadline=None)
@given(asked())
def test_any_script_reads_back_to_its_plan(case):
    question, plan, target = case
    try:
        files = render(question, prediction(plan), target=target)
    except PlanError:
        return  # the engine cannot start it, and says so
    for file in files:
        assert parse(file.text) == plan


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60))
def test_any_name_is_quoted_or_refused(name):
    try:
        line = launch_line(problem(spec=model(repo=name)), Plan())
    except AdvisorError:
        return
    words = shlex.split(line, comments=True)
    assert words[2] in (name, "$MODEL")
