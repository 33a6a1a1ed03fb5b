"""Equivariant layers follow their formula and permutations; `nfn` keeps declared symmetry."""

from functools import partial

import pytest
import torch

from metanet.contract import InputSpec, seeded
from metanet.graphs.topology import parameter_graph
from metanet.layers import autograd, entry_kernel
from metanet.layers.equivariant import EquivariantLayer, Features, Incidence
from metanet.models.nfn import NeuralFunctional
from metanet.models.table import build
from tests.metanet.spaces import COUNT, SPACES, generator, networks
from tests.reference import metanet_equivariant as reference
from zoo.architectures import ARCHITECTURES, build_architecture
from zoo.params import flatten, unflatten
from zoo.symmetry.action import GroupElement, act, sample
from zoo.testing import assert_equivariant, random_params
from zoo.weight_space import WeightSpace

WIDTH = 3
close = partial(torch.testing.assert_close, rtol=1e-10, atol=1e-10)


def metanet(space, params, **options):
    with seeded(0):
        module = (
            NeuralFunctional(InputSpec(space), **{"width": 6, "layers": 2, "hidden": 8, **options})
            .double()
            .eval()
        )
    module.calibrate([module.features(params)])
    return module


def layer_of(space, slope=0.0, width=WIDTH, inputs=None):
    incidence = Incidence(parameter_graph(space))
    channels = [inputs or width] * len(incidence.parts)
    with seeded(1):
        return EquivariantLayer(incidence, channels, width, slope).double()


def feature_space(incidence):
    """The space whose params with channels `[B, C, *shape]` are the nodes and edges of a layer."""
    axes = [
        f"({' '.join(node_set.axis)})" if node_set.axis else "1"
        for node_set in incidence.graph.node_sets
    ]
    tensors = {f"v{at}": axis for at, axis in enumerate(axes)}
    tensors |= {
        f"e{at}": f"{axes[part.written]} <- {axes[part.read]}"
        for at, part in enumerate(incidence.parts)
    }
    return WeightSpace(incidence.graph.space.groups, tensors)


def on_params(layer):
    """The layer as a map of params with channels; means are taken of the edges."""

    def function(params):
        edges = [params[f"e{at}"] for at in range(len(layer.incidence.parts))]
        nodes = [params[f"v{at}"].transpose(1, 2) for at in range(len(layer.incidence.counts))]
        new = layer(Features(nodes, edges, reference.means(edges)))
        outputs = {f"v{at}": v.transpose(1, 2) for at, v in enumerate(new.nodes)}
        return outputs | {f"e{at}": e for at, e in enumerate(new.edges)}

    return function


@pytest.mark.parametrize("name", SPACES)
def test_layers_are_equivariant(name):
    layer = layer_of(SPACES[name])
    space = feature_space(layer.incidence)
    assert_equivariant(
        on_params(layer), space, random_params(space, generator(), batch=(COUNT, WIDTH))
    )


def test_a_layer_that_reads_the_order_of_neurons_is_not():
    layer = layer_of(SPACES["mlp"])
    space = feature_space(layer.incidence)

    def broken(params):
        new = on_params(layer)(params)
        return new | {"e1": new["e1"] + 1e-3 * params["e1"].cumsum(-1)}

    with pytest.raises(AssertionError, match="'e1' is off by"):
        assert_equivariant(broken, space, random_params(space, generator(), batch=(COUNT, WIDTH)))


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("inputs", [WIDTH, 2])
def test_the_layer_equals_its_slow_twin(name, inputs):
    layer = layer_of(SPACES[name], inputs=inputs)
    graph, parts = layer.incidence.graph, layer.incidence.parts
    draw = partial(torch.randn, generator=generator(), dtype=torch.float64)
    nodes = [draw(2, node_set.size, WIDTH) for node_set in graph.node_sets]
    sizes = [
        (graph.node_sets[part.written].size, graph.node_sets[part.read].size) for part in parts
    ]
    edges = [draw(2, inputs, *size) for size in sizes]
    means = [draw(2, side, WIDTH) for size in sizes for side in size]
    new = layer(Features(nodes, edges, means))
    twin = reference.layer(layer, Features(nodes, edges, means))
    for b, (twin_nodes, twin_edges) in enumerate(twin):
        close([v[b] for v in new.nodes], twin_nodes)
        close([e[b] for e in new.edges], twin_edges)
    close(new.ends, reference.means(new.edges))
    close(
        layer(Features(nodes, edges, means), keep=False)._replace(edges=None),
        new._replace(edges=None),
    )


def matrix(function, space, width):
    """The matrix of an affine map of params with channels, by feeding basis vectors."""
    names = list(space.tensors)

    def of_rows(vectors):
        params = unflatten(space, vectors.unflatten(1, (width, -1)).reshape(-1, space.num_params))
        return flatten(space, {n: params[n] for n in names}), params

    basis = torch.eye(width * space.num_params, dtype=torch.float64)
    _, params = of_rows(torch.cat([basis.new_zeros(1, len(basis)), basis]))
    outputs = function({name: tensor.unflatten(0, (-1, width)) for name, tensor in params.items()})
    flat = torch.cat([outputs[name].flatten(2) for name in names], dim=-1).flatten(1)
    return (flat[1:] - flat[0]).T


@torch.no_grad()
@pytest.mark.parametrize("name", ["pair", "products"])
def test_the_matrix_of_an_affine_layer_commutes_with_every_permutation(name):
    layer = layer_of(SPACES[name], slope=1.0, width=2)
    space = feature_space(layer.incidence)
    ours = matrix(on_params(layer), space, 2)
    for seed in range(5):
        element = GroupElement(sample(space, generator(seed)).permutations, {})
        moved = matrix(lambda params, element=element: act(space, element, params), space, 2)
        close(ours @ moved, moved @ ours)
        assert not torch.equal(moved, torch.eye(len(moved), dtype=torch.float64))


@torch.no_grad()
def test_a_tensor_between_two_groups_is_mapped_to_itself_in_four_ways():
    maps = []
    for seed in range(12):
        with seeded(seed):
            layer = EquivariantLayer(
                Incidence(parameter_graph(SPACES["pair"])), [1, 1], 1, slope=1.0
            ).double()
        space = feature_space(layer.incidence)
        of_tensor = slice(*(space.num_params - 12 + at for at in (0, 6)))
        maps.append(matrix(on_params(layer), space, 1)[of_tensor, of_tensor])
    size = {"a": 2, "b": 3}
    identity, ones = (lambda n: torch.eye(n).double()), (lambda n: torch.ones(n, n).double())
    nfn = [
        torch.kron(b(size["b"]), a(size["a"])) for b in (identity, ones) for a in (identity, ones)
    ]
    ours, theirs = torch.stack(maps).flatten(1), torch.stack(nfn).flatten(1)
    ranks = [int(torch.linalg.matrix_rank(m)) for m in (ours, theirs, torch.cat([ours, theirs]))]
    assert ranks == [4, 4, 4]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_gradients_reach_every_weight(name):
    params = networks(SPACES[name])
    module = metanet(SPACES[name], params)
    module(module.features(params)).square().sum().backward()
    assert [
        n for n, p in module.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0
    ] == []


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("chunk", [1, 2**17])
def test_pointwise_has_the_right_gradient(keep, chunk, monkeypatch):
    monkeypatch.setattr(autograd, "CHUNK_FLOATS", chunk)
    shapes = [
        (3, 5, 4, 3),
        (2, 5),
        (3, 2, 4),
        (3, 2, 3),
    ]  # 3 networks, 5 channels come in, C = 2, W = 4, R = 3
    values = [
        torch.randn(s, generator=generator(at), dtype=torch.float64, requires_grad=True)
        for at, s in enumerate(shapes)
    ]

    def outputs(*arguments):
        return entry_kernel.pointwise(*arguments, 0.1, keep)[0 if keep else 1 :]

    assert torch.autograd.gradcheck(outputs, values)


def test_autocast_changes_little():
    """Six products in a row: in, two layers of two, out.

    Each has two factors of 8 bits, which rounding moves by 2^-9 at most: 6 * 2 * 2^-9 together.
    """
    params = {name: tensor.float() for name, tensor in networks(SPACES["cnn"], 16).items()}
    module = metanet(SPACES["cnn"], networks(SPACES["cnn"], 16)).float()
    exact = module(module.features(params))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = module(module.features(params))
    rounded.float().square().sum().backward()
    assert 2**-12 < (exact - rounded).abs().max() / exact.abs().max() < 12 * 2**-9


def test_the_published_preset_has_its_size():
    space = build_architecture("mlp", {"hidden": [32, 32]}, (1, 8, 8), 10).space
    module = build("nfn", [InputSpec(space)], {"preset": "published"})
    assert 1.2e6 < sum(weight.numel() for weight in module.parameters()) < 1.8e6
