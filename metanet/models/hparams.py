"""`hparams`: gradient boosting on the hyperparameters alone, the floor under every study."""

import pandas as pd
from jaxtyping import Float
from torch import Tensor, nn

from metanet.contract import Features, InputSpec, Training
from metanet.history import History
from metanet.inputs.features import encode_hyperparameters
from metanet.trees import BoostedTrees


class HyperparameterBoosting(nn.Module):
    """Boosted trees on hyperparameters; never sees a weight. Columns of strings become one 0/1 column per value."""

    recommended = Training(epochs=1000, lr=0.05, weight_decay=1.0, patience=20)
    reads = "hyperparameters"

    def __init__(
        self,
        spec: InputSpec,
        *,
        max_leaf_nodes: int = 15,
        min_samples_leaf: int = 10,
        max_features: float = 1.0,
    ):
        """Build.

        Args:
            spec: Names the hyperparameters.
            max_leaf_nodes: Most leaves of a tree.
            min_samples_leaf: Fewest training networks of a leaf.
            max_features: Share of the columns that each split chooses from.

        Raises:
            ValueError: If the population has no hyperparameters.
        """
        super().__init__()
        if not spec.hyperparameters:
            raise ValueError(
                "metanet 'hparams': the population has no hyperparameter columns to learn from"
            )
        self.spec = spec
        self.trees = BoostedTrees(
            max_leaf_nodes=max_leaf_nodes,
            min_samples_leaf=min_samples_leaf,
            max_features=max_features,
        )

    def features(self, networks: pd.DataFrame) -> Float[Tensor, "N H"]:
        """Hyperparameters as numbers."""
        return encode_hyperparameters(self.spec, networks)

    def fit(
        self,
        train: tuple[Features, Tensor],
        validation: tuple[Features, Tensor],
        training: Training,
        seed: int,
    ) -> History:
        """Grow the trees; see `BoostedTrees.fit`."""
        return self.trees.fit(train, validation, training, seed)

    def forward(self, features: Float[Tensor, "B H"]) -> Float[Tensor, "B"]:
        """Raw prediction."""
        return self.trees(features)
