"""How the weights of asymmetric modules are computed from what is trained and what is fixed."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


class FixedEntries(nn.Module):
    """The parametrization `W_eff = M * W + (1 - M) * F`.

    Where an entry is fixed, `W` is zero and gets no gradient.
    """

    free: Tensor
    fixed: Tensor

    def __init__(self, free: Bool[Tensor, "*shape"], fixed: Float[Tensor, "*shape"]):
        """Keep mask and values as buffers.

        Args:
            free: `M`, True = trained.
            fixed: `(1 - M) * F`.
        """
        super().__init__()
        self.register_buffer("free", free)
        self.register_buffer("fixed", fixed)

    def forward(self, weight: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Put the fixed entries in.

        Args:
            weight: `W`.

        Returns:
            `W_eff`; its fixed entries are those of `F` bit by bit, even if `W` is not finite there.
        """
        return torch.where(self.free, weight, self.fixed)

    def right_inverse(self, weight: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Keep the free entries of a weight that is assigned.

        Args:
            weight: New weight.

        Returns:
            `W`, zero at fixed entries, so that norms and weight decay see only what is trained.
        """
        return torch.where(self.free, weight, 0)

    def extra_repr(self) -> str:
        """How much is fixed, for `print(module)`."""
        return f"{int((~self.free).sum()):,} of {self.free.numel():,} entries fixed"


class Offset(nn.Module):
    """The parametrization `W_eff = F + W`: weight decay of `W` pulls `W_eff` to `F`."""

    offset: Tensor

    def __init__(self, offset: Float[Tensor, "*shape"]):
        """Keep the offset as a buffer.

        Args:
            offset: `F`.
        """
        super().__init__()
        self.register_buffer("offset", offset)

    def forward(self, tensor: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Add the offset.

        Args:
            tensor: `W`.

        Returns:
            `W_eff`.
        """
        return self.offset + tensor

    def right_inverse(self, tensor: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Subtract the offset.

        Args:
            tensor: `W_eff`.

        Returns:
            `W`.
        """
        return tensor - self.offset
