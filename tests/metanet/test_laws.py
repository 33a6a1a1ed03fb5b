"""Every metanet keeps every law, and the laws catch what they are meant to catch."""

import pytest
import torch
from torch import nn

from metanet import METANETS
from metanet.contract import MetanetModule
from metanet.inputs.features import flat_free
from metanet.testing import LAWS, check_metanet, first_networks, permute_neurons, random_population

POPULATION = first_networks(random_population(), 24)
MASKED = first_networks(random_population(masked=True), 24)
# Whose epochs are dear: 30 are enough for them, the other ones have the 80 of the law.
LEARN_IN_FEW_EPOCHS = ("gmn", "graph_transformer", "nfn", "scale_gmn", "width_gmn")


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("model", METANETS)
def test_every_metanet_keeps_every_law(model, law):
    few = law == "learns_eight_by_heart" and model in LEARN_IN_FEW_EPOCHS
    LAWS[law](model, POPULATION, {"epochs": 30, "patience": 30} if few else {})


@pytest.mark.parametrize("model", METANETS)
def test_networks_with_fixed_entries(model):
    for law in ("batch_is_loop", "survives_saving"):
        LAWS[law](model, MASKED, {"epochs": 1})


@pytest.fixture
def mine(monkeypatch):
    """Make a metanet of one's own known by one table line."""

    def register(builder):
        monkeypatch.setitem(METANETS, "mine", builder)

    return register


class Plain(nn.Module):
    """A user's module on params alone: no features, no normalization, nothing declared."""

    def __init__(self, spec, *, width: int = 16):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(spec.space.num_params, width), nn.Tanh(), nn.Linear(width, 1)
        )

    def forward(self, params):
        return self.layers(
            torch.cat([tensor.flatten(1) for tensor in params.values()], dim=1)
        ).squeeze(-1)


def test_a_module_of_ones_own_keeps_the_laws(mine):
    mine(Plain)
    assert check_metanet("mine", lr=1e-2) == list(LAWS)


class DeclaredInvariant(MetanetModule):
    """Claims too much."""

    invariant = "permutations"

    def __init__(self, spec):
        super().__init__()
        self.plain = Plain(spec)

    def forward(self, params):
        return self.plain(params)


class IdleWeight(Plain):
    def __init__(self, spec):
        super().__init__(spec)
        self.idle = nn.Parameter(torch.ones(3))


class LooksAtItsBatch(Plain):
    def forward(self, params):
        out = super().forward(params)
        return out - out.mean()


class Random(Plain):
    def forward(self, params):
        return super().forward(params) + torch.randn((), generator=GENERATOR)


class Constant(Plain):
    def forward(self, params):
        return super().forward({name: torch.ones_like(tensor) for name, tensor in params.items()})


class Undeclared(MetanetModule):
    """Invariant, but does not say so."""

    def __init__(self, spec):
        super().__init__()
        self.spec, self.layer = spec, nn.Linear(1, 1)

    def features(self, params):
        return flat_free(self.spec, params).square().mean(1, keepdim=True)

    def forward(self, features):
        return self.layer(features).squeeze(-1)


GENERATOR = torch.Generator().manual_seed(0)


@pytest.mark.parametrize(
    ("builder", "law", "says"),
    [
        (
            DeclaredInvariant,
            "is_as_invariant_as_declared",
            "declared invariant to permutations, but",
        ),
        (Undeclared, "is_as_invariant_as_declared", "not declared invariant to permutations, but"),
        (
            IdleWeight,
            "gradients_reach_every_weight",
            "no gradient reaches the weights ['module.idle']",
        ),
        (LooksAtItsBatch, "batch_is_loop", "a batch and a loop"),
        (Random, "is_deterministic", "predict differently"),
        (Constant, "learns_eight_by_heart", "not learned by heart"),
    ],
)
def test_a_broken_metanet_is_caught(mine, builder, law, says):
    mine(builder)
    with pytest.raises(AssertionError, match=says.replace("[", r"\[")):
        LAWS[law]("mine", POPULATION, {"lr": 1e-2})


def test_permuted_networks_compute_the_same_function():
    params = {name: tensor.double() for name, tensor in POPULATION.params("test").items()}
    permuted = permute_neurons(POPULATION.space, params, torch.Generator().manual_seed(0))
    x = torch.randn(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def outputs(p):
        for layer in range(3):
            hidden = torch.einsum(
                "noi,nxi->nxo", p[f"layers.{layer}.weight"], hidden if layer else x.expand(24, 7, 5)
            )
            hidden = hidden + p[f"layers.{layer}.bias"][:, None]
            hidden = torch.relu(hidden) if layer < 2 else hidden
        return hidden

    assert not torch.equal(params["layers.1.weight"], permuted["layers.1.weight"])
    torch.testing.assert_close(outputs(params), outputs(permuted), rtol=1e-12, atol=1e-12)


def test_a_plain_module_that_declares_something_is_told_where_to_do_so(mine):
    class Declares(Plain):
        invariant = "permutations"

        def features(self, networks):
            return networks

    mine(Declares)
    with pytest.raises(ValueError, match=r"Declares defines features, invariant: .*MetanetModule"):
        check_metanet("mine")
