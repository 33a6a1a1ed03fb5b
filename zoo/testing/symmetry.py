"""Assertions that functions and layers respect the symmetries of a weight space."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from zoo.params import Params, batch_shape
from zoo.symmetry.action import GroupElement, act, restricted, sample, with_batch
from zoo.symmetry.outputs import relative_change, tensors_in
from zoo.symmetry.residual import max_output_change
from zoo.weight_space import WeightSpace

TOLERANCES: dict[torch.dtype, float] = {torch.float64: 1e-10, torch.float32: 1e-4}
"""Of the largest output, by the type of the params: sums in another order stay far below."""


def assert_function_preserved(
    space: WeightSpace,
    apply: Callable[[Params], Any],
    params: Mapping[str, Tensor],
    generator: torch.Generator | None = None,
    num_samples: int = 4,
    tolerance: float | None = None,
) -> None:
    """Assert that every symmetry that a space declares leaves the outputs as they are.

    Args:
        space: The weight space.
        apply: From params to outputs, with the inputs inside: a tensor, or tuples, lists and
            mappings of them.
        params: Tensors `[*batch, *shape]`, as `apply` takes them; float64 sees most.
        generator: Source of the elements, seeded with 0 if None.
        num_samples: Elements for each group.
        tolerance: Largest change allowed, over the larger of 1 and the largest output; by the type
            of the params if None.

    Raises:
        AssertionError: If a group changes the outputs, or if they are not finite; names group, kind
            and tensors.
    """
    generator = generator or seeded(0)
    tolerance = _tolerance(params) if tolerance is None else tolerance
    with torch.no_grad():
        outputs = apply(dict(params))
    expect_finite(
        "the outputs are not finite before anything moves, so nothing can be compared", outputs
    )
    for group in space.groups:
        for kind, alone in _declared_alone(space, group).items():
            change = max_output_change(alone, apply, params, generator, num_samples)
            expect(
                change < tolerance,
                f"group {group!r} declares {kind}, but that changes the outputs by {change:.2g} "
                f"of their size (expected below {tolerance:.0e}); "
                f"it acts on {_tensors_of(space, group)}",
            )
    change = max_output_change(space, apply, params, generator, num_samples)
    expect(
        change < tolerance,
        f"all groups together change the outputs by {change:.2g}; expected below {tolerance:.0e}",
    )


def assert_equivariant(
    layer: Callable[[Params], Any],
    space: WeightSpace,
    features: Mapping[str, Tensor],
    output_space: WeightSpace | Literal["invariant"] | None = None,
    scales: bool = False,
    generator: torch.Generator | None = None,
    num_samples: int = 4,
    tolerance: float | None = None,
) -> None:
    """Assert that a layer moves its outputs as a symmetry moves its inputs, or not at all.

    layer(act(g, features)) == act(g, layer(features)),    or    layer(act(g, x)) == layer(x)

    Networks along the first leading axis move by different elements, so a layer that mixes networks
    is caught.

    Args:
        layer: From features to features, or to any outputs if it is to be invariant.
        space: Weight space of the features.
        features: Tensors `[*batch, *shape]`: params, or with channels `[B, C, *shape]`.
        output_space: Weight space of what comes out, with groups of the same names: `space` if
            None; `"invariant"` for outputs that must not change.
        scales: Whether the layer is to respect declared signs and scales too, not only
            permutations.
        generator: Source of the elements, seeded with 0 if None.
        num_samples: Number of elements.
        tolerance: Largest change allowed, over the larger of 1 and the largest output; by the type
            of the features if None.

    Raises:
        AssertionError: If an output changes; names it.
    """
    generator = generator or seeded(0)
    tolerance = _tolerance(features) if tolerance is None else tolerance
    lead = batch_shape(space, features)
    first = lead[:1]
    with torch.no_grad():
        before = layer(dict(features))
        has_tensors = any(True for _ in tensors_in(before))
        expect(has_tensors, f"expected a layer that gives tensors, got {type(before).__name__}")
        expect_finite("the outputs of the layer are not finite", before)
        for _ in range(num_samples):
            element = sample(space, generator, first)
            element = element if scales else replace(element, scales={})
            after = layer(act(space, _with_axes(element, first, len(lead)), features))
            if output_space == "invariant":
                _expect_same(before, after, tolerance, "invariant")
            else:
                expected = _act_on_outputs(output_space or space, element, first, before)
                _expect_same(expected, after, tolerance, "equivariant")


def _act_on_outputs(
    space: WeightSpace, element: GroupElement, first: Sequence[int], outputs: Any
) -> Params:
    expect(
        isinstance(outputs, Mapping),
        f"an equivariant layer: expected a mapping of tensors, got {type(outputs).__name__}",
    )
    try:
        lead = batch_shape(space, outputs)
    except ValueError as error:
        raise AssertionError(
            f"the outputs of the layer do not fit their weight space: {error}"
        ) from error
    return act(space, _with_axes(restricted(element, space.groups), first, len(lead)), outputs)


def _with_axes(element: GroupElement, first: Sequence[int], count: int) -> GroupElement:
    """The element with ones after its leading axis, so that it has `count` leading axes."""
    return with_batch(element, (*first, *(1,) * (count - len(first))))


def _expect_same(expected: Any, got: Any, tolerance: float, kind: str) -> None:
    parts = expected if isinstance(expected, Mapping) else {"output": expected}
    others = got if isinstance(got, Mapping) else {"output": got}
    expect(
        set(parts) == set(others),
        f"the layer changes its outputs from {list(parts)} to {list(others)}",
    )
    for name in parts:
        if list(tensors_in([parts[name], others[name]])):
            change = change_of(parts[name], others[name])
            expect(
                change < tolerance,
                f"the layer is not {kind}: {name!r} is off by {change:.2g}, "
                f"expected below {tolerance:.0e}",
            )


def _declared_alone(space: WeightSpace, group: str) -> dict[str, WeightSpace]:
    """For each kind of symmetry that a group declares, the space that declares nothing else."""
    declared = space.groups[group]
    kinds = {}
    if declared.permutable:
        kinds["permutations"] = replace(declared, scaling="none")
    if declared.scaling != "none":
        kinds[f"scaling {declared.scaling!r}"] = replace(declared, permutable=False)
    rigid = {n: replace(g, permutable=False, scaling="none") for n, g in space.groups.items()}
    return {
        kind: WeightSpace({**rigid, group: alone}, space.tensors) for kind, alone in kinds.items()
    }


def _tensors_of(space: WeightSpace, group: str) -> dict[str, str]:
    """Patterns of the tensors that a group acts on."""
    return {
        name: text
        for name, text in space.tensors.items()
        if any(label.group == group for label in space.pattern(name).labels)
    }


def _tolerance(params: Mapping[str, Tensor]) -> float:
    return max(TOLERANCES.get(tensor.dtype, 1e-2) for tensor in params.values())


def change_of(expected: Any, got: Any) -> float:
    """`relative_change`, with an AssertionError if number or shapes of tensors differ."""
    try:
        return relative_change(expected, got)
    except ValueError as error:
        raise AssertionError(str(error)) from error


def seeded(seed: int) -> torch.Generator:
    """A generator of its own."""
    return torch.Generator().manual_seed(seed)


def expect(kept: bool, otherwise: str) -> None:
    """Raise an AssertionError with the text unless something is kept."""
    if not kept:
        raise AssertionError(otherwise)


def expect_finite(otherwise: str, outputs: Any) -> None:
    """Raise an AssertionError with the text unless all tensors in outputs are finite."""
    expect(all(bool(tensor.isfinite().all()) for tensor in tensors_in(outputs)), otherwise)


def expect_shape(what: str, tensor: Tensor, expected: tuple[int | None, ...]) -> None:
    """Raise an AssertionError unless a tensor has a shape."""
    got = tuple(tensor.shape)
    expect(got == expected, f"{what}: expected {expected}, got {got}")
