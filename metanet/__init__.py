"""What is learned from the weights of networks."""

from metanet.estimator import Metanet, load
from metanet.models.table import METANETS

__all__ = ["METANETS", "Metanet", "load"]
