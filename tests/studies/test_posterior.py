"""Posteriors of variational inference: closed forms, moments, what has a posterior."""

import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence

from data_gen.rng import generator
from studies.bayesian.local_reparametrization import is_mlp, output_noise_size, sample_outputs
from studies.bayesian.posterior import (
    Posterior,
    initial_posterior,
    sample_weights,
    spread,
    support_of,
    weight_noise_size,
)
from studies.bayesian.posterior import kl_divergence as our_kl
from tests.studies.inference import KINDS, architecture_of, dense_covariance
from zoo.architectures.table import build_architecture, make_asymmetric
from zoo.params import flatten, unflatten

Z = 4.9  # standard errors; a comparison of normal estimates fails by chance with probability 1e-6


def random_posterior(architecture, rank, seed=0):
    """A posterior with means, deviations and factors of the same size."""
    start = initial_posterior(architecture, generator(seed, "start"), rank=rank, std=0.5)
    random = generator(seed, "posterior")
    log_std = -1 + 0.3 * torch.randn(start.log_std.shape, generator=random)
    return Posterior(*(part.double() for part in (start.mean, log_std, start.factor)))


@pytest.mark.parametrize("rank", [0, 1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_kl_is_that_of_the_dense_gaussian(kind, rank):
    architecture = architecture_of(kind)
    support, posterior = support_of(architecture), random_posterior(architecture, rank)
    free = support.free
    dense = MultivariateNormal(
        posterior.mean[free], dense_covariance(support, posterior)[free][:, free]
    )
    prior = MultivariateNormal(
        torch.zeros(int(free.sum()), dtype=torch.float64),
        0.49 * torch.eye(int(free.sum())).double(),
    )
    torch.testing.assert_close(
        our_kl(support, posterior, 0.7), kl_divergence(dense, prior), rtol=1e-10, atol=0
    )


@pytest.mark.parametrize("rank", [0, 2])
def test_sampled_weights_have_the_dense_moments(rank):
    """Linear in the noise, so the covariance is that of the map from noise to weights, exactly."""
    architecture = architecture_of("w")
    support, posterior = support_of(architecture), random_posterior(architecture, rank)

    def draw(noise):
        return flatten(support.space, sample_weights(support, posterior, noise))

    zero = torch.zeros(weight_noise_size(support, rank), dtype=torch.float64)
    jacobian = torch.func.jacrev(draw)(zero)
    torch.testing.assert_close(draw(zero), posterior.mean)
    torch.testing.assert_close(jacobian @ jacobian.T, dense_covariance(support, posterior))


@pytest.mark.parametrize("kind", KINDS)
def test_without_spread_the_local_network_is_the_architecture(kind):
    architecture = architecture_of(kind)
    posterior = random_posterior(architecture, 2)
    still = Posterior(
        posterior.mean, torch.full_like(posterior.log_std, -40.0), 0 * posterior.factor
    )
    x = torch.randn(7, 5, generator=generator(0, "x"), dtype=torch.float64)
    noise = torch.randn(
        7, output_noise_size(architecture, 2), generator=generator(0, "e"), dtype=torch.float64
    )
    expected = architecture.apply(unflatten(architecture.space, still.mean), x)
    torch.testing.assert_close(sample_outputs(architecture, still, x, noise), expected)


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("kind", ["standard", "w"])
def test_one_local_layer_has_exactly_the_moments_of_sampled_weights(kind, rank):
    """Pre-activations of one layer are linear in the noise of either way, so both covariances
    follow from Jacobians.
    """
    plain = build_architecture("mlp", {"hidden": []}, (5,), 3)
    architecture = (
        plain if kind == "standard" else make_asymmetric(plain, "w", {"n_fix": 1, "kappa": 0.7}, 0)
    )
    architecture = architecture.to("cpu", torch.float64)
    support, posterior = support_of(architecture), random_posterior(architecture, rank)
    x = torch.randn(1, 5, generator=generator(0, "x"), dtype=torch.float64)

    def local(noise):
        return sample_outputs(architecture, posterior, x, noise[None])[0]

    def global_(noise):
        return architecture.apply(sample_weights(support, posterior, noise), x)[0]

    moments = []
    for function, size in (
        (local, output_noise_size(architecture, rank)),
        (global_, weight_noise_size(support, rank)),
    ):
        zero = torch.zeros(size, dtype=torch.float64)
        jacobian = torch.func.jacrev(function)(zero)
        moments.append((function(zero), jacobian @ jacobian.T))
    torch.testing.assert_close(moments[0][0], moments[1][0])
    torch.testing.assert_close(moments[0][1], moments[1][1])


@pytest.mark.parametrize("kind", KINDS)
def test_deep_local_networks_have_the_moments_of_sampled_weights(kind):
    """First and second moments of three logits.

    6 comparisons at 1e-6 each fail by chance in fewer than one of 10^5 seeds.
    """
    architecture, count, rank = architecture_of(kind), 20_000, 2
    support, posterior = support_of(architecture), random_posterior(architecture, rank)
    x = torch.randn(5, generator=generator(1, "x"), dtype=torch.float64)
    random = generator(0, "noise")
    local = sample_outputs(
        architecture,
        posterior,
        x.expand(count, 5),
        torch.randn(
            count, output_noise_size(architecture, rank), generator=random, dtype=torch.float64
        ),
    )
    noise = torch.randn(
        count, weight_noise_size(support, rank), generator=random, dtype=torch.float64
    )
    sampled = torch.func.vmap(
        lambda e: architecture.apply(sample_weights(support, posterior, e), x[None])[0]
    )(noise)
    center = sampled.mean(0)
    for power in (1, 2):
        a, b = ((part - center) ** power for part in (local, sampled))
        error = ((a.var(0) + b.var(0)) / count).sqrt()
        assert ((a.mean(0) - b.mean(0)).abs() < Z * error).all(), f"moment {power}"


def test_an_mlp_is_known_by_its_tensors():
    assert is_mlp(architecture_of("w"))
    assert not is_mlp(build_architecture("cnn", {"channels": [2, 2]}, (1, 8, 8), 3))


def test_running_statistics_have_no_posterior():
    batch_norm = build_architecture("resnet", {"width": 0.25}, (1, 8, 8), 3)
    with pytest.raises(ValueError, match="choose norm 'layer' or 'none'"):
        initial_posterior(batch_norm, generator(0), rank=0, std=0.1)


@pytest.mark.parametrize("rank", [0, 4])
def test_a_start_has_the_deviation_that_was_asked_for(rank):
    """The mean variance over 64 x 64 weights; chi-squared with 4 x 4096 / 2 degrees at least.

    Within 10% but for 1e-9.
    """
    architecture = build_architecture("mlp", {"hidden": [64, 64]}, (4,), 3)
    support = support_of(architecture)
    posterior = initial_posterior(architecture, generator(0), rank=rank, std=0.2)
    _, std, factor = spread(support, posterior)
    variance = unflatten(support.space, std**2 + (factor**2).sum(0))
    assert float(variance["layers.1.weight"].mean()) == pytest.approx(0.04, rel=0.1)
    torch.testing.assert_close(variance["layers.1.bias"], torch.full((64,), 0.04))


def test_the_scale_of_the_start_leaves_fixed_entries_and_biases():
    architecture = architecture_of("w")
    support = support_of(architecture)
    one, two = (
        initial_posterior(architecture, generator(3), rank=1, std=0.1, init_scale=s).mean
        for s in (1.0, 2.0)
    )
    torch.testing.assert_close(two, torch.where(support.correlated, 2 * one, one))
    torch.testing.assert_close(one, flatten(support.space, architecture.init(generator(3))))
