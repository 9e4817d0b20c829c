"""The catalogue: every name users and tables use finds its sheet, paths and ids take the same road, formats change as asked."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from advisor.catalog import hub, models
from advisor.catalog.model_schema import read_sheet
from advisor.catalog.models import list_models, load_model, published_as, requantise, sheet_names
from advisor.catalog.write_sheet import sheet_text
from advisor.errors import AdvisorError, ProfileError, QuestionError
from advisor.specs.model import MoeFfn
from advisor.untrusted import parse_yaml

ROOT = Path(__file__).parents[3]
PROFILES = ROOT / "profiles" / "models"
MEASURED = ROOT.parent / "shared" / "measured"


def data(name: str) -> dict[str, Any]:
    return parse_yaml((PROFILES / f"{name}.yaml").read_text(encoding="utf-8"), origin=name)


def test_every_sheet_loads_with_its_source_and_under_its_own_name() -> None:
    listed = list_models()
    assert len(listed) >= 80
    for sheet, summary in zip(sheet_names(), listed, strict=True):
        assert summary.name == sheet
        assert summary.repo
        assert 0 < summary.active_params <= summary.params
    for sheet in sheet_names():
        assert all(x["link"].startswith("https://") for x in data(sheet)["sources"])


def test_no_name_means_two_models() -> None:
    names: Counter[str] = Counter()
    for summary in list_models():
        names.update({summary.name, summary.repo.lower(), *(x.lower() for x in summary.aliases)})
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize(
    ("alias", "sheet"),
    [
        ("70b", "llama-3.1-70b"),
        ("8B", "llama-3.1-8b"),
        ("405b", "llama-3.1-405b"),
        ("7b", "llama-2-7b"),
        ("13b", "llama-2-13b"),
        ("32b", "qwen3-32b"),
        ("34b", "codellama-34b"),
        ("180b", "falcon-180b"),
        ("mixtral", "mixtral-8x7b"),
        ("deepseek-r1", "deepseek-r1"),
        ("deepseek-v3", "deepseek-v3"),
        ("gpt-oss-120b", "gpt-oss-120b"),
        ("gpt-oss-20b", "gpt-oss-20b"),
        ("qwen3-235b", "qwen3-235b-a22b"),
        ("kimi-k2", "kimi-k2"),
        ("Llama-3.1-70B-Instruct", "llama-3.1-70b"),
        ("LLaMA-13B", "llama-13b"),
        ("meta-llama_Llama-2-70b-chat-hf", "llama-2-70b"),
        ("Mistral-Nemo-Instruct-2407/", "mistral-nemo-12b"),
        ("models--Qwen--Qwen3-8B", "qwen3-8b"),
    ],
)
def test_aliases(alias: str, sheet: str) -> None:
    loaded = load_model(alias, online=False)
    assert loaded.spec.name == sheet
    assert loaded.asked == alias
    if alias != sheet and alias.lower() != sheet:
        assert sheet in loaded.taken_as


def test_a_variant_keeps_the_id_that_was_asked_for() -> None:
    loaded = load_model("meta-llama/Llama-3.1-70B-Instruct", online=False)
    assert loaded.spec.name == "llama-3.1-70b"
    assert loaded.spec.repo == "meta-llama/Llama-3.1-70B-Instruct"


@pytest.mark.skipif(not MEASURED.is_dir(), reason="../shared/measured is not beside this checkout")
def test_every_model_of_the_measured_points_is_in_the_catalogue() -> None:
    with (MEASURED / "points.csv").open(newline="") as file:
        names = {row["model"] for row in csv.DictReader(file)}
    assert len(names) == 48
    # A requantised copy is read by `calibrate.names`; of two models of 2023 nobody keeps a config here.
    for name in names - {"nvidia/Qwen3-32B-NVFP4", "BAAI/Aquila-7B", "bigscience/bloom-7b1"}:
        assert load_model(name, online=False).spec.repo.lower() == name.lower()


@pytest.mark.parametrize("name", ["lama-3.1-70b", "qwen3-33b", "gpt-os-120b"])
def test_an_unknown_name_offers_the_nearest(name: str) -> None:
    with pytest.raises(QuestionError, match="did you mean"):
        load_model(name, online=False)


@pytest.mark.parametrize(
    "name", ["", "   ", "x" * 5000, "a\x00b", "a\nb", "no/such.json", "no/such.yaml", "?", "m.gguf", "../../etc", "a/b/c"]
)
def test_bad_names_are_one_sentence(name: str) -> None:
    with pytest.raises(QuestionError) as caught:
        load_model(name, online=False)
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


# -- files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "my-model"
    place.mkdir()
    (place / "config.json").write_text(json.dumps(data("qwen3-8b")["config"]))
    return place


def test_a_folder_a_config_and_a_sheet_take_the_same_road(folder: Path, tmp_path: Path) -> None:
    by_folder, by_file = load_model(str(folder)), load_model(str(folder / "config.json"))
    shutil.copy(PROFILES / "qwen3-8b.yaml", tmp_path / "mine.yaml")
    by_sheet = load_model(str(tmp_path / "mine.yaml"))
    catalogue = load_model("qwen3-8b")
    assert by_folder.spec == by_file.spec
    assert by_folder.spec.name == "my-model"
    assert by_sheet.spec == catalogue.spec
    assert by_folder.spec.layers == catalogue.spec.layers
    assert "8.19B parameters" in by_folder.taken_as


def test_a_quantisation_file_beside_the_config_is_read(folder: Path) -> None:
    quant = {"quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]}}
    (folder / "hf_quant_config.json").write_text(json.dumps(quant))
    spec = load_model(str(folder)).spec
    assert (spec.formats.ffn, spec.formats.head, spec.kv_format) == ("fp8", "bf16", "fp8")


def test_a_folder_without_a_config_says_so(tmp_path: Path) -> None:
    with pytest.raises(QuestionError, match=r"has no config\.json"):
        load_model(str(tmp_path))


def test_a_catalogue_name_wins_over_a_file_that_happens_to_be_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "70b").write_text("notes")
    (tmp_path / "mixtral").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_model("70b").spec.name == "llama-3.1-70b"
    assert load_model("mixtral").spec.name == "mixtral-8x7b"


@pytest.mark.parametrize("content", [b"\xff\xfe\x00binary\x80", b"", b"[1]", b"{", b'{"model_type": "llama"}', b"[" * 2_000_000])
def test_files_that_are_no_config(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ProfileError) as caught:
        load_model(str(path))
    assert "\n" not in str(caught.value)


# -- sheets


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sources": []}, "sources"),
        ({"sources": None}, "sources"),
        ({"colour": "red"}, "colour"),
        ({"weights": {"attention": "fp8", "ffn": "fp9"}}, "'fp9' is not known"),
        ({"weights": {"attention": "fp8"}}, "weights.ffn"),
        ({"kv_cache": "fp1"}, "'fp1' is not known"),
        ({"name": 7}, "name"),
        ({"config": {"model_type": "llama"}}, "is missing"),
        ({"config": [1]}, "config"),
    ],
)
def test_sheets_are_read_strictly(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ProfileError, match=said):
        read_sheet({**data("llama-3.1-8b"), **change}, origin="mine.yaml")


def test_a_figure_that_nothing_reads_is_refused() -> None:
    sheet = data("llama-3.1-8b")
    sheet["config"] = {**sheet["config"], "hiden_size": 4096}
    with pytest.raises(ProfileError, match="nothing reads config field 'hiden_size'"):
        read_sheet(sheet, origin="mine.yaml")
    sheet = data("deepseek-v3")
    sheet["config"]["rope_scaling"]["facto"] = 40
    with pytest.raises(ProfileError, match=r"nothing reads config field 'rope_scaling\.facto'"):
        read_sheet(sheet, origin="mine.yaml")


@pytest.mark.parametrize(
    "text", ["name: !!python/object/apply:os.system [ls]", "a: &x 1\nb: *x", "name: a\nname: b", "- 1", "name: [", "\t"]
)
def test_yaml_tricks_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ProfileError):
        load_model(str(path))


@pytest.mark.parametrize(
    "name", ["llama-3.1-70b", "kimi-k3", "deepseek-v3.1-nvfp4", "qwen3.6-27b-nvfp4", "gemma-3-27b", "nemotron-h-56b"]
)
def test_a_written_sheet_reads_back_as_the_same_model(name: str) -> None:
    sheet, spec = read_sheet(data(name), origin=name)
    text = sheet_text(data(name)["config"], None, name=name, repo=sheet.repo, date="2026-11-21", aliases=sheet.aliases)
    _, again = read_sheet(parse_yaml(text, origin="again"), origin="again")
    assert (again.layers, again.numerics, again.params) == (spec.layers, spec.numerics, spec.params)


# -- the local Hugging Face cache and the hub


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    return tmp_path / "hub"


def test_the_snapshot_that_main_points_at_is_read(cache: Path) -> None:
    base = cache / "models--me--mine"
    for commit, name in (("aaa", "qwen3-8b"), ("bbb", "llama-3.1-8b")):
        (base / "snapshots" / commit).mkdir(parents=True)
        (base / "snapshots" / commit / "config.json").write_text(json.dumps(data(name)["config"]))
    (base / "refs").mkdir()
    (base / "refs" / "main").write_text("aaa")
    spec = load_model("me/mine", online=False).spec
    assert spec.params == load_model("qwen3-8b").spec.params
    assert spec.repo == "me/mine"
    assert "cache" in spec.source


def test_the_cache_honours_its_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "x"))
    assert hub.cache_folder() == tmp_path / "x"
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "y"))
    assert hub.cache_folder() == tmp_path / "y" / "hub"


def test_an_unknown_id_offline_says_what_to_do(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(QuestionError, match=r"neither in the catalogue nor in the local Hugging Face cache.*config\.json"):
        load_model("nobody/nothing-9b", online=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(QuestionError, match="HF_HUB_OFFLINE is set"):
        load_model("nobody/nothing-9b")


class Answer:
    def __init__(self, status: int, content: bytes = b"", code: str = "") -> None:
        self.status_code, self.content, self.headers = status, content, {"x-error-code": code}

    def __str__(self) -> str:  # the test's name, the same in every worker
        return f"{self.status_code} {self.headers['x-error-code']} {len(self.content)} bytes"

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def iter_bytes(self) -> Iterator[bytes]:
        for start in range(0, len(self.content), 65536):
            yield self.content[start : start + 65536]


class Session:
    def __init__(self, answers: dict[str, Answer | Exception]) -> None:
        self.answers = answers

    def stream(self, method: str, url: str, *, headers: dict[str, str], timeout: float) -> Answer:
        assert 0 < timeout <= 10
        assert set(headers) <= {"user-agent", "authorization"}
        found = self.answers[url.rpartition("/")[2]]
        if isinstance(found, Exception):
            raise found
        return found


@pytest.fixture
def answers(cache: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Answer | Exception]:
    import huggingface_hub.utils

    table: dict[str, Answer | Exception] = {"hf_quant_config.json": Answer(404, code="EntryNotFound")}
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    monkeypatch.setattr(huggingface_hub.utils, "get_session", lambda: Session(table))
    return table


def test_the_hub_is_asked_last(answers: dict[str, Answer | Exception]) -> None:
    answers["config.json"] = Answer(200, json.dumps(data("qwen3-8b")["config"]).encode())
    answers["hf_quant_config.json"] = Answer(200, b'{"quantization": {"quant_algo": "FP8", "exclude_modules": ["lm_head"]}}')
    spec = load_model("someone/new-model").spec
    assert (spec.name, spec.formats.ffn, spec.formats.head) == ("someone/new-model", "fp8", "bf16")
    assert spec.source == "https://huggingface.co/someone/new-model/blob/main/config.json"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer(401, code="GatedRepo"), "is gated on the hub"),
        (Answer(401, code="RepoNotFound"), "nor on the hub"),
        (Answer(404, code="RepoNotFound"), "nor on the hub"),
        (Answer(404, code="EntryNotFound"), r"has no config\.json on the hub"),
        (Answer(500), "the hub answered 500"),
        (Answer(200, b"\xff\xfe\x80"), "is not text"),
        (Answer(200, b"x" * (5 * 2**20)), "larger than 4 MiB"),
        (Answer(200, b"<html>"), "is not JSON"),
        (Answer(200, b'{"model_type": "llama", "auto_map": {"AutoConfig": "evil.py"}}'), "is missing"),
        (OSError("no route"), "the hub cannot be reached"),
        (TimeoutError("slow"), "the hub cannot be reached"),
    ],
    ids=str,
)
def test_what_the_hub_may_answer(answers: dict[str, Answer | Exception], answer: Answer | Exception, said: str) -> None:
    answers["config.json"] = answer
    with pytest.raises(AdvisorError, match=said) as caught:
        load_model("someone/new-model")
    assert "\n" not in str(caught.value)


def test_a_catalogue_name_needs_neither_hub_library_nor_torch() -> None:
    code = (
        "import sys; from advisor.catalog.models import load_model; load_model('70b');"
        "print([m for m in ('torch', 'numpy', 'huggingface_hub', 'transformers', 'rich', 'difflib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# -- other formats


@pytest.mark.parametrize("dtype", [None, "auto"])
def test_no_dtype_changes_nothing(dtype: str | None) -> None:
    spec = load_model("deepseek-v3").spec
    assert requantise(spec, dtype=dtype, kv_dtype=dtype) is spec


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("fp8", "fp8"),
        ("fp8_e4m3", "fp8"),
        ("int8", "int8"),
        ("int4-awq", "int4"),
        ("gptq", "int4"),
        ("nvfp4", "nvfp4"),
        ("q4_k_m", "q4_k_m"),
    ],
)
def test_linear_layers_change_and_embeddings_stay(asked: str, name: str) -> None:
    f = requantise(load_model("70b").spec, dtype=asked, kv_dtype=None).formats
    assert (f.attention, f.ffn, f.experts, f.embedding, f.head) == (name, name, name, "bf16", "bf16")


def test_a_block_scaled_checkpoint_is_already_fp8() -> None:
    spec = load_model("deepseek-v3").spec
    assert requantise(spec, dtype="fp8", kv_dtype=None) is spec
    awq = load_model("llama-3-70b-awq").spec
    assert requantise(awq, dtype="int4-awq", kv_dtype=None) is awq


def test_bf16_of_a_quantised_checkpoint_is_dequantised_and_says_so() -> None:
    spec = requantise(load_model("deepseek-v3").spec, dtype="bf16", kv_dtype=None)
    assert {spec.formats.attention, spec.formats.experts, spec.formats.head} == {"bf16"}
    assert any("dequantised" in caveat for caveat in spec.caveats)


def test_published_nvfp4_and_mxfp4_mixtures_keep_attention_in_16_bits() -> None:
    spec = load_model("mixtral").spec
    assert isinstance(spec.layers[0].ffn, MoeFfn)
    nvfp4 = requantise(spec, dtype="nvfp4", kv_dtype="fp8")
    assert (nvfp4.formats.attention, nvfp4.formats.experts, nvfp4.kv_format) == ("bf16", "nvfp4", "fp8")
    mxfp4 = requantise(spec, dtype="mxfp4", kv_dtype=None).formats
    assert (mxfp4.attention, mxfp4.ffn, mxfp4.experts) == ("bf16", "bf16", "mxfp4")


def test_float16_brings_its_cache() -> None:
    spec = requantise(load_model("70b").spec, dtype="fp16", kv_dtype=None)
    assert (spec.formats.ffn, spec.kv_format) == ("fp16", "fp16")
    assert requantise(spec, dtype=None, kv_dtype="fp8_e5m2").kv_format == "fp8"


@pytest.mark.parametrize(("dtype", "kv"), [("int3", None), ("", None), (None, "int4"), (None, "q4_k_m"), ("fp8; rm", None)])
def test_unknown_formats(dtype: str | None, kv: str | None) -> None:
    with pytest.raises(QuestionError, match="use auto"):
        requantise(load_model("70b").spec, dtype=dtype, kv_dtype=kv)


def test_attention_in_one_word() -> None:
    kinds = {
        name: models.attention_kind(load_model(name).spec)
        for name in ("70b", "llama-2-7b", "falcon-7b", "deepseek-v3", "jamba", "mamba")
    }
    assert list(kinds.values()) == ["GQA", "MHA", "MQA", "MLA", "hybrid", "recurrent"]


@pytest.mark.parametrize(
    ("alias", "repo"),
    [
        ("70b", "meta-llama/Llama-3.1-70B-Instruct"),
        ("8b", "meta-llama/Llama-3.1-8B-Instruct"),
        ("mixtral", "mistralai/Mixtral-8x7B-Instruct-v0.1"),
        ("qwen2.5-7b", "Qwen/Qwen2.5-7B-Instruct"),
        ("meta-llama/Llama-3.1-70B", "meta-llama/Llama-3.1-70B"),  # whoever names the base checkpoint gets it
    ],
)
def test_an_alias_means_the_checkpoint_that_people_serve(alias: str, repo: str) -> None:
    assert load_model(alias, online=False).spec.repo == repo


def test_a_format_that_is_published_names_its_checkpoint() -> None:
    model = load_model("70b", online=False).spec
    fp8 = published_as(requantise(model, dtype="fp8", kv_dtype=None))
    assert (fp8.repo, fp8.requantised) == ("nvidia/Llama-3.1-70B-Instruct-FP8", False)
    assert fp8.formats == requantise(model, dtype="fp8", kv_dtype=None).formats
    assert published_as(requantise(model, dtype="int8", kv_dtype=None)).requantised
    other = load_model("meta-llama/Llama-3.3-70B-Instruct", online=False).spec  # the fp8 sheet is of another checkpoint
    assert published_as(requantise(other, dtype="fp8", kv_dtype=None)).repo == "meta-llama/Llama-3.3-70B-Instruct"
    assert published_as(model) is model
