"""The number of independent conservation laws: theory, Lie brackets and our laws all agree."""

import pytest
import torch
import torch.nn.functional as F

from zoo.conservation.count import count_independent, count_laws
from zoo.conservation.laws import Law, declared_laws, matrix, shift
from zoo.testing import random_params
from zoo.weight_space import NeuronGroup, Scaling, WeightSpace


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fixed(size: int) -> NeuronGroup:
    return NeuronGroup(size, permutable=False)


def layers(widths, scaling: Scaling, biases: bool = False, activation=lambda z: z, power: int = 1):
    """A space, the function, and the input shape of a perceptron with a linear output layer."""
    names = ["x", *(f"h{i}" for i in range(1, len(widths) - 1)), "y"]
    groups = {
        name: NeuronGroup(width, scaling=scaling) for name, width in zip(names, widths, strict=True)
    }
    groups |= {"x": fixed(widths[0]), "y": fixed(widths[-1])}
    tensors = {"w1": "h1 <- x"}
    for i in range(1, len(widths) - 1):
        tensors |= {f"b{i}": f"h{i}"} if biases else {}
        tensors[f"w{i + 1}"] = f"{names[i + 1]} <- h{i}{'' if power == 1 else f'^{power}'}"

    def apply(params, x):
        for i in range(1, len(widths) - 1):
            x = activation(x @ params[f"w{i}"].T + params.get(f"b{i}", 0.0))
        return x @ params[f"w{len(widths) - 1}"].T

    return WeightSpace(groups, tensors), apply, (widths[0],)


def agree(
    space: WeightSpace, apply, shape, named: list[Law], expected: int, seed: int = 0
) -> tuple[int, ...]:
    params = random_params(space, generator(seed))
    count = count_laws(apply, params, shape, generator(seed + 1))
    assert count.laws == expected == count_independent(named, params)
    assert count.num_params == space.num_params
    return count.dimensions


def number_of_linear_laws(n: int, m: int, r: int) -> int:
    """Independent entries of `U^T U - V^T V` for `U` n x r, `V` m x r, `(U; V)` of full rank `k`.

    The differential `dW -> dW^T S W + W^T S dW` of `W^T S W` reaches every symmetric matrix but
    those on the `r - k` dimensions that `W` does not. Marcotte, Gribonval and Peyre 2023, arXiv
    2307.00144, section 4, have the same numbers.
    """
    return r * (r + 1) // 2 if n + m > r else (n + m) * (2 * r - (n + m - 1)) // 2


@pytest.mark.parametrize(
    ("n", "m", "r"),
    [
        (1, 1, 1),
        (2, 1, 2),
        (2, 2, 3),
        (3, 4, 2),
        (3, 3, 3),
        (1, 1, 3),
        (1, 2, 5),
        (2, 2, 6),
        (2, 3, 5),
    ],
)
def test_two_linear_layers(n, m, r):
    space, apply, shape = layers((m, r, n), "any")
    agree(space, apply, shape, [matrix(space, "h1")], number_of_linear_laws(n, m, r))


def test_brackets_are_needed():
    space, apply, shape = layers((3, 3, 3), "any")
    dimensions = agree(space, apply, shape, [matrix(space, "h1")], 6)
    assert dimensions == (9, 12, 12)  # the gradients alone, with brackets, and no more


@pytest.mark.parametrize("widths", [(2, 2, 2, 2), (2, 3, 2, 1)])
def test_three_linear_layers(widths):
    space, apply, shape = layers(widths, "any")
    named = [matrix(space, "h1"), matrix(space, "h2")]
    agree(
        space,
        apply,
        shape,
        named,
        widths[1] * (widths[1] + 1) // 2 + widths[2] * (widths[2] + 1) // 2,
    )


def test_a_product_that_is_one_number_has_more_laws_than_are_listed():
    """With one input and output, gradients are parallel: `P - 1` laws, which no balance gives."""
    space, apply, shape = layers((1, 2, 2, 1), "any")
    params = random_params(space, generator(0))
    assert count_laws(apply, params, shape, generator(1)).laws == space.num_params - 1 == 7
    assert count_independent([matrix(space, "h1"), matrix(space, "h2")], params) == 6


@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize(("n", "m", "r"), [(1, 1, 1), (2, 1, 2), (2, 2, 3), (1, 3, 4), (3, 2, 2)])
@pytest.mark.parametrize("activation", [torch.relu, F.leaky_relu])
def test_two_layers_with_relu_have_one_law_for_each_neuron(n, m, r, biases, activation):
    space, apply, shape = layers((m, r, n), "positive", biases, activation)
    agree(space, apply, shape, list(declared_laws(space)), r)


def test_two_hidden_layers_with_leaky_relu():
    space, apply, shape = layers((2, 3, 2, 2), "positive", True, F.leaky_relu)
    agree(space, apply, shape, list(declared_laws(space)), 5)


def test_degree_two():
    space, apply, shape = layers((2, 3, 2), "positive", True, lambda z: torch.relu(z) ** 2, power=2)
    agree(space, apply, shape, list(declared_laws(space)), 3)


@pytest.mark.parametrize("activation", [F.gelu, F.silu, torch.tanh])
def test_smooth_activations_have_none(activation):
    space, apply, shape = layers((2, 3, 2), "none", True, activation)
    params = random_params(space, generator(0))
    assert count_laws(apply, params, shape, generator(1)).laws == 0


def test_softmax_adds_one_law_for_each_column_and_one_for_the_bias():
    space, apply, shape = layers((2, 3, 3), "positive", True, torch.relu)
    space = WeightSpace(space.groups, {**space.tensors, "c": "y"})
    named = [*declared_laws(space), shift(space, "w2"), shift(space, "c")]

    def logits(params, x):
        return apply(params, x) + params["c"]

    agree(space, logits, shape, named[:1], 3)
    agree(space, lambda params, x: F.log_softmax(logits(params, x), -1), shape, named, 3 + 3 + 1)


@pytest.mark.parametrize(("channels", "in_channels"), [(2, 1), (3, 2)])
def test_a_block_of_convolutions(channels, in_channels):
    groups = {
        "x": fixed(in_channels),
        "c": NeuronGroup(channels, scaling="positive"),
        "y": fixed(1),
    }
    space = WeightSpace(groups, {"w1": "c <- x 2 2", "b1": "c", "w2": "y <- c 2 2"})

    def block(p, x):
        return F.conv2d(F.conv2d(x, p["w1"], p["b1"]).relu(), p["w2"])

    agree(space, block, (in_channels, 4, 4), list(declared_laws(space)), channels)

    def residual(p, x):
        return x[:, :1] + F.conv2d(F.conv2d(x, p["w1"], p["b1"], padding=1).relu(), p["w2"])

    agree(
        space, residual, (in_channels, 3, 3), list(declared_laws(space)), channels
    )  # a skip connection changes nothing


@pytest.mark.parametrize(
    ("dim", "size", "heads", "length"), [(3, 2, 1, 3), (2, 1, 2, 3), (3, 2, 2, 3)]
)
def test_attention_has_two_symmetric_matrices_for_each_head(dim, size, heads, length):
    """Marcotte et al. 2025, arXiv 2506.06194: those of `Q K^T` and of `V O`, in each head."""
    groups = {"x": fixed(dim), "head": NeuronGroup(heads), "y": fixed(dim)}
    groups |= {name: NeuronGroup(size, scaling="any") for name in ("qk", "v")}
    patterns = {
        "q": "(head qk) <- x",
        "k": "(head qk^-1) <- x",
        "v": "(head v) <- x",
        "o": "y <- (head v)",
    }
    space = WeightSpace(groups, patterns)

    def attention(p, x):
        q, k, v = ((x @ p[name].T).unflatten(-1, (heads, size)).transpose(1, 2) for name in "qkv")
        return (torch.softmax(q @ k.mT, -1) @ v).transpose(1, 2).flatten(2) @ p["o"].T

    named = [matrix(space, "qk"), matrix(space, "v")]
    agree(space, attention, (length, dim), named, heads * size * (size + 1))


def test_what_is_not_used_is_conserved():
    params = {
        "used": torch.ones(2, dtype=torch.float64),
        "unused": torch.ones(3, dtype=torch.float64),
    }
    assert count_laws(lambda p, x: x @ p["used"], params, (2,), generator(0)).laws == 3
    assert count_laws(lambda p, x: 0 * x @ p["used"], params, (2,), generator(0)).laws == 5


def test_single_precision_is_refused():
    with pytest.raises(ValueError, match="expected float64"):
        count_laws(lambda p, x: x @ p["w"], {"w": torch.ones(2)}, (2,), generator(0))
