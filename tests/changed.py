"""Tests of what changed, nearest first by the import graph. `make check` runs them.

    python -m tests.changed [--base REV] [--seconds N] [--types] [FILE ...]

A test file that imports a changed file is one step away from it. Files are taken, nearest first,
for as long as their cost in `tests/cost.json` adds up to less than the seconds of a processor that
are given; how many are left to `make test` is said. With `--types` it prints what the type checker
reads instead: changed files and those that import one; `make lint` reads all.
"""

import argparse
import ast
import json
import subprocess
import sys
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from functools import cache
from pathlib import Path

from tests.cost import TABLE
from tests.imports import PACKAGES, ROOT, imports, modules, parsed

TYPED = (*PACKAGES, "benchmarks", "examples")
ALWAYS = ("tests/test_style.py", "tests/test_import_law.py", "tests/test_trust.py")


def module_of(path: str) -> str:
    """The dotted name of a file relative to the project."""
    return path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")


@cache
def graph() -> dict[str, set[str]]:
    """The modules that each file imports, by dotted names; files of the project only."""
    files = dict(modules(ROOT, (*TYPED, "tests")))
    return {
        name: {*imports(path, ROOT), *_lazy_imports(path)} & set(files) - {name}
        for name, path in files.items()
    }


def _lazy_imports(path: Path) -> Iterator[str]:
    """The modules behind the names that a file takes from a package which loads them lazily."""
    for node in ast.walk(parsed(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            yield from (_lazy(node.module or "").get(alias.name, "") for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield _lazy(node.value.id).get(node.attr, "")


@cache
def _lazy(package: str) -> dict[str, str]:
    """Modules of the names that a package loads on first use."""
    path = ROOT / package / "__init__.py"
    if package not in PACKAGES or not path.is_file():
        return {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_MODULES":
            return ast.literal_eval(node.value)
    return {}


def tests_of(changed: Collection[str]) -> dict[str, int]:
    """Test files that reach changed files by imports.

    Args:
        changed: Python files relative to the project.

    Returns:
        Steps to the nearest changed file by test file, nearest first; as near as another one, that
        which is named like a changed file comes first, and then the cheaper one.
    """
    cost = costs()
    names = {Path(path).stem for path in changed}
    importers: dict[str, set[str]] = {}
    for name, imported in graph().items():
        for module in imported:
            importers.setdefault(module, set()).add(name)
    steps = {module_of(path): 0 for path in changed if path.endswith(".py")}
    waiting = deque(steps)
    while waiting:
        name = waiting.popleft()
        for importer in importers.get(name, set()) - set(steps):
            steps[importer] = steps[name] + 1
            waiting.append(importer)
    reached = {name: count for name, count in steps.items() if ".test_" in name}
    paths = {f"{name.replace('.', '/')}.py": count for name, count in reached.items()}

    def place(path: str) -> tuple[int, bool, float, str]:
        other_name = Path(path).stem.removeprefix("test_") not in names
        return paths[path], other_name, cost.get(path, 0.0), path

    return {path: paths[path] for path in sorted(paths, key=place)}


def typed(changed: Collection[str]) -> list[str]:
    """Files that the type checker should read again: changed ones and those that import one.

    Args:
        changed: Files relative to the project.

    Returns:
        Files of the product, benchmarks and examples.
    """
    names = {module_of(path) for path in changed if path.endswith(".py")}
    return [
        str(path.relative_to(ROOT))
        for name, path in modules(ROOT, TYPED)
        if name in names or graph()[name] & names
    ]


def costs() -> dict[str, float]:
    """Seconds of a processor that each test file takes, as they were recorded."""
    return json.loads(TABLE.read_text(encoding="utf-8"))["files"]


def affordable(tests: Iterable[str], seconds: float) -> list[str]:
    """The first test files that cost no more than some seconds together; dear ones are passed over.

    Args:
        tests: Test files, nearest first.
        seconds: Of a processor.

    Returns:
        Some of them, in their order.
    """
    cost = costs()
    chosen = []
    for path in tests:
        if cost.get(path, 0.0) <= seconds:
            seconds -= cost.get(path, 0.0)
            chosen.append(path)
    return chosen


def changed_files(base: str) -> list[str]:
    """Files that differ from a revision, those that git does not track yet included."""
    commands = (
        ["git", "diff", "--name-only", "--diff-filter=d", base],
        ["git", "ls-files", "--others", "--exclude-standard"],
    )
    outputs = [
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        for command in commands
    ]
    return sorted({*"".join(outputs).splitlines()})


def main() -> None:
    """Print the test files to run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", help="What changed; what git says if none is given.")
    parser.add_argument("--base", default="HEAD", help="Changes since this revision.")
    parser.add_argument("--seconds", type=float, default=16, help="Of a processor, for tests.")
    parser.add_argument("--types", action="store_true", help="Print files to check the types of.")
    options = parser.parse_args()
    files = options.files or changed_files(options.base)
    if options.types:
        print(*typed(files), sep="\n")
        return
    tests = tests_of(files)
    near = affordable(tests, options.seconds)
    pages = ["tests/test_docs.py"] if any(path.endswith(".md") for path in files) else []
    print(*dict.fromkeys([*near, *ALWAYS, *pages]), sep="\n")
    print(f"{len(tests) - len(near)} test files left: make test", file=sys.stderr)


if __name__ == "__main__":
    main()
