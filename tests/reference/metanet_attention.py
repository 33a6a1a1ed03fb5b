"""Slow twin of `metanet.layers.attention`: one list of edges, softmax node by node.

Of a layer it takes the weights only, none of its methods.
"""

import torch
import torch.nn.functional as F
from torch_geometric.utils import scatter


def run(network, data):
    """Raw predictions for a `torch_geometric` batch of graphs of one weight space."""
    x = network.node_encoder(data.x, data.orbit)
    e = network.edge_encoder(data.edge_attr, data.edge_type)
    for layer in network.layers:
        x, e = attention(dict(layer.named_parameters()), layer.heads, x, e, *data.edge_index)
    num_sets = int(data.node_set.max()) + 1
    means = scatter(
        network.norm(x),
        data.batch * num_sets + data.node_set,
        dim_size=data.num_graphs * num_sets,
        reduce="mean",
    )
    return network.decode(means.unflatten(0, (data.num_graphs, num_sets)))


def attention(weights, heads, x, e, read, written):
    """Nodes `[V, H]` and edges `[E, K]` after one layer."""

    def linear(name, values):
        return F.linear(values, weights[f"{name}.weight"], weights.get(f"{name}.bias"))

    def norm(name, values):
        return F.layer_norm(
            values, values.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"]
        )

    (width, edge_width), each = (x.shape[1], e.shape[1]), x.shape[1] // heads
    of_nodes = linear("project", norm("norm", x))
    e = e + torch.relu(
        linear("edge", e)
        + of_nodes[written, :edge_width]
        + of_nodes[read, edge_width : 2 * edge_width]
    )
    of_edges = linear("to_heads", e)
    received = []
    for direction, (end, other) in enumerate(((written, read), (read, written))):
        start = 2 * edge_width + 4 * width * direction
        query, key, value, scaled = of_nodes[:, start : start + 4 * width].split(width, dim=1)
        for head in range(heads):
            of_head = slice(head * each, (head + 1) * each)
            bias, scale = (of_edges[:, (2 * direction + i) * heads + head] for i in (0, 1))
            logits = (query[end, of_head] * key[other, of_head]).sum(1) / each**0.5 + bias
            ones = torch.ones_like(scale)[:, None]
            messages = torch.cat(
                [
                    value[other, of_head],
                    scale[:, None] * torch.cat([ones, scaled[other, of_head]], 1),
                ],
                dim=1,
            )
            received.append(softmax_sums(logits, messages, end, len(x)))
    x = x + linear("out", torch.cat(received, dim=1))
    return x + linear("hidden_out", F.gelu(linear("hidden", norm("hidden_norm", x)))), e


def softmax_sums(logits, messages, end, count):
    """What each node receives, weighted over the edges at it; zeros if there are none."""
    sums = [
        logits[end == node].softmax(0) @ messages[end == node]
        if bool((end == node).any())
        else torch.zeros_like(messages[0])
        for node in range(count)
    ]
    return torch.stack(sums)
