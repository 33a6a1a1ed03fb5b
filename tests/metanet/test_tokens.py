"""Every entry is in a token of its neuron, once; positions tell neurons apart."""

from functools import partial

import pytest
import torch
from torch import nn

from metanet.contract import InputSpec, seeded
from metanet.graphs.topology import parameter_graph
from metanet.models.tokens import EncoderLayer, TokenTransformer, positions, tokenize
from tests.metanet.spaces import COUNT, SPACES, generator, networks, spreads
from tests.reference import metanet_tokens as reference
from zoo.architectures import ARCHITECTURES
from zoo.symmetry.action import GroupElement, act, sample

close = partial(torch.testing.assert_close, rtol=1e-10, atol=1e-10)


def metanet(space, params, **options):
    sizes = {"token_size": 5, "width": 8, "layers": 2, "heads": 2}
    with seeded(0):
        module = TokenTransformer(InputSpec(space), **{**sizes, **options}).double().eval()
    module.calibrate([module.features(params)])
    return module


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("size", [1, 5, 1000])
def test_tokens_hold_every_entry_once(name, size):
    space = SPACES[name]
    start, numbers = 1, {}
    for tensor, shape in space.shapes.items():
        count = torch.Size(shape).numel()
        numbers[tensor] = torch.arange(start, start + count, dtype=torch.float64).reshape(1, *shape)
        start += count
    graph = parameter_graph(space)
    tokens, places = tokenize(graph, numbers, size), positions(graph, size)
    assert tokens.shape == (1, places.shape[1], size)
    close(tokens[tokens != 0].sort().values, torch.arange(1, start, dtype=torch.float64))
    assert len(places.T.unique(dim=0)) == places.shape[1]
    assert (tokens != 0).any(2).all()


@pytest.mark.parametrize("name", [*ARCHITECTURES, *("w", "sigma", "syre")])
def test_a_token_holds_what_one_neuron_is_written_by(name):
    space, size = SPACES[name], 5
    params, graph = networks(space, count=1), parameter_graph(space)
    tokens, places = tokenize(graph, params, size)[0], positions(graph, size)
    ours = {}
    for token, (place, neuron, _) in zip(tokens, places.T.tolist(), strict=True):
        ours.setdefault((place, neuron), []).extend(token[token != 0].tolist())
    theirs = reference.rows(space, {tensor: values[0] for tensor, values in params.items()})
    assert sorted(map(sorted, ours.values())) == sorted(map(sorted, theirs))


def test_the_cut_of_a_row():
    space = SPACES["mlp"]
    params, graph = networks(space), parameter_graph(space)
    weight, bias = (params[name] for name in list(params)[:2])
    row = torch.cat([weight, bias[..., None]], dim=-1)
    length = row.shape[-1]
    size = length - 2
    tokens, places = tokenize(graph, params, size), positions(graph, size)
    assert places[:, :4].T.tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1]]
    close(tokens[:, 2], row[:, 1, :size])
    close(tokens[:, 3, :2], row[:, 1, size:])
    assert not tokens[:, 3, 2:].any()


def test_a_block_equals_that_of_torch():
    with seeded(0):
        ours = EncoderLayer(8, 2, 0.0).double()
        theirs = nn.TransformerEncoderLayer(
            8, 2, 32, 0.0, "gelu", batch_first=True, norm_first=True
        ).double()
    for name, value in {
        "self_attn.in_proj_weight": ours.project.weight,
        "self_attn.in_proj_bias": ours.project.bias,
        "self_attn.out_proj.weight": ours.merge.weight,
        "self_attn.out_proj.bias": ours.merge.bias,
        "linear1.weight": ours.perceptron[0].weight,
        "linear1.bias": ours.perceptron[0].bias,
        "linear2.weight": ours.perceptron[2].weight,
        "linear2.bias": ours.perceptron[2].bias,
    }.items():
        theirs.get_parameter(name).data.copy_(value.data)
    x = torch.randn(3, 7, 8, generator=generator(), dtype=torch.float64)
    close(ours(x), theirs(x))


@pytest.mark.parametrize("name", SPACES)
def test_every_space_has_predictions_and_gradients(name):
    params = networks(SPACES[name])
    module = metanet(SPACES[name], params)
    out = module(module.features(params))
    assert out.shape == (COUNT,)
    assert out.isfinite().all()
    out.square().sum().backward()
    assert all(
        weight.grad is not None and weight.grad.isfinite().all() for weight in module.parameters()
    )


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_predictions_change_when_neurons_move_and_nothing_else_is_declared(name):
    space = SPACES[name]
    params = networks(space)
    module = metanet(space, params)
    permutations = sample(space, generator(1), batch=(COUNT,)).permutations
    assert spreads(module, params, act(space, GroupElement(permutations, {}), params)) > 1e-4
    assert module.invariant == "nothing"


def test_fixed_entries_are_not_read():
    space = SPACES["w"]
    params, mask = (
        networks(space),
        torch.rand(space.shapes["layers.0.weight"], generator=generator()) < 0.5,
    )
    with seeded(0):
        module = (
            TokenTransformer(InputSpec(space, {"layers.0.weight": mask}), width=8, heads=2)
            .double()
            .eval()
        )
    module.calibrate([module.features(params)])
    fixed = {**params, "layers.0.weight": torch.where(mask, params["layers.0.weight"], 7.0)}
    trained = {**params, "layers.0.weight": torch.where(mask, 7.0, params["layers.0.weight"])}
    assert spreads(module, params, fixed) == 0
    assert spreads(module, params, trained) > 1e-4


def test_options_are_checked():
    with pytest.raises(ValueError, match="divisor of width, got 5 heads and width 48"):
        TokenTransformer(InputSpec(SPACES["mlp"]), heads=5)
