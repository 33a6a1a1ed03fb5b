"""Variational inference of many networks in lock step.

One step of Adam for all, each with its own start, order and noise.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor
from torch.func import grad, vmap

from data_gen.config import PopulationConfig
from data_gen.rng import fold, generator, key
from data_gen.tasks.data import Task
from data_gen.tasks.task import TaskConfig, load_task
from data_gen.training.order import shuffled
from studies.bayesian.calibration import brier_score, calibration_error
from studies.bayesian.local_reparametrization import is_mlp, output_noise_size, sample_outputs
from studies.bayesian.networks import build
from studies.bayesian.posterior import (
    Posterior,
    initial_posterior,
    kl_divergence,
    sample_weights,
    support_of,
    weight_noise_size,
)
from zoo.architectures.base import Architecture
from zoo.params import Params, unflatten

HELPERS = (
    "studies.bayesian.local_reparametrization",
    "studies.bayesian.calibration",
    "studies.bayesian.networks",
    "studies.bayesian.posterior",
)
_IMAGES_AT_ONCE = 512


@dataclass(frozen=True)
class InferenceCell:
    """Networks to train in lock step; one cell of the study.

    Attributes:
        architecture: What the study calls the architecture.
        asymmetry: What the study calls the asymmetry.
        task: What they are trained on.
        population: Architecture and asymmetry.
        rank: Columns of the low-rank part, 0 for a diagonal posterior.
        init_scale: Factor of the initial weights.
        prior_std: Standard deviation of the prior.
        initial_std: Standard deviation of the posterior before training.
        lr: Learning rate of Adam.
        batch_size: Images in a batch.
        epochs: Passes over the training images.
        records: Number of evaluations after the start.
        seeds: Which networks: seeds of start, data order and noise. Equal ones share them across
            populations.
        samples: Draws of the posterior that predictions are averaged over.
        train_images: Training images of the evaluation, all if None.
    """

    architecture: str
    asymmetry: str
    task: TaskConfig
    population: PopulationConfig
    rank: int
    init_scale: float
    prior_std: float
    initial_std: float
    lr: float
    batch_size: int
    epochs: int
    records: int
    seeds: tuple[int, ...]
    samples: int
    train_images: int | None

    @property
    def name(self) -> str:
        """Architecture, asymmetry, scale of the initialization, rank."""
        kind = f"architecture {self.architecture!r}, asymmetry {self.asymmetry!r}"
        return f"{kind}, init scale {self.init_scale:g}, rank {self.rank}"


def measure(cell: InferenceCell) -> pd.DataFrame:
    """Train the networks of a cell and evaluate them along the way.

    Args:
        cell: What to train.

    Returns:
        A row for each record and seed.
    """
    task = load_task(cell.task)
    architecture = build(cell.population, task)
    rows = []
    for epoch, posterior in infer(cell, architecture, task):
        scores = evaluate(cell, architecture, task, posterior, epoch)
        columns = {name: value.cpu() for name, value in scores.items()}
        rows.append(pd.DataFrame({"seed": cell.seeds, "epoch": epoch, **columns}))
    return pd.concat(rows, ignore_index=True).assign(
        architecture=cell.architecture,
        asymmetry=cell.asymmetry,
        rank=cell.rank,
        init_scale=cell.init_scale,
        num_free=architecture.num_free,
        part="variational",
    )


def infer(
    cell: InferenceCell, architecture: Architecture, task: Task
) -> Iterator[tuple[int, Posterior]]:
    """Maximize the ELBO, with Adam, by batches.

    Minimize mean cross-entropy + KL / number of training images.

    An `mlp` samples pre-activations, each image its own
    (`studies.bayesian.local_reparametrization`); any other architecture draws its weights once a
    batch. A network whose numbers overflow stays at nan and does not touch the others.

    Args:
        cell: What to train.
        architecture: The architecture; its constants give the dtype if there are any, else the task
            does.
        task: The task.

    Yields:
        Epoch and the posteriors of all seeds, every tensor `[S, ...]`, changed in place by going
        on.
    """
    train, dtype = task.train, task.mean.dtype
    num_images = len(train.y)
    posterior = _start(cell, architecture, dtype)
    optimizer = torch.optim.Adam(posterior, lr=cell.lr)
    random = [generator(seed, "noise") for seed in cell.seeds]
    loss, noise_shape = _loss(cell, architecture, num_images)
    gradients = vmap(grad(loss))
    yield 0, posterior
    step = 0
    for epoch, end in _records(cell, num_images):
        while step < end:
            index = batches(cell, step, num_images)
            noise = _draw(random, noise_shape, dtype)
            x = task.inputs(train.x[index.flatten()]).unflatten(0, index.shape)
            slopes = gradients(posterior, x, train.y[index], noise)
            for tensor, slope in zip(posterior, slopes, strict=True):
                tensor.grad = slope
            optimizer.step()
            step += 1
        yield epoch, posterior


def _records(cell: InferenceCell, num_images: int) -> Iterator[tuple[int, int]]:
    """Epoch of each record after the start, and the number of steps until then."""
    for record in range(1, cell.records + 1):
        epoch = round(record * cell.epochs / cell.records)
        yield epoch, max(1, round(epoch * num_images / cell.batch_size))


def _start(cell: InferenceCell, architecture: Architecture, dtype: torch.dtype) -> Posterior:
    """The posteriors of all seeds before training."""
    shape = {"rank": cell.rank, "std": cell.initial_std, "init_scale": cell.init_scale}
    starts = [
        initial_posterior(architecture, generator(seed, "init"), **shape) for seed in cell.seeds
    ]
    return Posterior(*(torch.stack(parts).to(dtype) for parts in zip(*starts, strict=True)))


def _loss(
    cell: InferenceCell, architecture: Architecture, num_images: int
) -> tuple[Callable[..., Tensor], tuple[int, ...]]:
    """Negative ELBO an image of one network, and the shape of the noise that it uses up."""
    support = support_of(architecture)
    logits: Callable[..., Tensor] = partial(sample_outputs, architecture)
    shape = cell.batch_size, output_noise_size(architecture, cell.rank)
    if not is_mlp(architecture):
        shape = (weight_noise_size(support, cell.rank),)
        logits = lambda posterior, x, noise: architecture.apply(  # noqa: E731
            sample_weights(support, posterior, noise), x
        )

    def loss(posterior: Posterior, x: Tensor, y: Tensor, noise: Tensor) -> Tensor:
        misfit = F.cross_entropy(logits(posterior, x, noise), y)
        return misfit + kl_divergence(support, posterior, cell.prior_std) / num_images

    return loss, shape


def _draw(random: Sequence[torch.Generator], shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Standard normal noise of each network from its generator, `[S, *shape]`."""
    return torch.stack([torch.randn(shape, generator=source, dtype=dtype) for source in random])


def batches(cell: InferenceCell, step: int, num_images: int) -> Int64[Tensor, "S B"]:
    """Training images of each seed's next batch, from endless shuffled passes.

    Args:
        cell: Seeds and size of a batch.
        step: Number of the step, from 0.
        num_images: Training images.

    Returns:
        Rows of the training part.
    """
    keys = fold(key(0, "order"), torch.tensor(cell.seeds))
    position = torch.arange(step * cell.batch_size, (step + 1) * cell.batch_size)
    return shuffled(keys, position.expand(len(keys), -1), torch.full_like(keys, num_images))


def evaluate(
    cell: InferenceCell, architecture: Architecture, task: Task, posterior: Posterior, epoch: int
) -> dict[str, Float[Tensor, " S"]]:
    """Evaluate posteriors by drawing weights, whatever they were trained with.

    Args:
        cell: Number of draws, and seeds.
        architecture: The architecture.
        task: The task.
        posterior: Of all seeds, tensors `[S, ...]`.
        epoch: For the noise, which depends on seed and epoch only.

    Returns:
        `train_loss` (expectation under the posterior), `kl` and `elbo`, the last two for each
        training image; `test_loss`, `test_accuracy`, `ece`, `brier` of probabilities averaged over
        draws; `mean_test_loss` and `mean_test_accuracy` of the network at the posterior's mean.
        Losses in nats.
    """
    support, test = support_of(architecture), task.test.y
    with torch.no_grad():
        train_loss, average = _predict(cell, architecture, task, posterior, epoch)
        params = unflatten(support.space, posterior.mean)
        mean = _log_probabilities(architecture, task, params, task.test.x)
        kl = vmap(partial(kl_divergence, support, prior_std=cell.prior_std))(posterior)
    kl = kl / len(task.train.y)
    return {
        "train_loss": train_loss,
        "kl": kl,
        "elbo": -train_loss - kl,
        "test_loss": _cross_entropy(average.clamp_min(torch.finfo(kl.dtype).tiny).log(), test),
        "test_accuracy": _accuracy(average, test),
        "ece": calibration_error(average, test),
        "brier": brier_score(average, test),
        "mean_test_loss": _cross_entropy(mean, test),
        "mean_test_accuracy": _accuracy(mean, test),
    }


def _predict(
    cell: InferenceCell, architecture: Architecture, task: Task, posterior: Posterior, epoch: int
) -> tuple[Tensor, Tensor]:
    """Training loss `[S]` and test probabilities `[S, X, K]`, mean over draws of the posterior."""
    x, y = task.train.x[: cell.train_images], task.train.y[: cell.train_images]
    random = [generator(seed, "evaluation", epoch) for seed in cell.seeds]
    support, dtype = support_of(architecture), task.mean.dtype
    shape = (weight_noise_size(support, cell.rank),)
    log_probabilities = partial(_log_probabilities, architecture, task)
    train_loss, average = torch.zeros(len(random), dtype=dtype), torch.zeros((), dtype=dtype)
    for _ in range(cell.samples):
        params = vmap(partial(sample_weights, support))(posterior, _draw(random, shape, dtype))
        train_loss += _cross_entropy(log_probabilities(params, x), y) / cell.samples
        average = average + log_probabilities(params, task.test.x).exp() / cell.samples
    return train_loss, average


def _log_probabilities(architecture: Architecture, task: Task, params: Params, x: Tensor) -> Tensor:
    """`[S, X, K]`."""
    apply = vmap(architecture.apply, in_dims=(0, None))
    parts = [
        F.log_softmax(apply(params, task.inputs(part)), dim=-1) for part in x.split(_IMAGES_AT_ONCE)
    ]
    return torch.cat(parts, dim=1)


def _cross_entropy(log_probabilities: Tensor, labels: Tensor) -> Tensor:
    index = labels.expand(len(log_probabilities), -1)[..., None]
    return -log_probabilities.gather(-1, index)[..., 0].mean(-1)


def _accuracy(scores: Tensor, labels: Tensor) -> Tensor:
    return (scores.argmax(-1) == labels).to(scores.dtype).mean(-1)
