"""How many small faults the tests notice: mutants of the physics, serving and search, each run against the tests of its file.

    python benchmarks/mutants.py                          # 60 mutants of all three rooms
    python benchmarks/mutants.py --sample 30 serving      # 30 of one room
    python benchmarks/mutants.py --list serving           # which ones, without running them

A mutant is one changed node of the syntax tree: a comparison turned round, an operator or min/max swapped, a number changed, a
statement deleted. The sample is drawn by a hash of what is changed, so it is the same on every machine. Tests are the mirror of the
file (`tests/advisor/<room>/test_<file>*.py`), or those of the whole room where it has none. Works in a copy of the checkout.

A benchmark, not a test: it takes minutes, and some survivors change nothing that can be seen.
"""

from __future__ import annotations

import argparse
import ast
import copy
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOMS = ("roofline", "serving", "search")
LIMIT_S = 240  # a mutant that runs longer loops; it counts as noticed
OPPOSITE: dict[type, type[ast.cmpop]] = {
    ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
SWAPPED: dict[type, type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Pow: ast.Mult,
    ast.Mod: ast.Mult,
}  # fmt: skip
EXTREMES = {"min": "max", "max": "min"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One change of one file: the index of the changed node in the walk of the tree, and what is done to it."""

    path: Path
    node: int
    line: int
    change: str

    @property
    def name(self) -> str:
        return f"{self.path}:{self.line} {self.change}"

    @property
    def order(self) -> str:
        """A place in the sample that does not depend on line numbers alone."""
        return hashlib.sha256(f"{self.path} {self.node} {self.change}".encode()).hexdigest()


def nodes(tree: ast.Module) -> list[ast.AST]:
    """Nodes that a mutant may change: not annotations, decorators, defaults of imports, nor text."""
    skipped: set[int] = set()
    for node in ast.walk(tree):
        hidden: list[ast.AST | None] = []
        if isinstance(node, ast.arg | ast.AnnAssign):
            hidden.append(node.annotation)
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            hidden += node.decorator_list
        if isinstance(node, ast.FunctionDef):
            hidden.append(node.returns)
        if isinstance(node, ast.JoinedStr):
            hidden.append(node)
        for root in hidden:
            skipped |= {id(inner) for inner in ast.walk(root)} if root else set()
    return [node for node in ast.walk(tree) if id(node) not in skipped]


def change_of(node: ast.AST) -> str:
    """What a mutant does to a node; "" for nodes that are left alone."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in OPPOSITE:
        return f"{type(node.ops[0]).__name__} to {OPPOSITE[type(node.ops[0])].__name__}"
    if isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in SWAPPED:
        return f"{type(node.op).__name__} to {SWAPPED[type(node.op)].__name__}"
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in EXTREMES:
        return f"{node.func.id} to {EXTREMES[node.func.id]}"
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return f"{node.value} to {_other(node.value)}"
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        return f"deleted {ast.unparse(node)[:40]}"
    if isinstance(node, ast.Raise | ast.Continue | ast.Break):
        return f"deleted {type(node).__name__.lower()}"
    return ""


def _other(value: float) -> float:
    return value + 1 if isinstance(value, int) else (value * 2 if value else 1.0)


class _Apply(ast.NodeTransformer):
    """Changes the one node that is the target."""

    def __init__(self, target: ast.AST) -> None:
        self.target = target

    def visit(self, node: ast.AST) -> ast.AST:
        if node is not self.target:
            return self.generic_visit(node)
        if isinstance(node, ast.Compare):
            node.ops[0] = OPPOSITE[type(node.ops[0])]()
        elif isinstance(node, ast.BinOp | ast.AugAssign):
            node.op = SWAPPED[type(node.op)]()
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            node.func.id = EXTREMES[node.func.id]
        elif isinstance(node, ast.Constant):
            node.value = _other(node.value)  # type: ignore[arg-type]
        else:
            return ast.copy_location(ast.Pass(), node)
        return node


def mutants(root: Path, room: str) -> Iterator[Mutant]:
    """Every mutant of a room's files."""
    for file in sorted((root / "advisor" / room).glob("*.py")):
        for index, node in enumerate(nodes(ast.parse(file.read_text()))):
            if change := change_of(node):
                yield Mutant(path=file.relative_to(root), node=index, line=getattr(node, "lineno", 0), change=change)


def mutated(source: str, mutant: Mutant) -> str:
    """The source with the mutant's one change."""
    tree = copy.deepcopy(ast.parse(source))
    return ast.unparse(ast.fix_missing_locations(_Apply(nodes(tree)[mutant.node]).visit(tree)))


def tests_of(root: Path, path: Path) -> list[Path]:
    """The mirrored tests of a source file, or its whole room's."""
    folder = root / "tests/advisor" / path.parent.name
    mirror = [*folder.glob(f"test_{path.stem}.py"), *folder.glob(f"test_{path.stem}_*.py")]
    return sorted(mirror) or sorted(folder.glob("test_*.py"))


def noticed(root: Path, tests: list[Path]) -> bool:
    """Whether a test fails."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider", "-m", "not slow and not gpu"]
    try:
        done = subprocess.run([*command, *map(str, tests)], cwd=root, capture_output=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return True
    return done.returncode != 0


def survivors(root: Path, sample: list[Mutant]) -> list[Mutant]:
    """Mutants of the sample that no test notices; the files are as before when it returns."""
    found = []
    for mutant in sample:
        file = root / mutant.path
        source = file.read_text()
        file.write_text(mutated(source, mutant))
        seen = noticed(root, tests_of(root, mutant.path))
        file.write_text(source)
        print(f"{'noticed ' if seen else 'SURVIVED'}  {mutant.name}", flush=True)
        if not seen:
            found.append(mutant)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rooms", nargs="*", default=ROOMS, help="folders under advisor/")
    parser.add_argument("--sample", type=int, default=60, help="mutants in all, as many of each room")
    parser.add_argument("--list", action="store_true", help="only name them")
    asked = parser.parse_args()
    checkout = Path(__file__).resolve().parents[1]
    each = max(1, asked.sample // len(asked.rooms))
    samples = {room: sorted(mutants(checkout, room), key=lambda m: m.order)[:each] for room in asked.rooms}
    if asked.list:
        print("\n".join(mutant.name for sample in samples.values() for mutant in sample))
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "checkout"
        shutil.copytree(checkout, root, ignore=shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache", "dist"))
        for room, sample in samples.items():
            for tests in sorted({tuple(tests_of(root, mutant.path)) for mutant in sample}):
                if noticed(root, list(tests)):
                    sys.exit(f"the tests of {room} fail without a mutant: {', '.join(test.name for test in tests)}")
            left = survivors(root, sample)
            print(f"{room}: {len(left)} of {len(sample)} survive", flush=True)


if __name__ == "__main__":
    main()
