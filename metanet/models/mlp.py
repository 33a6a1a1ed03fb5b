"""`mlp`: a two-layer perceptron on the flat vector of free entries."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metanet.contract import InputSpec, Training
from metanet.inputs.normalize import FlatNormalized
from metanet.layers.head import Head
from zoo.options import Share, Width


class FlatMLP(FlatNormalized):
    """Linear D -> width, ReLU, LayerNorm, linear width -> 1.

    It knows every entry by its place, and no symmetry.

    Dropout of input entries is what makes it generalize with fewer networks than entries;
    ``dropout=0`` is the paper's.

    References:
        Lim et al. 2024, arXiv 2405.20231, Table 3 ("MLP").
    """

    recommended = Training(epochs=100, batch_size=64, lr=2e-3, weight_decay=0.1, patience=20)

    def __init__(self, spec: InputSpec, *, width: Width = 64, dropout: Share = 0.5):
        """Build.

        Args:
            spec: Weight space and masks.
            width: Hidden neurons.
            dropout: Share of the input entries set to zero at each training step.
        """
        super().__init__(spec)
        self.dropout = nn.Dropout(dropout)
        self.hidden = nn.Linear(sum(spec.free_sizes.values()), width)
        self.hidden_norm = nn.LayerNorm(width)
        self.readout = Head(width, spec.num_outputs)

    def forward(self, features: Float[Tensor, "B D"]) -> Float[Tensor, "B *K"]:
        """Raw prediction."""
        hidden = torch.relu(self.hidden(self.dropout(self.norm(features))))
        return self.readout(self.hidden_norm(hidden))
