"""The public doors: a name is the object that its module defines, loaded on first use."""

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOORS = {
    "zoo": {
        "ARCHITECTURES": "zoo.architectures.table",
        "Architecture": "zoo.architectures.base",
        "NeuronGroup": "zoo.weight_space",
        "Params": "zoo.params",
        "Population": "zoo.store.population",
        "WeightSpace": "zoo.weight_space",
        "Zoo": "zoo.store.zoo",
        "act": "zoo.symmetry.action",
        "align": "zoo.symmetry.alignment",
        "asymmetric": "zoo.modules.twins",
        "canonicalize": "zoo.symmetry.canonical",
        "from_module": "zoo.tracing.builders",
        "import_plugin": "zoo.imports",
        "load": "zoo.store.zoo",
        "population": "zoo.writing.memory",
        "sample": "zoo.symmetry.action",
        "trace": "zoo.tracing.tracer",
        "write": "zoo.writing.on_disk",
    },
    "data_gen": {
        "Job": "data_gen.config",
        "generate": "data_gen.generation",
        "load_job": "data_gen.config",
    },
    "metanet": {
        "METANETS": "metanet.models.table",
        "Metanet": "metanet.estimator",
        "load": "metanet.estimator",
    },
}


def for_types(package):
    """Names that a type checker sees, by the module that they come from."""
    tree = ast.parse((ROOT / package / "__init__.py").read_text(encoding="utf-8"))
    return {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == package
        for alias in node.names
    }


@pytest.mark.parametrize("package", DOORS)
def test_the_door_lists_its_names(package):
    module = importlib.import_module(package)
    assert module.__all__ == sorted(module.__all__)
    assert set(module.__all__) == DOORS[package].keys()
    assert set(module.__all__) <= set(dir(module))
    assert for_types(package) == DOORS[package]


@pytest.mark.parametrize(
    ("package", "name"), [(package, name) for package, names in DOORS.items() for name in names]
)
def test_a_name_is_the_object_that_its_module_defines(package, name):
    source = importlib.import_module(DOORS[package][name])
    assert getattr(importlib.import_module(package), name) is vars(source)[name]
    tree = ast.parse(Path(source.__file__).read_text(encoding="utf-8"))
    defined = {node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            defined |= {target.id for target in targets if isinstance(target, ast.Name)}
    assert name in defined


@pytest.mark.parametrize("package", DOORS)
def test_an_unknown_name_is_an_attribute_error(package):
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'lode'"):
        _ = importlib.import_module(package).lode
    with pytest.raises(ImportError, match="lode"):
        exec(f"from {package} import lode")


def rooms(package):
    folder = ROOT / package
    files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    return files | {path.parent.name for path in folder.glob("*/__init__.py")}


@pytest.mark.parametrize("package", ["zoo", "data_gen", "metanet", "studies"])
def test_packages_are_typed(package):
    assert (ROOT / package / "py.typed").is_file()
    assert f'"{package}" = ["py.typed"]' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_in_a_folder_with_folders_named_like_packages(tmp_path):
    """As where a zoo was made as `--out zoo`: they hide none, and `import zoo` reaches every room.

    In a process of its own, so that nothing else has imported them.
    """
    packages = ("zoo", "metanet", "data_gen", "studies")
    for package in packages:
        (tmp_path / package).mkdir()
    # A folder that is taken for a package has no file; the last line takes a name through a door.
    code = (
        "import sys, zoo\n"
        "print(*[getattr(zoo, name).__name__ for name in sys.argv[1:]])\n"
        "import metanet, data_gen, studies, studies.registry\n"
        "assert all(package.__file__ for package in (zoo, metanet, data_gen, studies))\n"
        "print(zoo.WeightSpace.__name__)"
    )
    names = sorted(name for name in rooms("zoo") if not name.startswith("hdf5"))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    shown = subprocess.run(
        [sys.executable, "-c", code, *names],
        cwd=tmp_path,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert shown.split() == [*(f"zoo.{name}" for name in names), "WeightSpace"]
