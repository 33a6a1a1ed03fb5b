"""`statnn`: a perceptron on seven statistics of each parameter tensor."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metanet.contract import InputSpec, MetanetModule, Training
from metanet.inputs.features import STATISTICS, statistics
from metanet.inputs.normalize import ColumnNorm
from metanet.layers.head import Head
from zoo.options import Share, Width


class StatNN(MetanetModule):
    """Statistics -> width -> width -> 1, each hidden layer linear, ReLU, LayerNorm.

    Invariant to permutations within a tensor. ``dropout=0`` is the paper's; on zoos of thousands of
    networks it overfits.

    References:
        Unterthiner et al. 2020, arXiv 2002.11448, section 3 (the statistics); Lim et al. 2024,
        arXiv 2405.20231, Table 3 ("StatNN", width 256).
    """

    recommended = Training(epochs=60, batch_size=64, lr=2e-3, weight_decay=0.1, patience=15)
    invariant = "permutations"
    compact = True

    def __init__(self, spec: InputSpec, *, width: Width = 256, dropout: Share = 0.3):
        """Build.

        Args:
            spec: Weight space and masks.
            width: Neurons of each hidden layer.
            dropout: Share of hidden neurons set to zero at each training step.
        """
        super().__init__()
        self.spec = spec
        columns = len(spec.free_sizes) * len(STATISTICS)
        self.norm = ColumnNorm(columns)
        self.first, self.first_norm = nn.Linear(columns, width), nn.LayerNorm(width)
        self.second, self.second_norm = nn.Linear(width, width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.readout = Head(width, spec.num_outputs)

    def features(self, networks: Mapping[str, Tensor]) -> Float[Tensor, "N S"]:
        """Seven statistics of each tensor."""
        return statistics(self.spec, networks)

    def calibrate(self, pieces: Iterable[Any]) -> None:
        """Fit the normalization."""
        self.norm.calibrate(torch.cat(list(pieces)))

    def forward(self, features: Float[Tensor, "B S"]) -> Float[Tensor, "B *K"]:
        """Raw prediction."""
        hidden = self.dropout(self.first_norm(torch.relu(self.first(self.norm(features)))))
        hidden = self.dropout(self.second_norm(torch.relu(self.second(hidden))))
        return self.readout(hidden)
