"""Where an architecture is accepted, so is a traced module."""

import pytest
import torch
from torch.func import vmap

from metanet.contract import InputSpec, seeded
from metanet.estimator import Metanet
from metanet.models.probe import Probe
from metanet.testing import random_population
from studies.common.alignments import Matching, match_activations, match_weights
from studies.common.evaluation import Part
from tests.zoo.traced.pairs import close, generator, inputs, networks, one, pair
from zoo.architectures import Architecture, sigma_asymmetric
from zoo.architectures.record import activations
from zoo.conservation.laws import declared_laws
from zoo.conservation.quantities import conserved_quantities, residuals
from zoo.dynamics.finite_width import tangent_kernel, tangent_kernel_trace
from zoo.symmetry.action import act, sample
from zoo.symmetry.alignment import align
from zoo.symmetry.canonical import canonicalize
from zoo.views import PopulationView


def test_it_moves_and_aligns_as_the_named_one(both):
    named, traced = both
    params = networks(named)
    element = sample(traced.space, generator(2), batch=(3,))
    moved = act(traced.space, element, params)
    x = inputs()
    run = vmap(traced.apply, in_dims=(0, None))
    close(run(moved, x), run(params, x))
    close(canonicalize(traced.space, moved), canonicalize(traced.space, params), 1e-7)
    aligned = act(traced.space, align(traced.space, moved, one(params)), moved)
    close(run(aligned, x), run(params, x))
    shapes = [sorted(law.shape for law in declared_laws(a.space)) for a in both]
    assert shapes[0] == shapes[1]


def test_conserved_quantities_are_those_of_the_named_one():
    named, traced = pair("mlp")
    params, x = one(networks(named)), inputs()
    gradients = torch.func.grad(lambda p: traced.apply(p, x).square().mean())(params)
    for space in (named.space, traced.space):
        for values in residuals(space, params, gradients).values():
            assert float(values.abs().max()) < 1e-12
    pairs = [conserved_quantities(space, params).values() for space in (named.space, traced.space)]
    for ours, theirs in zip(*pairs, strict=True):
        close(ours, theirs)


def test_kernels(both):
    named, traced = (architecture.to("cpu", torch.float64) for architecture in both)
    params, x = networks(named), inputs()
    trained = {
        name: torch.tensor(False).expand(named.space.shapes[name]) for name in named.statistics
    }
    for kernel in (tangent_kernel, tangent_kernel_trace):
        close(
            kernel(traced.apply, params, x, free=trained),
            kernel(named.apply, params, x, free=trained),
            1e-8,
        )


def test_probes(both):
    named, traced = (architecture.to("cpu", torch.float64) for architecture in both)
    params, features = networks(named, 5), []
    for architecture in (named, traced):
        with seeded(0):
            spec = InputSpec(architecture.space, architecture=architecture)
            module = Probe(spec, num_probes=4, width=8).double().eval()
        module.calibrate([params])
        with torch.no_grad():
            features.append(module(params))
    close(features[1], features[0])


def test_weights_are_matched_and_activations_refused():
    named, traced = pair("mlp")
    first, second = one(networks(named)), one(networks(named), 1)
    part = Part(inputs(), torch.zeros(6, dtype=torch.int64))
    matched = [
        match_weights(a.space, second, first, Matching(a, part, 5, 0)) for a in (named, traced)
    ]
    for name, order in matched[0].permutations.items():
        assert torch.equal(order, matched[1].permutations[name])
    with pytest.raises(ValueError, match="traced module"):
        match_activations(traced.space, second, first, Matching(traced, part, 1, 0))


def test_what_replaces_or_records_non_linearities_refuses_it():
    _, traced = pair("mlp")
    with pytest.raises(ValueError, match=r"sigma_asymmetric: a traced module .*zoo\.asymmetric"):
        sigma_asymmetric(traced, generator())
    with pytest.raises(ValueError, match=r"a traced module runs its own .*recorded"):
        activations(traced, traced.init(generator()), inputs().float())


def population(architecture: Architecture) -> PopulationView:
    params = {
        split: {n: t.float() for n, t in networks(architecture, 24).items()}
        for split in ("train", "validation", "test")
    }
    table = random_population().table("train").iloc[:24].reset_index(drop=True)
    return PopulationView(
        "mine",
        architecture.space,
        lambda split: params[split],
        lambda _split: table,
        tuple(params),
        architecture=architecture,
    )


def test_a_metanet_that_runs_networks_of_a_module_is_not_saved(tmp_path):
    _, traced = pair("mlp")
    fitted = Metanet("probe", target="test_accuracy", epochs=1).fit(population(traced))
    with pytest.raises(ValueError, match="metanet 'probe' runs networks that are a traced module"):
        fitted.save(tmp_path / "probe.safetensors")
    assert list(tmp_path.iterdir()) == []
    Metanet("mlp", target="test_accuracy", epochs=1).fit(population(traced)).save(tmp_path / "mlp")
