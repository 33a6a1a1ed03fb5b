"""Trees kept as tensors predict what scikit-learn's do."""

import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingRegressor

from metanet import trees
from metanet.contract import Training
from metanet.trees import BoostedTrees

TRAINING = Training(epochs=40, lr=0.1, weight_decay=1.0, patience=5)


def data(seed, size=300, missing=True):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(size, 4))
    y = np.sin(2 * x[:, 0]) + x[:, 1] * (x[:, 2] > 0) + 0.1 * rng.normal(size=size)
    x[rng.random(x.shape) < 0.1 * missing] = np.nan
    return torch.tensor(x), torch.tensor(y)


@pytest.mark.parametrize("missing", [False, True])
def test_predictions_equal_those_of_scikit_learn(missing, monkeypatch):
    boosters = []

    class Recorded(HistGradientBoostingRegressor):
        def fit(self, *args, **kwargs):
            boosters.append(self)
            return super().fit(*args, **kwargs)

    monkeypatch.setattr(trees, "HistGradientBoostingRegressor", Recorded)
    ours = BoostedTrees()
    history = ours.fit(data(0, missing=missing), data(1, missing=missing), TRAINING, seed=0)
    x = data(2)[0]
    theirs = list(boosters[0].staged_predict(x.numpy()))[history.best_epoch - 1]
    np.testing.assert_allclose(ours(x).numpy(), theirs, rtol=1e-12, atol=1e-12)
    assert len(ours.root) == history.best_epoch


def test_the_best_number_of_trees_is_kept():
    ours, validation = BoostedTrees(), data(1)
    history = ours.fit(data(0), validation, TRAINING, seed=0)
    loss = (ours(validation[0]) - validation[1]).square().mean()
    assert float(loss) == pytest.approx(min(history.validation_loss), rel=1e-9)
    assert history.validation_loss[history.best_epoch] == min(history.validation_loss)


def test_trees_travel_by_state_dict():
    ours, again = BoostedTrees(), BoostedTrees()
    ours.fit(data(0), data(1), TRAINING, seed=0)
    again.load_state_dict(ours.state_dict())
    assert torch.equal(ours(data(2)[0]), again(data(2)[0]))


def test_seeds_choose_columns():
    fits = []
    for seed in (0, 0, 1):
        fits.append(BoostedTrees(max_features=0.5))
        fits[-1].fit(data(0), data(1), TRAINING, seed=seed)
    first, same, other = (fit(data(2)[0]) for fit in fits)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
