"""Networks that a metanet was not made for are refused, by name of what differs."""

from collections.abc import Mapping

import torch
from torch import Tensor

from metanet.contract import InputSpec
from zoo.architectures import Architecture
from zoo.params import Params, batch_shape
from zoo.weight_space import WeightSpace


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
    differ = [
        name
        for name in spec.free.keys() | free.keys()
        if name not in free
        or name not in spec.free
        or not torch.equal(free[name].cpu(), spec.free[name].cpu())
    ]
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


def check_shapes(spec: InputSpec, params: Params) -> int:
    """Refuse params of another weight space.

    Args:
        spec: What the metanet was built for.
        params: Tensors ``[N, *shape]``, full view.

    Returns:
        The number of networks.

    Raises:
        ValueError: If names or shapes do not fit (names them), unless there is one leading axis.
    """
    shapes = {name: tuple(tensor.shape[1:]) for name, tensor in params.items()}
    if shapes != dict(spec.space.shapes):
        difference = shape_difference(dict(spec.space.shapes), shapes)
        raise ValueError(
            "params are of another weight space than the metanet was fitted on "
            f"(fingerprint {spec.space.fingerprint[:12]}), "
            f"expected tensors [N, *shape] of the full view: {difference}"
        )
    (count,) = batch_shape(spec.space, params)
    return count


def check_params(spec: InputSpec, params: Params) -> int:
    """Refuse params of another weight space, or with entries that are not finite.

    Args:
        spec: What the metanet was built for.
        params: Tensors ``[N, *shape]``, full view.

    Returns:
        The number of networks.

    Raises:
        ValueError: As `check_shapes`, or if an entry is not finite.
    """
    count = check_shapes(spec, params)
    bad = {
        name: number
        for name, tensor in params.items()
        if (number := int((~tensor.isfinite()).sum()))
    }
    if bad:
        raise ValueError(
            f"params: expected finite entries, got entries that are not, per tensor {bad}"
        )
    return count


def space_difference(expected: WeightSpace, got: WeightSpace) -> str:
    """Say in words how two weight spaces differ."""
    if dict(expected.shapes) != dict(got.shapes):
        return shape_difference(dict(expected.shapes), dict(got.shapes))
    patterns = [
        f"tensor {name!r} is {got.tensors[name]!r} instead of {pattern!r}"
        for name, pattern in expected.tensors.items()
        if got.tensors[name] != pattern
    ]
    groups = [
        f"group {name!r} is {got.groups.get(name)} instead of {expected.groups.get(name)}"
        for name in dict.fromkeys([*expected.groups, *got.groups])
        if expected.groups.get(name) != got.groups.get(name)
    ]
    return "; ".join(patterns + groups) or "the same tensors in another order"


def shape_difference(expected: dict[str, tuple[int, ...]], got: dict[str, tuple[int, ...]]) -> str:
    """Say in words which tensors are missing, unknown or of another shape."""
    words = [
        f"tensor {name!r} has shape {list(got[name])} instead of {list(shape)}"
        if name in got
        else f"tensor {name!r} is missing"
        for name, shape in expected.items()
        if got.get(name) != shape
    ]
    words += [f"tensor {name!r} is unknown" for name in got if name not in expected]
    return "; ".join(words) or "the same tensors in another order"


def width_difference(expected: WeightSpace, got: WeightSpace) -> str:
    """Say in words where two spaces differ in more than the sizes of permutable groups."""
    if list(expected.tensors) != list(got.tensors):
        return f"expected tensors {list(expected.tensors)}, got {list(got.tensors)}"
    patterns = [
        f"tensor {name!r} is {got.tensors[name]!r} instead of {pattern!r}"
        for name, pattern in expected.tensors.items()
        if got.tensors[name] != pattern
    ]
    groups = [
        f"group {name!r} is {got.groups[name]} instead of {group}"
        for name, group in expected.groups.items()
        if name in got.groups
        and (got.groups[name].permutable, got.groups[name].permutable or got.groups[name].size)
        != (group.permutable, group.permutable or group.size)
    ]
    return "; ".join(patterns + groups)
