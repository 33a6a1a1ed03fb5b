"""Asymmetric twins of torch modules: what is fixed stays fixed, the rest is the network it was."""

import ast
import copy
import inspect
import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call
from torch.nn.utils import parametrizations

import zoo
from tests.tiers import tiered
from zoo.architectures import build_cnn, build_mlp, make_asymmetric
from zoo.architectures.base import constants_of
from zoo.modules.twins import effective_state_dict, free_masks
from zoo.tracing.tracer import trace


def randn(*shape, seed=0, **options):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), **options)


class Perceptron(nn.Module):
    """Named as `mlp` of the architectures."""

    def __init__(self, *widths, bias=True):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Linear(a, b, bias=bias) for a, b in itertools.pairwise(widths)
        )
        self.activations = nn.ModuleList(nn.ReLU() for _ in widths[2:])

    def forward(self, x):
        for layer, activation in zip(self.layers, self.activations, strict=False):
            x = activation(layer(x))
        return self.layers[-1](x)


class Block(nn.Module):
    """A basic block as in torchvision: one activation module, called twice."""

    def __init__(self, inputs, channels, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        same = stride == 1 and inputs == channels
        self.downsample = (
            None
            if same
            else nn.Sequential(
                nn.Conv2d(inputs, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )
        )

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))) + shortcut)


class ResNet(nn.Sequential):
    def __init__(self):
        stem = [nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()]
        super().__init__(
            *stem,
            Block(8, 8, 1),
            Block(8, 12, 2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(12, 4),
        )


class Attention(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.attention = nn.MultiheadAttention(12, 3, batch_first=True, **options)

    def forward(self, x):
        return self.attention(x, x[..., : self.attention.kdim], x[..., : self.attention.vdim])[0]


def encoder(activation=None, heads=3):
    return nn.TransformerEncoderLayer(
        12, heads, 16, dropout=0.0, batch_first=True, activation=activation or nn.GELU()
    )


# module, inputs, names of the weights
CASES = {
    "perceptron": (lambda: Perceptron(6, 5, 4, 3), (7, 6), ["layers.0", "layers.1", "layers.2"]),
    "resnet": (
        ResNet,
        (2, 3, 8, 8),
        ["0", "3.conv1", "3.conv2", "4.conv1", "4.conv2", "4.downsample.0", "7"],
    ),
    "conv1d": (
        lambda: nn.Sequential(nn.Conv1d(3, 6, 3), nn.ReLU(), nn.Conv1d(6, 4, 3, groups=2)),
        (2, 3, 9),
        ["0", "2"],
    ),
    "conv3d": (
        lambda: nn.Sequential(nn.Conv3d(2, 6, 2), nn.ReLU(), nn.Conv3d(6, 2, 1)),
        (2, 2, 4, 4, 4),
        ["0", "2"],
    ),
    "encoder": (
        encoder,
        (2, 5, 12),
        ["self_attn.in_proj", "self_attn.out_proj", "linear1", "linear2"],
    ),
    "attention": (
        *(lambda: Attention(kdim=8, vdim=6), (2, 5, 12)),
        ["attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.out_proj"],
    ),
}


@pytest.fixture(autouse=True)
def same_modules_every_time():
    """Modules draw from the global state; a kink between two points must not come and go."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        yield


@pytest.fixture(params=CASES)
def case(request):
    build, shape, names = CASES[request.param]
    return (
        build(),
        randn(*shape),
        [
            f"{name}{'_' if name.endswith('_proj') and 'out' not in name else '.'}weight"
            for name in names
        ],
    )


def effective(module, name):
    owner, _, attribute = name.rpartition(".")
    return getattr(module.get_submodule(owner), attribute)


def fixed_entries(module):
    return {
        name: effective(module, name).detach()[~mask].clone()
        for name, mask in free_masks(module).items()
    }


def assert_same(one, other):
    assert list(one) == list(other)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_every_weight_is_found_and_the_module_itself_is_left_alone(case):
    module, x, names = case
    before = copy.deepcopy(module.state_dict())
    expected = module.eval()(x)
    twin = zoo.asymmetric(module, n_fix=2, kappa=2.0)
    assert list(free_masks(twin)) == names
    assert_same(before, module.state_dict())
    assert torch.equal(module(x), expected)
    assert not torch.allclose(twin(x), expected)
    for name, mask in free_masks(twin).items():
        assert torch.equal(effective(twin, name)[mask], effective(module, name)[mask])
        owner, _, attribute = name.rpartition(".")
        assert (twin.get_submodule(owner).parametrizations[attribute].original[~mask] == 0).all()
        rows = (~mask).flatten(1)
        assert (rows.sum(1) == 2).all()
        assert len(rows.unique(dim=0)) == len(rows)


def test_gradients_are_those_of_finite_differences_and_zero_where_fixed(case):
    module, x, _ = case
    twin, x = zoo.asymmetric(module, n_fix=2).double().eval(), x.double()
    target = randn(*twin(x).shape, dtype=torch.float64, seed=1)
    (twin(x) * target).sum().backward()
    for name, mask in free_masks(twin).items():
        owner, _, attribute = name.rpartition(".")
        original = twin.get_submodule(owner).parametrizations[attribute].original
        assert (original.grad[~mask] == 0).all()
        for index in [*mask.nonzero()[:3], *(~mask).nonzero()[:2]]:
            values = []
            for step in (1e-5, -1e-5):
                with torch.no_grad():
                    original[tuple(index)] += step
                    values.append((twin(x) * target).sum())
                    original[tuple(index)] -= step
            slope = (values[0] - values[1]) / 2e-5
            torch.testing.assert_close(original.grad[tuple(index)], slope, atol=1e-6, rtol=1e-6)


OPTIMIZERS = sorted(
    name
    for name, kind in vars(torch.optim).items()
    if inspect.isclass(kind)
    and issubclass(kind, torch.optim.Optimizer)
    and name not in ("Optimizer", "SparseAdam")
)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_no_optimizer_moves_a_fixed_entry(name):
    kind = getattr(torch.optim, name)
    wanted = {"lr": 0.02, "weight_decay": 0.1, "momentum": 0.9}
    options = {
        option: value
        for option, value in wanted.items()
        if option in inspect.signature(kind).parameters
    }
    # Weights only: Muon accepts nothing else.
    twin = zoo.asymmetric(Perceptron(6, 5, 4, 3, bias=False), seed=1)
    start, fixed, x, target = (
        copy.deepcopy(twin),
        fixed_entries(twin),
        randn(7, 6),
        randn(7, 3, seed=1),
    )
    optimizer = kind(twin.parameters(), **options)

    def closure():
        optimizer.zero_grad()
        loss = F.mse_loss(twin(x), target)
        loss.backward()
        return loss

    for _ in range(30 if name == "LBFGS" else 200):
        optimizer.step(closure)
    assert_same(fixed_entries(twin), fixed)
    moved = [
        (effective(twin, n) != effective(start, n))[mask] for n, mask in free_masks(twin).items()
    ]
    assert torch.cat(moved).float().mean() > 0.5


def test_fixed_entries_survive_noise_averages_and_what_is_not_finite():
    twin = zoo.asymmetric(Perceptron(6, 5, 3))
    fixed = fixed_entries(twin)
    averaged = torch.optim.swa_utils.AveragedModel(twin)
    for value in (1.0, torch.inf, torch.nan):
        for parameter in twin.parameters():
            parameter.data.add_(value)
        assert_same(fixed_entries(twin), fixed)
    averaged.update_parameters(twin)
    assert_same(fixed_entries(averaged.module), fixed)
    twin.layers[0].weight = randn(5, 6)
    assert_same(fixed_entries(twin), fixed)
    mask = free_masks(twin)["layers.0.weight"]
    assert torch.equal(twin.layers[0].weight[mask], randn(5, 6)[mask])


@pytest.mark.parametrize("kind", ["w", "sigma", "syre"])
def test_copies_files_and_precisions_keep_the_twin(kind, tmp_path):
    module, x = Perceptron(6, 5, 4, 3), randn(7, 6)
    options = {"example_inputs": x} if kind == "sigma" else {}
    twin = zoo.asymmetric(module, kind, seed=3, **options)
    assert torch.equal(copy.deepcopy(twin)(x), twin(x))
    torch.save(twin.state_dict(), tmp_path / "twin.pt")
    other = zoo.asymmetric(Perceptron(6, 5, 4, 3), kind, seed=4, **options)
    assert not torch.allclose(other(x), twin(x))
    other.load_state_dict(torch.load(tmp_path / "twin.pt", weights_only=True))
    assert torch.equal(other(x), twin(x))
    torch.testing.assert_close(
        copy.deepcopy(twin).double()(x.double()), twin(x).double(), atol=1e-6, rtol=1e-5
    )
    for dtype in (torch.float64, torch.float16):
        cast = {name: values.to(dtype) for name, values in fixed_entries(twin).items()}
        moved = copy.deepcopy(twin).to(dtype)
        assert_same(fixed_entries(moved), cast)
        assert_same(
            fixed_entries(moved.float()), {name: values.float() for name, values in cast.items()}
        )
    if kind != "sigma":
        module.load_state_dict(effective_state_dict(twin))
        assert torch.equal(module(x), twin(x))


@pytest.mark.parametrize(
    "options", [{}, {"n_fix": 2, "kappa": 0.3}, {"n_fix": {"*": 1, "layers.1": 0}, "kappa": 0.0}]
)
def test_w_is_that_of_the_architectures(options):
    module, x = Perceptron(6, 5, 4, 3), randn(7, 6)
    standard = build_mlp((6,), 3, (5, 4))
    names = ["layers.0.weight", "layers.1.weight", "layers.2.weight"]
    given = options | (
        {"n_fix": dict(zip(names, (1, 0, 1), strict=True))}
        if isinstance(options.get("n_fix"), dict)
        else {}
    )
    architecture = make_asymmetric(standard, "w", given, 5)
    twin = zoo.asymmetric(module, seed=5, **options)
    assert_same(free_masks(twin), architecture.free)
    params = {name: effective(twin, name) for name in standard.space.tensors}
    for name, fixed in constants_of(architecture.constants, "fixed").items():
        assert torch.equal(params[name][~architecture.free[name]], fixed[~architecture.free[name]])
    torch.testing.assert_close(twin(x), architecture.apply(params, x))


@pytest.mark.parametrize(
    ("kind", "options"), [("sigma", {}), ("sigma", {"std": 2.0}), ("syre", {"std": 0.5})]
)
def test_sigma_and_syre_are_those_of_the_architectures(kind, options):
    module, x = Perceptron(6, 5, 4, 3), randn(7, 6)
    architecture = make_asymmetric(build_mlp((6,), 3, (5, 4)), kind, options, 5)
    examples = {"example_inputs": x} if kind == "sigma" else {}
    twin = zoo.asymmetric(module, kind, seed=5, **options, **examples)
    params = {name: effective(twin, name) for name in architecture.space.tensors}
    torch.testing.assert_close(params, dict(module.named_parameters()), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(twin(x), architecture.apply(params, x))
    for name, offset in constants_of(architecture.constants, "offset").items():
        owner, _, attribute = name.rpartition(".")
        assert torch.equal(twin.get_submodule(owner).parametrizations[attribute][0].offset, offset)


def test_filters_are_those_of_the_architectures():
    architecture = make_asymmetric(
        build_cnn((3, 8, 8), 4, channels=(5, 6)), "w", {"fix": "filters", "n_fix": CNN_FIXED}, 5
    )
    module = nn.ModuleDict(
        {
            "convs": nn.ModuleList([nn.Conv2d(3, 5, 3), nn.Conv2d(5, 6, 3)]),
            "classifier": nn.Linear(6, 4),
        }
    )
    twin = zoo.asymmetric(module, fix="filters", n_fix={"*": 2, "convs.0": 0}, seed=5)
    assert_same(free_masks(twin), architecture.free)
    assert (
        free_masks(twin)["convs.1.weight"].flatten(2).all(2)
        == free_masks(twin)["convs.1.weight"].flatten(2).any(2)
    ).all()


CNN_FIXED = {"convs.0.weight": 0, "convs.1.weight": 2, "classifier.weight": 2}


def test_syre_decays_to_the_offset_and_w_only_what_is_free():
    decay = {"lr": 0.1, "weight_decay": 1.0}
    twin = zoo.asymmetric(Perceptron(6, 5, 3), "syre", std=0.5)
    for kind in (twin, zoo.asymmetric(Perceptron(6, 5, 3))):
        optimizer = torch.optim.SGD(kind.parameters(), **decay)
        for _ in range(300):
            optimizer.zero_grad()
            (0 * kind(randn(7, 6))).sum().backward()
            optimizer.step()
    for layer in twin.layers:
        for entries in layer.parametrizations.values():
            torch.testing.assert_close(entries(), entries[0].offset)
    for name, mask in free_masks(kind).items():
        assert (effective(kind, name)[mask].abs() < 1e-8).all()
        assert effective(kind, name)[~mask].abs().min() > 1e-3


@pytest.mark.parametrize("kappa", [0.0, 1.0])
def test_no_permutation_of_neurons_maps_the_twin_onto_another(kappa):
    module, x = Perceptron(6, 5, 3), randn(7, 6)
    twin = zoo.asymmetric(module, kappa=kappa, n_fix=2)
    params, weight = dict(module.named_parameters()), twin.layers[0].weight.detach()
    entries = twin.layers[0].parametrizations.weight[0]
    for order in list(itertools.permutations(range(5)))[1:]:
        moved = {
            name: tensor[list(order)] if name.startswith("layers.0") else tensor
            for name, tensor in params.items()
        }
        moved["layers.1.weight"] = params["layers.1.weight"][:, list(order)]
        torch.testing.assert_close(functional_call(module, moved, (x,)), module(x))
        assert not torch.equal(weight[list(order)][~entries.free], entries.fixed[~entries.free])


def test_the_tracer_finds_no_symmetry_in_a_twin():
    module, x = Perceptron(6, 5, 4, 3), randn(7, 6)
    for kind, options in {"w": {}, "sigma": {"example_inputs": x}, "syre": {}}.items():
        traced = trace(zoo.asymmetric(module, kind, **options), x)
        assert not any(
            group.permutable or group.scaling != "none" for group in traced.space.groups.values()
        )
    partly = trace(zoo.asymmetric(module, skip=["layers.0", "layers.1"], n_fix=1), x)
    assert [group.size for group in partly.space.groups.values() if group.permutable] == [5]


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


def test_masks_are_the_same_in_every_process():
    code = """if True:
        import torch, zoo
        layers = torch.nn.Linear(40, 30), torch.nn.Conv2d(5, 8, 3)
        twin = zoo.asymmetric(torch.nn.Sequential(*layers), seed=7)
        constants = {n: t for n, t in twin.state_dict().items() if ".0.f" in n}
        shown = {name: tensor.double().flatten().tolist() for name, tensor in constants.items()}
    """
    here: dict = {}
    exec(code, here)
    command = [sys.executable, "-c", f"{code}\nprint(shown)"]
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    there = subprocess.run(
        command,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert len(here["shown"]) == 4
    assert ast.literal_eval(there.stdout) == here["shown"]


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


class Functional(nn.Module):
    def __init__(self, act):
        super().__init__()
        self.inner, self.relu, self.act = nn.Linear(4, 4), nn.ReLU(), act

    def forward(self, x):
        return self.act(self.relu(self.inner(x)))


class Unused(Functional):
    def __init__(self):
        super().__init__(nn.ReLU())

    def forward(self, x):
        return self.relu(self.inner(x))


class Swish(nn.Module):
    def forward(self, x):
        return x * x.sigmoid()


@pytest.mark.parametrize(
    "act",
    [F.relu, torch.relu_, F.gelu, torch.tanh, F.silu, F.leaky_relu, F.elu, F.softplus, F.mish],
)
def test_activations_that_are_function_calls_are_refused(act):
    module = nn.Sequential(Functional(act))
    with pytest.raises(ValueError, match=r"cannot be replaced: \w+ in 0 \(Functional\)"):
        zoo.asymmetric(module, "sigma", example_inputs=randn(2, 4))


def test_an_activation_of_your_own_is_named():
    module, x = Functional(Swish()), randn(2, 4)
    assert type(zoo.asymmetric(module, "sigma", example_inputs=x).act) is Swish
    twin = zoo.asymmetric(
        module, "sigma", example_inputs={"x": x}, activations=["act"], skip=["relu"]
    )
    assert repr(twin.act) == "FiGLU(4, axis=-1)"
    assert type(twin.relu) is nn.ReLU


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


REFUSED = {
    "kind": (
        Perceptron(6, 5, 3),
        {"kind": "wide"},
        r"unknown asymmetry 'wide'; known are \['sigma', 'syre', 'w'\]",
    ),
    "option": (
        Perceptron(6, 5, 3),
        {"nfix": 3},
        r"unknown option 'nfix' of asymmetry 'w'; options are \['n_fix', 'kappa'",
    ),
    "type": (Perceptron(6, 5, 3), {"skip": "head"}, r"option 'skip' of asymmetry 'w'"),
    "skip": (
        Perceptron(6, 5, 3),
        {"skip": ["head"]},
        r"skip: \['head'\] fit nothing; names are \['layers', 'layers.0'",
    ),
    "mapping": (
        Perceptron(6, 5, 3),
        {"n_fix": {"layers.0": 2}},
        r"n_fix: no value for \['layers.1.weight'\]; start .* '\*'",
    ),
    "typo": (
        Perceptron(6, 5, 3),
        {"kappa": {"*": 1, "layer": 2}},
        r"kappa: \['layer'\] fit nothing; names are \['layers.0.weight'",
    ),
    "frozen": (
        Perceptron(6, 5, 3),
        {"n_fix": 6},
        r"'layers.0.weight': n_fix=6 would freeze all 6 entries of a row",
    ),
    "depthwise": (
        nn.Conv2d(64, 64, 3, groups=64),
        {},
        r"'weight': 64 rows cannot be distinct with n_fix=2 of 9 entries",
    ),
    "kappa": (Perceptron(6, 5, 3), {"kappa": -1.0}, r"expected kappa >= 0, got -1.0"),
    "nothing": (nn.ReLU(), {}, r"no weights to fix entries of; looked for nn.Linear, nn.Conv1d"),
    "transposed": (
        nn.Sequential(nn.ConvTranspose2d(3, 4, 3)),
        {},
        r"'0' \(ConvTranspose2d\) is not among .* skip=\['0'\]",
    ),
    "recurrent": (
        nn.Sequential(nn.LSTM(3, 4)),
        {},
        r"recurrent layers cannot be made asymmetric: '0' \(LSTM\)",
    ),
    "computed": (
        nn.Sequential(parametrizations.weight_norm(nn.Linear(6, 5))),
        {},
        r"'0.weight' is not a parameter but computed",
    ),
    "beside": (
        *(nn.Sequential(parametrizations.weight_norm(nn.Linear(6, 5), "bias")), {}),
        r"that have a parametrization .* cannot get another: \['0.weight'\]",
    ),
    "lazy": (nn.Sequential(nn.LazyLinear(3)), {}, r"\['0.weight', '0.bias'\] have no values yet"),
    "twice": (
        zoo.asymmetric(Perceptron(6, 5, 3)),
        {},
        r"'layers.0.weight' is not a parameter but computed",
    ),
    "syre twice": (
        zoo.asymmetric(Perceptron(6, 5, 3)),
        {"kind": "syre"},
        r"have a parametrization .* cannot get another: \['layers.0.bias'",
    ),
    "syre std": (Perceptron(6, 5, 3), {"kind": "syre", "std": 0.0}, r"expected std > 0, got 0.0"),
    "sigma std": (
        Perceptron(6, 5, 3),
        {"kind": "sigma", "std": -1.0},
        r"expected std > 0, got -1.0",
    ),
    "no examples": (Perceptron(6, 5, 3), {"kind": "sigma"}, r"example_inputs are needed"),
    "no activation": (
        *(nn.Linear(6, 5), {"kind": "sigma", "example_inputs": randn(2, 6)}),
        r"no activation modules found; looked for nn.ReLU, .* transformers.activations",
    ),
    "axis": (
        nn.Sequential(nn.Linear(6, 8), nn.Unflatten(1, (2, 2, 2)), nn.ReLU()),
        {"kind": "sigma", "example_inputs": randn(2, 6)},
        r"cannot tell which axis of \[\[2, 2, 2, 2\]\] holds the neurons of '2'",
    ),
    "not called": (
        *(Unused(), {"kind": "sigma", "example_inputs": randn(2, 4)}),
        r"activation 'act' is not called with these example inputs; "
        r"leave it out with skip=\['act'\]",
    ),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_refusals_name_what_is_wrong(reason):
    module, options, message = REFUSED[reason]
    with pytest.raises(ValueError, match=message):
        zoo.asymmetric(module, **options)


@pytest.mark.compile
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", tiered([("w",), ("sigma",), ("syre",)], lambda kind: kind == "w"))
def test_compiled_twins_train_as_uncompiled_ones(kind):
    from data_gen.training.compilation import compiler_works

    if not compiler_works(torch.device("cpu")):
        pytest.skip("torch.compile does not work on this machine")
    x, target = randn(7, 6), randn(7, 3, seed=1)
    twin = zoo.asymmetric(
        Perceptron(6, 5, 4, 3), kind, **({"example_inputs": x} if kind == "sigma" else {})
    )
    fixed = fixed_entries(twin)
    results = []
    for wrap in (lambda m: m, lambda m: torch.compile(m, fullgraph=True)):
        trained = copy.deepcopy(twin)
        run, optimizer = wrap(trained), torch.optim.AdamW(trained.parameters(), lr=1e-2)
        for _ in range(20):
            optimizer.zero_grad()
            F.mse_loss(run(x), target).backward()
            optimizer.step()
        assert_same(fixed_entries(trained), fixed)
        results.append(run(x))
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-4)
