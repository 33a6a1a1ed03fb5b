"""Hamiltonian Monte Carlo against a Gaussian and its own laws; R-hat against a loop."""

import numpy as np
import pytest
import torch
from scipy.stats import norm, rankdata
from torch.func import grad_and_value, vmap

from data_gen.config import PopulationConfig
from data_gen.rng import generator
from studies.bayesian.chains import ChainCell, aligned, measure, run_chains, two_moons
from studies.bayesian.hmc import leapfrog, sample_chains
from studies.bayesian.posterior import support_of
from studies.bayesian.rhat import normal_scores, rank_normalized_rhat, split_rhat
from zoo.architectures.table import build_architecture, make_asymmetric
from zoo.params import flatten
from zoo.symmetry.action import act, sample

COVARIANCE = torch.tensor(
    [[1.0, 0.6, 0.0], [0.6, 2.0, -0.3], [0.0, -0.3, 0.5]], dtype=torch.float64
)
CENTER = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
PRECISION = torch.linalg.inv(COVARIANCE)


def gaussian(q):
    return (q - CENTER) @ PRECISION @ (q - CENTER) / 2


def rough(q):
    return (q**4).sum() / 4 + torch.sin(3 * q).sum() + q[0] * q[1]


def draw(shape, seed=0):
    return torch.randn(shape, generator=generator(seed, "test"), dtype=torch.float64)


def test_moments_of_a_gaussian_are_recovered():
    """64 independent chains give 64 independent estimates: their spread tells the error.

    9 two-sided comparisons at 5.5 standard errors; Student's t with 63 degrees exceeds that with
    probability 8e-7.
    """
    chains = 64
    start = 3 * draw((chains, 3))
    result = sample_chains(gaussian, start, generator(1), draws=90, leapfrog_steps=5, step_size=0.4)
    kept = result.position[30:]
    assert result.accepted.double().mean() > 0.7
    pairs = [(i, j) for i in range(3) for j in range(i + 1)]
    estimates = [kept[..., i].mean(0) - CENTER[i] for i in range(3)]
    estimates += [
        ((kept[..., i] - CENTER[i]) * (kept[..., j] - CENTER[j])).mean(0) - COVARIANCE[i, j]
        for i, j in pairs
    ]
    for values in estimates:
        assert abs(float(values.mean())) < 5.5 * float(values.std()) / chains**0.5


def test_leapfrog_goes_back_the_way_it_came():
    gradient = vmap(grad_and_value(rough))
    q, p, moving = draw((4, 3), 0), draw((4, 3), 1), torch.ones(3, dtype=torch.float64)
    size = torch.full((4, 1), 0.05, dtype=torch.float64)
    there, momentum, slope, _ = leapfrog(gradient, q, p, gradient(q)[0], moving, size, 25)
    assert float((there - q).abs().min()) > 1e-3
    back, reversed_momentum, _, value = leapfrog(
        gradient, there, -momentum, slope, moving, size, 25
    )
    torch.testing.assert_close(back, q, rtol=0, atol=1e-10)
    torch.testing.assert_close(-reversed_momentum, p, rtol=0, atol=1e-10)
    torch.testing.assert_close(value, gradient(q)[1], rtol=0, atol=1e-10)


def test_leapfrog_keeps_volume_and_its_error_is_of_second_order():
    gradient, moving = vmap(grad_and_value(rough)), torch.ones(3, dtype=torch.float64)

    def flow(state, size=0.05, steps=20):
        q, p = state[None, :3], state[None, 3:]
        q, p, _, _ = leapfrog(
            gradient,
            q,
            p,
            gradient(q)[0],
            moving,
            torch.full((1, 1), size, dtype=torch.float64),
            steps,
        )
        return torch.cat([q[0], p[0]])

    state = draw((6,), 2)
    jacobian = torch.func.jacfwd(flow)(state)
    assert float(torch.linalg.det(jacobian)) == pytest.approx(1, abs=1e-10)
    energy = [
        float(rough(s[:3]) + (s[3:] ** 2).sum() / 2)
        for s in (state, flow(state, 0.02, 20), flow(state, 0.01, 40))
    ]
    assert abs(energy[2] - energy[0]) < abs(energy[1] - energy[0]) / 3


def test_large_steps_are_rejected_and_leave_the_chain_where_it_was():
    start = draw((3, 3))
    chains = sample_chains(rough, start, generator(0), draws=5, leapfrog_steps=10, step_size=50.0)
    assert not chains.accepted.any()
    torch.testing.assert_close(chains.position, start.expand(5, 3, 3), rtol=0, atol=0)


def test_proposals_are_those_of_a_loop_over_chains():
    """Leapfrog and the rule of Metropolis in words, chain by chain, with a slope by hand.

    Each proposal starts where the chains are, so that rounding errors do not grow over draws.
    """
    chains, draws, steps, size = 6, 30, 4, 0.42
    start = draw((chains, 3))
    result = sample_chains(
        rough, start, generator(7), draws=draws, leapfrog_steps=steps, step_size=size
    )
    assert 0.2 < 1 - float(result.accepted.double().mean()) < 0.5

    def slope(q):
        return q**3 + 3 * np.cos(3 * q) + np.array([q[1], q[0], 0.0])

    def energy(q, p):
        return (q**4).sum() / 4 + np.sin(3 * q).sum() + q[0] * q[1] + (p**2).sum() / 2

    random, here = generator(7), start.numpy()
    for position, accepted in zip(result.position.numpy(), result.accepted.numpy(), strict=True):
        momenta, jitter, coins = (
            function(shape, generator=random, dtype=torch.float64).numpy()
            for function, shape in (
                (torch.randn, (chains, 3)),
                (torch.rand, (chains, 1)),
                (torch.rand, (chains,)),
            )
        )
        for i in range(chains):
            q, p, step = here[i], momenta[i], size * (0.8 + 0.4 * jitter[i, 0])
            for _ in range(steps):
                p = p - step / 2 * slope(q)
                q = q + step * p
                p = p - step / 2 * slope(q)
            taken = coins[i] < np.exp(energy(here[i], momenta[i]) - energy(q, p))
            assert accepted[i] == taken
            np.testing.assert_allclose(position[i], q if taken else here[i], rtol=0, atol=1e-10)
        here = position


def test_fixed_entries_have_no_momentum():
    free = torch.tensor([True, False, True])
    start = draw((4, 3))
    chains = sample_chains(
        gaussian, start, generator(0), draws=20, leapfrog_steps=5, step_size=0.2, free=free
    )
    assert (chains.position[..., 1] == start[:, 1]).all()
    assert chains.accepted.any()
    assert (chains.position[-1][:, free] != start[:, free]).any()


def loop_rhat(draws):
    """R-hat of one quantity from its definition, chain by chain."""

    def split(values):
        half = len(values) // 2
        parts = [part for chain in values.T for part in (chain[:half], chain[len(values) - half :])]
        within = np.mean([np.var(part, ddof=1) for part in parts])
        between = half * np.var([np.mean(part) for part in parts], ddof=1)
        return np.sqrt(((half - 1) / half * within + between / half) / within)

    def scores(values):
        return norm.ppf((rankdata(values).reshape(values.shape) - 3 / 8) / (values.size + 1 / 4))

    return max(split(scores(draws)), split(scores(np.abs(draws - np.median(draws)))))


@pytest.mark.parametrize("count", [40, 41])
def test_rhat_is_the_loop_ties_included(count):
    draws = (10 * draw((count, 4, 6))).round() / 10 + torch.arange(4)[:, None] * torch.linspace(
        0, 1, 6
    )
    expected = [loop_rhat(draws[..., i].numpy()) for i in range(6)]
    torch.testing.assert_close(
        rank_normalized_rhat(draws), torch.tensor(expected, dtype=torch.float64)
    )


def test_rhat_of_equal_chains_is_one_and_of_other_ones_large():
    """20 quantities of 4 x 2,000 independent draws.

    R-hat - 1 is about chi-squared with 7 degrees over 2,000 x 7.

    Above 1.01 would need a chi-squared with 7 degrees above 100, once in 10^17.
    """
    draws = draw((2000, 4, 20))
    assert float(rank_normalized_rhat(draws).max()) < 1.01
    shifted = draws + 2 * torch.arange(4)[:, None]
    assert float(rank_normalized_rhat(shifted).min()) > 1.5
    wider = draws * torch.tensor([1.0, 1.0, 1.0, 8.0])[:, None]
    assert (
        float(split_rhat(normal_scores(wider)).max())
        < 1.02
        < 1.1
        < float(rank_normalized_rhat(wider).min())
    )
    drifting = draws + torch.linspace(0, 5, 2000)[:, None, None]
    assert float(rank_normalized_rhat(drifting).min()) > 1.1


def test_two_moons_lie_on_their_circles():
    x, y = two_moons(50, 0.0, generator(0))
    centers = torch.tensor([[0.0, 0.0], [1.0, 0.5]], dtype=torch.float64)[y]
    torch.testing.assert_close((x - centers).norm(dim=1), torch.ones(50, dtype=torch.float64))
    assert (x[y == 0, 1] >= 0).all() and (x[y == 1, 1] <= 0.5).all()
    assert int(y.sum()) == 25


def sampling(asymmetry=None, **changes):
    population = PopulationConfig(
        architecture={"name": "mlp", "hidden": [3, 3], "activation": "tanh"}, asymmetry=asymmetry
    )
    values = {
        "points": 12,
        "test_points": 6,
        "noise": 0.2,
        "prior_std": 1.0,
        "chains": 3,
        "warmup": 2,
        "draws": 8,
    }
    return ChainCell("any", population, **(values | {"leapfrog": 3, "step_size": 0.02} | changes))


W = {"kind": "w", "n_fix": {"layers.0.weight": 0, "layers.1.weight": 1, "layers.2.weight": 1}}


def test_chains_of_an_asymmetric_network_keep_what_is_fixed():
    options = {name: value for name, value in W.items() if name != "kind"}
    plain = build_architecture("mlp", {"hidden": [3, 3], "activation": "tanh"}, (2,), 2)
    architecture = make_asymmetric(plain, "w", options, 0).to("cpu", torch.float64)
    weights, accepted = run_chains(sampling(W), architecture)
    free = support_of(architecture).free
    assert weights.shape == (8, 3, architecture.space.num_params)
    assert (weights[..., ~free] == weights[:1, :1, ~free]).all()
    assert len(weights[0, :, free].unique(dim=0)) == 3
    assert 0 <= float(accepted.mean()) <= 1
    rows = measure(sampling(W))
    assert rows["space"].value_counts().to_dict() == {"weights": int(free.sum()), "function": 6}


def test_without_data_chains_sample_the_prior():
    """No point pulls.

    40 chains' mean squares of weights N(0, 0.25) have error 0.25 sqrt(2 / (40 x 29)).
    """
    architecture = build_architecture("mlp", {"hidden": [3, 3]}, (2,), 2).to("cpu", torch.float64)
    cell = sampling(
        points=1, prior_std=0.5, chains=40, warmup=10, draws=20, leapfrog=5, step_size=0.2
    )
    weights, _ = run_chains(cell, architecture)
    hidden = unaffected(architecture, weights)
    assert float((hidden**2).mean()) == pytest.approx(0.25, abs=0.05)


def unaffected(architecture, weights):
    """Biases of the first layer, which one point of data hardly moves."""
    names = list(architecture.space.shapes)
    sizes = [int(np.prod(shape)) for shape in architecture.space.shapes.values()]
    start = sum(sizes[: names.index("layers.0.bias")])
    return weights[..., start : start + 3]


def test_alignment_undoes_the_order_of_neurons_and_nothing_else():
    architecture = build_architecture("mlp", {"hidden": [5, 4], "activation": "silu"}, (2,), 2)
    space, random = architecture.space, generator(0)
    network = architecture.init(random)
    moved = act(
        space,
        sample(space, random, (6, 3)),
        {name: tensor.expand(6, 3, *tensor.shape) for name, tensor in network.items()},
    )
    draws = flatten(space, moved)
    assert float((draws - draws[-1, 0]).abs().max()) > 0.1
    torch.testing.assert_close(aligned(space, draws), draws[-1, 0].expand_as(draws), rtol=0, atol=0)


def test_chains_of_permutable_networks_are_compared_after_alignment_too():
    rows = measure(sampling())
    counts = rows["space"].value_counts().to_dict()
    assert counts["aligned"] == counts["weights"]
    assert not np.allclose(
        rows.loc[rows["space"] == "aligned", "rhat"],
        rows.loc[rows["space"] == "weights", "rhat"],
    )
