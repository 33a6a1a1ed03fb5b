"""Slow twin of `metanet.layers.equivariant`: one network, one neuron, one entry at a time."""

from itertools import product

import torch

from metanet.layers.equivariant import Features


def layer(module, features):
    """What the layer's formula says, from the layer's weights; `features` of B networks."""
    return [one(module, network(features, b)) for b in range(len(features.nodes[0]))]


def network(features, b):
    return Features(*([values[b] for values in part] for part in features))


def one(module, x):
    incidence, width = module.incidence, module.width
    places = range(len(x.nodes))
    z = [
        [gather(incidence, x, place, node) for node in range(len(x.nodes[place]))]
        for place in places
    ]
    terms = [[module.mix[place](value) for value in z[place]] for place in places]
    for exchange, (group, sets) in zip(module.exchange, incidence.exchanges, strict=True):
        for neuron in range(1 if group is None else incidence.graph.space.groups[group].size):
            members = {place: having(incidence, place, group, neuron) for place in sets}
            pooled = torch.cat(
                [mean([z[place][node] for node in members[place]]) for place in sets]
            )
            shares = exchange(pooled).split([len(z[place][0]) for place in sets])
            for place, share in zip(sets, shares, strict=True):
                for node in members[place]:
                    terms[place][node] = terms[place][node] + share
    nodes = [
        torch.stack([v + act(module, t[:width]) for v, t in zip(x.nodes[p], terms[p], strict=True)])
        for p in places
    ]
    edges = [
        torch.stack([mapped(module, x, at, index, terms) for index in entries(x.edges[at])])
        for at in range(len(x.edges))
    ]
    return nodes, [e.T.unflatten(1, x.edges[at].shape[1:]) for at, e in enumerate(edges)]


def gather(incidence, x, place, node):
    """A node's own features, the means of the rows it writes, of the columns it reads."""
    return torch.cat([x.nodes[place][node], *(x.ends[end][node] for end in incidence.ends[place])])


def mapped(module, x, at, index, terms):
    incidence, (w, r) = module.incidence, index
    part, old = incidence.parts[at], x.edges[at][:, w, r]
    row = 1 + incidence.ends[part.written].index(2 * at)
    column = 1 + incidence.ends[part.read].index(2 * at + 1)
    received = slot(module, terms[part.written][w], row) + slot(module, terms[part.read][r], column)
    return act(module, module.part_weights[at] @ old + received)


def slot(module, term, number):
    return term[number * module.width : (number + 1) * module.width]


def act(module, value):
    return torch.where(value > 0, value, module.slope * value)


def entries(e):
    return product(range(e.shape[1]), range(e.shape[2]))


def having(incidence, place, group, neuron):
    """Nodes of a set at a neuron of `group` (the first factor of that name); all if it is None."""
    axis = incidence.graph.node_sets[place].axis
    positions = list(product(*(range(incidence.graph.space.groups[name].size) for name in axis)))
    return [
        at
        for at, position in enumerate(positions)
        if group is None or position[axis.index(group)] == neuron
    ]


def mean(values):
    return sum(values) / len(values)


def means(edges):
    """For each part its rows, then its columns, of edges `[B, C, W, R]`."""
    return [e.mean(axis).transpose(1, 2) for e in edges for axis in (3, 2)]
