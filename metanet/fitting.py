"""One fit and one prediction of a metanet, wherever its networks are: in memory or on disk."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from metanet.contract import History, Training, device_of
from metanet.feature_rows import concatenate, to_device
from metanet.inputs.batches import Drawn, FeatureSet, JoinedNetworks, Kept, networks_in_memory
from metanet.inputs.dataset import Examples
from metanet.inputs.reader import Reader
from metanet.inputs.targets import Target
from metanet.train import Labeled, evaluate, evaluation_batch, train_module


@dataclass(frozen=True)
class Fit:
    """How a metanet is fitted.

    Attributes:
        target: What is predicted.
        training: Settings.
        seed: Of random treatments.
        device: Where to train.
        workers: Threads that read ahead networks that are on disk.
        progress: Whether to show a bar.
    """

    target: Target
    training: Training
    seed: int
    device: torch.device
    workers: int
    progress: bool


class DrawnLabeled(NamedTuple):
    """Features of N networks, made when they are needed, and their targets ``[N]``."""

    features: Drawn
    y: Float[Tensor, "N"]


def fit_module(
    reader: Reader, learn: Examples, held_out: Examples, how: Fit
) -> tuple[Reader, History]:
    """Fit the treatment, then the metanet of a reader, in place.

    Args:
        reader: How networks are read; treatment not fitted, metanet not trained.
        learn: Networks to learn from.
        held_out: Networks to choose the best pass by.
        how: Settings.

    Returns:
        The reader with its fitted treatment, and the course of training.

    Raises:
        ValueError: If networks are on disk, and the metanet or its treatment needs all of them at
            once.
    """
    if learn.networks.are_stored:
        _refuse_what_needs_all(reader)
    reader = reader.fit(learn.networks)
    most = networks_in_memory(reader.num_params)
    read = reader.learned(torch.Generator().manual_seed(how.seed))
    training = Drawn(learn.networks, read, most, how.workers)
    validation = Drawn(held_out.networks, lambda chosen: reader.views(chosen)[0], most, how.workers)
    labeled = DrawnLabeled(training, learn.y), DrawnLabeled(validation, held_out.y)
    fit = _fit_in_passes if reader.module.has_gradients else _fit_at_once
    return reader, fit(reader, *labeled, how)


def _fit_in_passes(
    reader: Reader, learn: DrawnLabeled, held_out: DrawnLabeled, how: Fit
) -> History:
    """Fit by gradient descent; features are kept in memory if they may be, and do not change."""
    module = reader.module
    is_kept = not learn.features.networks.are_stored or module.compact
    is_fixed = is_kept and not reader.treatment.is_random
    validated: FeatureSet = _kept(held_out.features) if is_kept else held_out.features
    learned: FeatureSet = _kept(learn.features) if is_fixed else learn.features
    with torch.no_grad():
        module.calibrate(learned.pieces(learn.features.most))
    module.to(how.device)
    training, validation = (
        Labeled(features.to(how.device), y.float().to(how.device))
        for features, y in ((learned, learn.y), (validated, held_out.y))
    )
    at_once = evaluation_batch(reader.num_params)
    return train_module(
        module, how.target, training, validation, how.training, how.progress, at_once
    )


def _fit_at_once(reader: Reader, learn: DrawnLabeled, held_out: DrawnLabeled, how: Fit) -> History:
    """Fit a metanet without passes: random treatments give it several copies, side by side."""
    treatment = reader.treatment
    validated = _kept(held_out.features).features
    views = [_kept(learn.features, treatment.is_random) for _ in range(treatment.copies)]
    learned = Kept(concatenate([view.features for view in views]))
    with torch.no_grad():
        reader.module.calibrate(learned.pieces(len(learned)))
    y, y_held_out = (how.target.standardize(part.y) for part in (learn, held_out))
    labeled = learned.features, y.repeat(treatment.copies)
    return reader.module.fit(labeled, (validated, y_held_out), how.training, how.seed)


def predict_raw(reader: Reader, networks: JoinedNetworks, workers: int) -> Float[Tensor, "N"]:
    """Raw outputs of the metanet of a reader, the mean over the views of each network.

    Args:
        reader: Fitted.
        networks: To predict.
        workers: Threads that read ahead networks that are on disk.

    Returns:
        Outputs, float64, on the device of the metanet.
    """
    device, at_once = device_of(reader.module), evaluation_batch(reader.num_params)
    most = max(1, networks_in_memory(reader.num_params) // at_once) * at_once
    raw = []
    for chosen in networks.stream(torch.arange(len(networks)).split(most), workers):
        views = [Kept(to_device(view, device)) for view in reader.views(chosen)]
        outputs = [evaluate(reader.module, view, at_once).double() for view in views]
        raw.append(torch.stack(outputs).mean(0))
    return torch.cat(raw)


def _refuse_what_needs_all(reader: Reader) -> None:
    """Networks on disk are seen some at a time."""
    module, treatment = reader.module, reader.treatment
    if not module.has_gradients and not module.compact:
        raise ValueError(
            f"stream: {type(module).__name__} cannot learn from networks on disk: it trains on the "
            "features of all networks at once and does not declare them `compact`"
        )
    if treatment.num_fit is None:
        unbounded = next(step for step in treatment.learning if step.num_fit is None)
        raise ValueError(
            f"stream: treatment {unbounded.name!r} learns from all training networks at once, "
            "which stay on disk; give it a property `num_fit`, "
            "the number of networks that are enough"
        )


def _kept(drawn: Drawn, is_random: bool = False) -> Kept:
    """Features of all networks at once; networks in memory are not copied."""
    # Random treatments draw block by block, so that they draw the same for networks on disk.
    whole = None if is_random else drawn.networks.whole
    return drawn.kept() if whole is None else Kept(drawn.compute(whole))
