"""Rules of style that a linter does not know."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(
    path
    for package in ("zoo", "data_gen", "metanet", "studies")
    for path in (ROOT / package).rglob("*.py")
)
MAX_FILE, MAX_FUNCTION = 330, 40


def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(path):
    return [
        n for n in ast.walk(tree(path)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def length(function):
    """Lines of a function without its docstring, its signature and functions inside it."""
    body = function.body
    if (
        isinstance(body[0], ast.Expr)
        and isinstance(body[0].value, ast.Constant)
        and isinstance(body[0].value.value, str)
    ):
        body = body[1:]
    inner = [n for n in body if isinstance(n, ast.FunctionDef)]
    return sum(n.end_lineno - n.lineno + 1 for n in body if n not in inner)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_is_one_concept(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_FILE


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_function_fits_a_screen(path):
    assert [(f.name, length(f)) for f in functions(path) if length(f) > MAX_FUNCTION] == []


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_banned_constructs(path):
    found = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Assert):
            found.append(f"line {node.lineno}: assert; raise ValueError for what a user can cause")
        elif isinstance(node, ast.ImportFrom) and node.module == "__future__":
            found.append(f"line {node.lineno}: from __future__ hides the types from the checker")
        elif isinstance(node, ast.ExceptHandler) and all(
            isinstance(n, ast.Pass) for n in node.body
        ):
            found.append(f"line {node.lineno}: an exception is swallowed")
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in BANNED_CALLS:
            found.append(
                f"line {node.lineno}: {ast.unparse(node.func)}: {BANNED_CALLS[ast.unparse(node.func)]}"
            )
        elif isinstance(node, ast.Import | ast.ImportFrom) and "pickle" in ast.unparse(node):
            found.append(f"line {node.lineno}: no pickle anywhere")
    assert found == []


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


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_public_functions_are_annotated(path):
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
    assert missing == []


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_public_name_is_that_of_a_module(path):
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
    assert [name for name in names if name in modules] == []
