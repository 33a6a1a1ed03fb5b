"""The stored networks are the networks: their accuracies, and plain modules that run them."""

import pytest
import torch
from torch.func import vmap

from data_gen.tasks.task import TaskConfig, load_task
from tests.reference.zoo_modules import MODULES
from tests.zoo.population.job import SPLITS


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
