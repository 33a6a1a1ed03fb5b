"""A network trained in a chunk equals the same network trained alone by a plain loop."""

from itertools import product

import pytest
import torch

from data_gen.config import Job
from data_gen.shard import ShardWorker
from data_gen.table import full_table
from data_gen.training.optim import OPTIMIZERS, SCHEDULES
from tests.reference.data_gen_training import PlainCNN, PlainMLP, PlainModule, train_alone
from tests.reference.zoo_modules import MODULES
from tests.tiers import tiered

NETWORKS = 3

ARCHITECTURES = {
    "mlp": ({"name": "mlp", "hidden": [7, 6]}, lambda p, c: PlainMLP(p, c, 2, "relu", "none")),
    "mlp_layer_norm": (
        {"name": "mlp", "hidden": [6, 5], "activation": "gelu", "norm": "layer"},
        lambda p, c: PlainMLP(p, c, 2, "gelu", "layer"),
    ),
    "cnn": (
        {"name": "cnn", "channels": [4, 5]},
        lambda p, c: PlainCNN(p, c, 2, "relu", "none", 1, 2, "average"),
    ),
    "cnn_group_norm": (
        {
            "name": "cnn",
            "channels": [4, 4],
            "norm": "group",
            "norm_groups": 2,
            "pool": "flatten",
            "activation": "tanh",
        },
        lambda p, c: PlainCNN(p, c, 2, "tanh", "group", 2, 2, "flatten"),
    ),
}
KINDS = {
    "standard": None,
    "w": {"kind": "w", "n_fix": 2, "kappa": 0.5},
    "sigma": {"kind": "sigma"},
    "syre": {"kind": "syre", "std": 0.1},
    "bias": {"kind": "bias", "kappa": 0.5},
}


def make_job(architecture, kind, optimizer, schedule, **changes):
    hyperparameters = {
        "optimizer": optimizer,
        "schedule": schedule,
        "lr": {"log_uniform": [0.01, 0.05]},
        "momentum": {"uniform": [0.1, 0.9]},
        "weight_decay": {"uniform": [0.01, 0.1]},
        "label_smoothing": {"uniform": [0.0, 0.3]},
        "label_noise": {"uniform": [0.1, 0.4]},
        "train_fraction": {"uniform": [0.3, 1.0]},
        "init_scale": {"uniform": [0.8, 1.2]},
        "batch_size": 8,
        "steps": {"int_range": [9, 11]},
    }
    job = {
        "task": {"name": "digits", "train_size": 60, "test_size": 40},
        "populations": {"p": {"architecture": architecture, "asymmetry": kind}},
        "hyperparameters": hyperparameters,
        "count": NETWORKS,
        "seed": 3,
    }
    return Job.model_validate(job | changes)


def is_quick(name, kind, optimizer, schedule):
    """All triples of kind, optimizer and schedule; the architecture rotates, so all pairs occur."""
    turn = list(KINDS).index(kind) + list(OPTIMIZERS).index(optimizer)
    turn += list(SCHEDULES).index(schedule)
    return list(ARCHITECTURES)[turn % len(ARCHITECTURES)] == name


@pytest.mark.parametrize(
    ("name", "kind", "optimizer", "schedule"),
    tiered(product(ARCHITECTURES, KINDS, OPTIMIZERS, SCHEDULES), is_quick),
)
def test_chunk_equals_plain_loop(name, kind, optimizer, schedule, tmp_path):
    architecture, module = ARCHITECTURES[name]
    assert_equals_plain_loop(
        make_job(architecture, KINDS[kind], optimizer, schedule), module, tmp_path
    )


# name -> (options, fixed entries in each row); the plain loop trains the twin in `torch.nn`, batch
# norm in training mode
TWINS = {
    "resnet_batch_norm": ({"name": "resnet", "channels": [4, 5, 6]}, 2),
    "resnet_layer_norm": (
        {"name": "resnet", "channels": [4, 4, 5], "norm": "layer", "activation": "gelu"},
        2,
    ),
    "resnet": ({"name": "resnet", "channels": [4, 4, 5], "norm": "none"}, 2),
    "transformer": ({"name": "transformer", "dim": 6, "heads": 2, "depth": 1}, 2),
    "gin": (
        {"name": "gin", "hidden": 5, "layers": 1, "norm": "layer"},
        {"layers.0.first.weight": 0, "layers.0.second.weight": 2, "classifier.weight": 2},
    ),
    "siren": (
        {"name": "siren", "hidden": [7, 6], "omega": 1.5},
        2,
    ),  # a large omega makes rounding errors grow
}


@pytest.mark.parametrize(
    ("name", "kind"),
    tiered(
        product(TWINS, KINDS),
        lambda name, kind: (list(TWINS).index(name) + list(KINDS).index(kind)) % 2 == 0,
    ),
)
def test_chunk_equals_plain_loop_of_a_module(name, kind, tmp_path):
    """Optimizers are the same for all architectures, so each kind has one."""
    optimizer, schedule = {"standard": ("sgd", "triangular"), "w": ("nesterov", "constant")}.get(
        kind, ("adamw", "cosine")
    )
    architecture, n_fix = TWINS[name]
    asymmetry = KINDS[kind] and KINDS[kind] | ({"n_fix": n_fix} if kind == "w" else {})
    job = make_job(architecture, asymmetry, optimizer, schedule)
    options = {option: value for option, value in architecture.items() if option != "name"}

    def module(params, constants):
        mixing = {group: constants[f"mixing.{group}"] for group in groups_with_gate(constants)}
        return PlainModule(
            params,
            constants,
            MODULES[architecture["name"]]((1, 8, 8), 10, mixing=mixing or None, **options),
        )

    assert_equals_plain_loop(job, module, tmp_path)


def groups_with_gate(constants):
    return [name.removeprefix("mixing.") for name in constants if name.startswith("mixing.")]


def assert_equals_plain_loop(job, module, tmp_path):
    worker = ShardWorker(
        job, tmp_path, torch.device("cpu"), dtype=torch.float64, store_dtype=torch.float64
    )
    _, params, _ = worker.train("p", torch.arange(NETWORKS), lambda _: None)

    table = full_table(job, worker.task, torch.arange(NETWORKS))
    blueprint = worker.trainer("p").architecture
    for i in range(NETWORKS - 1):
        row = {column: values[i].item() for column, values in table.items()}
        initial = {
            n: p.double()
            for n, p in blueprint.init(torch.Generator().manual_seed(row["seed"])).items()
        }
        for n in initial:
            if blueprint.space.pattern(n).read:
                free = blueprint.constants.get(f"free.{n}", torch.tensor(True))
                initial[n] = torch.where(free, row["init_scale"] * initial[n], initial[n])
        alone = train_alone(module(initial, blueprint.constants), worker.task, job.seed, i, row)
        for n, expected in alone.items():
            torch.testing.assert_close(params[n][i], expected, rtol=0, atol=1e-9)
            trained = bool(blueprint.constants.get(f"free.{n}", torch.tensor(True)).any())
            assert torch.equal(expected, initial[n]) != trained


@pytest.mark.parametrize("chunk", [3, 8, 64])
def test_chunks_of_any_size_train_the_same_networks(chunk, tmp_path):
    job = make_job(
        ARCHITECTURES["mlp"][0], KINDS["w"], {"choice": ["sgd", "adamw"]}, "cosine", count=20
    )

    def train(ids, size):
        worker = ShardWorker(
            job,
            tmp_path,
            torch.device("cpu"),
            max_chunk=size,
            dtype=torch.float64,
            store_dtype=torch.float64,
        )
        return worker.train("p", ids, lambda _: None)

    table, params, _ = train(torch.arange(20), 5)
    other_table, other_params, _ = train(torch.arange(20), chunk)
    for name in params:
        torch.testing.assert_close(other_params[name], params[name], rtol=0, atol=1e-9)
    assert (table["test_accuracy"] == other_table["test_accuracy"]).all()
    part_table, part_params, _ = train(torch.arange(7, 12), chunk)
    assert part_table["seed"].tolist() == table["seed"][7:12].tolist()
    for name in params:
        torch.testing.assert_close(part_params[name], params[name][7:12], rtol=0, atol=1e-9)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_fixed_entries_never_move(optimizer, tmp_path):
    job = make_job(ARCHITECTURES["cnn"][0], KINDS["w"], optimizer, "constant", checkpoints=3)
    worker = ShardWorker(job, tmp_path, torch.device("cpu"))
    _, params, trajectory = worker.train("p", torch.arange(NETWORKS), lambda _: None)
    constants = worker.trainer("p").architecture.constants
    masks = {n.removeprefix("free."): m for n, m in constants.items() if n.startswith("free.")}
    assert masks
    for name, mask in masks.items():
        fixed = constants[f"fixed.{name}"][~mask]
        assert (params[name][:, ~mask] == fixed).all()
        assert (trajectory[name][:, :, ~mask] == fixed).all()
        assert (trajectory[name][:, 0, mask] != params[name][:, mask]).any()
