"""Message passing on torch_geometric graphs by gathering and scattering, of any weight spaces.

The obvious implementation of the formula in `metanet.layers.message_passing`, and the oracle of
`metanet.layers.dense`.
"""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.utils import scatter

from metanet.layers.message_passing import GraphNetwork, MessageLayer


def run(network: GraphNetwork, data: Data) -> Float[Tensor, "B *K"]:
    """Raw predictions of a `GraphNetwork` for graphs.

    Args:
        network: What was learned.
        data: Graphs of B networks, from `metanet.graphs.pyg.batch`; or one graph.

    Returns:
        Raw outputs, as the head gives them.
    """
    if data.batch is None:
        data = cast(Data, Batch.from_data_list([data]))
    x = network.node_encoder(data.x, data.orbit)
    e = network.edge_encoder(data.edge_attr, data.edge_type)
    for layer in network.layers:
        x, e = _layer(cast(MessageLayer, layer), x, e, data["edge_index"])
    num_sets = int(data.node_set.max()) + 1
    set_of = data["batch"] * num_sets + data.node_set
    num_means = data.num_graphs * num_sets
    means = scatter(network.norm(x), set_of, dim_size=num_means, reduce="mean")
    return network.decode(means.unflatten(0, (data.num_graphs, num_sets)))


def _layer(layer: MessageLayer, x: Tensor, e: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
    nodes, (read, written) = layer.projections(x), edge_index
    a = torch.relu(layer.edge(e) + nodes.written[written] + nodes.read[read])
    forward = scatter(a[..., None] * nodes.forward[read], written, dim_size=len(x), reduce="mean")
    backward = scatter(a[..., None] * nodes.backward[written], read, dim_size=len(x), reduce="mean")
    return layer.update(x, forward, backward), e + a
