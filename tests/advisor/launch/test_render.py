"""Every engine on every target with every kind of plan: the shell's, YAML's, Kubernetes', Compose's and the engines' own checks."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import types
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import yaml
from launch_questions import FLAGS, SETTINGS, cluster, model, prediction, problem
from launch_schemas import COMPOSE, LEADER_WORKER_SET

from advisor.catalog.engines import load_engine
from advisor.catalog.machines import load_cluster
from advisor.catalog.models import load_model, requantise
from advisor.errors import AdvisorError, PlanError, QuestionError
from advisor.launch import TARGETS, launch_line, parse, render
from advisor.launch.reading import _engine_words, _shell
from advisor.launch.script import Options, ScriptFile
from advisor.specs.plan import Plan
from advisor.specs.speculation import Speculation

ENGINES = tuple(FLAGS)
MOE = {"spec": model(moe=True)}
TWO = {"machine": cluster(nodes=2)}
CASES: dict[str, tuple[Plan, dict]] = {
    "one GPU": (Plan(), {}),
    "tp": (Plan(tp=4), {}),
    "tp x pp": (Plan(tp=4, pp=2), {}),
    "dp": (Plan(tp=2, dp=4), {}),
    "ep": (Plan(tp=8, ep=8), MOE),
    "replicas of experts": (Plan(tp=4, ep=4, dp=2), MOE),
    "attention-DP": (Plan(adp=8, ep=8), MOE),
    "2 nodes": (Plan(tp=8, pp=2), TWO),
    "2 nodes, dp": (Plan(tp=4, dp=4), TWO),
    "2 nodes, attention-DP": (Plan(adp=16, ep=16), MOE | TWO),
    "4 nodes, dp": (Plan(tp=8, pp=2, dp=2), {"machine": cluster(nodes=4)}),
    "uneven pp": (Plan(tp=2, pp=3, layer_split=(11, 11, 10), gpus=(2, 3, 0, 1, 4, 5)), {}),
    "quantised": (Plan(tp=2), {"spec": model(weights="fp8", cache="fp8", quantisation="fp8")}),
}
ALL = [(engine, target, case) for engine in ENGINES for target in TARGETS for case in CASES]


@cache
def files(engine: str, target: str, case: str) -> tuple[ScriptFile, ...]:
    plan, question = CASES[case]
    return render(problem(engine, **question), prediction(plan), target=target)


@pytest.mark.parametrize(("engine", "target", "case"), ALL)
def test_reads_back_to_its_plan(engine, target, case):
    plan, _ = CASES[case]
    for file in files(engine, target, case):
        assert parse(file.text) == prediction(plan).plan, file.name


def shell_files() -> list[tuple[str, str]]:
    return [
        (f"{e} {t} {c} {f.name}".replace(" ", "-"), f.text)
        for e, t, c in ALL for f in files(e, t, c) if not f.name.endswith(".yaml")
    ]  # fmt: skip


def test_shell_scripts_pass_bash_and_shellcheck(tmp_path):
    paths = []
    for name, text in shell_files():
        path = tmp_path / name.replace("/", "-")
        path.write_text(text)
        paths.append(str(path))
        assert subprocess.run(["bash", "-n", path], capture_output=True, text=True).stderr == ""
    shellcheck = shutil.which("shellcheck") or str(Path(sys.executable).with_name("shellcheck"))
    different = {Path(p).read_text(): p for p in paths if "bench" not in p or "bash" in p}
    done = subprocess.run([shellcheck, "--shell=bash", *different.values()], capture_output=True, text=True)
    assert done.stdout == ""


def manifests() -> list[tuple[str, str]]:
    return [(f"{e} {t} {c} {f.name}", f.text) for e, t, c in ALL for f in files(e, t, c) if f.name.endswith(".yaml")]


def test_yaml_passes_yamllint():
    from yamllint import linter
    from yamllint.config import YamlLintConfig

    config = YamlLintConfig("{extends: default, rules: {line-length: {max: 160}}}")
    for name, text in manifests():
        assert not [str(p) for p in linter.run(text, config)], name


@pytest.mark.filterwarnings("ignore")
def test_manifests_pass_the_kubernetes_schema():
    import kubernetes_validate

    for name, text in manifests():
        if name.endswith("kubernetes.yaml"):
            for document in yaml.safe_load_all(text):
                if document["kind"] != "LeaderWorkerSet":
                    kubernetes_validate.validate(document, "1.31", strict=True)
                else:
                    for part in ("leaderTemplate", "workerTemplate"):
                        pod = document["spec"]["leaderWorkerTemplate"][part]
                        whole = {
                            "apiVersion": "v1",
                            "kind": "Pod",
                            "metadata": {"name": "x"} | pod["metadata"],
                            "spec": pod["spec"],
                        }
                        kubernetes_validate.validate(whole, "1.31", strict=True)


def test_leader_worker_sets_have_the_fields_of_the_definition():
    import jsonschema

    seen = 0
    for name, text in manifests():
        if name.endswith("kubernetes.yaml"):
            for document in yaml.safe_load_all(text):
                if document["kind"] == "LeaderWorkerSet":
                    jsonschema.validate(document, LEADER_WORKER_SET)
                    seen += 1
    assert seen == 3 * len(ENGINES)


def test_compose_files_pass_the_specification():
    import jsonschema

    for name, text in manifests():
        if "compose" in name:
            jsonschema.validate(yaml.safe_load(text), COMPOSE)


def engine_commands(text: str) -> list[str]:
    import shlex

    if "\n---\n" not in text:
        started = _shell(text)
        return [shlex.join(started.argv)] if started else []
    found = []
    for document in yaml.safe_load_all(text):
        containers = list(document.get("services", {}).values())
        spec = document.get("spec", {})
        pods = [spec.get("template"), *(spec.get("leaderWorkerTemplate", {}).get(k) for k in ("leaderTemplate", "workerTemplate"))]
        containers += [c for pod in pods if pod for c in pod["spec"]["containers"]]
        for container in containers:
            first = container.get("entrypoint", []) if "services" in document else container.get("command", [])
            words = _engine_words([*first, *(container.get("command" if "services" in document else "args", []))])
            # Compose's ${NAME:?...} and Kubernetes' $(NAME):PORT are one word that the launcher fills in.
            if words:
                found.append(shlex.join("$VALUE" if w in ("$(MODEL)",) else w for w in words))
    return found


@pytest.fixture(scope="session")
def check_launch():
    path = Path(__file__).parents[4] / "shared" / "tools" / "launch_check" / "check_launch.py"
    if not path.exists():
        pytest.skip("the engines' flag tables are not beside this checkout (shared/tools/launch_check)")
    spec = importlib.util.spec_from_file_location("check_launch", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def load(file):
        with file:
            return json.loads(file.read())

    module.json = types.SimpleNamespace(load=load, loads=json.loads)  # the tool leaves its tables open, and warnings are errors
    module.load = cache(module.load)
    return module


@pytest.mark.parametrize("engine", ENGINES)
def test_engine_commands_pass_the_engines_own_parser(engine, check_launch):
    count = 0
    for name, target, case in ALL:
        if name != engine:
            continue
        for file in files(engine, target, case):
            for line in engine_commands(file.text):
                count += 1
                assert check_launch.check(engine, line, strict=True)[:2] == (True, ""), (target, case, line)
        plan, question = CASES[case]
        line = launch_line(problem(engine, **question), prediction(plan).plan)
        assert check_launch.check(engine, line, strict=True)[:2] == (True, "")
    assert count >= len(TARGETS) * len(CASES)


def test_tensorrt_flags_are_in_the_oldest_supported_version(check_launch):
    table = json.loads((Path(check_launch.__file__).parent / "flags_trtllm.json").read_text())
    since = {name: f.get("since") for f in table["flags"] for name in (f["flag"], *f.get("aliases", ()))}
    for case in CASES:
        for file in files("trtllm", "bash", case):
            for line in engine_commands(file.text):
                flags = [word for word in line.split() if word.startswith("--")]
                assert flags
                assert all(since[flag] == "1.2" for flag in flags)


def test_the_settings_are_the_ranked_ones():
    text = files("vllm", "bash", "attention-DP")[0].text
    assert "--max-num-seqs 256 " in text
    assert "--max-num-batched-tokens 8192 " in text
    assert "--max-model-len 4096 " in text
    text = files("sglang", "bash", "attention-DP")[0].text  # SGLang divides both by the groups
    assert f"--max-running-requests {8 * SETTINGS.max_sequences} " in text
    assert f"--chunked-prefill-size {8 * SETTINGS.token_budget} " in text


def test_graphs_reach_the_ranked_batch():
    """The prediction has decode graphs up to the profile's batch (512 here); the engines' own defaults end sooner."""
    assert "--cuda-graph-max-bs-decode 256 " in files("sglang", "bash", "tp")[0].text
    text = files("trtllm", "bash", "tp")[0].text
    assert 'cuda_graph_config: {"enable_padding": true, "max_batch_size": 256}' in text
    for target in ("compose", "kubernetes", "slurm"):
        assert '"max_batch_size": 256' in files("trtllm", target, "tp")[0].text
    few = replace(SETTINGS, max_sequences=104)
    text = render(problem("sglang"), prediction(Plan(tp=4, settings=few)), target="bash")[0].text
    assert "--cuda-graph-max-bs-decode 104 " in text


def test_header_tells_figures_with_units_and_versions():
    text = files("vllm", "bash", "tp")[0].text
    assert "time to first token    310 ms, 90% within 248 ms to 388 ms" in text
    assert "with vllm 0.33.0 as tp=4,pp=1,dp=1" in text
    assert "Written by advisor " in text


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_what_was_asked_for_is_what_the_engine_takes(engine, target, check_launch):
    parsers = {"vllm": ("hermes", "qwen3", "deepep_low_latency"), "sglang": ("qwen25", "qwen3", "deepep")}[engine]
    options = Options(
        served_name="my model", tool_parser=parsers[0], reasoning_parser=parsers[1], loras=("sql=org/adapter", "legal=org/other"),
        kv_offload_gib=64, expert_backend=parsers[2], balance_experts=True,
    )  # fmt: skip
    files = render(problem(engine, **MOE), prediction(Plan(tp=8, ep=8)), target=target, options=options)
    text = files[0].text
    for wanted in ("my model", "sql=org/adapter", "legal=org/other", *parsers):
        assert wanted in text
    for line in engine_commands(text):
        assert check_launch.check(engine, line, strict=True)[:2] == (True, ""), line
    assert parse(text) == prediction(Plan(tp=8, ep=8)).plan
    with pytest.raises(PlanError, match="need expert parallelism"):
        render(problem(engine), prediction(Plan(tp=8)), target=target, options=Options(balance_experts=True))


@pytest.mark.parametrize(("engine", "gpu", "image"), [
    ("vllm", "mi300x", "vllm/vllm-openai-rocm:v0.33.0"), ("sglang", "mi300x", "lmsysorg/sglang:v0.5.23-rocm700-mi30x"),
    ("sglang", "mi355x", "lmsysorg/sglang:v0.5.23-rocm700-mi35x"),
])  # fmt: skip
def test_amd_gpus_have_images_and_variables_of_their_own(engine, gpu, image, check_launch):
    asked = replace(problem(engine, machine=load_cluster(gpu=gpu, gpus=8)), engine=load_engine(engine))
    for target in TARGETS:
        text = render(asked, prediction(Plan(tp=4, gpus=(3, 2, 1, 0))), target=target)[0].text
        assert "nvidia" not in text.lower()
        assert parse(text).tp == 4
        if target in ("docker", "compose", "kubernetes"):
            assert image in text
        if target != "kubernetes":
            assert "HIP_VISIBLE_DEVICES" in text
        for line in engine_commands(text):
            assert check_launch.check(engine, line, strict=True)[0]
    with pytest.raises(PlanError, match="trtllm has no launch scripts for GPUs of amd"):
        render(problem("trtllm", machine=load_cluster(gpu=gpu, gpus=8)), prediction(Plan()), target="bash")


@pytest.mark.parametrize("tool", ["vllm", "aiperf"])
def test_the_benchmark_asks_for_the_served_name_with_the_key(tool):
    options = Options(served_name="my model", load_tool=tool)
    text = render(problem(), prediction(Plan()), target="bash", options=options)[1].text
    assert {"vllm": "--served-model-name 'my model'", "aiperf": "--model 'my model'"}[tool] in text
    assert {"vllm": "export OPENAI_API_KEY=$API_KEY", "aiperf": '--api-key "$API_KEY"'}[tool] in text
    plain = render(problem(), prediction(Plan()), target="bash", options=Options(load_tool=tool))[1].text
    assert '--model "$MODEL"' in plain
    assert "my model" not in plain


def test_names_that_would_be_options_or_lines_are_refused():
    for bad in ("--x", "a\nb", "noequals", "=path", "a b=/x"):
        with pytest.raises(QuestionError):
            render(problem(), prediction(Plan()), target="bash", options=Options(loras=(bad,)))
    with pytest.raises(QuestionError):
        render(problem(), prediction(Plan()), target="bash", options=Options(served_name="-x"))
    with pytest.raises(PlanError, match="--served-name is written for vllm and sglang"):
        render(problem("trtllm"), prediction(Plan()), target="bash", options=Options(served_name="x"))


@pytest.mark.parametrize("engine", ENGINES)
def test_trust_remote_code_only_when_asked(engine):
    question = problem(engine)
    plain = render(question, prediction(Plan()), target="bash")[0].text
    asked = render(question, prediction(Plan()), target="bash", options=Options(trust_remote_code=True))[0].text
    assert "trust" not in plain
    assert "trust" in asked


def test_ray_spans_nodes_without_node_flags(check_launch):
    text = render(problem("vllm", **TWO), prediction(Plan(tp=8, pp=2)), target="bash", options=Options(ray=True))[0].text
    (line,) = engine_commands(text)
    assert "--distributed-executor-backend ray" in line
    assert "--nnodes" not in line
    assert check_launch.check("vllm", line, strict=True)[0]
    assert parse(text).label == "tp=8,pp=2,dp=1"
    with pytest.raises(QuestionError, match="written for bash"):
        render(problem("vllm", **TWO), prediction(Plan(tp=8, pp=2)), target="kubernetes", options=Options(ray=True))


def test_what_an_engine_cannot_start_is_refused_in_one_sentence():
    with pytest.raises(PlanError, match="attention-DP is on all ranks or none"):
        render(problem("trtllm", **MOE), prediction(Plan(tp=2, adp=4, ep=8)), target="bash")
    with pytest.raises(PlanError, match="over all of them or none"):
        render(problem("vllm", **MOE), prediction(Plan(tp=8, ep=2)), target="bash")
    with pytest.raises(PlanError, match="equal blocks"):
        render(problem("vllm", **TWO), prediction(Plan(tp=3, gpus=(0, 1, 8))), target="bash")
    with pytest.raises(QuestionError, match="unknown target"):
        render(problem(), prediction(Plan()), target="nomad")
    assert launch_line(problem("vllm", **MOE), Plan(tp=8, ep=2)).startswith("# vllm cannot start this plan")


def test_another_checkpoint_is_demanded_where_the_format_needs_one():
    question = problem("vllm", spec=model(weights="int4"))
    text = render(question, prediction(Plan()), target="bash")[0].text
    assert "die 'set MODEL to a checkpoint in int4" in text
    with pytest.raises(QuestionError, match="give --checkpoint"):
        render(question, prediction(Plan()), target="kubernetes")
    online = render(problem("vllm", spec=model(weights="fp8")), prediction(Plan()), target="bash")[0].text
    assert "--quantization fp8 " in online


def test_a_changed_script_is_told():
    text = files("vllm", "bash", "tp")[0].text
    with pytest.raises(AdvisorError, match="the script was changed"):
        parse(text.replace("--tensor-parallel-size 4", "--tensor-parallel-size 8"))
    with pytest.raises(AdvisorError, match="not a launch script"):
        parse("echo hello")


def test_weights_that_the_checkpoint_does_not_have_are_never_launched_from_it() -> None:
    def line(name: str, dtype: str) -> str:
        return launch_line(
            problem("vllm", spec=requantise(load_model(name, online=False).spec, dtype=dtype, kv_dtype=None)), Plan()
        )

    assert "vllm serve meta-llama/Llama-3.1-70B-Instruct --quantization fp8" in line(
        "llama-3.1-70b", "fp8"
    )  # quantised while loading
    awq = line("llama-3.1-70b", "awq")
    assert 'vllm serve "$MODEL"' in awq
    assert (
        "MODEL: a checkpoint in int4: the plan was ranked with int4 weights and meta-llama/Llama-3.1-70B-Instruct has 16-bit ones"
        in awq
    )
    assert "deepseek-ai/DeepSeek-R1 has fp8" in line("deepseek-r1", "int4")
    assert "vllm serve deepseek-ai/DeepSeek-R1" in line("deepseek-r1", "auto")
    assert "vllm serve meta-llama/Llama-2-13b-chat-hf" in line("llama-2-13b", "auto")  # an fp16 checkpoint is not a quantised one


@pytest.mark.parametrize("target", ["bash", "slurm"])
@pytest.mark.parametrize("plan", [Plan(tp=8), Plan(tp=8, dp=9), Plan(tp=4, dp=18)])
def test_an_nvlink_domain_of_several_hosts_is_started_host_by_host(target: str, plan: Plan) -> None:
    asked = problem("vllm", machine=load_cluster(gpu="gb200", gpus=72))
    text = render(asked, prediction(plan), target=target)[0].text
    assert ("--nnodes 2" in text) == (plan.tp == 8)  # a tray of an NVL72 has four GPUs and its own operating system
    assert not re.search(r"CUDA_VISIBLE_DEVICES=\S*[4-9]", text)
    assert parse(text) == replace(plan, settings=SETTINGS)
    if target == "slurm":
        assert "--gpus-per-node=4" in text
        assert f"--nodes={plan.world // 4}" in text


DRAFTS = ("mtp:3", "eagle3:2", "ngram:4")


def drafting(text):
    method, number = text.split(":")
    return Speculation(method=method, drafts=int(number), length=1.5, length_low=1.5, length_high=1.5, source="test")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("text", DRAFTS)
@pytest.mark.parametrize("engine", ENGINES)
def test_drafts_pass_the_engines_own_parser_and_read_back(engine, text, target, check_launch):
    plan = Plan(tp=4)
    asked = replace(problem(engine), speculation=drafting(text))
    rendered = render(asked, prediction(plan), target=target, options=Options(draft_model="example-org/head"))
    said = "".join(file.text for file in rendered)
    key = {"vllm": "--speculative-config", "sglang": "--speculative-algorithm", "trtllm": "speculative_config"}[engine]
    assert key in said
    for file in rendered:
        assert (parse(file.text).tp, parse(file.text).dp) == (4, 1)
        for line in engine_commands(file.text):
            assert check_launch.check(engine, line, strict=True)[:2] == (True, ""), line
    line = launch_line(asked, prediction(plan).plan)
    assert key in line
    assert check_launch.check(engine, line, strict=True)[:2] == (True, "")


@pytest.mark.parametrize("engine", ENGINES)
def test_an_eagle_head_must_be_named(engine):
    asked = replace(problem(engine), speculation=drafting("eagle3:3"))
    with pytest.raises(PlanError, match="--draft-model"):
        render(asked, prediction(Plan(tp=4)), target="bash")
    assert "DRAFT_MODEL" in launch_line(asked, prediction(Plan(tp=4)).plan)
