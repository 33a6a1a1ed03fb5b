"""Texts of unknown origin reach no shell, format string or loader that runs code.

Nothing that takes them there is used.
"""

import ast
from pathlib import Path

import pytest

from tests.imports import parsed

ROOT = Path(__file__).parents[1]
FILES = sorted(
    path
    for package in ("zoo", "data_gen", "metanet", "studies")
    for path in (ROOT / package).rglob("*.py")
)
NEVER = {
    *("eval", "exec", "compile", "os.system", "os.popen", "os.execv", "os.spawnv", "pty.spawn"),
    *(
        "torch.load",
        "torch.hub.load",
        "pickle.load",
        "pickle.loads",
        "marshal.loads",
        "shelve.open",
        "joblib.load",
    ),
    *(
        "yaml.unsafe_load",
        "yaml.full_load",
        "yaml.load_all",
        "yaml.full_load_all",
        "yaml.unsafe_load_all",
    ),
    *("pd.read_pickle", "pandas.read_pickle", "np.fromregex", "string.Template"),
}
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}


def found_in(tree: ast.AST) -> list[str]:
    errors = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
            )
            errors += [
                f"line {node.lineno}: import {name}"
                for name in names
                if name.split(".")[0] in MODULES
            ]
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        unsafe = (
            name in NEVER
            or options.get("shell", "False") != "False"
            or (name == "yaml.load" and options.get("Loader") not in ("_Loader", "yaml.SafeLoader"))
            or (
                name in ("np.load", "numpy.load")
                and options.get("allow_pickle", "False") != "False"
            )
            or options.get("trust_remote_code", "False") != "False"
            or _formats_a_variable(node)
        )
        if unsafe:
            errors.append(f"line {node.lineno}: {name}")
    return errors


def _formats_a_variable(call: ast.Call) -> bool:
    """Whether `format` is called on anything but a text of the source or a module's constant."""
    if not isinstance(call.func, ast.Attribute) or call.func.attr not in ("format", "format_map"):
        return False
    text = call.func.value
    return not isinstance(text, ast.Constant) and not (
        isinstance(text, ast.Name) and text.id.isupper()
    )


def test_nothing_runs_what_it_reads():
    errors = {str(path): found_in(parsed(path.read_text(encoding="utf-8"))) for path in FILES}
    assert {path: lines for path, lines in errors.items() if lines} == {}


@pytest.mark.parametrize(
    "code",
    [
        "eval(text)",
        "os.system(text)",
        "subprocess.run(text, shell=True)",
        "subprocess.run(text, shell=flag)",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.unsafe_load(text)",
        "np.load(path, allow_pickle=True)",
        "torch.load(path, weights_only=False)",
        "import pickle",
        "from joblib import load",
        "text.format(x)",
        "self.text.format(x)",
        "load_dataset(path, trust_remote_code=True)",
    ],
)
def test_what_would_is_caught(code):
    assert len(found_in(ast.parse(code))) == 1


def test_what_is_fine_is_fine():
    code = (
        "'{}'.format(x); PAGE.format(x); np.load(p, allow_pickle=False); yaml.load(t, "
        "Loader=_Loader); yaml.safe_load(t)"
    )
    assert found_in(ast.parse(code)) == []
