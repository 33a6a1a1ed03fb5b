"""Losses: what training makes small, as one number for each example."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.func import vmap

from zoo.architectures.table import look_up
from zoo.imports import check_code_name, import_attribute, names_code
from zoo.options import Positive

Kind = Literal["classification", "binary", "regression"]
Outputs = Float[Tensor, "X ..."]
Targets = Shaped[Tensor, "X ..."]


@dataclass(frozen=True)
class Loss:
    """What training makes small.

    Attributes:
        name: Its name in a job.
        kind: What outputs are: a score for each class, one logit, or numbers.
        each: From outputs, targets and label smoothing (None for none) of examples to the loss of
            each, `[X]`.
        unit: Unit of the loss, None if nobody knows it.
        smooths: Whether label smoothing has a meaning.
        num_classes: How many classes it is for, None for any number.
        batch: A function of outputs and targets of one batch, instead of the mean of `each`.
        low: Least value of the loss, None if there is none.
    """

    name: str
    kind: Kind
    each: Callable[[Outputs, Targets, Float[Tensor, ""] | None], Float[Tensor, " X"]]
    unit: str | None = None
    smooths: bool = False
    num_classes: int | None = None
    batch: Callable[[Outputs, Targets], Tensor] | None = None
    low: float | None = 0.0

    def mean(
        self, outputs: Outputs, targets: Targets, smoothing: Float[Tensor, ""] | None = None
    ) -> Tensor:
        """The loss of a batch.

        Args:
            outputs: Outputs of one network.
            targets: What they should be.
            smoothing: Label smoothing, none if None.

        Returns:
            The mean over examples, unless the loss is a function of whole batches.
        """
        if self.batch is not None:
            return self.batch(outputs, targets)
        return self.each(outputs, targets, smoothing).mean()


def cross_entropy(class_weights: Sequence[Positive] | None = None) -> Loss:
    """Cross-entropy of classes on axis 1, against labels mixed with the uniform distribution.

        loss = -sum over classes k of q_k w_k log softmax(outputs)_k
        q = (1 - smoothing) onehot(target) + smoothing / K

    The same as `F.cross_entropy(..., weight=w, label_smoothing=smoothing, reduction="none")`, for a
    smoothing in a tensor; axes after the classes are positions, over which it takes the mean.

    Args:
        class_weights: Weight `w` of each class, all 1 if None.

    Returns:
        The loss, in nats.
    """

    def each(outputs: Tensor, targets: Tensor, smoothing: Tensor | None) -> Tensor:
        log_p = F.log_softmax(outputs, dim=1)
        if class_weights is not None:
            weights = torch.tensor(class_weights, dtype=log_p.dtype, device=log_p.device)
            log_p = log_p * weights.view(-1, *(1,) * (log_p.dim() - 2))
        chosen = log_p.gather(1, targets[:, None])[:, 0]
        if smoothing is not None:
            chosen = (1 - smoothing) * chosen + smoothing * log_p.mean(1)
        return -_each_example(chosen)

    num_classes = None if class_weights is None else len(class_weights)
    return Loss("cross_entropy", "classification", each, "nats", True, num_classes)


def binary_cross_entropy() -> Loss:
    """Cross-entropy of two classes, from one logit of class 1.

    Returns:
        The loss, in nats.
    """

    def each(outputs: Tensor, targets: Tensor, smoothing: Tensor | None) -> Tensor:
        wanted = targets.to(outputs.dtype)
        if smoothing is not None:
            wanted = (1 - smoothing) * wanted + smoothing / 2
        loss = F.binary_cross_entropy_with_logits(outputs[:, 0], wanted, reduction="none")
        return _each_example(loss)

    return Loss("binary_cross_entropy", "binary", each, "nats", True, 2)


def squared_error() -> Loss:
    """Mean of `(output - target)^2` over the numbers of an example."""
    return _of_difference("squared_error", "units of the targets, squared", torch.square)


def absolute_error() -> Loss:
    """Mean of `|output - target|` over the numbers of an example."""
    return _of_difference("absolute_error", "units of the targets", torch.abs)


def huber(delta: Positive = 1.0) -> Loss:
    """Mean of the Huber loss over the numbers of an example.

        loss = d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2)

    Args:
        delta: Where the square ends, in units of the targets.

    Returns:
        The loss, as `torch.nn.functional.huber_loss` has it.
    """

    def of_difference(difference: Tensor) -> Tensor:
        size = difference.abs()
        square = 0.5 * difference.square()
        return torch.where(size <= delta, square, delta * (size - 0.5 * delta))

    return _of_difference("huber", None, of_difference)


def _of_difference(name: str, unit: str | None, function: Callable[[Tensor], Tensor]) -> Loss:
    def each(outputs: Tensor, targets: Tensor, smoothing: Tensor | None) -> Tensor:  # noqa: ARG001
        return _each_example(function(outputs - targets))

    return Loss(name, "regression", each, unit)


def _each_example(values: Tensor) -> Float[Tensor, " X"]:
    """One number an example: the mean over its positions, if it has any."""
    return values.flatten(1).mean(1) if values.dim() > 1 else values


def loss_of_code(name: str, kind: Kind) -> Loss:
    """A loss that is a function of outputs and targets of one batch.

    Metrics are of single examples, so it is then called on batches of one.

    Args:
        name: `module:attribute`.
        kind: What the targets of the task are.

    Returns:
        The loss; the module is imported.
    """
    function = import_attribute(name, "task.loss")

    def each(outputs: Tensor, targets: Tensor, smoothing: Tensor | None) -> Tensor:  # noqa: ARG001
        def alone(output: Tensor, target: Tensor) -> Tensor:
            return function(output[None], target[None])

        return vmap(alone)(outputs, targets)

    return Loss(name, kind, each, batch=function, low=None)


LOSSES: dict[str, Callable[..., Loss]] = {
    "cross_entropy": cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
    "squared_error": squared_error,
    "absolute_error": absolute_error,
    "huber": huber,
}
"""name -> function of its options."""
DEFAULTS: dict[Kind, str] = {"classification": "cross_entropy", "regression": "squared_error"}
"""The loss of tasks that name none, by what their targets are: classes or numbers."""


def check_loss(name: str | None, options: Mapping[str, Any]) -> None:
    """Check the name of a loss and its options; nothing is imported.

    Args:
        name: Name in `LOSSES`, or `module:attribute`.
        options: Its options.

    Raises:
        ValueError: If there is none of that name, or an option is unknown or has the wrong type.
    """
    if name is None or not names_code(name):
        look_up("loss", name, LOSSES, options, ())
        return
    check_code_name(name)
    if options:
        raise ValueError(f"loss {name!r}: expected no options, found {sorted(options)}")


def make_loss(given: Mapping[str, Any] | None, kind: Kind) -> Loss:
    """The loss of a task.

    Args:
        given: Its name and options; None for the default.
        kind: What the targets are: `"classification"` or `"regression"`.

    Returns:
        The loss.
    """
    options = {"name": DEFAULTS[kind], **(given or {})}
    name = str(options.pop("name"))
    check_loss(name, options)
    return loss_of_code(name, kind) if names_code(name) else LOSSES[name](**options)


def check_fit(loss: Loss, num_classes: int | None) -> None:
    """Check that a loss is one of the targets of a task.

    Args:
        loss: The loss.
        num_classes: Number of classes of the targets, None if they are numbers.

    Raises:
        ValueError: If it is not.
    """
    if num_classes is None and loss.kind != "regression":
        raise ValueError(
            f"task.loss: {loss.name!r} is of classes; expected targets that are whole numbers, "
            "found others"
        )
    if loss.num_classes is not None and num_classes != loss.num_classes:
        raise ValueError(
            f"task.loss: {loss.name!r} is of {loss.num_classes} classes; the targets have "
            f"{num_classes}"
        )


def right_answers(outputs: Outputs, targets: Targets) -> Float[Tensor, " X"]:
    """Share of the positions of each example where the class on axis 1 with most is right."""
    return _each_example((outputs.argmax(1) == targets).double())


def right_signs(outputs: Outputs, targets: Targets) -> Float[Tensor, " X"]:
    """Share of the positions of each example where the sign of the logit is right."""
    return _each_example(((outputs[:, 0] > 0) == (targets == 1)).double())


def squared_errors(outputs: Outputs, targets: Targets) -> Float[Tensor, " X"]:
    """Sum of the squared errors of the numbers of each example."""
    return (outputs - targets).square().flatten(1).sum(1)


SCORES: dict[Kind, Callable[[Outputs, Targets], Float[Tensor, " X"]]] = {
    "classification": right_answers,
    "binary": right_signs,
    "regression": squared_errors,
}
"""What is summed over examples, besides the loss, to say how well networks do."""
MAIN: dict[Kind, str] = {"classification": "accuracy", "binary": "accuracy", "regression": "r2"}
"""Of which metric the generalization gap is."""
