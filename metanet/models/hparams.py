"""`hparams`: gradient boosting on the hyperparameters alone, the floor under every study."""

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from metanet.contract import InputSpec
from metanet.inputs.features import encode_hyperparameters
from metanet.trees import Columns, Leaves, TreeMetanet
from zoo.options import Count


class HyperparameterBoosting(TreeMetanet):
    """Boosted trees on hyperparameters; never sees a weight.

    Columns of strings become one column of 0 or 1 per value.
    """

    reads = "hyperparameters"

    def __init__(
        self,
        spec: InputSpec,
        *,
        max_leaf_nodes: Leaves = 15,
        min_samples_leaf: Count = 10,
        max_features: Columns = 1.0,
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
        if not spec.hyperparameters:
            raise ValueError(
                "metanet 'hparams': the population has no hyperparameter columns to learn from"
            )
        super().__init__(
            spec,
            max_leaf_nodes=max_leaf_nodes,
            min_samples_leaf=min_samples_leaf,
            max_features=max_features,
        )

    def features(self, networks: pd.DataFrame) -> Float[Tensor, "N H"]:
        """Hyperparameters as numbers."""
        return encode_hyperparameters(self.spec, networks)
