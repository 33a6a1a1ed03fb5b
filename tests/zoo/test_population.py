"""A zoo on disk.

What was generated is what is read, by us and by `datasets`, and a damaged zoo says what is wrong.
"""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from torch.func import vmap

import zoo
from data_gen.config import Job
from data_gen.generation import generate
from data_gen.tasks.task import TaskConfig, load_task
from tests.reference.zoo_modules import MODULES
from tests.stored import read_columns
from zoo.architectures import build_architecture, make_asymmetric
from zoo.params import flatten
from zoo.store.mapped import StoreError

POPULATIONS = ["standard", "w_asymmetric", "small_cnn", "sigma_asymmetric"]
SPLITS = {"train": range(6), "validation": range(6, 9), "test": range(9, 12)}
CHECKPOINTS = 3
JOB = {
    "task": {"name": "digits", "train_size": 60, "test_size": 50},
    "populations": {
        "standard": {"architecture": {"name": "mlp", "hidden": [8]}},
        "w_asymmetric": {
            "architecture": {"name": "mlp", "hidden": [8]},
            "asymmetry": {
                "kind": "w",
                "n_fix": {"layers.0.weight": 9, "layers.1.weight": 2},
                "kappa": 0.5,
            },
        },
        "small_cnn": {
            "architecture": {"name": "cnn", "channels": [3, 4], "pool": "flatten", "norm": "layer"}
        },
        "sigma_asymmetric": {
            "architecture": {"name": "mlp", "hidden": [8]},
            "asymmetry": {"kind": "sigma"},
        },
    },
    "hyperparameters": {
        "optimizer": {"choice": ["sgd", "adamw"]},
        "lr": {"log_uniform": [0.01, 0.3]},
        "init_scale": {"uniform": [0.5, 2.0]},
        "batch_size": 16,
        "steps": {"int_range": [2, 5]},
    },
    "count": 12,
    "seed": 5,
    "shard_size": 4,
    "checkpoints": CHECKPOINTS,
}
NUM_FREE = {
    "standard": 610,
    "w_asymmetric": 610 - 8 * 9 - 10 * 2,
    "small_cnn": 326,
    "sigma_asymmetric": 610,
}


@pytest.fixture(scope="session")
def directory(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("zoos") / "real"
    return generate(
        Job.model_validate(JOB), folder, device="cpu", workers=0, compile=False, quiet=True
    )


@pytest.fixture
def copy(directory, tmp_path) -> Path:
    """A copy of the zoo that a test may damage."""
    return Path(shutil.copytree(directory, tmp_path / "zoo"))


@pytest.fixture(params=POPULATIONS)
def population(directory, request) -> zoo.Population:
    return zoo.load(directory)[request.param]


def edit_manifest(directory: Path, change: Callable[[dict], object]) -> None:
    path = directory / "zoo.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


# what a zoo is


def test_a_zoo_is_a_mapping_of_populations_in_the_order_of_the_job(directory):
    z = zoo.load(str(directory))
    assert list(z) == POPULATIONS
    assert len(z) == 4
    assert "standard" in z
    assert "other" not in z
    assert [population.name for population in z.values()] == POPULATIONS
    assert z.directory == directory
    assert z.manifest.config["seed"] == 5
    assert "'w_asymmetric', 12 networks, 518 free of 610 params" in repr(z)


def test_a_population_knows_its_size_splits_and_hyperparameters(population):
    assert len(population) == 12
    assert population.splits == tuple(SPLITS)
    assert {"optimizer", "lr", "init_scale", "batch_size", "steps"} <= set(
        population.hyperparameters
    )
    assert population.num_free == NUM_FREE[population.name]


def test_the_stored_architecture_is_the_one_of_the_job(population):
    config = JOB["populations"][population.name]
    options = {name: value for name, value in config["architecture"].items() if name != "name"}
    expected = build_architecture(config["architecture"]["name"], options, (1, 8, 8), 10)
    if "asymmetry" in config:
        options = {name: value for name, value in config["asymmetry"].items() if name != "kind"}
        expected = make_asymmetric(expected, config["asymmetry"]["kind"], options, seed=0)
    assert population.space == expected.space
    assert population.architecture.space == expected.space
    assert {n: (c.dtype, c.shape) for n, c in population.constants.items()} == {
        n: (c.dtype, c.shape) for n, c in expected.constants.items()
    }


# params and table


@pytest.mark.parametrize("split", SPLITS)
def test_params_and_table_are_by_network_id(population, split):
    params, table = population.params(split), population.table(split)
    assert table["network_id"].tolist() == list(SPLITS[split])
    assert list(params) == list(population.space.tensors)
    for name, tensor in params.items():
        assert tensor.shape == (len(SPLITS[split]), *population.space.shapes[name])
        assert tensor.dtype == torch.float32


@pytest.mark.parametrize("split", SPLITS)
def test_params_are_the_rows_of_the_shards_in_order(population, split):
    files = sorted((population.directory / population.name).glob(f"{split}-*.h5"))
    assert len(files) == (2 if split == "train" else 1)
    columns = [read_columns([file]) for file in files]
    for name, tensor in population.params(split).items():
        np.testing.assert_array_equal(tensor.numpy(), np.concatenate([c[name] for c in columns]))


def test_the_table_has_numbers_text_and_booleans(population):
    table = population.table("train")
    assert set(table["optimizer"]) == {"sgd", "adamw"}
    assert table["diverged"].dtype == bool
    assert not table["diverged"].any()
    assert all(
        pd.api.types.is_numeric_dtype(table[n])
        for n in population.hyperparameters
        if n not in ("optimizer", "schedule")
    )
    assert table["lr"].between(0.01, 0.3).all()
    np.testing.assert_array_equal(
        table["generalization_gap"], table["train_accuracy"] - table["test_accuracy"]
    )
    assert np.isfinite(table[["train_loss", "test_loss"]]).all(axis=None)


@pytest.mark.parametrize("split", SPLITS)
def test_the_free_view_leaves_out_the_fixed_entries(population, split):
    full, free = population.params(split), population.params(split, view="free")
    assert list(free) == list(full)
    assert sum(tensor[0].numel() for tensor in free.values()) == population.num_free
    for name, tensor in full.items():
        mask = population.free.get(name)
        assert torch.equal(free[name], tensor if mask is None else tensor[:, mask])


def test_fixed_entries_are_the_same_in_every_network(directory):
    population = zoo.load(directory)["w_asymmetric"]
    assert set(population.free) == {"layers.0.weight", "layers.1.weight"}
    for split in SPLITS:
        for name, mask in population.free.items():
            fixed = population.constants[f"fixed.{name}"][~mask]
            assert (population.params(split)[name][:, ~mask] == fixed).all()


# pairing


def test_network_i_is_the_same_draw_with_the_same_split_in_every_population(directory):
    z = zoo.load(directory)
    for split in SPLITS:
        paired = ["network_id", "seed", "train_size", *z["standard"].hyperparameters]
        expected = z["standard"].table(split)[paired]
        for population in z.values():
            pd.testing.assert_frame_equal(population.table(split)[paired], expected)
    ids = [i for split in SPLITS for i in z["standard"].table(split)["network_id"]]
    assert ids == list(range(12))


@pytest.mark.parametrize("name", ["w_asymmetric", "sigma_asymmetric"])
def test_paired_networks_start_from_the_same_draws(directory, name):
    z = zoo.load(directory)
    for split in SPLITS:
        steps, standard = z["standard"].trajectory(split)
        other_steps, other = z[name].trajectory(split)
        np.testing.assert_array_equal(steps, other_steps)
        for tensor in standard:
            mask = z[name].free.get(
                tensor, torch.ones(standard[tensor].shape[2:], dtype=torch.bool)
            )
            assert torch.equal(standard[tensor][:, 0][:, mask], other[tensor][:, 0][:, mask])
            assert not torch.equal(standard[tensor][:, -1][:, mask], other[tensor][:, -1][:, mask])


# trajectories


@pytest.mark.parametrize("split", SPLITS)
def test_trajectories_go_from_step_0_to_the_final_params(population, split):
    steps, moments = population.trajectory(split)
    table, params = population.table(split), population.params(split)
    assert steps.shape == (len(table), CHECKPOINTS)
    assert (steps[:, 0] == 0).all()
    assert steps[:, -1].tolist() == table["steps"].tolist()
    assert (np.diff(steps) > 0).all()
    for name, tensor in moments.items():
        assert tensor.shape == (len(table), CHECKPOINTS, *population.space.shapes[name])
        assert torch.equal(tensor[:, -1], params[name])


def test_trajectories_start_with_what_the_architecture_draws(population):
    _, moments = population.trajectory("test")
    for row, (seed, scale) in enumerate(
        population.table("test")[["seed", "init_scale"]].itertuples(index=False)
    ):
        drawn = population.architecture.init(torch.Generator().manual_seed(int(seed)))
        for name, tensor in drawn.items():
            mask = population.free.get(name, torch.ones(tensor.shape, dtype=torch.bool))
            factor = scale if "<-" in population.space.tensors[name] else 1.0
            torch.testing.assert_close(
                moments[name][row, 0][mask], factor * tensor[mask], rtol=1e-6, atol=0
            )


def test_a_zoo_without_checkpoints_says_so(copy):
    edit_manifest(copy, lambda data: data["populations"]["standard"].pop("trajectory"))
    with pytest.raises(
        StoreError, match="population 'standard': no trajectory; the job asked for no checkpoints"
    ):
        zoo.load(copy)["standard"].trajectory("train")


# the stored networks are the networks


@pytest.mark.parametrize("split", SPLITS)
def test_stored_accuracies_are_those_of_the_stored_weights(population, split):
    task = load_task(TaskConfig.model_validate(population.manifest.config["task"]))
    x, y = task.inputs(task.test.x).double(), task.test.y
    params = {name: tensor.double() for name, tensor in population.params(split).items()}
    logits = vmap(population.architecture.to("cpu", torch.float64).apply, in_dims=(0, None))(
        params, x
    )
    best, second = logits.topk(2).values.unbind(-1)
    correct, sure = (
        logits.argmax(-1) == y,
        best - second > 1e-4,
    )  # float32 may see a tie differently
    accuracy = torch.from_numpy(population.table(split)["test_accuracy"].to_numpy(copy=True))
    assert sure.double().mean() > 0.99
    assert ((correct & sure).double().mean(1) <= accuracy + 1e-12).all()
    assert (accuracy <= (correct | ~sure).double().mean(1) + 1e-12).all()
    nll = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), y.repeat(len(logits)), reduction="none"
    )
    expected = nll.reshape(len(logits), -1).mean(1)
    torch.testing.assert_close(
        torch.from_numpy(population.table(split)["test_loss"].to_numpy(copy=True)),
        expected,
        rtol=1e-5,
        atol=1e-6,
    )


def test_stored_networks_run_as_plain_modules(population):
    config = population.manifest.populations[population.name].architecture
    options = {name: value for name, value in config.items() if name != "name"}
    mixing = {
        n.removeprefix("mixing."): c.double()
        for n, c in population.constants.items()
        if n.startswith("mixing.")
    }
    module = MODULES[config["name"]]((1, 8, 8), 10, **options, mixing=mixing or None).double()
    x = torch.randn(5, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for row in range(3):
        params = {name: tensor[row].double() for name, tensor in population.params("test").items()}
        module.load_state_dict(params)
        logits = population.architecture.to("cpu", torch.float64).apply(params, x)
        torch.testing.assert_close(logits, module(x).detach(), rtol=0, atol=1e-12)


# Hugging Face datasets


@pytest.fixture
def load_dataset(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    datasets.disable_progress_bars()
    yield lambda folder, name: datasets.load_dataset(
        str(folder), name, cache_dir=str(tmp_path / "cache")
    )
    datasets.enable_progress_bars()


def test_datasets_loads_the_same_tensors_and_columns(population, load_dataset):
    loaded = load_dataset(population.directory, population.name)
    assert list(loaded) == list(SPLITS)
    for split, rows in loaded.items():
        params, table = population.params(split), population.table(split)
        assert set(rows.column_names) == {*params, *table}
        for name, tensor in params.items():
            column = np.array(rows[name][:], dtype=np.float32)
            np.testing.assert_array_equal(column, tensor.numpy())
        for name in table:
            assert rows[name][:] == table[name].tolist(), name


def test_datasets_loads_the_same_trajectories(population, load_dataset):
    loaded = load_dataset(population.directory, f"{population.name}.trajectory")
    assert list(loaded) == list(SPLITS)
    for split, rows in loaded.items():
        steps, moments = population.trajectory(split)
        assert set(rows.column_names) == {"network_id", "checkpoint_steps", *moments}
        assert rows["network_id"][:] == list(SPLITS[split])
        np.testing.assert_array_equal(np.array(rows["checkpoint_steps"][:]), steps)
        for name, tensor in moments.items():
            np.testing.assert_array_equal(np.array(rows[name][:], dtype=np.float32), tensor.numpy())


def test_the_globs_of_the_card_end_in_h5_and_each_finds_its_own_shards(directory):
    card = (directory / "README.md").read_text()
    header = yaml.safe_load(card.split("---\n")[1])
    manifest = zoo.load(directory).manifest
    globs = [
        (c["config_name"], f["split"], f["path"])
        for c in header["configs"]
        for f in c["data_files"]
    ]
    assert {name for name, _, _ in globs} == {
        *POPULATIONS,
        *(f"{name}.trajectory" for name in POPULATIONS),
    }
    assert all(path.endswith(".h5") for _, _, path in globs)
    shards = [
        path
        for entry in manifest.populations.values()
        for path in (*entry.shards, *entry.trajectory)
    ]
    files = [str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()]
    for file in files:
        matches = [(name, split) for name, split, path in globs if fnmatch(file, path)]
        folder, _, shard = file.partition("/")
        assert matches == ([(folder, shard.split("-")[0])] if file in shards else []), file


# the manifest


def test_the_manifest_has_length_rows_and_hash_of_every_file(directory):
    manifest = zoo.load(directory).manifest
    entries = {}
    for name, population in manifest.populations.items():
        entries |= population.shards | population.trajectory
        if population.constants is not None:
            entries[f"constants/{name}.h5"] = population.constants
    assert set(entries) == {str(path.relative_to(directory)) for path in directory.rglob("*.h5")}
    for path, entry in entries.items():
        content = (directory / path).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (entry.bytes, entry.sha256)
        if not path.startswith("constants/"):
            assert entry.rows == len(read_columns([directory / path], ["network_id"])["network_id"])


def test_the_fingerprint_is_of_the_content(directory, copy):
    prints = [population.fingerprint for population in zoo.load(directory).values()]
    assert len(set(prints)) == len(POPULATIONS)
    assert [population.fingerprint for population in zoo.load(copy).values()] == prints
    shard = "standard/test-00000-of-00001.h5"
    edit_manifest(
        copy, lambda data: data["populations"]["standard"]["shards"][shard].update(sha256="0" * 64)
    )
    changed = [population.fingerprint for population in zoo.load(copy).values()]
    assert [new == old for new, old in zip(changed, prints, strict=True)] == [
        False,
        True,
        True,
        True,
    ]


# what is refused


def test_an_unknown_population_is_named_with_those_there_are(directory):
    with pytest.raises(
        KeyError,
        match=r"no population 'syre' in .*; "
        r"populations are \['standard', 'w_asymmetric', 'small_cnn'",
    ):
        zoo.load(directory)["syre"]


def test_populations_are_chosen_by_name(directory):
    opened = zoo.load(directory)
    assert list(opened.choose(None)) == list(opened)
    assert list(opened.choose(["w_asymmetric", "standard"])) == ["w_asymmetric", "standard"]
    with pytest.raises(ValueError, match=r"no populations \['syre'\] in .*; populations are \['st"):
        opened.choose(["standard", "syre"])


@pytest.mark.parametrize("read", ["params", "table", "trajectory"])
def test_an_unknown_split_is_named_with_those_there_are(directory, read):
    with pytest.raises(
        ValueError,
        match=r"population 'standard': no split 'dev'; "
        r"splits are \['train', 'validation', 'test'\]",
    ):
        getattr(zoo.load(directory)["standard"], read)("dev")


def test_an_unknown_view_is_refused(directory):
    code = (  # in a process of its own: here the type checker would get there first
        "import sys, zoo\n"
        "try:\n"
        "    zoo.load(sys.argv[1])['standard'].params('train', view='frozen')\n"
        "except ValueError as error:\n"
        "    print(error)\n"
        "heavy = ('datasets', 'torch_geometric', 'matplotlib', 'ray');"
        "print(*(name for name in heavy if name in sys.modules))"
    )
    command = [sys.executable, "-c", code, str(directory)]
    output = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=Path(zoo.__file__).parents[1]
    ).stdout
    assert (
        output == "view: expected 'full' or 'free', got 'frozen'\n\n"
    )  # and nothing heavy was imported


SHARD = "standard/train-00001-of-00002.h5"


@pytest.mark.parametrize(
    "read", [lambda p: p.params("train"), lambda p: p.table("train")], ids=["params", "table"]
)
def test_a_missing_or_truncated_shard_is_named_with_the_bytes_expected_and_found(copy, read):
    path = copy / SHARD
    size = path.stat().st_size
    for damage, size_told in (
        (lambda: path.write_bytes(path.read_bytes()[:100]), "100 bytes"),
        (path.unlink, "missing"),
    ):
        damage()
        with pytest.raises(StoreError) as error:
            read(zoo.load(copy)["standard"])
        assert str(error.value).startswith(
            f"{path}: expected {size} bytes, found {size_told}; run the same generate-zoo command"
        )
    assert len(zoo.load(copy)["standard"].params("test")) > 0  # other splits stay readable
    assert len(zoo.load(copy)["w_asymmetric"].params("train")) > 0


def test_a_damaged_file_of_constants_or_trajectory_is_named(copy):
    for file, read in (
        ("constants/w_asymmetric.h5", lambda p: p.params("train", view="free")),
        ("w_asymmetric.trajectory/train-00000-of-00002.h5", lambda p: p.trajectory("train")),
    ):
        (copy / file).write_bytes(b"")
        with pytest.raises(
            StoreError, match=rf"{re.escape(str(copy / file))}: expected \d+ bytes, found 0 bytes"
        ):
            read(zoo.load(copy)["w_asymmetric"])


def test_a_shard_of_the_right_length_with_the_wrong_content_is_refused(copy):
    path = copy / SHARD
    path.write_bytes(b"\0" * path.stat().st_size)
    with pytest.raises(StoreError, match=f"{re.escape(SHARD)}: no map at its start"):
        zoo.load(copy)["standard"].params("train")


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../other/train-00000-of-00001.h5",
        "standard/../../a.h5",
        "standard/a.txt",
        "",
    ],
)
@pytest.mark.parametrize("kind", ["shards", "trajectory"])
def test_a_manifest_cannot_lead_out_of_the_folder(copy, kind, name):
    def redirect(data):
        files = data["populations"]["standard"][kind]
        files[name] = files.pop(next(iter(files)))

    edit_manifest(copy, redirect)
    with pytest.raises(StoreError, match="is not the name of a shard") as error:
        zoo.load(copy)
    assert str(error.value).startswith(f"{copy / 'zoo.json'}: populations.standard.{kind}: ")
    assert repr(name) in str(error.value)


@pytest.mark.parametrize("name", ["../standard", "/standard", "Standard", "a.b", ""])
def test_a_population_cannot_lead_out_of_the_folder_by_its_name(copy, name):
    edit_manifest(
        copy, lambda data: data["populations"].update({name: data["populations"].pop("standard")})
    )
    with pytest.raises(StoreError, match="expected lower-case letters, digits and '_'"):
        zoo.load(copy)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (
            lambda d: d.update(version=3),
            "written by a newer symzoo (format 3; this one reads 2): upgrade symzoo",
        ),
        (lambda d: d.update(format="other"), "format: Input should be 'symzoo', found 'other'"),
        (lambda d: d.pop("columns"), "columns: Field required"),
        (lambda d: d["task"].pop("kind"), "task.kind: Field required"),
        (lambda d: d.update(extra=1), "extra: Extra inputs are not permitted, found 1"),
        (
            lambda d: d["populations"]["standard"].pop("space"),
            "populations.standard.space: Field required",
        ),
        (
            lambda d: d["populations"]["standard"]["splittings"]["default"]["sizes"].update(dev=3),
            "populations.standard.splittings.default.sizes: ",
        ),
    ],
)
def test_an_edited_manifest_names_the_key(copy, change, part):
    edit_manifest(copy, change)
    with pytest.raises(StoreError) as error:
        zoo.load(copy)
    assert str(error.value).startswith(f"{copy / 'zoo.json'}: ")
    assert part in str(error.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff"])
def test_a_manifest_that_is_not_json_is_refused(copy, content):
    (copy / "zoo.json").write_bytes(content)
    with pytest.raises(StoreError, match=r"zoo\.json: "):
        zoo.load(copy)


def test_a_manifest_whose_space_is_not_that_of_its_architecture_is_refused(copy):
    def wider(data):
        data["populations"]["standard"]["architecture"]["hidden"] = [9]

    edit_manifest(copy, wider)
    with pytest.raises(
        StoreError,
        match=r"the stored weight space is not that of architecture "
        r"{'name': 'mlp', 'hidden': \[9\]}",
    ):
        _ = zoo.load(copy)["standard"].architecture


def test_a_shard_that_does_not_fit_its_space_is_refused(copy):
    def wider(data):
        data["populations"]["standard"]["space"]["groups"]["h1"]["size"] = 9

    edit_manifest(copy, wider)
    with pytest.raises(
        StoreError,
        match=r"'layers.0.weight': expected shape \[3, 9, 64\] float32, found \[3, 8, 64\] float32",
    ):
        zoo.load(copy)["standard"].params("train")


def test_a_folder_that_is_missing_or_not_complete_is_refused(copy, tmp_path):
    with pytest.raises(StoreError, match="nowhere: no such folder"):
        zoo.load(tmp_path / "nowhere")
    (copy / "zoo.json").unlink()
    with pytest.raises(
        StoreError, match=r"not a complete zoo, zoo.json is missing; generate-zoo writes it last"
    ):
        zoo.load(copy)


@pytest.mark.parametrize("split", SPLITS)
def test_flat_is_flattened_params(population, split):
    flat = population.flat(split)
    assert flat.shape == (len(SPLITS[split]), population.space.num_params)
    assert torch.equal(flat, flatten(population.space, population.params(split)))
