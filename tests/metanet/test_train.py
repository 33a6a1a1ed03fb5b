"""The training loop: what it keeps, when it stops, what it decays."""

import math

import pytest
import torch
from torch import nn

from metanet.contract import Training, seeded
from metanet.inputs.batches import Kept
from metanet.inputs.targets import fit_target
from metanet.train import Labeled, evaluate, train_module

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(120, 5, generator=GENERATOR)
Y = (
    X @ torch.tensor([1.0, -1.0, 0.5, 0.0, 0.0]) / 2 + 0.1 * torch.randn(120, generator=GENERATOR)
).sigmoid()
TARGET = fit_target("test_accuracy", Y[:60])
PARTS = Labeled(Kept(X[:60]), Y[:60]), Labeled(Kept(X[60:]), Y[60:])


class Perceptron(nn.Module):
    def __init__(self, width=32):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, x):
        return self.layers(x).squeeze(-1)


def run(training, seed=0):
    with seeded(seed):
        module = Perceptron()
        return module, train_module(module, TARGET, *PARTS, training)


def test_the_best_weights_are_kept():
    module, history = run(Training(epochs=60, batch_size=4, lr=0.05, weight_decay=0.0, patience=60))
    kept = float(TARGET.loss(evaluate(module, PARTS[1].features), PARTS[1].y))
    assert kept == pytest.approx(min(history.validation_loss), abs=1e-7)
    assert history.best_epoch == history.validation_loss.index(min(history.validation_loss))
    assert min(history.validation_loss) < history.validation_loss[-1]


def test_it_stops_when_patience_is_over():
    _, history = run(Training(epochs=60, batch_size=4, lr=0.05, patience=3))
    assert len(history.validation_loss) == history.best_epoch + 4 < 60


class Recording(Perceptron):
    """Keeps its weights of each pass: the first call after it is that of validation."""

    def __init__(self):
        super().__init__()
        self.passes = []

    def forward(self, x):
        if not self.training:
            self.passes.append([weight.detach().clone() for weight in self.parameters()])
        return super().forward(x)


@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_steps_are_adamw_of_clipped_gradients(scale):
    """Three steps on one batch in formulas; the rate is 1, 1, 1/2 by warmup and cosine.

    Inputs that are large make the first gradient large; from the second step on, a step of Adam
    depends on the ratio of gradients, hence on whether they were clipped. Weights decay, biases do
    not.
    """
    features, lr, decay = scale * X[:60], 0.01, 5.0
    with seeded(0):
        module = Recording()
    weights = [weight.detach().clone() for weight in module.parameters()]
    part = Labeled(Kept(features), Y[:60])
    settings = Training(epochs=3, batch_size=60, lr=lr, weight_decay=decay, patience=99)
    train_module(module, TARGET, part, part, settings)
    moments = [(torch.zeros_like(weight), torch.zeros_like(weight)) for weight in weights]
    norms = []
    for step, rate in enumerate((1.0, 1.0, 0.5), start=1):
        leaves = [weight.requires_grad_() for weight in weights]
        w1, b1, w2, b2 = leaves
        raw = ((features @ w1.T + b1).relu() @ w2.T + b2)[:, 0]
        gradients = torch.autograd.grad(TARGET.loss(raw, Y[:60]), leaves)
        norms.append(sum(float(gradient.square().sum()) for gradient in gradients) ** 0.5)
        for i, gradient in enumerate(gradients):
            clipped = gradient * min(1.0, 1 / norms[-1])
            first, second = (
                beta * moment + (1 - beta) * value
                for beta, moment, value in zip(
                    (0.9, 0.999), moments[i], (clipped, clipped**2), strict=True
                )
            )
            moments[i] = first, second
            size = (second / (1 - 0.999**step)).sqrt() + 1e-8
            weight = leaves[i].detach()
            kept = 1 - lr * rate * decay if weight.dim() == 2 else 1.0
            weights[i] = kept * weight - lr * rate * first / (1 - 0.9**step) / size
        for weight, expected in zip(module.passes[step - 1], weights, strict=True):
            torch.testing.assert_close(weight, expected, rtol=1e-4, atol=1e-5)
    assert norms[0] > 50 if scale > 1 else max(norms) < 1


def test_products_of_bfloat16_are_rounded_and_weights_are_not():
    modules = [
        run(Training(epochs=20, precision=precision, patience=99))[0]
        for precision in ("float32", "bfloat16")
    ]
    exact, rounded = (evaluate(module, PARTS[1].features) for module in modules)
    assert 0 < (exact - rounded).abs().max() < 0.1 * exact.std()
    assert {weight.dtype for weight in modules[1].parameters()} == {torch.float32}


def test_other_precisions_are_refused(unchecked):
    says = r"'precision' of training: expected one of \['float32', 'bfloat16'\], found 'float16'"
    with pytest.raises(ValueError, match=says):
        Training(precision="float16")


def test_loss_that_is_never_finite_leaves_the_initial_weights():
    module = Perceptron()
    before = [weight.clone() for weight in module.parameters()]
    history = train_module(
        module,
        TARGET,
        Labeled(Kept(X[:60] * torch.nan), Y[:60]),
        PARTS[1],
        Training(epochs=3, patience=2),
    )
    assert all(math.isnan(loss) for loss in history.validation_loss)
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))


def test_a_seeded_block_gives_the_random_state_back():
    before = torch.get_rng_state()
    with seeded(1):
        first = torch.rand(3)
    with seeded(1):
        assert torch.equal(first, torch.rand(3))
    assert torch.equal(before, torch.get_rng_state())


def test_batches_cover_every_network_about_evenly():
    sizes = []

    class Recorder(Perceptron):
        def forward(self, x):
            if self.training:
                sizes.append(len(x))
            return super().forward(x)

    with seeded(0):
        train_module(Recorder(), TARGET, *PARTS, Training(epochs=1, batch_size=16))
    assert sizes == [15, 15, 15, 15]
