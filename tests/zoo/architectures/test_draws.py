"""Random operations with numbers that are given: each is torch's own, or its formula."""

import pytest
import torch
import torch.nn.functional as F

from zoo.architectures.draws import GivenDraws

QUERY, KEY, VALUE = torch.randn(3, 2, 4, 5, 6, generator=torch.Generator().manual_seed(0)).double()
BIAS = torch.linspace(-1, 1, 25).reshape(5, 5).double()


def numbers(call, shape):
    """Others for each call."""
    generator = torch.Generator().manual_seed(call)
    return torch.rand(tuple(shape), generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scale": 0.3},
        {"attn_mask": BIAS},
        {"attn_mask": (BIAS > -0.5) | torch.eye(5).bool()},
        {"is_causal": True},
        {"enable_gqa": True},
    ],
    ids=["plain", "scale", "bias", "mask", "causal", "grouped"],
)
def test_attention_is_that_of_torch_with_its_weights_dropped(options):
    heads = 2 if "enable_gqa" in options else 4
    key, value = KEY[:, :heads], VALUE[:, :heads]
    whole = F.scaled_dot_product_attention(QUERY, key, value, **options)
    # Rows of the identity in place of values show the weights.
    rows = torch.eye(5).double().expand(2, heads, 5, 5)
    weights = F.scaled_dot_product_attention(QUERY, key, rows, **options)
    with GivenDraws(None):
        off = F.scaled_dot_product_attention(QUERY, key, value, dropout_p=0.25, **options)
    with GivenDraws(numbers):
        dropped = F.scaled_dot_product_attention(QUERY, key, value, dropout_p=0.25, **options)
    kept = numbers(0, weights.shape) >= 0.25
    each = VALUE[:, :heads].repeat_interleave(4 // heads, 1)
    torch.testing.assert_close(off, whole)
    torch.testing.assert_close(dropped, (weights * kept / 0.75) @ each)
    assert not torch.allclose(dropped, whole)


def test_noise_has_the_numbers_that_are_given():
    x, u = torch.zeros(3, 2), [numbers(call, (3, 2)) for call in range(9)]
    with GivenDraws(numbers):
        drawn = [
            torch.rand(3, 2),
            torch.rand((3, 2), dtype=torch.float64),
            torch.randn(size=(3, 2)),
            torch.rand_like(x),
            torch.randn_like(x, dtype=torch.float64),
            torch.bernoulli(x + 0.3),
            x.clone().bernoulli_(0.6),
            x.clone().uniform_(-1.0, 2.0),
            x.clone().normal_(3.0, 2.0),
        ]
    normal = [torch.special.ndtri(each) for each in u]
    expected = [u[0], u[1], normal[2], u[3], normal[4], u[5] < 0.3, u[6] < 0.6, 3 * u[7] - 1]
    expected.append(3 + 2 * normal[8])
    doubles = [at for at, each in enumerate(drawn) if each.dtype == torch.float64]
    assert doubles == [1, 4]
    for ours, theirs in zip(drawn, expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs.double(), atol=1e-6, rtol=1e-6)


def test_noise_without_numbers_is_refused():
    with GivenDraws(None), pytest.raises(ValueError, match="expected apply_training"):
        torch.rand(2)
