"""Small zoos of every architecture, standard and asymmetric.

Written, read again, and the same networks as were measured.
"""

import pytest
import torch
import torch.nn.functional as F

import zoo
from data_gen.config import Job, load_job
from data_gen.generation import generate
from data_gen.populations import build_population
from data_gen.tasks.data import Part, Task
from data_gen.tasks.task import load_task
from metanet.contract import InputSpec
from metanet.inputs.features import flat_free, statistics
from zoo.architectures import resnet_n_fix

# one feature for each node, which leaves nothing to fix in the first layer
GIN_N_FIX = {
    "layers.0.first.weight": 0,
    "layers.0.second.weight": 2,
    "layers.1.first.weight": 2,
    "layers.1.second.weight": 2,
    "classifier.weight": 2,
}
ARCHITECTURES = {
    "resnet": ({"channels": [4, 4, 5]}, 2),
    "transformer": ({"dim": 8, "patch": 4, "depth": 1}, 2),
    "gin": ({"hidden": 5, "layers": 2}, GIN_N_FIX),
    "siren": ({"hidden": [8, 6]}, 2),
}


def test_the_recipe_of_resnets_has_the_networks_of_lim_et_al():
    """60,634 free ones of the W-asymmetric network, and the 432 of the first layer, which theirs
    freeze.
    """
    recipe, images = (
        load_job("cifar10-resnet8"),
        Part(torch.zeros(10, 3, 32, 32), torch.arange(10)),
    )
    task = Task(images, images, 10, torch.zeros(3, 1, 1), torch.ones(3, 1, 1))
    counts = {name: build_population(recipe, name, task).num_free for name in recipe.populations}
    assert counts == {
        "standard": 78_042,
        "smaller": 59_944,
        "w_asymmetric": 60_634 + 432,
        "sigma_asymmetric": 78_042,
    }
    assert set(recipe.populations["w_asymmetric"].asymmetry["n_fix"]) == set(resnet_n_fix(8))


def make_job(name):
    options, n_fix = ARCHITECTURES[name]
    architecture = {"name": name, **options}
    return Job.model_validate(
        {
            "task": {"name": "digits", "train_size": 60, "test_size": 40},
            "populations": {
                "standard": {"architecture": architecture},
                "w_asymmetric": {
                    "architecture": architecture,
                    "asymmetry": {"kind": "w", "n_fix": n_fix, "kappa": 0.5},
                },
                "sigma_asymmetric": {"architecture": architecture, "asymmetry": {"kind": "sigma"}},
            },
            "hyperparameters": {
                "optimizer": "adamw",
                "lr": 0.003,
                "steps": {"int_range": [3, 5]},
                "batch_size": 16,
            },
            "count": 4,
            "checkpoints": 2,
        }
    )


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_zoos_hold_the_networks_that_were_measured(name, tmp_path):
    job = make_job(name)
    populations = zoo.load(generate(job, tmp_path / "zoo", device="cpu", quiet=True, compile=False))
    task = load_task(job.task)
    x, y = task.inputs(task.test.x), task.test.y
    assert len(populations) == 3
    for population in populations.values():
        params, table = population.params("train"), population.table("train")
        logits = torch.func.vmap(population.architecture.apply, in_dims=(0, None))(params, x)
        losses = [float(F.cross_entropy(of_network, y)) for of_network in logits]
        assert table.test_loss.tolist() == pytest.approx(losses, rel=1e-4)
        assert torch.equal(population.flat("train"), zoo.params.flatten(population.space, params))

        free = population.params("train", view="free")
        moved = [n for n in population.space.tensors if n not in population.architecture.statistics]
        assert (
            population.num_free
            == population.architecture.num_free
            == sum(free[n][0].numel() for n in moved)
        )
        _, trajectory = population.trajectory("train")
        for n, tensor in trajectory.items():
            assert torch.equal(tensor[:, 1], params[n])
            assert not torch.equal(tensor[:, 0], tensor[:, 1]), n

        spec = InputSpec(population.space, population.free)
        assert flat_free(spec, params).shape == (
            len(table),
            sum(tensor[0].numel() for tensor in free.values()),
        )
        assert statistics(spec, params).isfinite().all()
