"""Networks that a metanet was not made for are refused, by name of what differs."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from metanet.contract import InputSpec
from zoo.architectures import Architecture
from zoo.params import Params, batch_shape
from zoo.weight_space import NeuronGroup, WeightSpace


def check_spec(spec: InputSpec, space: WeightSpace, free: Mapping[str, Tensor], what: str) -> None:
    """Refuse networks of another weight space than a metanet was built for.

    Args:
        spec: What the metanet was built for.
        space: Space of the networks.
        free: Their masks.
        what: Name of the networks, for the message.

    Raises:
        ValueError: If the spaces or the masks differ; names the differing tensors and both
            fingerprints.
    """
    if space != spec.space:
        raise ValueError(
            f"{what} is of another weight space than the metanet was fitted on: "
            f"{space_difference(spec.space, space)} "
            f"(fitted {spec.space.fingerprint[:12]}, got {space.fingerprint[:12]})"
        )
    differ = spec.free.keys() ^ free.keys()
    for name in spec.free.keys() & free.keys():
        if not torch.equal(free[name].cpu(), spec.free[name].cpu()):
            differ.add(name)
    if differ:
        raise ValueError(
            f"{what} has other fixed entries than the metanet was fitted on, "
            f"in tensors {sorted(differ)}"
        )


def check_architecture(spec: InputSpec, architecture: Architecture | None, what: str) -> None:
    """Refuse networks that compute another function than those that a metanet was built to run.

    Args:
        spec: What the metanet was built for.
        architecture: What the networks compute.
        what: Name of the networks, for the message.

    Raises:
        ValueError: If the metanet runs networks, and these compute another function, or what they
            compute is unknown.
    """
    if spec.architecture is not None and (
        architecture is None or not architecture.is_like(spec.architecture)
    ):
        got = "unknown" if architecture is None else architecture.description
        raise ValueError(
            f"{what} computes another function of its params than the networks "
            "the metanet was fitted on, which it runs: "
            f"expected {spec.architecture.description} with the same constants, got {got}"
        )


def check_shapes(spec: InputSpec, params: Params) -> None:
    """Refuse params of another weight space.

    Args:
        spec: What the metanet was built for.
        params: Tensors ``[N, *shape]``, full view.

    Raises:
        ValueError: If names or shapes do not fit (names them), or there is not one leading axis.
    """
    shapes = {name: tuple(tensor.shape[1:]) for name, tensor in params.items()}
    if shapes != spec.space.shapes:
        raise ValueError(
            "params are of another weight space than the metanet was fitted on "
            f"(fingerprint {spec.space.fingerprint[:12]}), "
            "expected tensors [N, *shape] of the full view: "
            f"{shape_difference(spec.space.shapes, shapes)}"
        )
    (_,) = batch_shape(spec.space, params)


def check_params(spec: InputSpec, params: Params) -> None:
    """Refuse params of another weight space, or with entries that are not finite.

    Args:
        spec: What the metanet was built for.
        params: Tensors ``[N, *shape]``, full view.

    Raises:
        ValueError: As `check_shapes`, or if an entry is not finite.
    """
    check_shapes(spec, params)
    counts = {name: int((~tensor.isfinite()).sum()) for name, tensor in params.items()}
    if bad := {name: count for name, count in counts.items() if count}:
        raise ValueError(
            f"params: expected finite entries, got entries that are not, per tensor {bad}"
        )


def space_difference(expected: WeightSpace, got: WeightSpace) -> str:
    """Say in words how two weight spaces differ."""
    if expected.shapes != got.shapes:
        return shape_difference(expected.shapes, got.shapes)
    tensors = _differences("tensor", expected.tensors, got.tensors)
    groups = _differences("group", expected.groups, got.groups)
    return "; ".join(tensors + groups) or "the same tensors in another order"


def shape_difference(
    expected: Mapping[str, tuple[int, ...]], got: Mapping[str, tuple[int, ...]]
) -> str:
    """Say in words which tensors are missing, unknown or of another shape."""
    words = []
    for name, shape in expected.items():
        if name not in got:
            words.append(f"tensor {name!r} is missing")
        elif got[name] != shape:
            words.append(f"tensor {name!r} has shape {list(got[name])} instead of {list(shape)}")
    words += [f"tensor {name!r} is unknown" for name in got if name not in expected]
    return "; ".join(words) or "the same tensors in another order"


def width_difference(expected: WeightSpace, got: WeightSpace) -> str:
    """Say in words where two spaces differ in more than the sizes of permutable groups."""
    if list(expected.tensors) != list(got.tensors):
        return f"expected tensors {list(expected.tensors)}, got {list(got.tensors)}"
    tensors = _differences("tensor", expected.tensors, got.tensors)
    groups = [
        f"group {name!r} is {got.groups[name]} instead of {group}"
        for name, group in expected.groups.items()
        if name in got.groups and _but_for_width(got.groups[name]) != _but_for_width(group)
    ]
    return "; ".join(tensors + groups)


def _but_for_width(group: NeuronGroup) -> tuple[bool, int]:
    return group.permutable, 0 if group.permutable else group.size


def _differences(what: str, expected: Mapping[str, Any], got: Mapping[str, Any]) -> list[str]:
    """In words, where two mappings from names differ."""
    return [
        f"{what} {name!r} is {got.get(name)!r} instead of {expected.get(name)!r}"
        for name in dict.fromkeys([*expected, *got])
        if got.get(name) != expected.get(name)
    ]
