"""Asymmetric twins of modules that share, fuse, compile or nest their layers."""

import copy

import pytest
import torch
from torch import nn

import zoo
from tests.zoo.asymmetric_modules.modules import (
    ResNet,
    assert_same,
    encoder,
    fixed_entries,
    randn,
)
from zoo.modules.twins import free_masks


def test_tied_weights_stay_tied():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.inner, self.head = (
                nn.Embedding(9, 6),
                nn.Linear(6, 6),
                nn.Linear(6, 9, bias=False),
            )
            self.head.weight = self.embed.weight
            self.again = self.inner

        def forward(self, x):
            return self.head(self.again(self.inner(self.embed(x))))

    for kind in ("w", "syre"):
        module, x = Tied(), torch.arange(9)
        twin = copy.deepcopy(zoo.asymmetric(module, kind))
        assert torch.equal(twin.head.weight, twin.embed.weight)
        assert len(list(twin.parameters())) == len(list(module.parameters()))
        optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
        twin(x).square().sum().backward()
        optimizer.step()
        assert torch.equal(twin.head.weight, twin.embed.weight)
        if kind == "syre":
            torch.testing.assert_close(zoo.asymmetric(module, kind)(x), module(x))
        else:
            mask = free_masks(twin)["head.weight"]
            assert torch.equal(mask, free_masks(twin)["embed.weight"])
            assert torch.equal(zoo.asymmetric(module).embed.weight[mask], module.embed.weight[mask])
    assert list(free_masks(zoo.asymmetric(module, skip=["head"]))) == [
        "inner.weight",
        "again.weight",
    ]


def test_a_parameter_with_two_names_in_one_module_is_offset_once():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.up = self.down = nn.Parameter(randn(4, 4))

        def forward(self, x):
            return torch.relu(x @ self.up.T) @ self.down.T

    module, x = Tied(), randn(3, 4)
    twin = zoo.asymmetric(module, "syre", std=1.0)
    torch.testing.assert_close(twin(x), module(x))
    assert len(list(twin.parameters())) == 1
    with torch.no_grad():
        next(twin.parameters()).add_(1)
    assert torch.equal(twin.up, twin.down)


def test_embeddings_are_an_option():
    module = nn.Sequential(nn.Embedding(9, 6), nn.Linear(6, 3))
    assert list(free_masks(zoo.asymmetric(module))) == ["1.weight"]
    mask = free_masks(zoo.asymmetric(module, embeddings=True, n_fix={"*": 2}))["0.weight"]
    assert ((~mask).sum(0) == 2).all()
    assert len(mask.T.unique(dim=0)) == 6


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("kind", ["w", "sigma", "syre"])
def test_fused_attention_kernels_compute_the_twin(kind):
    """In evaluation without gradients torch replaces a whole encoder layer by one kernel."""
    module, x = nn.TransformerEncoder(encoder(nn.ReLU(), heads=2), 2), randn(2, 5, 12)
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    examples = (
        {"example_inputs": {"src": x, "src_key_padding_mask": padding}} if kind == "sigma" else {}
    )
    twin = (
        zoo.asymmetric(module.requires_grad_(False), kind, **examples).eval().requires_grad_(True)
    )
    for options in ({}, {"src_key_padding_mask": padding}):
        expected = twin(x, **options)
        with torch.no_grad():
            got = twin(x, **options)
        keep = ~padding if options else torch.ones(2, 5, dtype=torch.bool)
        torch.testing.assert_close(got[keep], expected[keep], atol=1e-5, rtol=1e-5)


def test_sigma_finds_neurons_after_every_kind_of_layer():
    resnet, x = ResNet(), randn(2, 3, 8, 8)
    twin = zoo.asymmetric(resnet, "sigma", example_inputs=x)
    units = {name: repr(m) for name, m in twin.named_modules() if type(m).__name__ == "FiGLU"}
    assert units == {
        "2": "FiGLU(8, axis=-3)",
        "3.relu": "FiGLU(8, axis=-3)",
        "4.relu": "FiGLU(12, axis=-3)",
    }
    pre = resnet[1].eval()(resnet[0](x))
    mixing = twin[2].mixing_8
    by_hand = torch.stack(
        [sum(mixing[i, j] * pre[:, j] for j in range(8)).sigmoid() * pre[:, i] for i in range(8)], 1
    )
    torch.testing.assert_close(twin[2](pre), by_hand)
    assert all(m.training for name, m in twin.named_modules() if name not in ("", "1"))
    assert (
        repr(zoo.asymmetric(encoder(), "sigma", example_inputs=randn(2, 5, 12)).activation)
        == "FiGLU(16, axis=-1)"
    )
    both = nn.Sequential(
        nn.Linear(6, 4), act := nn.ReLU(), nn.Linear(4, 5), act, nn.Linear(5, 4), act
    )
    twin = zoo.asymmetric(both, "sigma", example_inputs=randn(2, 6))
    assert repr(twin[1]) == "FiGLU(4, 5, axis=-1)"
    assert twin[1] is twin[3] is twin[5]
    assert twin(randn(6)).shape == (4,)


GPT2 = {
    "n_positions": 16,
    "n_embd": 12,
    "n_layer": 2,
    "n_head": 3,
    "vocab_size": 30,
    "bos_token_id": 0,
    "eos_token_id": 0,
}


def test_language_models_of_transformers():
    transformers = pytest.importorskip("transformers")
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT2))
    tokens = torch.randint(0, 30, (2, 7), generator=torch.Generator().manual_seed(0))
    twin = zoo.asymmetric(model, n_fix={"*": 0.25, "*.c_proj": 5}, kappa=0.02, skip=["lm_head"])
    assert len(free_masks(twin)) == 8
    for name, mask in free_masks(twin).items():
        assert ((~mask).sum(0) == (5 if "c_proj" in name else 3)).all()
        assert len(mask.T.unique(dim=0)) == mask.shape[1]
    with_head = zoo.asymmetric(model)
    assert with_head.lm_head.weight.data_ptr() != model.lm_head.weight.data_ptr()
    assert torch.equal(with_head.lm_head.weight, with_head.transformer.wte.weight)
    fixed = fixed_entries(twin)
    optimizer = torch.optim.AdamW(twin.parameters(), lr=1e-2)
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        losses.append(twin(tokens, labels=tokens).loss)
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    assert_same(fixed_entries(twin), fixed)
    gated = zoo.asymmetric(model, "sigma", example_inputs={"input_ids": tokens})
    assert [repr(block.mlp.act) for block in gated.transformer.h] == ["FiGLU(48, axis=-1)"] * 2
