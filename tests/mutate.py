"""Planted faults: does the quick tier find them?

    python -m tests.mutate [--count 150] [--seed 0] [--only PREFIX] [--workers 2] [--out FILE]

A mutant is the product with one expression or statement changed: an operator, a comparison, a
number, a condition, the order of two arguments, a statement left out. Mutants are drawn at random,
as many from every room as its share of the places, at least one. The tests nearest to the changed
file run until one fails (`tests/changed.py`); a mutant that all of them let pass has survived.
"""

import argparse
import ast
import copy
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from queue import Queue

from tests.changed import affordable, tests_of
from tests.imports import PACKAGES, ROOT

COPIED = (*PACKAGES, "tests", "benchmarks", "docs", "pyproject.toml", "README.md", "Makefile")
SECONDS = 120
"""Of a processor, for the tests of a mutant."""
HANGS = 900
"""Seconds after which the tests of a mutant are ended, and it counts as found."""
SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Pow: ast.Mult,
    ast.And: ast.Or,
    ast.Or: ast.And,
}


@dataclass(frozen=True)
class Mutant:
    """One change.

    Attributes:
        path: The file, relative to the project.
        line: Where it begins.
        before: The code as it was.
        after: The code as it is.
        text: All of the changed file.
    """

    path: str
    line: int
    before: str
    after: str
    text: str


def mutants_of(path: str, source: str) -> list[Mutant]:
    """All mutants of a file.

    Args:
        path: The file, relative to the project.
        source: What it holds.

    Returns:
        The mutants, in order of their places.
    """
    mutants = []
    lines = source.encode().splitlines(keepends=True)
    starts = [sum(map(len, lines[:number])) for number in range(len(lines))]
    for node in _places(ast.parse(source)):
        first = starts[node.lineno - 1] + node.col_offset
        last = starts[node.end_lineno - 1] + node.end_col_offset
        before = source.encode()[first:last].decode()
        for changed in _changes(node):
            after = changed if isinstance(changed, str) else f"({ast.unparse(changed)})"
            text = source.encode()[:first] + after.encode() + source.encode()[last:]
            mutants.append(Mutant(path, node.lineno, before, after, text.decode()))
    return mutants


def _places(tree: ast.AST) -> Iterator[ast.expr | ast.stmt]:
    """Expressions and statements inside of functions; no texts of errors, no types, no strings."""
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            for statement in function.body:
                yield from _inside(statement)


def _inside(node: ast.AST) -> Iterator[ast.expr | ast.stmt]:
    if isinstance(node, ast.Raise | ast.JoinedStr | ast.FunctionDef | ast.ClassDef | ast.Import):
        return
    if isinstance(node, ast.expr | ast.stmt):
        yield node
    for name, field in ast.iter_fields(node):
        if name == "annotation":
            continue
        for child in field if isinstance(field, list) else [field]:
            if isinstance(child, ast.AST):
                yield from _inside(child)


def _changes(node: ast.AST) -> Iterator[ast.expr | str]:
    """What may stand in the place of a node."""
    twin = copy.copy(node)
    if isinstance(twin, ast.Compare) and type(twin.ops[0]) in SWAPS:
        twin.ops = [SWAPS[type(twin.ops[0])](), *twin.ops[1:]]
        yield twin
    elif isinstance(twin, ast.BinOp | ast.BoolOp) and type(twin.op) in SWAPS:
        if not _has_text(twin):
            twin.op = SWAPS[type(twin.op)]()
            yield twin
    elif isinstance(twin, ast.UnaryOp) and isinstance(twin.op, ast.Not | ast.USub | ast.Invert):
        yield twin.operand
    elif isinstance(twin, ast.IfExp):
        twin.test = ast.UnaryOp(ast.Not(), twin.test)
        yield twin
    elif isinstance(twin, ast.Constant):
        yield from _numbers(twin.value)
    elif isinstance(twin, ast.Call) and [type(a) for a in twin.args] == [ast.Name, ast.Name]:
        twin.args = twin.args[::-1]
        yield twin
    elif isinstance(twin, ast.AugAssign) or (
        isinstance(twin, ast.Expr) and isinstance(twin.value, ast.Call)
    ):
        yield "pass"


def _numbers(value: object) -> Iterator[str]:
    if isinstance(value, bool):
        yield str(not value)
    elif isinstance(value, int):
        yield str(value + 1)
    elif isinstance(value, float):
        yield repr(2 * value if value else 1.0)


def _has_text(node: ast.AST) -> bool:
    return any(
        isinstance(n, ast.JoinedStr) or (isinstance(n, ast.Constant) and isinstance(n.value, str))
        for n in ast.walk(node)
    )


def draw(count: int, seed: int, only: str = "") -> list[Mutant]:
    """Some mutants of the product.

    Args:
        count: How many.
        seed: Of the choice.
        only: Beginning of the paths to draw from.

    Returns:
        Mutants from every room, the rooms taking turns by their size.
    """
    rng = random.Random(seed)
    rooms: dict[str, list[Mutant]] = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            relative = str(path.relative_to(ROOT))
            if relative.startswith(only):
                room = "/".join(relative.split("/")[:2])
                rooms.setdefault(room, []).extend(mutants_of(relative, path.read_text("utf-8")))
    total = sum(map(len, rooms.values()))
    chosen = [
        rng.sample(mutants, min(len(mutants), max(1, round(count * len(mutants) / total))))
        for mutants in rooms.values()
        if mutants
    ]
    return [mutant for turn in zip_longest(*chosen) for mutant in turn if mutant is not None]


def outcome_of(mutant: Mutant, tree: Path) -> str:
    """Run the tests nearest to a mutant.

    Args:
        mutant: The mutant.
        tree: A copy of the project, which is put back as it was.

    Returns:
        `"found"`, `"hangs"` or `"survived"`.
    """
    path = tree / mutant.path
    original = path.read_text("utf-8")
    path.write_text(mutant.text, "utf-8")
    tests = affordable(tests_of([mutant.path]), SECONDS)
    words = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider"]
    words += ["-m", "not deep and not compile", "--doctest-modules", mutant.path, *tests]
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    try:
        code = subprocess.run(
            words, cwd=tree, env=environment, capture_output=True, timeout=HANGS, check=False
        ).returncode
    except subprocess.TimeoutExpired:
        return "hangs"
    finally:
        path.write_text(original, "utf-8")
    return "survived" if code == 0 else "found"


def copy_of_the_project(folder: Path) -> Path:
    """The files that tests read."""
    for name in COPIED:
        source, target = ROOT / name, folder / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    return folder


def run(mutants: list[Mutant], workers: int, tell: Callable[[dict[str, object]], object]) -> None:
    """Try mutants, each in a copy of the project of its worker.

    Args:
        mutants: The mutants.
        workers: Copies, and processes at a time.
        tell: Told the outcome of each.
    """
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(workers) as pool:
        trees: Queue[Path] = Queue()
        for number in range(workers):
            (Path(name) / str(number)).mkdir()
            trees.put(copy_of_the_project(Path(name) / str(number)))

        def attempt(mutant: Mutant) -> dict[str, object]:
            tree = trees.get()
            try:
                outcome = outcome_of(mutant, tree)
            finally:
                trees.put(tree)
            place = {key: value for key, value in asdict(mutant).items() if key != "text"}
            return {"outcome": outcome, **place}

        for row in pool.map(attempt, mutants):
            tell(row)


def main() -> None:
    """Draw mutants, try them, print those that survive."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="Beginning of the paths to draw from.")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, help="A file of JSON lines, one a mutant.")
    options = parser.parse_args()
    counts: Counter[object] = Counter()

    def tell(row: dict[str, object]) -> None:
        counts[row["outcome"]] += 1
        if options.out is not None:
            with options.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        if row["outcome"] == "survived":
            print(f"{row['path']}:{row['line']}: {row['before']}  ->  {row['after']}", flush=True)

    run(draw(options.count, options.seed, options.only), options.workers, tell)
    print(dict(counts))


if __name__ == "__main__":
    main()
