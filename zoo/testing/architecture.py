"""Laws that every architecture keeps."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from zoo.architectures import Architecture, build_architecture
from zoo.architectures.base import constants_of, written_axis
from zoo.params import Params, flatten, free_entries, mapped, stack, trained_part, unflatten
from zoo.symmetry.action import act, sample
from zoo.testing.symmetry import (
    TOLERANCES,
    assert_function_preserved,
    change_of,
    expect,
    expect_finite,
    expect_shape,
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
        except Exception as error:
            broken = isinstance(error, AssertionError)
            raised = "" if broken else f"raised {type(error).__name__}: "
            raise AssertionError(f"{name}, law {law_name!r}: {raised}{error}") from error
    return list(LAWS)


def space_fits_init(architecture: Architecture, _inputs: Tensor, seed: int) -> None:
    """`init` draws exactly the tensors of the space, in its shapes, float32 and finite."""
    params, space = architecture.init(seeded(seed)), architecture.space
    _expect_tensors("init", "tensor", space, space.tensors, params)
    for name, tensor in params.items():
        found = f"expected float32, got {tensor.dtype}"
        expect(tensor.dtype == torch.float32, f"init, tensor {name!r}: {found}")


def _expect_tensors(
    what: str, kind: str, space: WeightSpace, names: Iterable[str], tensors: Params
) -> None:
    """Raise an AssertionError unless there are these tensors, in shape and finite."""
    expected = list(names)
    expect(
        set(tensors) == set(expected),
        f"{what}: expected {kind}s {expected}, got {list(tensors)}",
    )
    for name, tensor in tensors.items():
        it = f"{what}, {kind} {name!r}"
        expect_shape(f"{it} ({space.tensors[name]!r})", tensor, space.shapes[name])
        expect_finite(f"{it}: expected finite entries", tensor)


def init_is_deterministic(architecture: Architecture, _inputs: Tensor, seed: int) -> None:
    """One seed gives one network, another another; the global random state stays as it was."""
    before = torch.get_rng_state()
    first, again, other = (architecture.init(seeded(s)) for s in (seed, seed, seed + 1))
    changed = _changed(first, again)
    expect(not changed, f"init: two draws from one seed differ in {changed}")
    expect(bool(_changed(first, other)), "init: draws from two seeds are the same")
    expect(
        torch.equal(before, torch.get_rng_state()),
        "init draws from the global random state, not from its generator",
    )


def constants_fit(architecture: Architecture, _inputs: Tensor, seed: int) -> None:
    """Masks are boolean and as large as their tensors; `init` has the fixed entries in place."""
    space, constants = architecture.space, architecture.constants
    for kind in ("free", "fixed", "offset", "statistic"):
        for name, tensor in constants_of(constants, kind).items():
            got, expected = tuple(tensor.shape), space.shapes.get(name)
            expect(
                got == expected,
                f"constant '{kind}.{name}': expected the shape of a tensor, {expected}, got {got}",
            )
    for name, tensor in constants_of(constants, "mixing").items():
        size = space.size(written_axis(space, name)) if name in space.groups else None
        expect_shape(f"constant 'mixing.{name}'", tensor, (size, size))
    _expect_fixed_entries(architecture, seed)


def _expect_fixed_entries(architecture: Architecture, seed: int) -> None:
    fixed = constants_of(architecture.constants, "fixed")
    for name, mask in architecture.free.items():
        what = f"constant 'free.{name}'"
        expect(mask.dtype == torch.bool, f"{what}: expected booleans, got {mask.dtype}")
        expect(name in fixed, f"{what} has no 'fixed.{name}' beside it")
    params = architecture.init(seeded(seed))
    for name, mask in architecture.free.items():
        kept = torch.equal(params[name][~mask], fixed[name][~mask].to(params[name]))
        expect(kept, f"init, tensor {name!r}: expected the fixed entries of 'fixed.{name}'")


def _expect_close(otherwise: str, expected: Tensor, got: Tensor) -> None:
    """Raise an AssertionError that ends with the change unless two tensors in float64 agree."""
    change = change_of(expected, got)
    expect(change < TOLERANCES[torch.float64], f"{otherwise} by {change:.2g}")


def apply_is_a_function(architecture: Architecture, inputs: Tensor, seed: int) -> None:
    """`apply` gives finite `[X, K]`, the same every time, and changes neither params nor inputs."""
    params = architecture.init(seeded(seed))
    kept, kept_inputs = mapped(Tensor.clone, params), inputs.clone()
    first, again = architecture.apply(params, inputs), architecture.apply(params, inputs)
    expect(
        first.dim() == 2 and len(first) == len(inputs),
        f"apply: expected [X, K] with X = {len(inputs)}, got {list(first.shape)}",
    )
    expect_finite("apply: expected finite outputs of an initial network", first)
    changed = _changed(params, kept)
    expect(
        not changed and torch.equal(inputs, kept_inputs),
        f"apply changes its arguments: {changed or 'inputs'}",
    )
    expect(torch.equal(first, again), "apply: two calls with the same params and inputs differ")


def vmap_is_a_loop(architecture: Architecture, inputs: Tensor, seed: int) -> None:
    """Networks together under `torch.func.vmap` give what each gives alone."""
    architecture, inputs, params = _generic(architecture, inputs, seed)
    networks = [params, *(_network(architecture, seed + i) for i in (1, 2))]
    together = torch.func.vmap(architecture.apply, in_dims=(0, None))(stack(networks), inputs)
    alone = torch.stack([architecture.apply(params, inputs) for params in networks])
    _expect_close("apply: networks under vmap and one by one differ", alone, together)


def gradients_reach_every_tensor(architecture: Architecture, inputs: Tensor, seed: int) -> None:
    """Every tensor with trained entries has a finite gradient that is not 0.

    The running statistics of a traced module have none; outputs must change with them.
    """
    architecture, inputs, params = _generic(architecture, inputs, seed)
    outputs = architecture.apply(params, inputs)
    weights = torch.randn(outputs.shape, generator=seeded(seed), dtype=torch.float64)
    gradients = torch.func.grad(lambda p: (weights * architecture.apply(p, inputs)).sum())(params)
    detached = architecture.statistics if architecture.is_module else ()
    for name, trained in free_entries(gradients, architecture.free).items():
        expect_finite(f"tensor {name!r}: expected a finite gradient", trained)
        if name in detached:
            moved = architecture.apply({**params, name: params[name] + 1}, inputs)
            expect(not torch.equal(moved, outputs), f"tensor {name!r}: apply does not use it")
            continue
        expect(
            not trained.numel() or bool(trained.any()),
            f"tensor {name!r}: its gradient is 0, so apply does not use it",
        )


def declared_symmetries_hold(architecture: Architecture, inputs: Tensor, seed: int) -> None:
    """What the space declares is a symmetry of the function, and leaves fixed entries in place."""
    architecture, inputs, params = _generic(architecture, inputs, seed)
    space = architecture.space
    assert_function_preserved(space, lambda p: architecture.apply(p, inputs), params, seeded(seed))
    moved = act(space, sample(space, seeded(seed)), params)
    for name, mask in architecture.free.items():
        expect(
            torch.allclose(moved[name][~mask], params[name][~mask], rtol=1e-12, atol=0),
            f"tensor {name!r} ({space.tensors[name]!r}): a declared symmetry moves entries that "
            "are fixed",
        )


def training_updates_statistics(architecture: Architecture, inputs: Tensor, seed: int) -> None:
    """Training's forward pass gives logits and new statistics, and keeps declared symmetries."""
    architecture, inputs, params = _generic(architecture, inputs, seed)
    space = architecture.space
    logits, statistics = architecture.apply_training(params, inputs)
    expect_shape("apply_training", logits, tuple(architecture.apply(params, inputs).shape))
    _expect_tensors("apply_training", "statistic", space, architecture.statistics, statistics)
    element = sample(space, seeded(seed))
    moved_logits, moved = architecture.apply_training(act(space, element, params), inputs)
    expected = act(space, element, {**params, **statistics})
    _expect_unmoved("the logits", logits, moved_logits)
    for name in statistics:
        _expect_unmoved(name, expected[name], moved[name])


def _expect_unmoved(what: str, expected: Tensor, got: Tensor) -> None:
    wrongly = f"apply_training: a declared symmetry moves {what} wrongly,"
    _expect_close(wrongly, expected, got)


def flattening_loses_nothing(architecture: Architecture, _inputs: Tensor, seed: int) -> None:
    """`unflatten(flatten(params))` is `params`, for many networks too."""
    params = stack([architecture.init(seeded(seed + i)) for i in range(2)])
    flat = flatten(architecture.space, params)
    expect_shape("flatten", flat, (2, architecture.space.num_params))
    changed = _changed(params, unflatten(architecture.space, flat))
    expect(not changed, f"unflatten(flatten(params)) changed {changed}")


def space_survives_json(architecture: Architecture, _inputs: Tensor, _seed: int) -> None:
    """The space is the same after a way through JSON."""
    space, again = architecture.space, WeightSpace.from_json(architecture.space.to_json())
    for kind, before, after in (
        ("groups", space.groups, again.groups),
        ("tensors", space.tensors, again.tensors),
    ):
        expect(
            list(before.items()) == list(after.items()),
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


def _changed(params: Params, others: Params) -> list[str]:
    """Names of the tensors that differ."""
    return [name for name in params if not torch.equal(params[name], others[name])]


def _network(architecture: Architecture, seed: int) -> Params:
    """An initial network whose trained entries are off their initial values."""
    source = seeded(seed)
    start = mapped(Tensor.double, architecture.init(source))
    noise = {
        name: 0.05 * torch.randn(tensor.shape, generator=source, dtype=torch.float64)
        for name, tensor in start.items()
    }
    trained = trained_part(noise, architecture.free)
    return {name: tensor + trained[name] for name, tensor in start.items()}


def _generic(
    architecture: Architecture, inputs: Tensor, seed: int
) -> tuple[Architecture, Tensor, Params]:
    """An architecture, inputs, and a network whose trained entries are generic, in float64."""
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    architecture = architecture.to("cpu", torch.float64)
    return architecture, inputs, _network(architecture, seed)
