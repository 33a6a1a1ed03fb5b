"""`gmn`: message passing on the parameter graph of the networks."""

from collections.abc import Mapping
from typing import ClassVar

from metanet.contract import Options, Training
from metanet.models.graph_model import MessagePassing
from metanet.models.mixed_gmn import MixedGraphMetanet


class GraphMetanet(MessagePassing):
    """A graph neural network: nodes are neurons, edges are weights.

    It is invariant to declared permutations. Neurons of a permutable group share one embedding,
    those of a fixed group have one each. Fixed entries read as zero. All networks share a weight
    space, so the graph runs as dense arrays.

    References:
        Lim et al. 2024, arXiv 2312.04501 ("GMN"); Kofinas et al. 2024, arXiv 2403.12143 ("NG-GNN").
    """

    recommended = Training(epochs=30, batch_size=32, lr=3e-3, weight_decay=0.01, patience=8)
    invariant = "permutations"
    several = MixedGraphMetanet
    presets: ClassVar[Mapping[str, Options]] = {
        "published": {"width": 64, "edge_width": 64, "layers": 4}
    }
