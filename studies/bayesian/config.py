"""What a study of Bayesian networks is asked to do: pydantic models over YAML."""

from typing import Annotated

from pydantic import Field, field_validator, model_validator

from data_gen.config import ArchitectureOptions, AsymmetryOptions
from data_gen.tasks.task import TaskConfig, known_kind
from studies.common.base import PlainConfig
from zoo.config import NonNegativeWhole, PositiveNumber, PositiveWhole, StrictModel, Whole

Kinds = Annotated[dict[str, AsymmetryOptions | None], Field(min_length=1)]


class Chains(StrictModel):
    """Hamiltonian Monte Carlo on a small mlp that tells two moons apart.

    Attributes:
        hidden: Widths of the hidden layers.
        activation: Name of the non-linearity of the networks that are not sigma-asymmetric.
        asymmetries: `kind` and options by name, none for the standard network.
        points: Training points.
        test_points: Points at which chains are compared in function space.
        noise: Standard deviation of the noise on the moons, whose radius is 1.
        prior_std: Standard deviation of the Gaussian prior of every free entry; chains start at
            draws of the prior.
        chains: Number of chains.
        warmup: First draws of a chain, which are dropped.
        draws: Draws that are kept of each chain.
        leapfrog: Leapfrog steps of a proposal.
        step_size: Size of a leapfrog step; each proposal has one of its own, uniform within 20% of
            this.
    """

    hidden: Annotated[tuple[PositiveWhole, ...], Field(min_length=1)] = (8, 8)
    activation: str = "silu"
    asymmetries: Kinds
    points: PositiveWhole = 200
    test_points: PositiveWhole = 100
    noise: PositiveNumber = 0.25
    prior_std: PositiveNumber = 1.0
    chains: Annotated[Whole, Field(ge=2)] = 8
    warmup: NonNegativeWhole = 500
    draws: Annotated[Whole, Field(ge=4)] = 1000
    leapfrog: PositiveWhole = 30
    step_size: PositiveNumber = 0.03


class Bayesian(PlainConfig):
    """What to measure.

    Attributes:
        task: What the networks of the variational part are trained on.
        architectures: `name` and options of architectures, by a name of your own.
        asymmetries: `kind` and options by name, none for the standard network.
        ranks: Columns of the low-rank part of the posterior's covariance, 0 for a diagonal one.
        init_scales: Factors of the initial weights, as the hyperparameter `init_scale` of a job.
        prior_std: Standard deviation of the Gaussian prior of every free entry.
        initial_std: Standard deviation of the posterior before training.
        lr: Learning rate of Adam.
        batch_size: Images in a batch.
        epochs: Passes over the training images.
        records: Number of times, evenly spaced and with the end, at which networks are evaluated;
            at the start too.
        seeds: Number of networks in lock step: seeds 0, 1, ....
        samples: Draws of the posterior that predictions are averaged over.
        train_images: Training images, the first ones, that training loss and ELBO are computed on;
            all if none.
        chains: The Markov chains; nothing is sampled without.
        num_bootstrap: Resamples of an interval.
    """

    task: TaskConfig
    architectures: Annotated[dict[str, ArchitectureOptions], Field(min_length=1)]
    asymmetries: Kinds
    ranks: Annotated[tuple[NonNegativeWhole, ...], Field(min_length=1)] = (4,)
    init_scales: Annotated[tuple[PositiveNumber, ...], Field(min_length=1)] = (1.0,)
    prior_std: PositiveNumber = 1.0
    initial_std: PositiveNumber = 0.01
    lr: PositiveNumber = 1e-3
    batch_size: PositiveWhole = 64
    epochs: PositiveWhole = 50
    records: PositiveWhole = 10
    seeds: PositiveWhole = 10
    samples: PositiveWhole = 10
    train_images: PositiveWhole | None = None
    chains: Chains | None = None
    num_bootstrap: PositiveWhole = 1000

    @field_validator("task")
    @classmethod
    def _of_classes(cls, task: TaskConfig) -> TaskConfig:
        plain = {"name": "cross_entropy"}
        if known_kind(task) != "classification" or (task.loss or plain) != plain:
            raise ValueError("expected a task of classes with the loss cross_entropy")
        return task

    @model_validator(mode="after")
    def _records_fit(self) -> "Bayesian":
        if self.records > self.epochs:
            raise ValueError(
                f"records: expected at most epochs ({self.epochs}), found {self.records}"
            )
        return self
