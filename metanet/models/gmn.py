"""`gmn`: message passing on the parameter graph of the networks."""

from collections.abc import Mapping
from functools import partial
from typing import ClassVar

from metanet.contract import InputSpec, Training
from metanet.inputs.normalize import ParamsNorm
from metanet.layers.dense import DenseGraph
from metanet.layers.message_passing import GraphNetwork
from metanet.models.graph_model import GraphModel
from metanet.models.mixed_gmn import MixedGraphMetanet


class GraphMetanet(GraphModel):
    """A graph neural network whose nodes are neurons and whose edges are weights. Invariant to declared permutations.

    Neurons of a permutable group share one embedding, those of a fixed group have one each. Fixed
    entries read as zero. All networks share a weight space, so the graph runs as dense arrays.

    References:
        Lim et al. 2024, arXiv 2312.04501 ("GMN"); Kofinas et al. 2024, arXiv 2403.12143 ("NG-GNN").
    """

    recommended = Training(epochs=30, batch_size=32, lr=3e-3, weight_decay=0.01, patience=8)
    invariant = "permutations"
    mixed = MixedGraphMetanet
    presets: ClassVar[Mapping[str, Mapping[str, int | float]]] = {
        "published": {"width": 64, "edge_width": 64, "layers": 4}
    }

    def __init__(self, spec: InputSpec, *, width: int = 32, edge_width: int = 8, layers: int = 3):
        """Build.

        Args:
            spec: Weight space and masks.
            width: Channels of nodes.
            edge_width: Channels of edges, a divisor of `width`.
            layers: Rounds of messages.

        Raises:
            ValueError: If there is no layer or no channel, or `edge_width` does not divide `width`.
        """
        network = partial(GraphNetwork, width=width, edge_width=edge_width, layers=layers)
        super().__init__(spec, ParamsNorm(spec), network, DenseGraph)
