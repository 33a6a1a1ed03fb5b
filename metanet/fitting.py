"""One fit and one prediction of a metanet, wherever its networks are: in memory or on disk."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metanet.contract import Features, Training, concatenate, device_of, needs_all, to_device
from metanet.history import History
from metanet.inputs.batches import Drawn, InMemory, NetworkSet, as_set, block_size, in_pieces
from metanet.inputs.dataset import Examples
from metanet.inputs.normalize import calibrate
from metanet.inputs.reader import Reader
from metanet.inputs.targets import Target
from metanet.inputs.treatments import Treatment
from metanet.mixed import Joined, JoinedSets, MixedReader
from metanet.train import Labeled, evaluate, evaluation_batch, train_module
from zoo.store.streaming import StoredParams


def fit_module(
    reader: Reader | MixedReader,
    learn: Examples | Joined,
    check: Examples | Joined,
    target: Target,
    training: Training,
    *,
    seed: int,
    device: torch.device,
    workers: int,
    progress: bool,
) -> tuple[Any, History]:
    """Fit the treatment, then the metanet of a reader, in place.

    Args:
        reader: How networks are read; treatment not fitted, metanet not trained.
        learn: Networks to learn from.
        check: Networks to choose the best pass by.
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
    sets = [
        part.networks if isinstance(part, Joined) else as_set(part.networks)
        for part in (learn, check)
    ]
    on_disk = any(_is_on_disk(own) for own in sets)
    if on_disk:
        _refuse_what_needs_all(module, reader.treatment)
    reader = reader.fit(sets[0])  # type: ignore[arg-type]
    most = block_size(reader.num_params)
    drawn = Drawn(sets[0], reader.learned(generator), most, workers)
    checked = Drawn(sets[1], lambda networks: reader.views(networks)[0], most, workers)
    is_kept = not on_disk or getattr(module, "compact", False)
    held_out = _kept(checked) if is_kept else checked
    if hasattr(module, "fit"):
        copies = reader.treatment.copies if reader.treatment.is_random else 1
        features = concatenate([_kept(drawn, reader.treatment.is_random) for _ in range(copies)])
        calibrate(module, [features])
        linked = [target.standardize(part.y) for part in (learn, check)]
        return reader, module.fit(
            (features, linked[0].repeat(copies)), (held_out, linked[1]), training, seed
        )  # type: ignore[operator]
    learned = _kept(drawn) if is_kept and not reader.treatment.is_random else drawn
    calibrate(module, _pieces(module, learned, most))
    parts = [(learned, learn.y), (held_out, check.y)]
    labeled = [Labeled(_moved(features, device), y.float().to(device)) for features, y in parts]
    at_once = evaluation_batch(reader.num_params)
    return reader, train_module(
        module.to(device), target, labeled[0], labeled[1], training, progress, at_once
    )


def predict_raw(reader: Reader, networks: NetworkSet, workers: int) -> Float[Tensor, "N"]:
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
    found = []
    for block in networks.stream(torch.arange(len(networks)).split(most), workers):
        raw = [
            evaluate(reader.module, to_device(view, device), at_once).double()
            for view in reader.views(block)
        ]
        found.append(torch.stack(raw).mean(0))
    return torch.cat(found)


def _is_on_disk(networks: NetworkSet) -> bool:
    parts = networks.parts if isinstance(networks, JoinedSets) else (networks,)
    return any(isinstance(part, StoredParams) for part in parts)


def _refuse_what_needs_all(module: nn.Module, treatment: Treatment) -> None:
    """Networks on disk are seen some at a time."""
    if why := needs_all(module):
        raise ValueError(
            f"stream: {type(module).__name__} cannot learn from networks on disk: {why}"
        )
    if treatment.num_fit is None:
        learning = [
            step
            for step in treatment.steps
            if hasattr(step, "fit") and not hasattr(step, "num_fit")
        ]
        raise ValueError(
            f"stream: treatment {type(learning[0]).__name__.lower()!r} learns from all training networks at once, which stay "
            "on disk; give it a property `num_fit`, the number of networks that are enough"
        )


def _kept(drawn: Drawn, is_random: bool = False) -> Features:
    """Features of all networks at once; networks in memory are not copied."""
    if is_random or not isinstance(drawn.networks, InMemory):
        return drawn.kept()
    return drawn.compute(drawn.networks.networks)


def _pieces(module: nn.Module, features: Features | Drawn, most: int) -> Iterable[Features]:
    """Features some networks at a time, all at once if the metanet needs them so."""
    if isinstance(features, Drawn):
        return features.all()
    return in_pieces(features, most) if hasattr(module, "summarize") else [features]


def _moved(features: Features | Drawn, device: torch.device) -> Features | Drawn:
    return (
        replace(features, device=device)
        if isinstance(features, Drawn)
        else to_device(features, device)
    )
