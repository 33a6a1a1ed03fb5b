"""`graph_transformer`: attention on the parameter graph of the networks."""

from collections.abc import Mapping
from functools import partial
from typing import ClassVar

from metanet.contract import InputSpec, Options, Training
from metanet.inputs.normalize import ParamsNorm
from metanet.layers.attention import AttentionLayer, DenseAttention
from metanet.layers.message_passing import GraphNetwork
from metanet.models.graph_model import GraphModel
from zoo.options import Depth, Width


class GraphTransformer(GraphModel):
    """A relational transformer: tokens are neurons, relations are weights.

    It is invariant to declared permutations.

    Neurons attend to the neurons that their weights join them with, along and against the weights,
    and each weight biases the attention and scales what is attended to. Neurons of a permutable
    group share one embedding, those of a fixed group have one each. Fixed entries read as zero.

    References:
        Kofinas et al. 2024, arXiv 2403.12143, section 3 ("NG-T"); Diao and Loynd 2023, arXiv
        2210.05062.
    """

    recommended = Training(epochs=30, batch_size=32, lr=3e-3, weight_decay=0.01, patience=8)
    invariant = "permutations"
    presets: ClassVar[Mapping[str, Options]] = {
        "published": {"width": 64, "heads": 8, "layers": 4, "edge_width": 32}
    }

    def __init__(
        self,
        spec: InputSpec,
        *,
        width: Width = 32,
        heads: Width = 4,
        layers: Depth = 3,
        edge_width: Width = 8,
    ):
        """Build.

        Args:
            spec: Weight space and masks.
            width: Channels of nodes.
            heads: Heads of attention, a divisor of `width`.
            layers: Rounds of attention.
            edge_width: Channels of edges.

        Raises:
            ValueError: If there is no layer or no channel, or `heads` does not divide `width`.
        """
        layer = partial(AttentionLayer, heads=heads)
        network = partial(
            GraphNetwork, width=width, edge_width=edge_width, layers=layers, layer=layer
        )
        super().__init__(spec, ParamsNorm(spec), network, DenseAttention)
