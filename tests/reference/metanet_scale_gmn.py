"""Message passing with signs, edge by edge. How signs act is found by flipping them."""

from dataclasses import replace

import torch

from metanet.graphs.pyg import flat_edges
from metanet.graphs.topology import edge_features, node_features, parameter_graph
from zoo.symmetry.action import GroupElement, act
from zoo.weight_space import WeightSpace

FLIPPING = ("odd", "written", "read")


def sign_element(space, count):
    """Elements that only flip signs."""
    generator = torch.Generator().manual_seed(0)
    signed = {
        name: group.size for name, group in space.groups.items() if group.scaling in ("sign", "any")
    }
    draws = {name: torch.rand(count, size, generator=generator) for name, size in signed.items()}
    return GroupElement(
        {}, {name: torch.where(draw < 0.5, -1.0, 1.0) for name, draw in draws.items()}
    )


def node_signs(graph, element, count):
    """The sign of each node, `[count, V]`."""
    signs = []
    for node_set in graph.node_sets:
        space = WeightSpace(
            graph.space.groups, {"node": f"({' '.join(node_set.axis)})" if node_set.axis else ""}
        )
        ones = {"node": torch.ones(count, *space.shapes["node"])}
        signs.append(act(space, element, ones)["node"].reshape(count, node_set.size))
    return torch.cat(signs, dim=1)


def kinds(space, count=12):
    """The parity of every part with edges, and of every part that is features of nodes."""
    # Larger groups of the same pattern: with a single neuron, or on a diagonal, signs meet
    # themselves.
    large = WeightSpace(
        {name: replace(group, size=group.size + 2) for name, group in space.groups.items()},
        space.tensors,
    )
    graph, element = parameter_graph(large), sign_element(large, count)
    signs = node_signs(graph, element, count)
    moved = act(
        large, element, {name: torch.ones(count, *shape) for name, shape in large.shapes.items()}
    )
    edges, nodes = [], []
    for part, features in zip(graph.edges, edge_features(graph, moved), strict=True):
        written, read = (signs[:, graph.node_sets[at].nodes] for at in (part.written, part.read))
        flips = torch.where(features[..., 0] < 0, -1.0, 1.0)
        patterns = {
            "even": torch.ones_like(flips),
            "odd": written[:, :, None] * read[:, None],
            "written": written[:, :, None].expand_as(flips),
            "read": read[:, None].expand_as(flips),
        }
        edges.append(
            next(
                (kind for kind, pattern in patterns.items() if torch.equal(flips, pattern)), "mixed"
            )
        )
    for part in graph.vectors:
        of_nodes, flips = signs[:, graph.node_sets[part.node_set].nodes], part.view(moved)[..., 0]
        plain = torch.ones_like(of_nodes)
        nodes.append((torch.equal(flips, plain), torch.equal(flips, of_nodes)))
    return edges, nodes


def run(network, graph, params):
    """Raw predictions of a `SignedGraphNetwork`."""
    count, part_kinds = len(next(iter(params.values()))), kinds(graph.space)
    signed = torch.tensor(
        [
            any(graph.space.groups[name].scaling in ("sign", "any") for name in node_set.axis)
            for node_set in graph.node_sets
        ]
    )[graph.node_set]
    nodes = node_features(graph, params)
    even, odd = nodes.abs(), torch.zeros_like(nodes)
    for part, (is_even, is_odd) in zip(graph.vectors, part_kinds[1], strict=True):
        place = (
            slice(None),
            graph.node_sets[part.node_set].nodes,
            part.channels,
        )
        even[place] = nodes[place] if is_even else even[place]
        odd[place] = nodes[place] if is_odd else 0.0
    x = network.even.node_encoder(even, graph.orbit)
    encoder = network.odd_encoder
    z = (
        odd @ encoder.weight * (1 + encoder.scale[graph.orbit])
        + encoder.shift[graph.orbit] * ~signed[:, None]
    )

    kind = [part_kinds[0][int(at)] for at in graph.edge_type]
    flips, to_odd, from_odd, mixed = (
        torch.tensor([name in names for name in kind])[:, None]
        for names in (FLIPPING, ("odd", "written"), ("odd", "read"), ("mixed",))
    )
    raw = flat_edges(graph, params, graph.sizes.edge_channels)
    raw = torch.where(mixed, raw.abs(), raw)
    encoder = network.even.edge_encoder
    shift = encoder.shift[graph.edge_type]
    e = raw @ encoder.weight * (1 + encoder.scale[graph.edge_type]) + torch.where(flips, 0.0, shift)
    read, written = graph.edge_index

    def mean(messages, index):
        total = messages.new_zeros(count, len(signed), *messages.shape[2:]).index_add(
            1, index, messages
        )
        return total / index.bincount(minlength=len(signed)).clamp(min=1)[:, None, None]

    for layer, odd_layer in zip(network.even.layers, network.odd_layers, strict=True):
        even, sent = layer.projections(x), odd_layer.messages(z)
        base = even.written[:, written] + even.read[:, read] + torch.where(flips, shift, 0.0)
        plus, minus = torch.relu(base + layer.edge(e)), torch.relu(base - layer.edge(e))
        both, difference = (
            torch.where(flips, (plus + minus) / 2, plus),
            torch.where(flips, (plus - minus) / 2, 0.0),
        )
        e = e + torch.where(flips, difference, plus)
        ways = (
            (written, read, to_odd, from_odd, even.forward, sent[0]),
            (read, written, from_odd, to_odd, even.backward, sent[1]),
        )
        means = []
        for target, source, target_odd, source_odd, values, odd_values in ways:
            taken = torch.where(
                source_odd[..., None], odd_values[:, source], values[:, source, :, 1:]
            )
            flipping = difference[..., None] * taken
            stays = torch.where(target_odd[..., None], 0.0, flipping)
            plain = both[..., None] * values[:, source] + torch.nn.functional.pad(stays, (1, 0))
            means.append(
                (
                    mean(plain, target),
                    mean(torch.where(target_odd[..., None], flipping, 0.0), target),
                )
            )
        o = torch.cat([odd_layer.norm(z), means[0][1].flatten(2), means[1][1].flatten(2)], dim=-1)
        x = layer.update(
            x + odd_layer.invariant.second(odd_layer.invariant.first(o).abs()),
            means[0][0],
            means[1][0],
        )
        normed = odd_layer.even_norm(x)
        z = (
            z
            + odd_layer.mix(o) * odd_layer.gate(normed)
            + odd_layer.plain(normed) * ~signed[:, None]
        )
    final = network.even.norm(x + network.invariant(network.odd_norm(z)))
    return network.even.decode(
        torch.stack([final[:, node_set.nodes].mean(1) for node_set in graph.node_sets], dim=1)
    )
