"""What ships, what it needs, and what it never imports."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

from advisor.version import DISTRIBUTION

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DISTRIBUTIONS = {"pydantic_core": "pydantic", "yaml": "pyyaml", "pynvml": "nvidia-ml-py"}
HEAVY = ("torch", "numpy", "scipy", "transformers", "safetensors")


def imports(path: Path) -> set[str]:
    """Top-level names of all absolute imports of a file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


def test_pip_lines_name_our_distribution_and_not_another_project() -> None:
    assert PROJECT["project"]["name"] == DISTRIBUTION == "parallelism-advisor"
    assert PROJECT["project"]["scripts"] == {"advisor": "advisor.cli.app:main"}
    assert "parallelism_advisor-*.whl" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "advisor").rglob("*.py")]
    for path in pages:
        wrong = re.search(r"pip install [^\n&;`]*(?<![\w-])advisor(?![\w.-])", path.read_text(encoding="utf-8"))
        assert not wrong, f"{path.relative_to(ROOT)}: {wrong and wrong[0]}"


def test_the_advisor_imports_only_what_it_declares() -> None:
    declared = {line.split(">")[0].lower() for line in PROJECT["project"]["dependencies"]}
    for path in sorted((ROOT / "advisor").rglob("*.py")):
        other = imports(path) - set(sys.stdlib_module_names) - {"advisor", "profiles"}
        undeclared = {DISTRIBUTIONS.get(name, name) for name in other} - declared
        assert not undeclared, f"{path.relative_to(ROOT)} imports {undeclared}"


def test_every_dependency_is_used() -> None:
    used = set().union(*(imports(path) for path in (ROOT / "advisor").rglob("*.py")))
    declared = {line.split(">")[0].lower() for line in PROJECT["project"]["dependencies"]}
    assert declared <= {DISTRIBUTIONS.get(name, name) for name in used}


def test_it_answers_where_torch_cannot_be_imported() -> None:
    code = f"""
import sys
for name in {HEAVY!r}:
    sys.modules[name] = None  # importing it raises ImportError
from advisor.cli.app import run
code = run(["recommend", "--model", "70b", "--gpu", "h100-80g-sxm", "--gpus", "8"])
loaded = [name for name in {HEAVY!r} if sys.modules.get(name)]
sys.exit(code or (3 if loaded else 0))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Recommended:" in done.stdout


def test_only_one_file_reads_nvml() -> None:
    readers = [path.name for path in (ROOT / "advisor").rglob("*.py") if "pynvml" in imports(path)]
    assert readers == ["nvml.py"]


def test_profiles_are_found_as_package_data_and_nothing_else_ships() -> None:
    assert PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["advisor", "runner", "profiles"]
    for kind in ("hardware", "models", "engines", "calibration"):
        assert any(entry.name.endswith(".yaml") for entry in files("profiles").joinpath(kind).iterdir()), kind


def test_imports_only_go_down() -> None:
    pytest.importorskip("importlinter")
    code = "from importlinter.cli import lint_imports; import sys; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout
