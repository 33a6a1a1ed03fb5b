"""Training of one metanet on one split by gradient descent.

Everything is on the device, and deterministic under a seed.
"""

import copy
import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from tqdm import tqdm

from metanet.contract import History, Training
from metanet.inputs.batches import FeatureSet
from metanet.inputs.targets import Target

EVALUATION_BATCH = 512
EVALUATION_ENTRIES = 2**26
WARMUP = 0.1


class Labeled(NamedTuple):
    """Features of N networks, and their targets ``[N]``, on the training device."""

    features: FeatureSet
    y: Float[Tensor, "N"]


def train_module(
    module: nn.Module,
    target: Target,
    train: Labeled,
    validation: Labeled,
    training: Training,
    progress: bool = False,
    at_once: int = EVALUATION_BATCH,
) -> History:
    """Train a metanet in place and leave it with the weights of its best validation loss.

    AdamW; the learning rate rises over the first tenth of the steps and falls to zero along a
    cosine. Draws from torch's global generator (batches, dropout): call it inside
    `metanet.contract.seeded`.

    Args:
        module: Untrained, calibrated metanet.
        target: Turns raw outputs and targets into a loss.
        train: Networks to learn from.
        validation: Networks to choose the best pass by, and when to stop.
        training: Settings.
        progress: Show a bar on stderr.
        at_once: Validation networks in a batch.

    Returns:
        Validation loss after each pass.
    """
    num_batches = max(1, math.ceil(len(train.y) / training.batch_size))
    optimizer, schedule = _optimizer(module, training, training.epochs * num_batches)
    best, best_state = 0, copy.deepcopy(module.state_dict())
    losses: list[float] = []
    epochs = range(training.epochs)
    for epoch in tqdm(epochs, desc="train", unit="epoch", disable=not progress, leave=False):
        _train_epoch(module, target, train, num_batches, optimizer, schedule, training.precision)
        raw = evaluate(module, validation.features, at_once)
        losses.append(float(target.loss(raw, validation.y)))
        best = _argmin(losses)
        if best == epoch and math.isfinite(losses[-1]):
            best_state = copy.deepcopy(module.state_dict())
        if epoch - best >= training.patience:
            break
    module.load_state_dict(best_state)
    module.eval()
    return History(losses, best)


def _train_epoch(
    module: nn.Module,
    target: Target,
    train: Labeled,
    num_batches: int,
    optimizer: torch.optim.Optimizer,
    schedule: LambdaLR,
    precision: str,
) -> None:
    module.train()
    low = torch.autocast(train.y.device.type, torch.bfloat16, enabled=precision == "bfloat16")
    order = torch.randperm(len(train.y)).to(train.y.device)
    parts = order.tensor_split(num_batches)
    for batch, features in zip(parts, train.features.batches(parts), strict=True):
        optimizer.zero_grad()
        with low:
            raw = module(features)
        loss = target.loss(raw.float(), train.y[batch])
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        schedule.step()


@torch.no_grad()
def evaluate(
    module: nn.Module, features: FeatureSet, at_once: int = EVALUATION_BATCH
) -> Float[Tensor, "N"]:
    """Raw outputs of a metanet, in evaluation mode and in batches.

    Args:
        module: A metanet.
        features: Features of N networks, on the device of the module.
        at_once: Networks in a batch.

    Returns:
        Raw outputs.
    """
    module.eval()
    return torch.cat([module(batch) for batch in features.pieces(at_once)])


def evaluation_batch(num_params: int) -> int:
    """Networks that are predicted at once, fewer if they are large.

    Args:
        num_params: Scalars of one network.

    Returns:
        At least one.
    """
    return max(1, min(EVALUATION_BATCH, EVALUATION_ENTRIES // num_params))


def _optimizer(
    module: nn.Module, training: Training, num_steps: int
) -> tuple[torch.optim.Optimizer, LambdaLR]:
    optimizer = torch.optim.AdamW(_decay_groups(module, training.weight_decay), lr=training.lr)
    return optimizer, LambdaLR(optimizer, lambda step: _rate(step, num_steps))


def _decay_groups(module: nn.Module, weight_decay: float) -> list[dict]:
    """Biases and norms do not decay."""
    matrices, vectors = [], []
    for weight in module.parameters():
        if weight.requires_grad:
            (matrices if weight.dim() > 1 else vectors).append(weight)
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]


def _rate(step: int, steps: int) -> float:
    warmup = max(1, int(WARMUP * steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def _argmin(values: list[float]) -> int:
    """Index of the smallest value, NaN never the smallest."""
    return min(range(len(values)), key=lambda index: (math.isnan(values[index]), values[index]))
