"""Laws that every architecture keeps."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from zoo.architectures import Architecture, build_architecture
from zoo.architectures.base import constants_of, written_axis
from zoo.params import Params, flatten, stack, unflatten
from zoo.symmetry.action import act, sample
from zoo.testing.symmetry import (
    TOLERANCES,
    assert_function_preserved,
    expect,
    relative_change,
    seeded,
)
from zoo.weight_space import WeightSpace


def check_architecture(
    architecture: Architecture | str,
    inputs: Tensor | None = None,
    num_classes: int = 3,
    seed: int = 0,
    **options: Any,
) -> list[str]:
    """Hold an architecture to every law in `LAWS`.

    Args:
        architecture: The architecture, or its name in `ARCHITECTURES`.
        inputs: A few inputs `[X, *input_shape]`; images of 2 x 8 x 8 for a name if None.
        num_classes: Outputs of an architecture that is built from its name.
        seed: Of everything that is drawn.
        **options: Options of the builder, for a name.

    Returns:
        Names of the laws, all kept.

    Raises:
        ValueError: If an architecture is given without inputs, or with options.
        AssertionError: If a law is broken; says which and how.
    """
    if isinstance(architecture, str):
        name = f"architecture {architecture!r}"
        inputs = torch.randn(5, 2, 8, 8, generator=seeded(seed)) if inputs is None else inputs
        architecture = build_architecture(
            architecture, options, tuple(inputs.shape[1:]), num_classes
        )
    elif inputs is None or options:
        raise ValueError(
            "check_architecture: expected an architecture with inputs and no options, "
            f"got options {options}"
        )
    else:
        name = "architecture"
    for law_name, law in LAWS.items():
        try:
            law(architecture, inputs, seed)
        except AssertionError as error:
            raise AssertionError(f"{name}, law {law_name!r}: {error}") from error
        except Exception as error:
            raise AssertionError(
                f"{name}, law {law_name!r}: raised {type(error).__name__}: {error}"
            ) from error
    return list(LAWS)


def space_fits_init(architecture: Architecture, _inputs: Tensor, seed: int) -> None:
    """`init` draws exactly the tensors of the space, in its shapes, float32 and finite."""
    params, space = architecture.init(seeded(seed)), architecture.space
    expect(
        set(params) == set(space.tensors),
        f"init: expected tensors {list(space.tensors)}, got {list(params)}",
    )
    for name, tensor in params.items():
        got, text = tuple(tensor.shape), space.tensors[name]
        expect(
            got == space.shapes[name],
            f"init, tensor {name!r} ({text!r}): expected {space.shapes[name]}, got {got}",
        )
        expect(
            tensor.dtype == torch.float32,
            f"init, tensor {name!r}: expected float32, got {tensor.dtype}",
        )
        expect(bool(tensor.isfinite().all()), f"init, tensor {name!r}: expected finite entries")


def init_is_deterministic(architecture: Architecture, _inputs: Tensor, seed: int) -> None:
    """The same generator gives the same network; the global random state stays as it was."""
    before = torch.get_rng_state()
    first, again, other = (architecture.init(seeded(s)) for s in (seed, seed, seed + 1))
    changed = [name for name in first if not torch.equal(first[name], again[name])]
    expect(not changed, f"init: two draws from one seed differ in {changed}")
    expect(
        any(not torch.equal(first[name], other[name]) for name in first),
        "init: draws from two seeds are the same",
    )
    expect(
        torch.equal(before, torch.get_rng_state()),
        "init draws from the global random state, not from its generator",
    )


def constants_fit(architecture: Architecture, _inputs: Tensor, seed: int) -> None:
    """Masks are boolean and as large as their tensors; `init` has the fixed entries in place."""
    shapes, constants = architecture.space.shapes, architecture.constants
    for kind in ("free", "fixed", "offset", "statistic"):
        for name, tensor in constants_of(constants, kind).items():
            got, expected = tuple(tensor.shape), shapes.get(name)
            expect(
                got == expected,
                f"constant '{kind}.{name}': expected the shape of a tensor, {expected}, got {got}",
            )
    for name, tensor in constants_of(constants, "mixing").items():
        known = name in architecture.space.groups
        size = architecture.space.size(written_axis(architecture.space, name)) if known else None
        expect(
            tensor.shape == (size, size),
            f"constant 'mixing.{name}': expected {(size, size)}, got {tuple(tensor.shape)}",
        )
    fixed = constants_of(constants, "fixed")
    for name, mask in architecture.free.items():
        expect(
            mask.dtype == torch.bool, f"constant 'free.{name}': expected booleans, got {mask.dtype}"
        )
        expect(name in fixed, f"constant 'free.{name}' has no 'fixed.{name}' beside it")
    params = architecture.init(seeded(seed))
    for name, mask in architecture.free.items():
        kept = torch.equal(params[name][~mask], fixed[name][~mask].to(params[name]))
        expect(kept, f"init, tensor {name!r}: expected the fixed entries of 'fixed.{name}'")


def apply_is_a_function(architecture: Architecture, inputs: Tensor, seed: int) -> None:
    """`apply` gives finite `[X, K]`, the same every time, and changes neither params nor inputs."""
    params = architecture.init(seeded(seed))
    kept, kept_inputs = {name: tensor.clone() for name, tensor in params.items()}, inputs.clone()
    first, again = architecture.apply(params, inputs), architecture.apply(params, inputs)
    shape = tuple(first.shape)
    expect(
        len(shape) == 2 and shape[0] == len(inputs),
        f"apply: expected [X, K] with X = {len(inputs)}, got {list(shape)}",
    )
    expect(bool(first.isfinite().all()), "apply: expected finite outputs of an initial network")
    changed = [name for name in params if not torch.equal(params[name], kept[name])]
    expect(
        not changed and torch.equal(inputs, kept_inputs),
        f"apply changes its arguments: {changed or 'inputs'}",
    )
    expect(torch.equal(first, again), "apply: two calls with the same params and inputs differ")


def vmap_is_a_loop(architecture: Architecture, inputs: Tensor, seed: int) -> None:
    """Networks together under `torch.func.vmap` give what each gives alone."""
    architecture, inputs = _double(architecture, inputs)
    networks = [_network(architecture, seed + i) for i in range(3)]
    together = torch.func.vmap(lambda params: architecture.apply(params, inputs))(stack(networks))
    alone = torch.stack([architecture.apply(params, inputs) for params in networks])
    change = relative_change([alone], [together])
    expect(
        change < TOLERANCES[torch.float64],
        f"apply: networks under vmap and one by one differ by {change:.2g}",
    )


def gradients_reach_every_tensor(architecture: Architecture, inputs: Tensor, seed: int) -> None:
    """Every tensor with trained entries has a finite gradient that is not 0."""
    architecture, inputs = _double(architecture, inputs)
    params = _network(architecture, seed)
    weights = torch.randn(
        architecture.apply(params, inputs).shape, generator=seeded(seed), dtype=torch.float64
    )
    gradients = torch.func.grad(lambda p: (weights * architecture.apply(p, inputs)).sum())(params)
    for name, gradient in gradients.items():
        trained = gradient[architecture.free[name]] if name in architecture.free else gradient
        expect(bool(trained.isfinite().all()), f"tensor {name!r}: expected a finite gradient")
        expect(
            not trained.numel() or bool(trained.any()),
            f"tensor {name!r}: its gradient is 0, so apply does not use it",
        )


def declared_symmetries_hold(architecture: Architecture, inputs: Tensor, seed: int) -> None:
    """What the space declares is a symmetry of the function, and leaves fixed entries in place."""
    architecture, inputs = _double(architecture, inputs)
    params, space = _network(architecture, seed), architecture.space
    assert_function_preserved(space, lambda p: architecture.apply(p, inputs), params, seeded(seed))
    moved = act(space, sample(space, seeded(seed)), params)
    for name, mask in architecture.free.items():
        stays = torch.allclose(moved[name][~mask], params[name][~mask], rtol=1e-12, atol=0)
        expect(
            stays,
            f"tensor {name!r} ({space.tensors[name]!r}): "
            "a declared symmetry moves entries that are fixed",
        )


def training_updates_statistics(architecture: Architecture, inputs: Tensor, seed: int) -> None:
    """Training gives logits and every running statistic anew, and respects declared symmetries."""
    architecture, inputs = _double(architecture, inputs)
    params, space = _network(architecture, seed), architecture.space
    logits, statistics = architecture.apply_training(params, inputs)
    names, shape = architecture.statistics, tuple(architecture.apply(params, inputs).shape)
    expect(
        tuple(logits.shape) == shape,
        f"apply_training: expected logits {list(shape)}, got {list(logits.shape)}",
    )
    expect(
        set(statistics) == set(names),
        f"apply_training: expected statistics {list(names)}, got {list(statistics)}",
    )
    for name, tensor in statistics.items():
        got = tuple(tensor.shape)
        expect(
            got == space.shapes[name],
            f"apply_training, statistic {name!r}: expected {space.shapes[name]}, got {got}",
        )
        expect(
            bool(tensor.isfinite().all()),
            f"apply_training, statistic {name!r}: expected finite entries",
        )
    element = sample(space, seeded(seed))
    moved_logits, moved = architecture.apply_training(act(space, element, params), inputs)
    expected = act(space, element, {**params, **statistics})
    pairs = {
        "the logits": (logits, moved_logits),
        **{name: (expected[name], moved[name]) for name in statistics},
    }
    for name, (before, after) in pairs.items():
        change = relative_change([before], [after])
        expect(
            change < TOLERANCES[torch.float64],
            f"apply_training: a declared symmetry moves {name} wrongly, by {change:.2g}",
        )


def flattening_loses_nothing(architecture: Architecture, _inputs: Tensor, seed: int) -> None:
    """`unflatten(flatten(params))` is `params`, for many networks too."""
    params, space = (
        stack([architecture.init(seeded(seed + i)) for i in range(2)]),
        architecture.space,
    )
    flat = flatten(space, params)
    expect(
        tuple(flat.shape) == (2, space.num_params),
        f"flatten: expected {(2, space.num_params)}, got {tuple(flat.shape)}",
    )
    again = unflatten(space, flat)
    changed = [name for name in space.tensors if not torch.equal(again[name], params[name])]
    expect(not changed, f"unflatten(flatten(params)) changed {changed}")


def space_survives_json(architecture: Architecture, _inputs: Tensor, _seed: int) -> None:
    """The space is the same after a way through JSON."""
    again = WeightSpace.from_json(architecture.space.to_json())
    for kind, before, after in (
        ("groups", architecture.space.groups, again.groups),
        ("tensors", architecture.space.tensors, again.tensors),
    ):
        same = list(before.items()) == list(after.items())
        expect(
            same,
            f"the {kind} of the space changed in JSON: expected {dict(before)}, got {dict(after)}",
        )


LAWS: dict[str, Callable[[Architecture, Tensor, int], None]] = {
    law.__name__: law
    for law in (
        constants_fit,
        space_fits_init,
        init_is_deterministic,
        apply_is_a_function,
        vmap_is_a_loop,
        gradients_reach_every_tensor,
        declared_symmetries_hold,
        training_updates_statistics,
        flattening_loses_nothing,
        space_survives_json,
    )
}


def _network(architecture: Architecture, seed: int) -> Params:
    """An initial network whose trained entries are off their initial values: nothing special."""
    source = seeded(seed)
    params = {name: tensor.double() for name, tensor in architecture.init(source).items()}
    noise = {
        name: 0.05 * torch.randn(t.shape, generator=source, dtype=t.dtype)
        for name, t in params.items()
    }
    free = architecture.free
    return {
        name: tensor + noise[name] * free.get(name, torch.tensor(True))
        for name, tensor in params.items()
    }


def _double(architecture: Architecture, inputs: Tensor) -> tuple[Architecture, Tensor]:
    return architecture.to(
        "cpu", torch.float64
    ), inputs.double() if inputs.is_floating_point() else inputs
