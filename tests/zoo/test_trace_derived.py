"""Canonical forms and alignment, derived from a weight space, work on modules that were traced."""

import pytest
import torch

from tests.reference.traced_modules import CASES
from zoo.symmetry.action import GroupElement, act, sample
from zoo.symmetry.alignment import align
from zoo.symmetry.canonical import canonicalize
from zoo.tracing.tracer import module_params, trace


@pytest.mark.parametrize(
    "name",
    ["resnet", "densenet", "packed attention", "lstm", "channel shuffle", "einsum attention"],
)
def test_canonical_forms_and_alignment_of_traced_modules(name):
    module = CASES[name].build()
    traced = trace(module, CASES[name].inputs())
    generator = torch.Generator().manual_seed(0)
    params = {
        key: tensor.double()
        + 0.1 * torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
        for key, tensor in module_params(traced.space, module).items()
    }
    element = sample(traced.space, generator, (3,))

    canonical = canonicalize(traced.space, params)
    moved = canonicalize(traced.space, act(traced.space, element, params))
    for key, tensor in canonical.items():
        torch.testing.assert_close(
            moved[key],
            tensor.expand(3, *tensor.shape),
            atol=1e-10,
            rtol=1e-10,
        )

    permuted = act(traced.space, GroupElement(element.permutations, {}), params)
    # a local search: 3 restarts miss one module in 20
    back = align(traced.space, permuted, params, num_restarts=10)
    aligned = act(traced.space, back, permuted)
    for key, tensor in aligned.items():
        torch.testing.assert_close(tensor, params[key].expand_as(tensor), atol=1e-12, rtol=0)
