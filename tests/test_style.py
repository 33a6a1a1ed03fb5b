"""Rules of style that a linter does not know."""

import ast
import re
from pathlib import Path

from tests.imports import parsed

ROOT = Path(__file__).parents[1]
PACKAGES = ("zoo", "data_gen", "metanet", "studies")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
MAX_LINES, MAX_NODES, MAX_FILES = 330, 250, 16
MEDIAN_NODES, NINTH_DECILE_NODES, MAX_TOTAL_NODES = 55, 173, 194607
"""Medians only fall; the aims are 50 and 180. The sum was 161,494, 92% of the 175,538 at 019b3b4;
only a feature may raise it, in the commit that brings it."""
MAX_TYPE_IGNORES = 5
TEST_FILES = sorted((ROOT / "tests").rglob("*.py"))
MAX_TEST_LINES = 400


def tree(path):
    return parsed(path.read_text(encoding="utf-8"))


def functions(path):
    return [
        n for n in ast.walk(tree(path)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def num_nodes(function):
    """Syntax nodes of the body of a function, functions inside it included, its docstring not."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return sum(1 for statement in body for _ in ast.walk(statement))


def relative(path):
    return str(path.relative_to(ROOT))


def violations(check):
    """What a check finds, by file."""
    errors = {relative(path): check(path) for path in FILES}
    return {path: lines for path, lines in errors.items() if lines}


def test_a_file_is_one_concept():
    lengths = {relative(path): len(path.read_text("utf-8").splitlines()) for path in FILES}
    assert {path: length for path, length in lengths.items() if length > MAX_LINES} == {}


def test_a_test_file_is_one_scenario():
    lengths = {relative(path): len(path.read_text("utf-8").splitlines()) for path in TEST_FILES}
    assert {path: length for path, length in lengths.items() if length > MAX_TEST_LINES} == {}


def test_a_function_does_one_thing():
    sizes = {(relative(p), f.name): num_nodes(f) for p in FILES for f in functions(p)}
    assert {place: size for place, size in sizes.items() if size > MAX_NODES} == {}


def test_most_functions_are_small():
    sizes = sorted(num_nodes(function) for path in FILES for function in functions(path))
    assert sizes[len(sizes) // 2] <= MEDIAN_NODES
    assert sizes[len(sizes) * 9 // 10] <= NINTH_DECILE_NODES
    assert sum(sizes) <= MAX_TOTAL_NODES


def test_a_room_has_few_files():
    rooms = {path.parent for path in FILES}
    crowded = {
        str(room.relative_to(ROOT)): count
        for room in rooms
        if (count := sum(1 for path in room.glob("*.py") if path.name != "__init__.py")) > MAX_FILES
    }
    assert crowded == {}


def test_the_type_checker_is_rarely_silenced():
    lines = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in FILES
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if re.search(r"#\s*(type:\s*ignore|pyright:)", line)
    ]
    assert len(lines) <= MAX_TYPE_IGNORES, lines


def sniffed_contracts(path):
    sniffed = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("hasattr", "getattr"):
            name = node.args[1].value if isinstance(node.args[1], ast.Constant) else None
            is_of_python = name is not None and name.startswith("__")
            is_optional = name is not None or len(node.args) > 2
            if ast.unparse(node.func) == "hasattr" or (is_optional and not is_of_python):
                sniffed.append(f"line {node.lineno}: {ast.unparse(node)}")
    return sniffed


def test_contracts_are_declared_and_not_sniffed():
    assert violations(sniffed_contracts) == {}


def banned_constructs(path):
    errors = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Assert):
            errors.append(f"line {node.lineno}: assert; raise ValueError for what a user can cause")
        elif isinstance(node, ast.ImportFrom) and node.module == "__future__":
            errors.append(f"line {node.lineno}: from __future__ hides the types from the checker")
        elif isinstance(node, ast.ExceptHandler) and all(
            isinstance(n, ast.Pass) for n in node.body
        ):
            errors.append(f"line {node.lineno}: an exception is swallowed")
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in BANNED_CALLS:
            errors.append(
                f"line {node.lineno}: {ast.unparse(node.func)}: "
                f"{BANNED_CALLS[ast.unparse(node.func)]}"
            )
        elif any("pickle" in name for name in imported_modules(node)):
            errors.append(f"line {node.lineno}: no pickle anywhere")
    return errors


def imported_modules(node):
    """Names of the modules that a node imports from."""
    if isinstance(node, ast.ImportFrom):
        return [node.module or ""]
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else []


def test_no_banned_constructs():
    assert violations(banned_constructs) == {}


BANNED_CALLS = {
    "torch.manual_seed": "use an explicit generator",
    "np.random.seed": "use an explicit generator",
    "random.seed": "use an explicit generator",
    "torch.load": "no pickle anywhere",
    "torch.save": "no pickle anywhere",
    "yaml.unsafe_load": "use a safe loader",
    "yaml.full_load": "use a safe loader",
    "eval": "never",
    "exec": "never",
}


def missing_annotations(path):
    missing = []
    for node in tree(path).body:
        members = node.body if isinstance(node, ast.ClassDef) else [node]
        for f in members:
            if isinstance(f, ast.FunctionDef) and not f.name.startswith("_"):
                arguments = [
                    a
                    for a in [*f.args.posonlyargs, *f.args.args, *f.args.kwonlyargs]
                    if a.arg not in ("self", "cls")
                ]
                missing += [f"{f.name}({a.arg})" for a in arguments if a.annotation is None]
                missing += [f"{f.name} ->"] if f.returns is None else []
    return missing


def test_public_functions_are_annotated():
    assert violations(missing_annotations) == {}


def names_of_modules(path):
    """Else `package.name` is the function or the module, by what was imported last."""
    if path.name == "__init__.py":
        modules = {p.stem for p in path.parent.iterdir()}
        names = [
            a.asname or a.name
            for n in tree(path).body
            if isinstance(n, ast.ImportFrom)
            for a in n.names
        ]
    else:
        modules = {path.stem}
        names = [n.name for n in tree(path).body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
    return [name for name in names if name in modules]


def test_no_public_name_is_that_of_a_module():
    assert violations(names_of_modules) == {}
