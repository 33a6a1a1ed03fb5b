"""`gbm`: gradient boosting on seven statistics of each parameter tensor."""

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor

from metanet.contract import InputSpec
from metanet.inputs.features import statistics
from metanet.trees import TreeMetanet


class StatisticsBoosting(TreeMetanet):
    """Boosted trees on weight statistics: the strong classical baseline.

    It is invariant to permutations within a tensor.

    References:
        Unterthiner et al. 2020, arXiv 2002.11448, section 3.
    """

    invariant = "permutations"
    compact = True

    def __init__(
        self,
        spec: InputSpec,
        *,
        max_leaf_nodes: int = 15,
        min_samples_leaf: int = 10,
        max_features: float = 0.5,
    ):
        """Build.

        Args:
            spec: Weight space and masks.
            max_leaf_nodes: Most leaves of a tree.
            min_samples_leaf: Fewest training networks of a leaf.
            max_features: Share of the columns that each split chooses from.
        """
        super().__init__(
            spec,
            max_leaf_nodes=max_leaf_nodes,
            min_samples_leaf=min_samples_leaf,
            max_features=max_features,
        )

    def features(self, networks: Mapping[str, Tensor]) -> Float[Tensor, "N S"]:
        """Seven statistics of each tensor."""
        return statistics(self.spec, networks)
