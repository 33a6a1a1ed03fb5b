"""Counter-based random numbers: functions of key and counter, uniform, and equal to SplitMix64."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data_gen.rng import fold, generator, integers, key, uniform
from data_gen.training.order import shuffled

WORD = 2**64


def splitmix64(state):
    """Python integers, as in the paper."""
    z = (state + 0x9E3779B97F4A7C15) % WORD
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % WORD
    return z ^ (z >> 31)


@given(st.integers(0, 2**63 - 1), st.integers(0, 10**6))
def test_fold_is_splitmix64(k, counter):
    advanced = (k + counter * 0x9E3779B97F4A7C15) % WORD
    assert int(fold(k, counter)) % WORD == splitmix64(advanced)


def test_keys_depend_on_every_name_and_only_on_them():
    assert key(0, "a", 1) == key(0, "a", 1) == key(0, "a", "1")
    assert len({key(s, n, i) for s in range(5) for n in ("a", "b", "ab") for i in range(50)}) == 750
    assert key(0, "a", "b") != key(0, "ab")


def test_uniform_has_the_moments_of_the_uniform_distribution():
    u = uniform(key(0, "test"), torch.arange(100_000))
    assert (u >= 0).all()
    assert (u < 1).all()
    # Five standard errors: fails for a correct generator with probability below 1e-6.
    assert abs(float(u.mean()) - 0.5) < 5 * (1 / 12 / 1e5) ** 0.5
    assert abs(float(u.var()) - 1 / 12) < 5 * (1 / 180 / 1e5) ** 0.5
    assert abs(float(torch.corrcoef(torch.stack([u[:-1], u[1:]]))[0, 1])) < 5 / 1e5**0.5


@given(st.integers(1, 2**31 - 1), st.integers(0, 2**40))
def test_integers_stay_below_their_bound(high, k):
    draws = integers(k, torch.arange(100), high)
    assert (draws >= 0).all()
    assert (draws < high).all()


def test_integers_are_uniform():
    counts = torch.bincount(
        integers(key(0, "integers"), torch.arange(70_000), 7), minlength=7
    ).double()
    chi_square = float(((counts - 10_000) ** 2 / 10_000).sum())
    assert chi_square < 38.3  # 6 degrees of freedom, probability 1e-6


def test_generator_is_seeded_by_its_names():
    first, same, other = generator(0, "init", 1), generator(0, "init", 1), generator(0, "init", 2)
    draw = torch.rand(5, generator=first)
    assert torch.equal(draw, torch.rand(5, generator=same))
    assert not torch.equal(draw, torch.rand(5, generator=other))


@given(
    st.lists(st.integers(1, 300), min_size=1, max_size=6), st.integers(0, 3), st.integers(0, 2**32)
)
def test_every_pass_is_a_permutation(lengths, epoch, seed):
    n = torch.tensor(lengths)
    keys = fold(seed, torch.arange(len(lengths)))
    for i, length in enumerate(lengths):
        position = torch.arange(epoch * length, (epoch + 1) * length)[None]
        index = shuffled(keys[i : i + 1], position, n[i : i + 1])
        assert sorted(index[0].tolist()) == list(range(length))


@given(st.integers(0, 2**32), st.integers(0, 5000))
def test_order_is_a_function_of_key_and_position_alone(seed, start):
    keys, n = fold(seed, torch.arange(5)), torch.tensor([13, 900, 77, 1200, 1])
    position = torch.arange(start, start + 60).expand(5, -1)
    together = shuffled(keys, position, n)
    for i in range(5):
        for j in (0, 17, 59):
            assert int(shuffled(keys[i : i + 1], position[:1, j : j + 1], n[i : i + 1])) == int(
                together[i, j]
            )


def test_order_looks_random():
    keys = fold(key(0, "order"), torch.arange(4000))
    index = shuffled(keys, torch.arange(2).expand(4000, -1), torch.full((4000,), 1200))
    correlation = float(torch.corrcoef(index.double().T)[0, 1])
    assert abs(correlation) < 5 / 4000**0.5
    counts = torch.bincount(index[:, 0] // 100, minlength=12).double()
    assert (
        float(((counts - 4000 / 12) ** 2 / (4000 / 12)).sum()) < 47.1
    )  # 11 degrees of freedom, probability 2e-6
    passes = shuffled(keys[:1], torch.arange(2400)[None], torch.tensor([1200]))[0]
    assert (passes[:1200] != passes[1200:]).double().mean() > 0.99


@pytest.mark.parametrize("length", [1, 2, 3])
def test_tiny_lengths(length):
    index = shuffled(torch.tensor([5]), torch.arange(10 * length)[None], torch.tensor([length]))
    assert (index.reshape(10, length).sort(1).values == torch.arange(length)).all()
