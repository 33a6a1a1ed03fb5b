"""Zoos of a user's module: files, readers, `verify`, `repair`, refusals before training."""

import json
import random
import shutil
import sys

import pytest
import torch
from torch import nn

import zoo
from data_gen.config import Job, load_job
from data_gen.generation import generate
from data_gen.integrity.repair import repair_zoo
from data_gen.integrity.verify import verify_zoo
from data_gen.planning import make_plan
from data_gen.tasks.task import load_task
from studies.common.alignments import standard_space
from tests.data_gen.jobs import assert_resumes_after_kill, visible
from zoo import imports
from zoo.architectures import ARCHITECTURES
from zoo.config import ConfigError
from zoo.imports import allow
from zoo.store.mapped import StoreError

ROOM = "tests.data_gen.test_module_zoos"
KINDS = {
    "standard": None,
    "w": {"kind": "w", "n_fix": 2, "skip": ["head"]},
    "sigma": {"kind": "sigma"},
    "syre": {"kind": "syre", "skip": ["body.2"]},
}


class Net(nn.Module):
    """A module of a user."""

    def __init__(self, width=5):
        super().__init__()
        layers = (nn.Flatten(), nn.Linear(64, width), nn.BatchNorm1d(width), nn.ReLU())
        self.body = nn.Sequential(*layers, nn.Dropout(0.2))
        self.head = nn.Linear(width, 10)

    def forward(self, x):
        return self.head(self.body(x))


class Few(Net):
    """Seven classes for a task of ten."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(5, 7)


class Decides(Net):
    """Its way depends on the values of its inputs."""

    def forward(self, x):
        return super().forward(x) if x.sum() > 0 else super().forward(-x)


class DrawsElsewhere(Net):
    """Its initialization is not torch's."""

    def __init__(self):
        super().__init__()
        self.head.bias.data.fill_(random.SystemRandom().random())


class Counts(Net):
    """A whole number that training changes."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        self.calls += 1
        return super().forward(x)


def number():
    """No module."""
    return 7


def job_of(module="Net", kinds=KINDS, **changes):
    architecture = {"module": f"{ROOM}:{module}"}
    populations = {name: {"architecture": architecture, "asymmetry": kinds[name]} for name in kinds}
    job = {
        "task": {"name": "digits", "train_size": 100, "test_size": 50},
        "populations": populations,
        "hyperparameters": {"steps": 4, "lr": 0.1, "batch_size": 16, "optimizer": "adamw"},
        "count": 6,
        "checkpoints": 2,
    }
    return Job.model_validate(job | changes)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return generate(job_of(), tmp_path_factory.mktemp("modules") / "zoo", quiet=True, compile=False)


@pytest.fixture
def copy(original, tmp_path):
    return shutil.copytree(original, tmp_path / "copy")


@pytest.fixture
def nothing_allowed(monkeypatch):
    monkeypatch.setattr(imports, "_allowed", set())


def test_a_reader_needs_no_module_for_all_but_running_networks(original, nothing_allowed):
    for population in zoo.load(original).values():
        assert population.params("test")["head.weight"].shape[1:] == (10, 5)
        assert population.known_architecture() is None
        with pytest.raises(StoreError, match=r"imports no code: give zoo.load\(path, modules="):
            _ = population.architecture


@pytest.mark.parametrize("kind", KINDS)
def test_with_the_module_networks_do_what_their_rows_say(original, kind):
    task = load_task(job_of().task)
    population = zoo.load(original, modules={kind: Net})[kind]
    params, table = population.params("train"), population.table("train")
    for i in range(len(table)):
        one = {name: tensor[i] for name, tensor in params.items()}
        right = population.architecture.apply(one, task.inputs(task.test.x)).argmax(1)
        assert (right == task.test.y).double().mean().item() == table.test_accuracy[i]


def test_a_module_is_found_by_its_trusted_name_or_given_as_an_architecture(original, monkeypatch):
    """As a class it is given above. The standard network is told for an asymmetric one, too."""
    z = zoo.load(original)
    architecture = zoo.from_module(Net, torch.randn(2, 1, 8, 8))
    given = zoo.load(original, modules={"w": architecture})["w"]
    assert given.architecture.space == z["w"].space
    monkeypatch.setattr(imports, "_allowed", {ROOM})  # a trusted name needs no `modules`
    trusted = zoo.load(original)["sigma"]
    assert trusted.architecture.space == z["sigma"].space
    assert standard_space(trusted) == z["standard"].space


def test_asymmetry_of_a_module_is_that_of_its_twin(original):
    z = zoo.load(original)
    masks = z["w"].free
    assert set(masks) == {"body.1.weight"}
    assert (~masks["body.1.weight"]).sum(1).tolist() == [2] * 5
    fixed = z["w"].constants["fixed.body.1.weight"][~masks["body.1.weight"]]
    for split in ("train", "test"):
        stored = z["w"].params(split)["body.1.weight"]
        assert torch.equal(stored[:, ~masks["body.1.weight"]], fixed.expand(len(stored), -1))
    mixing = z["sigma"].constants["buffer.body.3.mixing_5"]
    assert mixing.shape == (5, 5)
    assert not any(group.permutable for group in z["sigma"].space.groups.values())
    assert {name for name in z["syre"].constants if name.startswith("offset.")} == {
        *("offset.body.1.weight", "offset.body.1.bias", "offset.head.weight", "offset.head.bias")
    }


@pytest.mark.parametrize(
    ("module", "why"),
    [
        (lambda: Net(width=4), "tensor 'body.1.weight': the module has .*4, 64"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), "tensor '.*weight'"),
        (lambda: 7, "returns int, expected a torch.nn.Module"),
    ],
)
def test_another_module_is_refused(original, module, why):
    with pytest.raises(StoreError, match=f"not those of the module that was given: .*{why}"):
        _ = zoo.load(original, modules={"standard": module})["standard"].architecture
    with pytest.raises(ValueError, match=r"modules: no populations \['other'\]"):
        zoo.load(original, modules={"other": module})


@pytest.mark.parametrize("number", [9, 27])
def test_a_killed_run_goes_on_to_the_same_bytes(original, tmp_path, number):
    """In the middle of a shard, and of the constants; dropout depends on network and step alone."""

    def make(out):
        generate(job_of(), out, quiet=True, compile=False)

    assert_resumes_after_kill(number, make, tmp_path / "zoo", visible(original))


def test_a_resumed_zoo_is_the_same_to_the_byte(original, copy):
    for path in ("w/train-00000-of-00001.h5", "constants/sigma.h5", "zoo.json"):
        (copy / path).unlink()
    generate(job_of(), copy, quiet=True, compile=False)
    assert visible(copy) == visible(original)


@pytest.mark.deep
def test_processes_make_the_same_zoo(original, tmp_path):
    folder = generate(job_of(), tmp_path / "zoo", workers=2, quiet=True, compile=False)
    ours, theirs = visible(folder), visible(original)
    assert {n: d for n, d in ours.items() if n.endswith(".h5")} == {
        name: data for name, data in theirs.items() if name.endswith(".h5")
    }


def test_verify_builds_modules_that_were_allowed_and_no_others(copy, nothing_allowed):
    said = []
    assert not verify_zoo(copy, report=said.append)
    assert sum("give symzoo --plugin tests.data_gen.test_module_zoos" in line for line in said) == 4
    allow([ROOM])
    said.clear()
    assert not verify_zoo(copy, report=said.append)
    assert not any("--plugin" in line for line in said)

    def change(manifest):
        groups = manifest["populations"]["w"]["space"]["groups"]
        name = next(name for name, group in groups.items() if group["size"] == 5)
        groups[name]["permutable"] = True

    edit(copy, change)
    assert any("population 'w'" in str(fault) for fault in verify_zoo(copy, sample=0))


def test_repair_imports_nothing_unasked(original, copy, nothing_allowed):
    damaged = copy / "sigma" / "test-00000-of-00001.h5"
    damaged.write_bytes(b"no zoo")
    with pytest.raises(ValueError, match=r"modules \['tests.data_gen.test_module_zoos'\], which"):
        repair_zoo(copy, device="cpu", compile=False, quiet=True)
    allow([ROOM])
    repair_zoo(copy, device="cpu", compile=False, quiet=True)
    assert visible(copy) == visible(original)


def edit(folder, change):
    path = folder / "zoo.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize("key", ["module", "plugins"])
def test_no_key_of_a_strangers_zoo_imports_anything(copy, key, nothing_allowed):
    """`antigravity` opens a browser."""
    stranger = job_of().model_dump(mode="json", exclude_none=True)
    if key == "plugins":
        stranger["plugins"] = ["antigravity"]
    else:
        for population in stranger["populations"].values():
            population["architecture"]["module"] = "antigravity:fly"
    job = Job.model_validate(stranger)

    def change(manifest):
        manifest["config"] = json.loads(job.as_json())
        manifest["config_sha256"] = job.sha256
        for name, population in manifest["populations"].items():
            population["architecture"] = job.populations[name].architecture

    edit(copy, change)
    for population in zoo.load(copy).values():
        assert population.known_architecture() is None
    verify_zoo(copy)
    with pytest.raises(ValueError, match="not imported unasked"):
        repair_zoo(copy, device="cpu", compile=False, quiet=True)
    with pytest.raises(ValueError, match="which is not imported because a file"):
        make_plan(job)
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    ("module", "why"),
    [
        ("Missing", "module 'tests.data_gen.test_module_zoos' .* has no 'Missing'"),
        ("number", "<function number at .*> returns int, expected a torch.nn.Module"),
        ("Few", r"outputs of shape \[2, 7\] .*'cross_entropy' need \[2, 10\]"),
        ("Decides", 'cannot be exported at "return super.*forward'),
        ("DrawsElsewhere", "makes another 'head.bias' each time under one seed"),
        ("Counts", "buffer 'calls' of type torch.int64 is changed by training"),
    ],
)
def test_a_module_that_cannot_be_trained_is_refused_before_training(module, why):
    job = job_of(module, {"standard": None})
    allow(job.code)
    with pytest.raises(ValueError, match=f"population 'standard': .*{why}"):
        make_plan(job)


def test_options_that_the_module_does_not_have_are_refused():
    architecture = {"module": f"{ROOM}:Net", "options": {"depth": 3}}
    job = job_of(populations={"p": {"architecture": architecture}})
    allow(job.code)
    with pytest.raises(ValueError, match=r"Net'.*TypeError: .*unexpected keyword .*'depth'"):
        make_plan(job)


JOB = """
count: 4
task: {{name: digits, train_size: 60, test_size: 40}}
hyperparameters: {{steps: 2}}
plugins: {plugins}
populations: {{p: {{architecture: {{name: row_of_a_plugin}}}}}}
"""
PLUGIN = """
import zoo
from zoo.architectures import build_mlp

def row(input_shape, num_classes):
    return build_mlp(input_shape, num_classes, hidden=(3,))

zoo.ARCHITECTURES["row_of_a_plugin"] = row
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    (tmp_path / "plugin_of_tests.py").write_text(PLUGIN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield "plugin_of_tests"
    ARCHITECTURES.pop("row_of_a_plugin", None)
    sys.modules.pop("plugin_of_tests", None)


@pytest.mark.parametrize("where", ["job", "command"])
def test_a_plugin_adds_rows(plugin, tmp_path, where):
    path = tmp_path / "job.yaml"
    path.write_text(JOB.format(plugins=f"[{plugin}]" if where == "job" else "[]"))
    job = load_job(str(path), plugins=[plugin] if where == "command" else [])
    assert job.plugins == (plugin,)
    folder = generate(job, tmp_path / "zoo", workers=1, quiet=True, compile=False)
    assert zoo.load(folder)["p"].params("train")["layers.0.weight"].shape == (2, 3, 64)


def test_a_plugin_that_is_not_there_is_an_error(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(JOB.format(plugins="[no_plugin_of_tests]"))
    with pytest.raises(ValueError, match="plugin 'no_plugin_of_tests': No module named"):
        load_job(str(path))
    path.write_text(JOB.format(plugins="mine"))
    with pytest.raises(ConfigError, match="plugins: expected a list of names of modules"):
        load_job(str(path))
