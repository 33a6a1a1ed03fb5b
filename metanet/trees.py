"""Boosted regression trees: grown by scikit-learn, kept and evaluated as plain tensors, so that saving needs no pickle."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from sklearn.ensemble import HistGradientBoostingRegressor
from torch import Tensor, nn

from metanet.contract import Features, Training
from metanet.history import History

FIELDS = ("feature_idx", "num_threshold", "missing_go_to_left", "left", "right", "is_leaf", "value")


class BoostedTrees(nn.Module):
    """A sum of regression trees; its buffers hold the nodes of all trees, one after the other.

    raw(x) = baseline + sum over trees of value(leaf of x)

    """

    root: Tensor
    feature: Tensor
    threshold: Tensor
    missing_left: Tensor
    left: Tensor
    right: Tensor
    value: Tensor
    baseline: Tensor

    def __init__(
        self, *, max_leaf_nodes: int = 15, min_samples_leaf: int = 10, max_features: float = 0.5
    ):
        """Remember the options; there are no trees before `fit` or `load_state_dict`.

        Args:
            max_leaf_nodes: Most leaves of a tree.
            min_samples_leaf: Fewest training networks of a leaf.
            max_features: Share of the columns that each split chooses from.
        """
        super().__init__()
        self.max_leaf_nodes = max_leaf_nodes
        self.min_samples_leaf = min_samples_leaf
        self.max_features = max_features
        for name, dtype in _BUFFERS.items():
            self.register_buffer(name, torch.zeros(0, dtype=dtype))
        self.register_load_state_dict_pre_hook(_resize_buffers)

    def fit(
        self,
        train: tuple[Features, Tensor],
        validation: tuple[Features, Tensor],
        training: Training,
        seed: int,
    ) -> History:
        """Grow the trees, as many as validation asks for.

        Args:
            train: Features ``[N, S]`` and raw targets ``[N]``.
            validation: Likewise; chooses the number of trees.
            training: `epochs` is the most trees, `lr` the shrinkage, `weight_decay` the L2 penalty
                of leaves, `patience` how many trees may pass without a better validation loss.
            seed: Chooses the columns that each split looks at.

        Returns:
            Validation loss (mean squared error) by number of trees, and the best number.
        """
        booster = HistGradientBoostingRegressor(
            learning_rate=training.lr,
            max_iter=training.epochs,
            max_leaf_nodes=self.max_leaf_nodes,
            min_samples_leaf=min(self.min_samples_leaf, max(1, len(train[1]) // 8)),
            max_features=self.max_features,
            l2_regularization=training.weight_decay,
            early_stopping=True,  # type: ignore[arg-type]
            n_iter_no_change=training.patience,
            scoring="loss",
            tol=0.0,
            random_state=seed,
        )
        (x, y), (x_validation, y_validation) = (_arrays(part) for part in (train, validation))
        booster.fit(x, y, X_val=x_validation, y_val=y_validation)
        # sklearn's score is minus half the squared error, before the first tree and after each.
        losses = [-2.0 * float(score) for score in booster.validation_score_]
        best = int(np.argmin(losses))
        self._take_trees(booster, count=max(best, 1))
        return History(validation_loss=losses, best_epoch=best)

    def _take_trees(self, booster: Any, count: int) -> None:
        trees = [trees[0].nodes for trees in booster._predictors[:count]]
        starts = np.cumsum([0, *(len(nodes) for nodes in trees)])
        nodes = np.concatenate([nodes[list(FIELDS)] for nodes in trees])
        offset = np.repeat(starts[:-1], np.diff(starts))
        own = np.arange(len(nodes))
        leaf = nodes["is_leaf"].astype(bool)
        # A leaf is its own child: every sample may then take the same number of steps.
        columns = {
            "root": starts[:-1],
            "feature": np.where(leaf, 0, nodes["feature_idx"]),
            "threshold": np.where(leaf, 0.0, nodes["num_threshold"]),
            "missing_left": nodes["missing_go_to_left"].astype(bool),
            "left": np.where(leaf, own, nodes["left"].astype(np.int64) + offset),
            "right": np.where(leaf, own, nodes["right"].astype(np.int64) + offset),
            "value": np.where(leaf, nodes["value"], 0.0),
            "baseline": np.asarray(booster._baseline_prediction).reshape(1),
        }
        for name, column in columns.items():
            setattr(self, name, torch.tensor(column, dtype=_BUFFERS[name]))

    def forward(self, features: Float[Tensor, "B S"]) -> Float[Tensor, "B"]:
        """Sum of the trees; NaN features take each split's side for missing values.

        Args:
            features: One row a network.

        Returns:
            Raw predictions, float64.
        """
        x = features.double()
        node = self.root.expand(len(x), -1)
        while True:
            value = x.gather(1, self.feature[node])
            go_left = torch.where(
                value.isnan(), self.missing_left[node], value <= self.threshold[node]
            )
            child = torch.where(go_left, self.left[node], self.right[node])
            if torch.equal(child, node):
                return self.baseline + self.value[node].sum(1)
            node = child


_BUFFERS = {
    "root": torch.int64,
    "feature": torch.int64,
    "threshold": torch.float64,
    "missing_left": torch.bool,
    "left": torch.int64,
    "right": torch.int64,
    "value": torch.float64,
    "baseline": torch.float64,
}


def _resize_buffers(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    for name in _BUFFERS:
        if prefix + name in state:
            setattr(module, name, torch.empty_like(state[prefix + name]))


def _arrays(part: tuple[Features, Tensor]) -> tuple[np.ndarray, np.ndarray]:
    features, y = part
    if not isinstance(features, Tensor):
        raise ValueError(
            f"boosted trees: expected one tensor of features [N, S], got {type(features).__name__}"
        )
    return features.double().cpu().numpy(), y.double().cpu().numpy()
