"""Boosted regression trees: grown by scikit-learn, kept and evaluated as plain tensors.

So saving needs no pickle.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from sklearn.ensemble import HistGradientBoostingRegressor
from torch import Tensor, nn

from metanet.contract import History, InputSpec, MetanetModule, Training
from zoo.options import Count

Leaves = Annotated[int, Field(ge=2, lt=2**16)]
Columns = Annotated[float, Field(gt=0, le=1)]
FIELDS = ("feature_idx", "num_threshold", "missing_go_to_left", "left", "right", "is_leaf", "value")
BUFFERS = {
    "root": torch.int64,
    "feature": torch.int64,
    "threshold": torch.float64,
    "missing_left": torch.bool,
    "left": torch.int64,
    "right": torch.int64,
    "value": torch.float64,
    "baseline": torch.float64,
}


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
        self, max_leaf_nodes: int = 15, min_samples_leaf: int = 10, max_features: float = 0.5
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
        for name in BUFFERS:
            self.register_buffer(name, torch.zeros(0))
        self.register_load_state_dict_pre_hook(_resize_buffers)

    def fit(
        self,
        learn: tuple[Float[Tensor, "N S"], Float[Tensor, "N"]],
        held_out: tuple[Float[Tensor, "M S"], Float[Tensor, "M"]],
        training: Training,
        seed: int,
    ) -> History:
        """Grow the trees, as many as validation asks for.

        Args:
            learn: Features and raw targets.
            held_out: Likewise; chooses the number of trees.
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
            min_samples_leaf=min(self.min_samples_leaf, max(1, len(learn[1]) // 8)),
            max_features=self.max_features,
            l2_regularization=training.weight_decay,
            n_iter_no_change=training.patience,
            random_state=seed,
            **_STOPPING,
        )
        x, y = _arrays(learn)
        x_validation, y_validation = _arrays(held_out)
        booster.fit(x, y, X_val=x_validation, y_val=y_validation)
        # sklearn's score is minus half the squared error, before the first tree and after each.
        losses = [-2.0 * float(score) for score in booster.validation_score_]
        best = int(np.argmin(losses))
        self._take_trees(booster, count=max(best, 1))
        return History(validation_loss=losses, best_epoch=best)

    def _take_trees(self, booster: Any, count: int) -> None:
        """Keep the nodes of the first trees."""
        trees = [trees[0].nodes for trees in booster._predictors[:count]]
        starts = np.cumsum([0, *(len(nodes) for nodes in trees)])
        columns = _columns(np.concatenate([nodes[list(FIELDS)] for nodes in trees]), starts)
        columns["root"] = starts[:-1]
        columns["baseline"] = np.asarray(booster._baseline_prediction).reshape(1)
        for name in BUFFERS:
            self.register_buffer(name, torch.from_numpy(columns[name]))

    def forward(self, features: Float[Tensor, "B S"]) -> Float[Tensor, "B"]:
        """Sum of the trees; NaN features take each split's side for missing values.

        Args:
            features: One row a network.

        Returns:
            Raw predictions, float64.

        Raises:
            ValueError: If there are too few features.
        """
        x = features.double()
        if x.shape[1] <= int(self.feature.max()):
            raise ValueError(
                f"trees read column {int(self.feature.max())}, got {x.shape[1]} columns of features"
            )
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


_LARGEST = np.finfo(np.float64).max
_STOPPING: dict[str, Any] = {"early_stopping": True, "scoring": "loss", "tol": 0.0}


class TreeMetanet(MetanetModule):
    """Base of metanets that are boosted trees on features."""

    recommended = Training(epochs=1000, lr=0.05, weight_decay=1.0, patience=20)

    def __init__(
        self,
        spec: InputSpec,
        *,
        max_leaf_nodes: Leaves = 15,
        min_samples_leaf: Count = 10,
        max_features: Columns = 0.5,
    ):
        """Build.

        Args:
            spec: What it will read.
            max_leaf_nodes: Most leaves of a tree.
            min_samples_leaf: Fewest training networks of a leaf.
            max_features: Share of the columns that each split chooses from.
        """
        super().__init__()
        self.spec = spec
        self.trees = BoostedTrees(max_leaf_nodes, min_samples_leaf, max_features)

    def fit(
        self,
        learn: tuple[Any, Float[Tensor, "N"]],
        held_out: tuple[Any, Float[Tensor, "M"]],
        training: Training,
        seed: int,
    ) -> History:
        """Grow the trees; see `BoostedTrees.fit`."""
        return self.trees.fit(learn, held_out, training, seed)

    def forward(self, features: Float[Tensor, "B S"]) -> Float[Tensor, "B"]:
        """Raw prediction."""
        return self.trees(features)


def _columns(nodes: np.ndarray, starts: np.ndarray) -> dict[str, np.ndarray]:
    """Columns of the nodes of all trees."""
    # A leaf is its own child: every sample may then take the same number of steps.
    offset = np.repeat(starts[:-1], np.diff(starts))
    places = np.arange(len(nodes))
    leaf = nodes["is_leaf"].astype(bool)
    children = {
        side: np.where(leaf, places, nodes[side].astype(np.int64) + offset)
        for side in ("left", "right")
    }
    return children | {
        "feature": np.where(leaf, 0, nodes["feature_idx"]),
        # A split of missing from other numbers is at infinity.
        "threshold": np.where(leaf, 0.0, nodes["num_threshold"]).clip(-_LARGEST, _LARGEST),
        "missing_left": nodes["missing_go_to_left"].astype(bool),
        "value": np.where(leaf, nodes["value"], 0.0),
    }


def _resize_buffers(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    nodes = {name: state[prefix + name] for name in BUFFERS if prefix + name in state}
    for name, tensor in nodes.items():
        module.register_buffer(name, torch.empty_like(tensor))
    if len(nodes) == len(BUFFERS):
        _check_nodes(nodes)


def _check_nodes(nodes: Mapping[str, Tensor]) -> None:
    """Refuse nodes that are no trees: from every node, children lead on to a leaf."""
    count = len(nodes["left"])
    if not all(_is_column(name, tensor, count) for name, tensor in nodes.items()):
        raise ValueError("trees: expected one number of the right type for each node")
    if not nodes["left"].is_meta and not _lead_to_leaves(nodes, count):
        raise ValueError("trees: expected children that come after their nodes")


def _is_column(name: str, tensor: Tensor, count: int) -> bool:
    is_of_nodes = name not in ("root", "baseline")
    return tensor.dtype == BUFFERS[name] and (tensor.shape == (count,) or not is_of_nodes)


def _lead_to_leaves(nodes: Mapping[str, Tensor], count: int) -> bool:
    left, right = nodes["left"], nodes["right"]
    places = torch.arange(count, device=left.device)
    is_leaf = (left == places) & (right == places)
    leads_on = (left > places) & (right > places)
    ends = torch.cat([left, right, nodes["root"].flatten()])
    is_inside = (ends >= 0) & (ends < count)
    return all(bool(each.all()) for each in (is_leaf | leads_on, is_inside, nodes["feature"] >= 0))


def _arrays(part: tuple[Tensor, Tensor]) -> tuple[np.ndarray, np.ndarray]:
    features, y = part
    return features.double().cpu().numpy(), y.double().cpu().numpy()
