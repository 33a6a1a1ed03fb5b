"""Params: the parameters of one network, or of many along leading axes, by their names."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from zoo.weight_space import WeightSpace

Params = dict[str, Tensor]


def batch_shape(space: WeightSpace, params: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Check params against their space and return the leading axes they share.

    Args:
        space: The weight space.
        params: Tensors ``[*batch, *space.shapes[name]]``.

    Returns:
        The leading axes, ``()`` for one network.

    Raises:
        ValueError: If a tensor is missing, unknown, of another shape, or if leading axes differ.

    >>> from zoo.weight_space import NeuronGroup
    >>> batch_shape(WeightSpace({"h": NeuronGroup(3)}, {"bias": "h"}), {"bias": torch.zeros(5, 3)})
    (5,)
    """
    missing = [name for name in space.tensors if name not in params]
    extra = [name for name in params if name not in space.tensors]
    if missing or extra:
        raise ValueError(f"params do not fit the weight space: missing {missing}, unknown {extra}")
    batch: tuple[int, ...] | None = None
    for name, shape in space.shapes.items():
        got = _shape_of(name, params[name])
        lead = got[: len(got) - len(shape)]
        if (*lead, *shape) != got:
            raise ValueError(
                f"tensor {name!r}: expected shape [*batch, {', '.join(map(str, shape))}], "
                f"got {list(got)}"
            )
        if batch is not None and lead != batch:
            raise ValueError(
                f"tensor {name!r}: expected leading axes {list(batch)} as before it, "
                f"got {list(lead)}"
            )
        batch = lead
    return batch or ()


def _shape_of(name: str, value: object) -> tuple[int, ...]:
    if not isinstance(value, Tensor):
        raise ValueError(f"tensor {name!r}: expected Tensor, found {value!r:.200}")
    return tuple(value.shape)


def check_finite(
    space: WeightSpace, params: Mapping[str, Tensor], what: str = "params"
) -> tuple[int, ...]:
    """Refuse networks with an entry that is NaN or infinite.

    Args:
        space: The weight space.
        params: Tensors ``[*batch, *shape]``.
        what: What they are, for the message.

    Returns:
        The leading axes, as `batch_shape` does.

    Raises:
        ValueError: If there is one; it names the first network and the tensor.
    """
    lead = batch_shape(space, params)
    for name, shape in space.shapes.items():
        finite = params[name].isfinite().reshape(*lead, math.prod(shape)).all(-1)
        if not finite.all():
            place = ", ".join(map(str, (~finite).nonzero()[0].tolist()))
            whose = f"network {place}, " if lead else ""
            raise ValueError(f"{what}: {whose}tensor {name!r}: expected finite entries")
    return lead


def flatten(space: WeightSpace, params: Mapping[str, Tensor]) -> Shaped[Tensor, "*batch P"]:
    """Concatenate all entries, tensors in the order of the space, entries in C order.

    Args:
        space: The weight space.
        params: Tensors ``[*batch, *shape]``.

    Returns:
        One tensor ``[*batch, P]`` with ``P = space.num_params``.
    """
    batch = batch_shape(space, params)
    return torch.cat(
        [params[name].reshape((*batch, math.prod(shape))) for name, shape in space.shapes.items()],
        dim=-1,
    )


def unflatten(space: WeightSpace, flat: Shaped[Tensor, "*batch P"]) -> Params:
    """Undo `flatten`.

    Args:
        space: The weight space.
        flat: ``[*batch, P]``.

    Returns:
        Tensors ``[*batch, *shape]``.

    Raises:
        ValueError: If the last axis is not `space.num_params` long.
    """
    if flat.shape[-1] != space.num_params:
        raise ValueError(
            f"flat params: expected {space.num_params} entries on the last axis, "
            f"got {flat.shape[-1]}"
        )
    pieces = flat.split([math.prod(shape) for shape in space.shapes.values()], dim=-1)
    return {
        name: piece.reshape((*flat.shape[:-1], *shape))
        for (name, shape), piece in zip(space.shapes.items(), pieces, strict=True)
    }


def stack(networks: Sequence[Mapping[str, Tensor]]) -> Params:
    """Stack the params of single networks along a new leading axis.

    Args:
        networks: At least one network; all with the same tensors.

    Returns:
        Tensors ``[N, *shape]``.

    Raises:
        ValueError: If there is no network.
    """
    if not networks:
        raise ValueError("stack: expected at least one network, got none")
    return {name: torch.stack([network[name] for network in networks]) for name in networks[0]}


def select(params: Mapping[str, Tensor], index: Any) -> Params:
    """Some of the networks along the leading axes.

    Args:
        params: Tensors ``[*batch, *shape]``.
        index: What every tensor is indexed with: a number, a slice, rows, or None for a new axis.

    Returns:
        The tensors of those networks.

    >>> select({"bias": torch.tensor([[1.0], [2.0]])}, 1)
    {'bias': tensor([2.])}
    """
    return {name: tensor[index] for name, tensor in params.items()}


def mapped(function: Callable[[Tensor], Tensor], params: Mapping[str, Tensor]) -> Params:
    """What a function, such as `Tensor.double`, makes of every tensor."""
    return {name: function(tensor) for name, tensor in params.items()}


def cast(
    params: Mapping[str, Tensor], device: torch.device | str, dtype: torch.dtype | None
) -> Params:
    """Tensors on a device, those of floating type in another one."""
    return {
        name: tensor.to(device, dtype if tensor.is_floating_point() else None)
        for name, tensor in params.items()
    }


def free_entries(params: Mapping[str, Tensor], free: Mapping[str, Tensor]) -> Params:
    """The trained entries only.

    Args:
        params: Tensors ``[*batch, *shape]``.
        free: Boolean masks ``[*shape]``, True where an entry is trained, for the tensors that have
            fixed entries.

    Returns:
        For a tensor with a mask its free entries ``[*batch, F]`` in C order, every other tensor as
        it is.
    """
    view = dict(params)
    for name, mask in free.items():
        tensor = params[name]
        lead = tensor.shape[: tensor.dim() - mask.dim()]
        view[name] = tensor.reshape((*lead, mask.numel()))[..., mask.reshape(-1).to(tensor.device)]
    return view


def trained_part(gradients: Mapping[str, Tensor], free: Mapping[str, Tensor]) -> Params:
    """Gradients that are 0 at fixed entries.

    Args:
        gradients: Tensors ``[*batch, *shape]``.
        free: Boolean masks ``[*shape]``, True where an entry is trained, for the tensors that have
            fixed entries.

    Returns:
        Tensors of the same shapes.
    """
    return {
        name: gradient * free[name].to(gradient.device) if name in free else gradient
        for name, gradient in gradients.items()
    }


def expand_right(values: Shaped[Tensor, "*batch"], like: Tensor) -> Tensor:
    """Give one value per network as many trailing axes as a tensor with entries per network has.

    Args:
        values: ``[*batch]``.
        like: ``[*batch, ...]``.

    Returns:
        A view ``[*batch, 1, ..., 1]`` that broadcasts against `like`.
    """
    return values.reshape((*values.shape, *(1,) * (like.dim() - values.dim())))


def norms(values: Float[Tensor, "N ..."]) -> Float[Tensor, " N"]:
    """The Euclidean norm of all entries of each network."""
    return values.flatten(1).norm(dim=1)


def perturb(params: Mapping[str, Tensor], generator: torch.Generator) -> Params:
    """A generic point near some params, without their coincidences (zero biases, equal gains).

    Positive biases and gains stay positive.

    Args:
        params: Tensors, of any floating type.
        generator: Source of randomness, on the CPU.

    Returns:
        Tensors of the same shapes, float64, on the CPU.
    """
    near = {}
    for name, given in params.items():
        tensor = given.detach().cpu().double()
        draw, spread = torch.rand, 0.2
        if tensor.dim() >= 2:
            draw, spread = torch.randn, 0.1 * tensor.square().mean().sqrt() + 1e-3
        noise = draw(tensor.shape, generator=generator, dtype=torch.float64)
        near[name] = tensor + spread * noise
    return near
