"""All permutations of tiny networks: those that a space declares, no others, keep the function."""

import itertools

import pytest
import torch

from tests.reference.zoo_action import act
from zoo.architectures import (
    Architecture,
    build_cnn,
    build_gin,
    build_mlp,
    build_resnet,
    build_siren,
    build_transformer,
    sigma_asymmetric,
    w_asymmetric,
)

CLASSES = 3
# name -> (architecture, shape of its inputs, fixed entries in each row)
TINY = {
    "mlp": (build_mlp((4,), CLASSES, (4, 3)), (4,), 1),
    "mlp layer norm": (build_mlp((4,), CLASSES, (4, 3), norm="layer", activation="tanh"), (4,), 1),
    "cnn": (build_cnn((2, 5, 5), CLASSES, (3, 3)), (2, 5, 5), 1),
    "cnn norm groups": (
        build_cnn((2, 5, 5), CLASSES, (6, 6), norm="group", norm_groups=2),
        (2, 5, 5),
        2,
    ),
    "cnn norm groups, flattened": (
        build_cnn(
            (2, 3, 3), CLASSES, (6,), norm="group", norm_groups=3, pool="flatten", activation="gelu"
        ),
        (2, 3, 3),
        2,
    ),
    "resnet": (build_resnet((2, 8, 8), CLASSES, channels=(3, 3, 3)), (2, 8, 8), 1),
    "resnet layer norm": (
        build_resnet((2, 8, 8), CLASSES, channels=(3, 3, 3), norm="layer"),
        (2, 8, 8),
        1,
    ),
    "transformer": (
        build_transformer((3, 4, 4), CLASSES, patch=2, dim=4, heads=2, depth=1, mlp_ratio=1),
        (3, 4, 4),
        2,
    ),
    "transformer, three heads": (
        build_transformer(
            (3, 6), CLASSES, patch=2, dim=3, heads=3, depth=2, mlp_ratio=1, activation="relu"
        ),
        (3, 6),
        1,
    ),
    "gin": (build_gin((3, 3), CLASSES, hidden=3, layers=2), (3, 3), 1),
    "gin layer norm": (
        build_gin((3, 2, 2), CLASSES, hidden=3, layers=2, norm="layer", activation="tanh"),
        (3, 2, 2),
        1,
    ),
    "siren": (build_siren((4,), CLASSES, (4, 3), omega=3.0), (4,), 1),
}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def permutations(architecture: Architecture):
    """Group by group, inputs and outputs too, every permutation but the identity."""
    for name, group in architecture.space.groups.items():
        for order in itertools.permutations(range(group.size)):
            if list(order) != sorted(order):
                yield name, {name: torch.tensor(order)}


def network(architecture: Architecture) -> dict[str, torch.Tensor]:
    """A network with nothing special about it, but for its fixed entries."""
    source = generator(1)
    params = {name: tensor.double() for name, tensor in architecture.init(source).items()}
    for name, tensor in params.items():
        noise = 0.5 * torch.randn(tensor.shape, generator=source, dtype=torch.float64)
        moved = (tensor + noise).abs() + 0.1 if name.endswith("running_var") else tensor + noise
        params[name] = (
            torch.where(architecture.free[name], moved, tensor)
            if name in architecture.free
            else moved
        )
    return params


def outputs(architecture: Architecture, shape: tuple[int, ...], params) -> torch.Tensor:
    x = torch.randn(6, *shape, dtype=torch.float64, generator=generator(2))
    return architecture.apply(params, x)


def preserved(architecture: Architecture, shape: tuple[int, ...]) -> dict[str, set[bool]]:
    """For each group whether permutations lead to the same function in the same population."""
    architecture = architecture.to("cpu", torch.float64)
    params = network(architecture)
    before = outputs(architecture, shape, params)
    outcomes: dict[str, set[bool]] = {name: set() for name in architecture.space.groups}
    for name, permutation in permutations(architecture):
        moved = act(architecture.space, params, permutation, {})
        stays = all(
            torch.equal(moved[n][~mask], params[n][~mask]) for n, mask in architecture.free.items()
        )
        change = float(
            (outputs(architecture, shape, moved) - before).abs().max() / before.abs().max()
        )
        assert change < 1e-12 or change > 1e-6, (name, permutation, change)
        outcomes[name].add(stays and change < 1e-12)
    return outcomes


@pytest.mark.parametrize("case", TINY)
def test_exactly_the_declared_permutations_are_symmetries(case):
    architecture, shape, _ = TINY[case]
    for name, outcomes in preserved(architecture, shape).items():
        assert outcomes <= {architecture.space.groups[name].permutable}, name


@pytest.mark.parametrize("case", TINY)
def test_no_permutation_is_a_symmetry_of_a_w_asymmetric_population(case):
    standard, shape, n_fix = TINY[case]
    architecture = w_asymmetric(standard, generator(0), n_fix=n_fix, kappa=1.0)
    assert not any(group.permutable for group in architecture.space.groups.values())
    for name, outcomes in preserved(architecture, shape).items():
        assert outcomes <= {False}, name


@pytest.mark.parametrize("case", TINY)
def test_no_permutation_of_neurons_with_a_gate_is_a_symmetry(case):
    standard, shape, _ = TINY[case]
    architecture = sigma_asymmetric(standard, generator(0))
    for name, outcomes in preserved(architecture, shape).items():
        assert outcomes <= {architecture.space.groups[name].permutable}, name
        assert (
            not architecture.space.groups[name].permutable
            or standard.space.groups[name].activation == "linear"
        )
