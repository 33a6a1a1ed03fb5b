"""Asymmetric twins of modules: what is fixed stays fixed, the rest is the network it was."""

import ast
import copy
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import zoo
from tests.zoo.asymmetric_modules.modules import (
    Perceptron,
    ResNet,
    assert_same,
    effective,
    encoder,
    fixed_entries,
    randn,
)
from zoo.modules.twins import effective_state_dict, free_masks


class Attention(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.attention = nn.MultiheadAttention(12, 3, batch_first=True, **options)

    def forward(self, x):
        return self.attention(x, x[..., : self.attention.kdim], x[..., : self.attention.vdim])[0]


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
        cwd=Path(zoo.__file__).parents[1],
    )
    assert len(here["shown"]) == 4
    assert ast.literal_eval(there.stdout) == here["shown"]
