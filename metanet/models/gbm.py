"""`gbm`: gradient boosting on seven statistics of each parameter tensor."""

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor

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

    def features(self, networks: Mapping[str, Tensor]) -> Float[Tensor, "N S"]:
        """Seven statistics of each tensor."""
        return statistics(self.spec, networks)
