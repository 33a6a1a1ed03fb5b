"""One fit and one prediction of a metanet, wherever its networks are: in memory or on disk."""

import torch
from jaxtyping import Float
from torch import Tensor

from metanet.contract import History, Training, device_of
from metanet.feature_rows import concatenate, to_device
from metanet.inputs.batches import Drawn, FeatureSet, JoinedNetworks, Kept, block_size
from metanet.inputs.dataset import Examples
from metanet.inputs.reader import Reader
from metanet.inputs.targets import Target
from metanet.train import Labeled, evaluate, evaluation_batch, train_module


def fit_module(
    reader: Reader,
    learn: Examples,
    held_out: Examples,
    target: Target,
    training: Training,
    *,
    seed: int,
    device: torch.device,
    workers: int,
    progress: bool,
) -> tuple[Reader, History]:
    """Fit the treatment, then the metanet of a reader, in place.

    Args:
        reader: How networks are read; treatment not fitted, metanet not trained.
        learn: Networks to learn from.
        held_out: Networks to choose the best pass by.
        target: What is predicted.
        training: Settings.
        seed: Of random treatments.
        device: Where to train.
        workers: Threads that read ahead networks that are on disk.
        progress: Whether to show a bar.

    Returns:
        The reader with its fitted treatment, and the course of training.

    Raises:
        ValueError: If networks are on disk, and the metanet or its treatment needs all of them at
            once.
    """
    module, generator = reader.module, torch.Generator().manual_seed(seed)
    if learn.networks.are_stored:
        _refuse_what_needs_all(reader)
    reader = reader.fit(learn.networks)
    most = block_size(reader.num_params)
    seen = Drawn(learn.networks, reader.learned(generator), most, workers)
    checked = Drawn(held_out.networks, lambda chosen: reader.views(chosen)[0], most, workers)
    if not module.has_gradients:
        targets = target.standardize(learn.y), target.standardize(held_out.y)
        return reader, _fit_at_once(reader, seen, checked, targets, training, seed)
    is_kept = not learn.networks.are_stored or module.compact
    learned: FeatureSet = _kept(seen) if is_kept and not reader.treatment.is_random else seen
    validated: FeatureSet = _kept(checked) if is_kept else checked
    with torch.no_grad():
        module.calibrate(learned.pieces(most))
    labeled, validation = (
        Labeled(features.to(device), y.float().to(device))
        for features, y in ((learned, learn.y), (validated, held_out.y))
    )
    at_once = evaluation_batch(reader.num_params)
    module.to(device)
    return reader, train_module(module, target, labeled, validation, training, progress, at_once)


def _fit_at_once(
    reader: Reader,
    seen: Drawn,
    checked: Drawn,
    targets: tuple[Tensor, Tensor],
    training: Training,
    seed: int,
) -> History:
    """Fit a metanet without passes: random treatments give it several copies, side by side."""
    copies = reader.treatment.copies
    held_out = _kept(checked).features
    views = [_kept(seen, reader.treatment.is_random).features for _ in range(copies)]
    learned = Kept(concatenate(views))
    with torch.no_grad():
        reader.module.calibrate(learned.pieces(len(learned)))
    y, y_held_out = targets
    return reader.module.fit(
        (learned.features, y.repeat(copies)), (held_out, y_held_out), training, seed
    )


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
    most = max(1, block_size(reader.num_params) // at_once) * at_once
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
    """Features of all networks at once; networks in memory are not copied.

    Random treatments draw block by block, so that they draw the same for networks on disk.
    """
    whole = None if is_random else drawn.networks.whole
    return drawn.kept() if whole is None else Kept(drawn.compute(whole))
