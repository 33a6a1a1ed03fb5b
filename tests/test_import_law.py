"""The import law: which module may import which, and which file owns which third-party library."""

import ast
import graphlib
import subprocess
import sys

import pytest

from tests.imports import PACKAGES, ROOT, imports, modules

# room -> the rooms of ours that it may import, besides itself; the longest matching name counts
LAW = {
    "zoo.pattern": set(),
    "zoo.weight_space": {"zoo.pattern"},
    "zoo.config": set(),
    "zoo.imports": {"zoo.options"},
    "zoo.options": set(),
    "zoo.params": {"zoo.options", "zoo.weight_space"},
    "zoo.state_dicts": {"zoo.params"},
    "zoo.symmetry": {"zoo.options", "zoo.params", "zoo.pattern", "zoo.weight_space"},
    "zoo.architectures": {
        "zoo.options",
        "zoo.symmetry",
        "zoo.params",
        "zoo.pattern",
        "zoo.weight_space",
    },
    "zoo.tracing": {
        "zoo.options",
        "zoo.modules",
        "zoo.architectures",
        "zoo.symmetry",
        "zoo.params",
        "zoo.pattern",
        "zoo.weight_space",
    },
    "zoo.conservation": {"zoo.symmetry", "zoo.params", "zoo.weight_space"},
    "zoo.modules": {
        "zoo.architectures",
        "zoo.options",
        "zoo.params",
        "zoo.state_dicts",
        "zoo.symmetry",
        "zoo.weight_space",
    },
    "zoo.dynamics": {"zoo.architectures", "zoo.params"},
    "zoo.store": {
        "zoo.imports",
        "zoo.tracing",
        "zoo.options",
        "zoo.architectures",
        "zoo.config",
        "zoo.params",
        "zoo.pattern",
        "zoo.weight_space",
    },
    "zoo.sharing": {"zoo.params", "zoo.store"},
    "zoo.views": {"zoo.architectures", "zoo.params", "zoo.store", "zoo.weight_space"},
    "zoo.writing": {
        "zoo.architectures",
        "zoo.config",
        "zoo.modules",
        "zoo.options",
        "zoo.params",
        "zoo.sharing",
        "zoo.state_dicts",
        "zoo.store",
        "zoo.tracing",
        "zoo.views",
        "zoo.weight_space",
    },
    "zoo.importers": {
        "zoo.architectures",
        "zoo.options",
        "zoo.params",
        "zoo.state_dicts",
        "zoo.store",
        "zoo.weight_space",
        "zoo.writing",
    },
    "zoo.testing": {"zoo.architectures", "zoo.symmetry", "zoo.params", "zoo.weight_space"},
    "data_gen.rng": set(),
    "data_gen.sampling": {"data_gen.rng", "zoo"},
    "data_gen.tasks": {"data_gen.rng", "zoo"},
    "data_gen.training": {"data_gen.tasks", "data_gen.rng", "zoo"},
    "data_gen.config": {"data_gen.sampling", "data_gen.tasks", "data_gen.training", "zoo"},
    "data_gen.columns": {"data_gen.config", "data_gen.tasks", "zoo"},
    "data_gen.populations": {
        "data_gen.columns",
        "data_gen.config",
        "data_gen.rng",
        "data_gen.tasks",
        "zoo",
    },
    "data_gen.table": {
        "data_gen.config",
        "data_gen.rng",
        "data_gen.sampling",
        "data_gen.tasks",
        "data_gen.training",
    },
    "data_gen.shard": {
        "data_gen.config",
        "data_gen.populations",
        "data_gen.sampling",
        "data_gen.table",
        "data_gen.tasks",
        "data_gen.training",
        "zoo",
    },
    "data_gen.folder": {"data_gen.config", "data_gen.shard", "zoo"},
    "data_gen.executors": set(),
    "data_gen.planning": {
        "data_gen.config",
        "data_gen.populations",
        "data_gen.shard",
        "data_gen.table",
        "data_gen.tasks",
        "zoo",
    },
    "data_gen.finishing": {
        "data_gen.columns",
        "data_gen.config",
        "data_gen.folder",
        "data_gen.planning",
        "data_gen.table",
        "zoo",
    },
    "data_gen.generation": {
        "data_gen.config",
        "data_gen.executors",
        "data_gen.finishing",
        "data_gen.folder",
        "data_gen.planning",
        "data_gen.shard",
        "data_gen.training",
        "zoo",
    },
    "data_gen.integrity": {
        "data_gen.columns",
        "data_gen.config",
        "data_gen.executors",
        "data_gen.finishing",
        "data_gen.folder",
        "data_gen.generation",
        "data_gen.planning",
        "data_gen.populations",
        "data_gen.shard",
        "data_gen.table",
        "data_gen.tasks",
        "data_gen.training",
        "zoo",
    },
    "data_gen.cli": {
        "data_gen.config",
        "data_gen.executors",
        "data_gen.generation",
        "data_gen.planning",
    },
    "metanet.feature_rows": set(),
    "metanet.columns": {"zoo"},
    "metanet.contract": {"metanet.columns", "metanet.feature_rows", "zoo"},
    "metanet.metrics": {"zoo"},
    "metanet.inputs": {"metanet.columns", "metanet.contract", "metanet.feature_rows", "zoo"},
    "metanet.trees": {"metanet.contract", "zoo"},
    "metanet.train": {"metanet.contract", "metanet.inputs"},
    "metanet.models": {
        "metanet.contract",
        "metanet.feature_rows",
        "metanet.graphs",
        "metanet.inputs",
        "metanet.layers",
        "metanet.trees",
        "zoo",
    },
    "metanet.fitting": {
        "metanet.contract",
        "metanet.feature_rows",
        "metanet.inputs",
        "metanet.train",
        "zoo",
    },
    "metanet.record": {"metanet.columns", "metanet.contract", "metanet.inputs", "zoo"},
    "metanet.serialization": {
        "metanet.columns",
        "metanet.contract",
        "metanet.inputs",
        "metanet.record",
        "zoo",
    },
    "metanet.arguments": {"metanet.contract", "metanet.inputs", "metanet.models", "zoo"},
    "metanet.estimator": {
        "metanet.arguments",
        "metanet.contract",
        "metanet.fitting",
        "metanet.inputs",
        "metanet.metrics",
        "metanet.models",
        "metanet.serialization",
        "zoo",
    },
    "metanet.testing": {
        "metanet.contract",
        "metanet.estimator",
        "metanet.feature_rows",
        "metanet.inputs",
        "zoo",
    },
    "metanet.graphs": {"zoo.params", "zoo.symmetry", "zoo.weight_space"},
    "metanet.layers": {"metanet.graphs", "zoo.symmetry", "zoo.weight_space"},
    "studies.registry": set(),
    "studies.common": {"zoo", "data_gen", "metanet"},
    "studies.bayesian": {"studies.common", "zoo", "data_gen"},
    "studies.commands": {"studies.common", "studies.registry", "zoo", "data_gen"},
    "studies.connectivity": {"studies.common", "zoo", "data_gen"},
    "studies.conservation": {"studies.common", "zoo", "data_gen", "metanet"},
    "studies.interpolation": {"studies.common", "zoo", "data_gen", "metanet"},
    "studies.learnability": {"studies.common", "zoo", "data_gen", "metanet"},
    "studies.merging": {"studies.common", "zoo", "data_gen"},
    "studies.cli": {
        "studies.commands",
        "studies.common",
        "zoo",
        "data_gen",
        "metanet",
    },
}
# library -> files that may import it
OWNERS = {
    "h5py": {"zoo/store/hdf5.py"},
    "datasets": {"data_gen/tasks/images.py", "data_gen/tasks/rows.py"},
    "yaml": {"zoo/config.py", "zoo/sharing/card.py"},
    "huggingface_hub": {"zoo/sharing/hub.py"},
    "pyarrow": {"zoo/sharing/export.py"},
    "matplotlib": {"studies"},
    "scipy": {
        "data_gen/tasks/mnist1d.py",
        "metanet",
        "studies/common/intervals.py",
        "zoo/symmetry/assignment.py",
    },
    "sklearn": {"data_gen/tasks/bundled.py", "metanet"},
    "torch_geometric": {"data_gen/tasks/graphs.py", "data_gen/tasks/sbm.py", "metanet"},
    "pydantic": {
        "zoo/config.py",
        "zoo/options.py",
        "zoo/store/entries.py",
        "zoo/store/manifest.py",
        "zoo/writing/tables.py",
        "data_gen",
        "metanet",
        "studies",
    },
    "safetensors": {"data_gen/tasks/sources.py", "metanet", "zoo/sharing/export.py"},
    "ray": {"data_gen/executors/ray.py"},
    "tqdm": {"data_gen/executors/progress.py", "metanet", "studies"},
}


def within(name, prefix):
    return name == prefix or name.startswith(f"{prefix}.")


def violations(root):
    errors = []
    for name, path in modules(root):
        relative = str(path.relative_to(root))
        for imported in imports(path, root):
            top = imported.split(".")[0]
            if imported.startswith("."):
                errors.append(f"{relative}: relative import {imported!r}")
            elif top in OWNERS and not any(
                relative == owner or relative.startswith(f"{owner}/") for owner in OWNERS[top]
            ):
                errors.append(f"{relative}: {top} belongs to {sorted(OWNERS[top])}")
            elif top in PACKAGES and path.name != "__init__.py":
                rule = max((rule for rule in LAW if within(name, rule)), key=len, default=None)
                if rule is None or not any(
                    within(imported, allowed) for allowed in LAW[rule] | {rule}
                ):
                    errors.append(f"{relative}: may not import {imported}")
    return errors


def test_the_law_holds():
    assert violations(ROOT) == []


PLANTED = {
    "arm to arm": ("data_gen/sampling.py", "import metanet.train"),
    "arm to top": ("metanet/metrics.py", "from studies.learnability.report import write_report"),
    "up": ("zoo/params.py", "from zoo.store.hdf5 import write_columns"),
    "inside a function": ("zoo/weight_space.py", "def f():\n    from zoo.params import Params"),
    "library": ("zoo/sharing/hub.py", "import h5py"),
    "relative": ("data_gen/training/optim.py", "from .trainer import Trainer"),
}


@pytest.mark.parametrize("case", PLANTED)
def test_a_planted_violation_is_caught(case, tmp_path):
    for _, path in modules(ROOT):
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    relative, line = PLANTED[case]
    target = tmp_path / relative
    target.write_text(f"{target.read_text(encoding='utf-8')}\n{line}\n", encoding="utf-8")
    errors = violations(tmp_path)
    assert len(errors) == 1
    assert errors[0].startswith(relative)


def test_there_are_no_cycles():
    known = dict(modules(ROOT))
    graph = {
        name: {i for i in imports(path, ROOT) if i in known and i != name}
        for name, path in known.items()
    }
    graphlib.TopologicalSorter(graph).prepare()


def test_there_are_no_cycles_between_rooms():
    """Rooms, not only modules, are in an order: what a room may import comes before it."""
    graph = {room: {other for other in allowed if other in LAW} for room, allowed in LAW.items()}
    graphlib.TopologicalSorter(graph).prepare()
    rooms = {name: room_of(name) for name, _ in modules(ROOT)}
    used = {room: set() for room in rooms.values()}
    for name, path in modules(ROOT):
        if path.name != "__init__.py":
            used[rooms[name]] |= {rooms[i] for i in imports(path, ROOT) if i in rooms}
    graphlib.TopologicalSorter({room: other - {room} for room, other in used.items()}).prepare()


def room_of(name):
    """The sub-package that a module is in.

    A module at the top of a package is a room of its own.
    """
    parts = name.split(".")
    is_room = len(parts) > 1 and (ROOT / parts[0] / parts[1]).is_dir()
    return ".".join(parts[:2]) if is_room else name


def is_reexport(node):
    """A docstring, an import, `__all__`, or what a lazy import needs."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    if isinstance(node, ast.Assign):
        return ast.unparse(node.targets[0]) in ("__all__", "_MODULES", "_ROOMS")
    if isinstance(node, ast.If):
        for_types = ast.unparse(node.test) == "TYPE_CHECKING"
        return for_types and all(isinstance(n, ast.ImportFrom) for n in node.body + node.orelse)
    if isinstance(node, ast.FunctionDef):
        return node.name in ("__getattr__", "__dir__")
    return isinstance(node, ast.ImportFrom)


def test_init_files_only_reexport():
    for _, path in modules(ROOT):
        if path.name == "__init__.py":
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                assert is_reexport(node), f"{path}: {ast.unparse(node)}"


LIGHT = {
    "zoo": ("torch", "numpy", "h5py"),
    "data_gen": ("torch", "datasets", "ray"),
    "data_gen.cli": ("torch", "datasets", "ray"),
    "studies.cli": ("torch", "datasets", "matplotlib", "sklearn", "pandas", "ray"),
    "metanet.testing": ("datasets", "matplotlib", "torch_geometric", "ray"),
    "data_gen.generation": ("torch._dynamo",),
}
"""Module -> what must not be there once it and those above it are imported."""


def test_imports_stay_light():
    """In one process, the lightest first."""
    code = (
        "import sys, importlib\n"
        f"for module, heavy in {LIGHT!r}.items():\n"
        "    importlib.import_module(module)\n"
        "    print(module, *[name for name in heavy if name in sys.modules])"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    assert shown.splitlines() == list(LIGHT)
