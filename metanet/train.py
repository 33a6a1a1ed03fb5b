"""Training of one metanet on one split by gradient descent, everything on the device, deterministic under a seed."""

import copy
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm

from metanet.contract import Features, Training, count_rows, rows
from metanet.history import History
from metanet.targets import Target

EVALUATION_BATCH = 512
WARMUP = 0.1


class Labeled(NamedTuple):
    """Features of N networks and their targets ``[N]``, on the training device."""

    features: Features
    y: Float[Tensor, "N"]


def train(
    module: nn.Module,
    target: Target,
    train: Labeled,
    validation: Labeled,
    training: Training,
    redraw: Callable[[], Features] | None = None,
    progress: bool = False,
) -> History:
    """Train a metanet in place and leave it with the weights of its best validation loss.

    AdamW; the learning rate rises over the first tenth of the steps and falls to zero along a cosine. Draws from torch's global
    generator (batches, dropout): call it inside `metanet.contract.seeded`.

    Args:
        module: Untrained, calibrated metanet.
        target: Turns raw outputs and targets into a loss.
        train: Networks to learn from.
        validation: Networks to choose the best pass by, and when to stop.
        training: Settings.
        redraw: Gives the features of the training networks for each pass after the first, the same in all if None.
        progress: Show a bar on stderr.

    Returns:
        Validation loss after each pass.
    """
    optimizer = torch.optim.AdamW(_decay_groups(module, training.weight_decay), lr=training.lr)
    num_batches = max(1, math.ceil(len(train.y) / training.batch_size))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, training.epochs * num_batches))
    best, best_state, losses = math.inf, copy.deepcopy(module.state_dict()), []
    for epoch in tqdm(range(training.epochs), desc="train", unit="epoch", disable=not progress, leave=False):
        if redraw is not None and epoch:
            train = train._replace(features=redraw())
        _train_epoch(module, target, train, num_batches, optimizer, schedule, training.precision)
        losses.append(float(target.loss(evaluate(module, validation.features), validation.y)))
        if losses[-1] < best:
            best, best_state = losses[-1], copy.deepcopy(module.state_dict())
        if epoch - _argmin(losses) >= training.patience:
            break
    module.load_state_dict(best_state)
    module.eval()
    return History(losses, _argmin(losses))


def _train_epoch(
    module: nn.Module,
    target: Target,
    train: Labeled,
    num_batches: int,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LambdaLR,
    precision: str,
) -> None:
    module.train()
    low = torch.autocast(train.y.device.type, torch.bfloat16, enabled=precision == "bfloat16")
    order = torch.randperm(len(train.y)).to(train.y.device)
    for batch in order.tensor_split(num_batches):
        optimizer.zero_grad()
        with low:
            raw = module(rows(train.features, batch))
        loss = target.loss(raw.float(), train.y[batch])
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        schedule.step()


@torch.no_grad()
def evaluate(module: nn.Module, features: Features) -> Float[Tensor, "N"]:
    """Raw outputs of a metanet, in evaluation mode and in batches.

    Args:
        module: A metanet.
        features: Features of N networks, on the device of the module.

    Returns:
        Raw outputs.
    """
    module.eval()
    batches = [slice(start, start + EVALUATION_BATCH) for start in range(0, count_rows(features), EVALUATION_BATCH)]
    return torch.cat([module(rows(features, batch)) for batch in batches])


def _decay_groups(module: nn.Module, weight_decay: float) -> list[dict]:
    trained = [weight for weight in module.parameters() if weight.requires_grad]
    return [
        {"params": [weight for weight in trained if weight.dim() > 1], "weight_decay": weight_decay},
        {"params": [weight for weight in trained if weight.dim() <= 1], "weight_decay": 0.0},
    ]


def _rate(step: int, steps: int) -> float:
    warmup = max(1, int(WARMUP * steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def _argmin(values: list[float]) -> int:
    """Index of the smallest value, NaN never the smallest."""
    return min(range(len(values)), key=lambda index: (math.isnan(values[index]), values[index]))
