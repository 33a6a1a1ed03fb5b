"""Buffers of modules: which belong to each network, and which are the same for all."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from zoo.architectures.base import Inputs, arguments
from zoo.architectures.draws import Draw, GivenDraws
from zoo.modules.function import in_training_mode
from zoo.state_dicts import counts_batches


def set_buffers(module: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Overwrite the values of buffers.

    Args:
        module: The module.
        values: New values by name.

    Raises:
        ValueError: If there is no such buffer, or it has another size.
    """
    buffers = dict(module.named_buffers())
    for name, value in values.items():
        buffer = buffers.get(name)
        if buffer is None or buffer.numel() != value.numel():  # files hold no scalars
            found = "none" if buffer is None else list(buffer.shape)
            raise ValueError(f"buffer {name!r}: expected shape {list(value.shape)}, found {found}")
        buffer.copy_(value.reshape(buffer.shape))


def check_same_draws(module: nn.Module, again: nn.Module) -> None:
    """Check that a builder made the same module twice under one seed.

    Args:
        module: The first.
        again: The second.

    Raises:
        ValueError: If a tensor differs.
    """
    theirs = again.state_dict()
    for name, tensor in module.state_dict().items():
        if name not in theirs or not _equal(tensor, theirs[name]):
            raise ValueError(
                f"the builder makes another {name!r} each time under one seed; expected all draws "
                "from torch's global state (torch.manual_seed), none from numpy, random, a clock "
                "or a generator of its own"
            )


def _equal(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape:
        return False
    return torch.equal(a, b) or bool(((a == b) | (a.isnan() & b.isnan())).all())


def differing_buffers(module: nn.Module, other: nn.Module) -> list[str]:
    """Buffers that another seed draws otherwise.

    Args:
        module: The module of one seed.
        other: That of another.

    Returns:
        Their names.

    Raises:
        ValueError: If one does not hold floating numbers.
    """
    theirs = dict(other.named_buffers())
    return [
        _floating(name, buffer, "differs between networks")
        for name, buffer in module.named_buffers()
        if name not in theirs or not _equal(buffer, theirs[name])
    ]


def moved_buffers(module: nn.Module, example_inputs: Inputs, draw: Draw) -> list[str]:
    """Buffers that a pass in training mode changes, but for what counts the batches of a norm.

    Args:
        module: The module, which is run in training mode and changed.
        example_inputs: Its inputs.
        draw: Where what is random draws from.

    Returns:
        Their names.

    Raises:
        ValueError: If one does not hold floating numbers.
    """
    in_training_mode(module)
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    args, named = arguments(example_inputs)
    with torch.no_grad(), GivenDraws(draw):
        module(*args, **named)
    return [
        _floating(name, buffer, "is changed by training")
        for name, buffer in module.named_buffers()
        if not _equal(buffer, before[name]) and not is_counter(module, name)
    ]


def is_counter(module: nn.Module, name: str) -> bool:
    """Whether a buffer only counts the batches of a norm."""
    owner = module.get_submodule(name.rpartition(".")[0])
    return isinstance(owner, _NormBase) and counts_batches(name)


def _floating(name: str, buffer: Tensor, why: str) -> str:
    if not buffer.is_floating_point():
        raise ValueError(
            f"buffer {name!r} of type {buffer.dtype} {why}; expected floating numbers, which are "
            "stored with each network"
        )
    return name
