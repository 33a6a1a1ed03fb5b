"""The metanet of several weight spaces, slowly: one batch of torch_geometric graphs."""

import torch
from torch.nn.functional import pad
from torch_geometric.data import Batch, Data

from metanet.feature_rows import Mixed
from metanet.layers import sparse
from metanet.models.mixed_gmn import MixedGraphMetanet


def predict(module: MixedGraphMetanet, features: Mixed) -> torch.Tensor:
    """Raw predictions, by gathering and scattering over graphs of all weight spaces together."""
    width = len(module.network.edge_encoder.weight)
    graphs = []
    for key, flat in features.parts.items():
        space_graph = module.spaces[key]
        nodes, edges = space_graph.inputs(module, flat)
        flat_edges = [pad(part.flatten(1, 2), (0, width - part.shape[-1])) for part in edges]
        graph = space_graph.dense.graph
        shared = {
            name: getattr(graph, name) for name in ("edge_index", "edge_type", "node_set", "orbit")
        }
        for at, x in enumerate(nodes):
            attributes = torch.cat([flat.new_zeros(0, width), *(part[at] for part in flat_edges)])
            graphs.append(Data(x=x, edge_attr=attributes, num_nodes=len(x), **shared))
    together: Data = Batch.from_data_list(graphs)  # type: ignore[assignment]
    return sparse.run(module.network, together)[features.order]
