"""Slow twin of `metanet.layers.attention`: one list of edges, softmax by torch_geometric."""

import torch
import torch.nn.functional as F
from torch_geometric.utils import scatter, softmax


def run(network, data):
    """Raw predictions for a `torch_geometric` batch of graphs of one weight space."""
    x = network.node_encoder(data.x, data.orbit)
    e = network.edge_encoder(data.edge_attr, data.edge_type)
    for layer in network.layers:
        x, e = attention(layer, x, e, *data.edge_index)
    num_sets = int(data.node_set.max()) + 1
    means = scatter(
        network.norm(x),
        data.batch * num_sets + data.node_set,
        dim_size=data.num_graphs * num_sets,
        reduce="mean",
    )
    return network.decode(means.unflatten(0, (data.num_graphs, num_sets)))


def attention(layer, x, e, read, written):
    to, of, *sides = layer.projections(x)
    e = e + torch.relu(layer.edge(e) + to[written] + of[read])
    bias, scale, back_bias, back_scale = (
        layer.to_heads(e).unflatten(-1, (4, layer.heads)).unbind(-2)
    )
    forward = messages(sides[0], bias, scale, written, read, len(x))
    backward = messages(sides[1], back_bias, back_scale, read, written, len(x))
    x = x + layer.out(torch.cat([forward.flatten(1), backward.flatten(1)], dim=1))
    return x + layer.hidden_out(F.gelu(layer.hidden(layer.hidden_norm(x)))), e


def messages(side, bias, scale, end, other, count):
    """What the nodes at one end of the edges receive from the nodes at their other ends."""
    logits = (side.query[end] * side.key[other]).sum(-1) + bias
    weights = softmax(logits, end, num_nodes=count)
    plain, scaled = side.value[other].split(
        [side.query.shape[-1], side.query.shape[-1] + 1], dim=-1
    )
    return scatter(
        weights[..., None] * torch.cat([plain, scale[..., None] * scaled], dim=-1),
        end,
        dim_size=count,
    )
