"""The head: the last layer of every metanet, one number or several a network."""

from jaxtyping import Float
from torch import Tensor, nn


class Head(nn.Linear):
    """A linear map to what the target asks for: ``[B]`` for one number, else ``[B, K]``."""

    def __init__(self, width: int, num_outputs: int | None):
        """Build.

        Args:
            width: Channels that it reads.
            num_outputs: Outputs K, see `InputSpec.num_outputs`; None for one number without an
                axis of its own.
        """
        super().__init__(width, 1 if num_outputs is None else num_outputs)
        self.is_single = num_outputs is None

    def forward(self, input: Float[Tensor, "B width"]) -> Float[Tensor, "B *K"]:
        """Raw outputs."""
        outputs = super().forward(input)
        return outputs.squeeze(-1) if self.is_single else outputs
