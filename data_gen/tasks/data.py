"""Data of a task, as tensors on one device: inputs, targets, and how inputs are scaled."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from data_gen.tasks.augmentation import Augmentation
from data_gen.tasks.losses import SCORES, Loss, cross_entropy
from zoo.store.entries import InputEntry

Inputs = Any
"""A tensor `[X, ...]`, or a tuple or a mapping of such tensors for networks of several inputs."""


@dataclass(frozen=True)
class Part:
    """One part of a task.

    Attributes:
        x: Inputs `[X, C, ...]`, uint8 where they came as such; int64 goes in as it is.
        y: Targets: classes `[X]`, int64, or of each position `[X, ...]`; or numbers `[X, ...]`.
        per_network: Whether each network has targets of its own, `y[i]` of network `i`.
        own_inputs: Whether it has inputs of its own, too, `x[i]`.
        labels: What each network's data is called, `[items]`; nothing if None.
    """

    x: Inputs
    y: Shaped[Tensor, "X *shape"]
    per_network: bool = False
    own_inputs: bool = False
    labels: Shaped[Tensor, " items"] | None = None

    def __len__(self) -> int:
        """Number of examples `X`."""
        return self.y.shape[1 if self.per_network else 0]

    @property
    def input_shapes(self) -> Any:
        """Shape of one input, or of each of several."""
        start = 2 if self.own_inputs else 1
        return tree_map(lambda x: tuple(x.shape[start:]), self.x)

    @property
    def target_shape(self) -> tuple[int, ...]:
        """Shape of one target."""
        return tuple(self.y.shape[2 if self.per_network else 1 :])

    def rows(
        self, index: Int64[Tensor, "*batch"], ids: Int64[Tensor, " N"] | None = None
    ) -> Inputs:
        """Inputs as they are stored.

        Args:
            index: Which examples; those of each network, if there are `ids`.
            ids: Network ids; None for all networks, or the first one if each has its own inputs.

        Returns:
            Their inputs `[*batch, C, ...]`.
        """
        if not self.own_inputs:
            flat = index.reshape(-1)
            return tree_map(lambda x: x.index_select(0, flat).unflatten(0, index.shape), self.x)
        item = torch.zeros_like(index) if ids is None else ids[:, None].expand_as(index)
        return tree_map(lambda x: x[item, index], self.x)

    def targets(self, ids: Int64[Tensor, " N"]) -> Shaped[Tensor, "_ X ..."]:
        """Targets of networks.

        Args:
            ids: Network ids.

        Returns:
            `[N, X, ...]`, or `[1, X, ...]` if they are the same for all networks.
        """
        return self.y[ids] if self.per_network else self.y[None]

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "Part":
        """The same part on a device; tensors of a floating type get another one."""
        x, y = (tree_map(_cast(device, dtype), values) for values in (self.x, self.y))
        return replace(self, x=x, y=y)


@dataclass(frozen=True)
class Task:
    """Training and test data with the scaling that makes them inputs, and the loss.

    Attributes:
        train: Training part.
        test: Test part.
        num_classes: Number of classes `K`; None if targets are numbers.
        mean: Mean of the training inputs for each channel `[C, 1, ...]`, in the units of `x`.
        std: Standard deviation likewise.
        augmentation: What happens to images in training batches, nothing if None.
        loss: What training makes small.
        target_mean: Stored targets are (numbers - mean) / deviation; of each channel.
        target_std: The deviation.
    """

    train: Part
    test: Part
    num_classes: int | None
    mean: Inputs
    std: Inputs
    augmentation: Augmentation | None = None
    loss: Loss = field(default_factory=cross_entropy)
    target_mean: Float[Tensor, "..."] = field(default_factory=lambda: torch.zeros(()))
    target_std: Float[Tensor, "..."] = field(default_factory=lambda: torch.ones(()))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input; of several inputs, each by its place or name."""
        return self.train.input_shapes

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of what a network says of one input: scores of classes, one logit, or numbers."""
        shape = self.train.target_shape
        if self.num_classes is None:
            return shape
        return (1 if self.loss.kind == "binary" else self.num_classes, *shape)

    @property
    def kind(self) -> Literal["classification", "regression"]:
        """What the targets are: classes or numbers."""
        return "regression" if self.num_classes is None else "classification"

    @property
    def told_kind(self) -> Literal["classification", "regression", "signals"]:
        """What a manifest says that it is."""
        return "signals" if self.train.per_network else self.kind

    @property
    def told_inputs(self) -> Any:
        """What a manifest says of the inputs: the shape of numbers of floating point, or more."""
        start = 2 if self.train.own_inputs else 1

        def entry(train: Tensor, test: Tensor) -> InputEntry:
            shape = tuple(train.shape[start:])
            if train.dtype != torch.int64:
                return InputEntry(shape=shape, dtype="float32")
            below = 1 + max(int(x.max()) for x in (train, test))
            return InputEntry(shape=shape, dtype="int64", below=max(1, below))

        told = tree_map(entry, self.train.x, self.test.x)
        is_plain = isinstance(told, InputEntry) and told.below is None
        return told.shape if is_plain else told

    @property
    def like(self) -> Tensor:
        """A tensor with the device and the floating type of the inputs."""
        return tree_leaves(self.mean)[0]

    def inputs(self, x: Inputs) -> Inputs:
        """Stored examples as inputs.

        Args:
            x: Inputs as they are stored.

        Returns:
            Inputs whose channels have mean 0 and deviation 1 over the training part; whole numbers
            of 64 bits as they are.
        """
        return tree_map(_scaled, x, self.mean, self.std)

    def in_floats(self, x: Inputs) -> Inputs:
        """Stored examples in the floating type of inputs; whole numbers of 64 bits as they are."""
        return tree_map(_in_floats, x, self.mean)

    def in_units(self, outputs: Float[Tensor, "X *shape"]) -> Float[Tensor, "X *shape"]:
        """Outputs, or stored targets that are numbers, in the units of the targets."""
        return outputs * self.target_std + self.target_mean

    def scores(
        self, outputs: Float[Tensor, "X ..."], targets: Shaped[Tensor, "X ..."]
    ) -> Float[Tensor, " X"]:
        """What is summed over examples to say how well networks do.

        Args:
            outputs: Outputs of one network.
            targets: Stored targets.

        Returns:
            1 for a right answer, 0 for a wrong one; of numbers the squared error, in their units.
        """
        if self.num_classes is None:
            outputs, targets = self.in_units(outputs), self.in_units(targets)
        return SCORES[self.loss.kind](outputs, targets)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "Task":
        """The same task on a device.

        Args:
            device: Where all tensors go.
            dtype: Floating type of inputs and targets; stored integers stay what they are.

        Returns:
            A copy.
        """
        cast = _cast(device, dtype)
        names = ("mean", "std", "target_mean", "target_std")
        scaling = {name: tree_map(cast, getattr(self, name)) for name in names}
        train, test = self.train.to(device, dtype), self.test.to(device, dtype)
        return replace(self, train=train, test=test, **scaling)


def _cast(device: torch.device | str, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    return lambda tensor: tensor.to(device, dtype if tensor.is_floating_point() else None)


def _scaled(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return x if x.dtype == torch.int64 else (_in_floats(x, mean) - mean) / std


def _in_floats(x: Tensor, mean: Tensor) -> Tensor:
    return x if x.dtype == torch.int64 else x.to(mean.dtype)
