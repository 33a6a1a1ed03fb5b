"""The graph metanet that knows scales and signs: invariant to what is declared, no more."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from metanet.contract import InputSpec, seeded
from metanet.graphs.pyg import batch
from metanet.graphs.signs import has_signs, parity
from metanet.graphs.topology import edge_features, node_features, parameter_graph
from metanet.layers import autograd, sparse
from metanet.layers.message_passing import GraphNetwork, Projections
from metanet.layers.odd_edge_kernel import odd_edge_messages
from metanet.layers.signed import SignedGraphNetwork
from metanet.models.scale_gmn import ScaleGraphMetanet
from metanet.models.table import METANETS, build
from metanet.testing import LAWS, first_networks, random_population
from tests.metanet.spaces import COUNT, SPACES, assert_same_function, generator, networks, spreads
from tests.reference import metanet_scale_gmn as slow
from zoo.architectures import build_architecture
from zoo.symmetry.action import GroupElement, act, sample
from zoo.views import view
from zoo.weight_space import NeuronGroup, WeightSpace

close = partial(torch.testing.assert_close, rtol=1e-10, atol=1e-10)
SPACES = SPACES | {
    f"mlp {activation}": build_architecture(
        "mlp", {"hidden": [7, 5], "activation": activation}, (1, 6, 6), 3
    ).space
    for activation in ("relu", "tanh")
}
SPACES["mlp any"] = WeightSpace(
    {n: replace(g, scaling="any") if g.permutable else g for n, g in SPACES["mlp"].groups.items()},
    SPACES["mlp"].tensors,
)
SIGNED = [name for name, space in SPACES.items() if has_signs(space)]


def metanet(space, params, free=None, **options):
    with seeded(0):
        module = ScaleGraphMetanet(
            InputSpec(space, free or {}), **{"width": 8, "edge_width": 4, "layers": 2, **options}
        )
    module = module.double().eval()
    module.calibrate([module.features(params)])
    return module


def wide(space, seed=1, count=COUNT):
    """Elements with scales in [1e-2, 1e2] and fair signs."""
    element = sample(space, generator(seed), (count,))
    decades = {
        name: scale.sign() * scale.abs().pow(2 * torch.tensor(10.0).log())
        for name, scale in element.scales.items()
    }
    return GroupElement(element.permutations, decades)


@pytest.mark.parametrize("name", SPACES)
def test_predictions_do_not_change_under_any_declared_symmetry(name):
    space = SPACES[name]
    params = networks(space)
    assert spreads(metanet(space, params), params, act(space, wide(space), params)) < 1e-8


@pytest.mark.parametrize("name", SIGNED)
def test_the_dense_path_equals_gathers_and_scatters(name):
    space = SPACES[name]
    params = networks(space)
    module = metanet(space, params)
    features = module.features(params)
    ours = module(features)
    theirs = slow.run(module.network, module.graph, module.norm(features))
    assert_same_function(module, ours, theirs)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("chunk", [1, 2**17])
def test_odd_edge_messages_are_the_formula_and_have_its_gradient(keep, chunk, monkeypatch):
    monkeypatch.setattr(autograd, "CHUNK_FLOATS", chunk)
    shapes = [
        (3, 2, 4, 3),
        (2, 2),
        (3, 2, 4),
        (3, 2, 3),
        (3, 2, 3, 5),
        (3, 2, 4, 5),
    ]  # 3 networks, K = 2, W = 4, R = 3, D = 2
    inputs = [
        torch.randn(s, generator=generator(at), dtype=torch.float64, requires_grad=True)
        for at, s in enumerate(shapes)
    ]

    def messages(e, weight, *ends):
        new, received, returned = odd_edge_messages(e, weight, Projections(*ends), keep)
        return new, *received.tensor_split([3], -1), *returned.tensor_split([3], -1)

    def formula(e, weight, written, read, forward, backward):
        base, odd = (
            written[..., None] + read[..., None, :],
            torch.einsum("kl,blwr->bkwr", weight, e),
        )
        plus, minus = torch.relu(base + odd), torch.relu(base - odd)
        both, difference = (plus + minus) / 2, (plus - minus) / 2
        sums = [
            (a @ forward[..., of], a.mT @ backward[..., of])
            for a, of in ((both, slice(3)), (difference, slice(3, None)))
        ]
        return e + difference if keep else e, sums[0][0], sums[1][0], sums[0][1], sums[1][1]

    for ours, theirs in zip(messages(*inputs), formula(*inputs), strict=True):
        close(ours, theirs)
    assert torch.autograd.gradcheck(messages, inputs, fast_mode=True)
    strided = [value.detach().mT.contiguous().mT.requires_grad_() for value in inputs]
    assert torch.autograd.gradcheck(messages, strided, fast_mode=True)


@pytest.mark.parametrize("name", SPACES)
def test_parities_are_what_flipping_signs_shows(name):
    graph = parameter_graph(SPACES[name])
    edges, vectors = slow.kinds(graph.space)
    assert [parity(graph, part) for part in graph.edges] == edges
    for part, (is_even, is_odd) in zip(graph.vectors, vectors, strict=True):
        assert (is_even, is_odd) == (
            parity(graph, part) == "even",
            parity(graph, part) == "odd",
        ) or (is_even and is_odd)


def test_every_parity_occurs():
    parities = {
        parity(graph, part)
        for graph in map(parameter_graph, SPACES.values())
        for part in graph.edges
    }
    assert {"odd", "even", "written", "read"} <= parities
    groups = {
        "a": NeuronGroup(2, scaling="sign"),
        "b": NeuronGroup(3, scaling="any"),
        "y": NeuronGroup(2, permutable=False),
    }
    graph = parameter_graph(WeightSpace(groups, {"w": "y <- (a b^2)", "v": "(a b^0)"}))
    assert parity(graph, graph.edges[0]) == parity(graph, graph.vectors[0]) == "mixed"


@pytest.mark.parametrize("name", ["mlp", "w"])
def test_without_signs_it_is_a_graph_network_on_balanced_params(name):
    space = SPACES[name]
    params = networks(space)
    module = metanet(space, params)
    features = module.features(params)
    data = batch([(module.graph, module.norm(features))])
    assert isinstance(module.network, GraphNetwork)
    close(module(features), sparse.run(module.network, data))
    if name == "w":
        assert all(torch.equal(features[name], params[name]) for name in params)


@pytest.mark.parametrize("name", SIGNED)
def test_features_of_nodes_move_as_declared(name):
    space = SPACES[name]
    params, element = networks(space), wide(space)
    module = metanet(space, params)
    powers = {"even": "^0", "odd": ""}
    axes = {
        f"{at} {kind}": f"({' '.join(group + power for group in node_set.axis)})"
        if node_set.axis
        else ""
        for kind, power in powers.items()
        for at, node_set in enumerate(module.graph.node_sets)
    }
    features = WeightSpace(space.groups, axes)

    @torch.no_grad()
    def nodes(values):
        full = module.norm(module.features(values))
        both = module.dense.features(
            module.network, node_features(module.graph, full), edge_features(module.graph, full)
        )
        return {
            f"{at} {kind}": values[:, node_set.nodes].mT.reshape(
                COUNT, 8, *features.shapes[f"{at} {kind}"]
            )
            for kind, values in zip(powers, both, strict=True)
            for at, node_set in enumerate(module.graph.node_sets)
        }

    before, after = nodes(params), nodes(act(space, element, params))
    signs = {group: scale.sign()[:, None] for group, scale in element.scales.items()}
    permutations = {
        group: permutation[:, None] for group, permutation in element.permutations.items()
    }
    expected = act(features, GroupElement(permutations, signs), before)
    for name in expected:
        torch.testing.assert_close(after[name], expected[name], rtol=1e-8, atol=1e-8)
    assert max(float((before[name] - after[name]).abs().max()) for name in before) > 1e-2


@pytest.mark.parametrize(
    "name", ["mlp", "cnn", "resnet", "transformer", "gin", "siren", "w", "mlp tanh", "mlp any"]
)
def test_predictions_change_when_one_tensor_alone_moves(name):
    space = SPACES[name]
    params = networks(space)
    module = metanet(space, params)
    weight = next(tensor for tensor in reversed(params) if params[tensor].dim() > 2)
    assert spreads(module, params, {**params, weight: params[weight].roll(1, dims=2)}) > 1e-4
    assert spreads(module, params, {**params, weight: 1.5 * params[weight]}) > 1e-4
    flips = torch.where(torch.arange(params[weight].shape[2]) % 2 == 0, 1.0, -1.0).reshape(
        -1, *(1,) * (params[weight].dim() - 3)
    )
    assert spreads(module, params, {**params, weight: flips * params[weight]}) > 1e-4


@pytest.mark.parametrize(
    ("name", "factor"), [("mlp tanh", 1.5), ("mlp relu", -1.0), ("w", 1.5), ("w", -1.0)]
)
def test_predictions_change_under_scales_that_are_not_declared(name, factor):
    space = SPACES[name]
    params = networks(space)
    element = GroupElement(
        {}, {"h1": torch.tensor([factor, *[1.0] * (space.groups["h1"].size - 1)])}
    )
    assert spreads(metanet(space, params), params, act(space, element, params)) > 1e-4


def dead(params, kind):
    """Networks with first neurons without entries written, read, or any; or with zero weights."""
    moved = {name: tensor.clone() for name, tensor in params.items()}
    if kind == "all":
        return {name: torch.zeros_like(tensor) for name, tensor in params.items()}
    if kind in ("in", "both"):
        moved["layers.0.weight"][:, :2], moved["layers.0.bias"][:, :2] = 0, 0
    if kind in ("out", "both"):
        moved["layers.1.weight"][:, :, :2] = 0
    return moved


@pytest.mark.parametrize("kind", ["in", "out", "both", "all"])
@pytest.mark.parametrize("name", ["mlp relu", "mlp tanh", "mlp any"])
def test_dead_neurons_are_read_and_remain_invariant(name, kind):
    space = SPACES[name]
    params = networks(space)
    module, weak = metanet(space, params), dead(params, kind)
    before, after = (
        module(module.features(values)) for values in (weak, act(space, wide(space), weak))
    )
    close(before, after, rtol=1e-8, atol=1e-8)
    module.calibrate([module.features(weak)])
    out = module.float()(module.features({name: tensor.float() for name, tensor in weak.items()}))
    out.square().sum().backward()
    assert out.isfinite().all()
    assert all(weight.grad.isfinite().all() for weight in module.parameters())


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e30])
@pytest.mark.parametrize("name", ["mlp relu", "mlp tanh", "mlp any", "transformer"])
def test_tiny_and_huge_weights_are_read(name, scale):
    space = SPACES[name]
    params = {name: tensor.float() for name, tensor in networks(space).items()}
    module = metanet(space, networks(space)).float()
    tensor = next(tensor for tensor in reversed(params) if params[tensor].dim() > 2)
    features = module.features({**params, tensor: params[tensor] * scale})
    inputs = [values.requires_grad_() for values in features.values()]
    out = module(features)
    out.square().sum().backward()
    assert out.isfinite().all()
    assert all(weight.grad.isfinite().all() for weight in [*module.parameters(), *inputs])


@pytest.mark.parametrize("name", ["mlp relu", "mlp tanh", "mlp any"])
def test_a_dying_neuron_fades_out(name):
    space = SPACES[name]
    params = networks(space)
    module = metanet(space, params)
    gone = dead(params, "in")
    fading = {name: gone[name] + 1e-4 * (params[name] - gone[name]) for name in params}
    assert spreads(module, gone, fading) < 0.05 < spreads(module, gone, params)


def test_gradients_reach_every_weight_of_a_network_with_signs():
    for name in ("siren", "transformer", "mlp any"):
        params = networks(SPACES[name])
        module = metanet(SPACES[name], params)
        module(module.features(params)).square().sum().backward()
        assert isinstance(module.network, SignedGraphNetwork)
        assert [
            n
            for n, weight in module.named_parameters()
            if weight.grad is None or not weight.grad.abs().sum() > 0
        ] == []


@pytest.mark.parametrize(
    "law", ["gradients_reach_every_weight", "learns_eight_by_heart", "is_as_invariant_as_declared"]
)
@pytest.mark.parametrize("scaling", ["positive", "any"])
def test_laws_hold_where_neurons_have_scales(scaling, law):
    population = first_networks(random_population(), 8)
    groups = {
        n: replace(g, scaling=scaling) if g.permutable else g
        for n, g in population.space.groups.items()
    }
    options = {"epochs": 30, "patience": 30} if law == "learns_eight_by_heart" else {}
    space = WeightSpace(groups, population.space.tensors)
    LAWS[law]("scale_gmn", view(population, space=space), options)


@pytest.mark.parametrize("name", ["mlp", "mlp any"])
def test_fixed_entries_are_not_read(name):
    space = SPACES[name]
    params, mask = (
        networks(space),
        torch.rand(space.shapes["layers.0.weight"], generator=generator()) < 0.5,
    )
    module = metanet(space, params, {"layers.0.weight": mask})
    first = params["layers.0.weight"]
    assert (
        spreads(module, params, {**params, "layers.0.weight": torch.where(mask, first, 7.0)}) == 0
    )
    assert (
        spreads(module, params, {**params, "layers.0.weight": torch.where(mask, 2 * first, first)})
        > 1e-4
    )


def test_options_are_checked():
    with pytest.raises(
        ValueError, match="edge_width a divisor of width, got width 12 and edge_width 8"
    ):
        ScaleGraphMetanet(InputSpec(SPACES["mlp"]), width=12)
    assert METANETS["scale_gmn"] is ScaleGraphMetanet
    assert (
        len(build("scale_gmn", [InputSpec(SPACES["mlp"])], {"preset": "published"}).network.layers)
        == 4
    )
