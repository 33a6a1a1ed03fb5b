"""Laws that every metanet keeps, for your own as for ours: `check_metanet("mine")`.

    METANETS["mine"] = builder
    check_metanet("mine")

A batch gives what its networks give one by one; gradients reach every weight; eight networks can be
learned by heart; the same seed gives the same metanet and leaves the global random state alone;
saving and loading changes nothing; another weight space is refused; what is declared is true.
"""

import copy
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from metanet.contract import seeded
from metanet.estimator import Metanet, load
from metanet.feature_rows import count_rows, rows
from zoo.params import Params, expand_right
from zoo.store.bounds import rebuild
from zoo.symmetry.action import act, sample
from zoo.testing.symmetry import expect
from zoo.views import PopulationLike, PopulationView, in_memory, view
from zoo.weight_space import NeuronGroup, WeightSpace

SPLITS: tuple[str, ...] = ("train", "validation", "test")
EXACT = 1e-8
"""Of the spread of predictions between networks, in float64."""


ENDS = NeuronGroup(5, permutable=False)
PATTERNS = {
    "layers.0.weight": "h1 <- x",
    "layers.0.bias": "h1",
    "layers.1.weight": "h2 <- h1",
    "layers.1.bias": "h2",
    "layers.2.weight": "y <- h2",
    "layers.2.bias": "y",
}
MLP = {"name": "mlp", "hidden": [6, 6]}
DESCRIPTION = {"architecture": MLP, "input_shape": [5], "num_classes": 3}


def random_population(
    seed: int = 0, sizes: tuple[int, int, int] = (64, 32, 32), masked: bool = False
) -> PopulationView:
    """Random perceptrons with two hidden layers; weights tell their `test_accuracy`, invariantly.

    Args:
        seed: Of the networks.
        sizes: Networks of each split.
        masked: Whether about half of the entries of each weight are fixed (and the neurons not
            permutable).

    Returns:
        The population; hyperparameters are `lr` (which the accuracy depends on) and `optimizer`.
    """
    generator, count = torch.Generator().manual_seed(seed), sum(sizes)
    hidden = NeuronGroup(6, permutable=not masked, activation="relu")
    groups = {"x": ENDS, "h1": hidden, "h2": hidden, "y": replace(ENDS, size=3)}
    space = WeightSpace(groups, PATTERNS)
    lr = 10 ** -(3 * torch.rand(count, generator=generator, dtype=torch.float64))
    size = 1 + lr.log10().float() / 4
    params, free = _random_params(space, size, masked, generator)
    noise = 0.05 * torch.randn(count, generator=generator, dtype=torch.float64)
    return in_memory(
        "masked" if masked else "standard",
        space,
        params,
        _random_table(lr, size, noise),
        dict(zip(SPLITS, sizes, strict=True)),
        hyperparameters=("lr", "optimizer"),
        free=free,
        architecture=rebuild(DESCRIPTION, space, {}),
    )


def _random_table(lr: Tensor, size: Tensor, noise: Tensor) -> pd.DataFrame:
    """Hyperparameters and metrics."""
    columns = {
        "network_id": np.arange(len(lr)),
        "lr": lr.numpy(),
        "optimizer": np.where(np.arange(len(lr)) % 2, "adamw", "sgd"),
        "test_accuracy": (4 * size - 2 + noise).sigmoid().double().numpy(),
        "test_loss": (1 / size).double().numpy(),
        "generalization_gap": noise.numpy(),
        "diverged": False,
    }
    return pd.DataFrame(columns)


def _random_params(
    space: WeightSpace, size: Tensor, masked: bool, generator: torch.Generator
) -> tuple[Params, Params]:
    """Params of networks, as large as their `size` says, and masks."""
    params, free = {}, {}
    for name, shape in space.shapes.items():
        draws = torch.randn(len(size), *shape, generator=generator)
        params[name] = expand_right(size, draws) * (draws + 0.5)
        if masked and len(shape) == 2:
            free[name] = torch.rand(shape, generator=generator) < 0.5
            fixed = torch.randn(shape, generator=generator)
            params[name] = torch.where(free[name], params[name], fixed)
    return params, free


def permute_neurons(
    space: WeightSpace, params: Mapping[str, Tensor], generator: torch.Generator
) -> Params:
    """Permute every permutable group, the same way wherever it appears, in every network.

    Args:
        space: Weight space.
        params: Tensors ``[N, *shape]``.
        generator: Of the permutations.

    Returns:
        Params of networks that compute the same functions.
    """
    return act(space, replace(sample(space, generator), scales={}), params)


def check_metanet(
    model: str, population: PopulationLike | None = None, **options: Any
) -> list[str]:
    """Hold a metanet to every law in `LAWS`.

    Args:
        model: Name in `METANETS`.
        population: Networks to check with (32 of its training networks), `random_population()` if
            None.
        **options: Arguments of `Metanet`.

    Returns:
        Names of the laws, all kept.

    Raises:
        AssertionError: If a law is broken; says which and how.
    """
    # Its own training networks as test networks: predictions that differ between networks, however
    # little was learned.
    networks = first_networks(population or random_population(), 32)
    for law in LAWS.values():
        try:
            law(model, networks, options)
        except AssertionError as error:
            raise AssertionError(f"metanet {model!r}: {error}") from error
    return list(LAWS)


def batch_is_loop(model: str, population: PopulationLike, options: Mapping[str, Any]) -> None:
    """Networks together give what each gives alone, in float64."""
    metanet = _in_float64(_fitted(model, population, options))
    together: Any = population.table("test")
    places = [slice(at, at + 1) for at in range(len(together))]
    each: list[Any] = [together.iloc[place] for place in places]
    if metanet.module_.reads == "params":
        together = _doubled(population.params("test"))
        each = [rows(together, place) for place in places]
    alone = np.concatenate([metanet.predict(network) for network in each])
    change = _change(metanet.predict(together), alone)
    expect(change < EXACT, f"a batch and a loop over its networks disagree by {change:.2g} spreads")


def gradients_reach_every_weight(
    model: str, population: PopulationLike, options: Mapping[str, Any]
) -> None:
    """No weight is left without a gradient (vacuous for trees)."""
    metanet = _fitted(model, population, {**options, "epochs": 1})
    module, params = metanet.module_, population.params("train")
    if not module.has_gradients:
        return
    module.train()
    with torch.enable_grad(), seeded(0):
        features = module.features(params)
        target = torch.tensor(population.table("train")[metanet.target].to_numpy()).float()
        metanet.target_.loss(module(features), target).backward()
    idle = [
        name
        for name, weight in module.named_parameters()
        if weight.grad is None or not weight.grad.abs().sum() > 0
    ]
    expect(not idle, f"no gradient reaches the weights {idle}")


def learns_eight_by_heart(
    model: str, population: PopulationLike, options: Mapping[str, Any]
) -> None:
    """Eight networks are predicted to R^2 above 0.9; they are validation and test networks, too."""
    eight = first_networks(population, 8)
    score = _fitted(model, eight, {"epochs": 80, "patience": 80, **options}).score(eight)
    expect(score > 0.9, f"eight networks were not learned by heart: R^2 = {score:.3f}, below 0.9")


def is_deterministic(model: str, population: PopulationLike, options: Mapping[str, Any]) -> None:
    """The same seed gives the same metanet, and the global random state stays as it was."""
    before = _global_state()
    first = _fitted(model, population, options).predict(population)
    expect(_global_state() == before, "fit changed the global random state")
    second = _fitted(model, population, options).predict(population)
    expect(np.array_equal(first, second), "two fits under one seed predict differently")


def _global_state() -> tuple[list[int], str]:
    numpy_state = repr(np.random.get_state())  # noqa: NPY002
    return torch.get_rng_state().tolist(), numpy_state


def survives_saving(model: str, population: PopulationLike, options: Mapping[str, Any]) -> None:
    """A saved and loaded metanet predicts the same and has the same arguments."""
    metanet = _fitted(model, population, options)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "metanet.safetensors"
        metanet.save(path)
        again = load(path)
    before, after = metanet.predict(population), again.predict(population)
    expect(np.array_equal(before, after), "predictions changed by saving")
    expect(metanet.get_params() == again.get_params(), "arguments changed by saving")


def refuses_another_space(
    model: str, population: PopulationLike, options: Mapping[str, Any]
) -> None:
    """Params of another weight space are refused (vacuous for metanets that read no params)."""
    metanet = _fitted(model, population, {**options, "epochs": 1})
    if metanet.module_.reads != "params":
        return
    params = population.params("test")
    name = next(iter(params))
    try:
        metanet.predict({**params, name: torch.stack([params[name], params[name]], dim=1)})
    except ValueError as error:
        expect(
            repr(name) in str(error),
            f"the refusal of another weight space does not name tensor {name!r}: {error}",
        )
    else:
        raise AssertionError("params of another weight space were not refused")


def is_as_invariant_as_declared(
    model: str, population: PopulationLike, options: Mapping[str, Any]
) -> None:
    """What it declares `invariant` to changes nothing, in float64; what it does not, does.

    Vacuous without weights.
    """
    metanet, space = _fitted(model, population, options), population.space
    is_symmetric = any(group.permutable for group in space.groups.values())
    if metanet.module_.reads != "params" or not is_symmetric:
        return
    params, exact = _doubled(population.params("test")), _in_float64(metanet)
    before = exact.predict(params)
    for kind, networks in _moved(space, params).items():
        change = _change(before, exact.predict(networks))
        if metanet.module_.invariant in (kind, "symmetries"):
            expect(
                change < EXACT,
                f"declared invariant to {kind}, but those move predictions by {change:.2g} spreads",
            )
        elif metanet.module_.has_gradients:  # trees may ignore all that moved
            expect(
                change > EXACT,
                f"not declared invariant to {kind}, but those change nothing: declare it",
            )


def _moved(space: WeightSpace, params: Params) -> dict[str, Params]:
    """The same functions, by the kind of symmetry that takes one network to another."""
    generator = torch.Generator().manual_seed(1)
    moved = {"permutations": permute_neurons(space, params, generator)}
    if any(group.scaling != "none" for group in space.groups.values()):
        element = sample(space, generator, (count_rows(params),))
        moved["symmetries"] = act(space, element, params)
    return moved


def _doubled(params: Params) -> Params:
    """In float64."""
    return {name: tensor.double() for name, tensor in params.items()}


def _in_float64(metanet: Metanet) -> Metanet:
    """A copy that computes in float64 where it is given params in float64."""
    twin = copy.deepcopy(metanet)
    twin.module_.double()
    return twin


LAWS: dict[str, Callable[[str, Any, Mapping[str, Any]], None]] = {
    "batch_is_loop": batch_is_loop,
    "gradients_reach_every_weight": gradients_reach_every_weight,
    "learns_eight_by_heart": learns_eight_by_heart,
    "is_deterministic": is_deterministic,
    "survives_saving": survives_saving,
    "refuses_another_space": refuses_another_space,
    "is_as_invariant_as_declared": is_as_invariant_as_declared,
}


def _fitted(model: str, population: PopulationLike, options: Mapping[str, Any]) -> Metanet:
    settings = {"epochs": 3, "batch_size": 8, **options}
    return Metanet(model, **settings).fit(population)


def first_networks(population: PopulationLike, count: int) -> PopulationView:
    """The first training networks of a population, as each of the three splits.

    Args:
        population: Where from.
        count: How many.

    Returns:
        The small population.
    """
    table = population.table("train").head(count)
    params = rows(population.params("train"), slice(count))
    return view(population, params=lambda _: params, table=lambda _: table, splits=SPLITS)


def _change(before: np.ndarray, after: np.ndarray) -> float:
    """Largest change of a prediction, over the spread of predictions between networks."""
    return float(np.abs(before - after).max() / max(before.std(), np.finfo(np.float64).tiny))
