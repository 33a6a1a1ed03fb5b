"""What the hand-written derivatives of this room share."""

from collections.abc import Callable
from typing import Any

from torch.autograd.function import once_differentiable


def differentiable_once(backward: Callable[..., Any]) -> Any:
    """Refuse second derivatives of a `torch.autograd.Function`.

    Args:
        backward: Its method `backward`.

    Returns:
        `once_differentiable(backward)`, without the type that no override of `backward` has.
    """
    return once_differentiable(backward)
