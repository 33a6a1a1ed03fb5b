"""Constructor arguments of a metanet, as scikit-learn asks: stored as they are, not checked."""

from dataclasses import replace
from typing import Annotated, Any, Literal, no_type_check

from pydantic import Field
from sklearn.base import BaseEstimator

from metanet.contract import MetanetModule, Precision, Training
from metanet.inputs.treatments import NONE, TreatmentSpec, parse_treatment
from metanet.models.table import checked_builder
from zoo.options import Count, NotNegative, Positive, Seed, check_options, plain

Workers = Annotated[int, Field(ge=0, le=1024)]
Stream = Literal[True, False, "auto"]

SETTINGS = ("epochs", "batch_size", "lr", "weight_decay", "patience", "precision")
"""Arguments that replace those of the recommended training."""


class Arguments(BaseEstimator):
    """Arguments of a metanet and of how it learns; `check` refuses those that are not valid."""

    @no_type_check  # anything is stored; `check` reads the annotations
    def __init__(
        self,
        /,
        model: str = "statnn",
        *,
        target: str = "test_accuracy",
        treatment: TreatmentSpec = NONE,
        seed: Seed = 0,
        epochs: Count | None = None,
        batch_size: Count | None = None,
        lr: Positive | None = None,
        weight_decay: NotNegative | None = None,
        patience: Count | None = None,
        precision: Precision | None = None,
        device: str = "cpu",
        stream: Stream = "auto",
        workers: Workers = 1,
        verbose: bool = False,
        **options: Any,
    ):
        """Choose a metanet; None means its own recommended setting (`metanet.contract.Training`).

        Args:
            model: A name in `METANETS`.
            target: Numeric column of a population's table.
            treatment: What is done about symmetry, see `metanet.inputs.treatments`: `"none"`, names
                such as `"align+augment"`, or a mapping from names to options.
            seed: Of initialization, batches, dropout and augmentation.
            epochs: Most passes over the training networks (trees: most trees).
            batch_size: Networks per step; if None, smaller than recommended where there are fewer
                than 16 batches.
            lr: Peak learning rate (trees: shrinkage).
            weight_decay: Decoupled weight decay (trees: L2 penalty).
            patience: Passes without improvement before training stops.
            precision: Of the products of training steps, `"float32"` or `"bfloat16"`; predictions
                are in float32 in any case.
            device: `"cpu"`, `"cuda"`, ..., or `"auto"` for a GPU where there is one.
            stream: Whether params stay on disk and are read batch by batch, in training and at
                prediction; the result is the same. `"auto"`: where they would take more than a
                third of the memory that is free.
            workers: Threads that read ahead while they do.
            verbose: Show progress on stderr.
            **options: Options of that metanet, such as `width`; `preset` for a named set of them.
        """
        self.model = model
        self.target = target
        self.treatment = treatment
        self.seed = seed
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.patience = patience
        self.precision = precision
        self.device = device
        self.stream = stream
        self.workers = workers
        self.verbose = verbose
        self.options = options

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """All constructor arguments, options of the metanet included."""
        return {**super().get_params(deep), **self.options}

    def set_params(self, **params: Any) -> "Arguments":
        """Change constructor arguments; unknown names are taken as options of the metanet."""
        arguments = super().get_params()
        options = {name: value for name, value in params.items() if name not in arguments}
        super().set_params(**{name: params[name] for name in params.keys() - options.keys()})
        self.options = {**self.options, **options}
        return self

    def check(self) -> None:
        """Refuse arguments that are not valid; `fit` does it first.

        Raises:
            ValueError: If one is unknown, of another type or out of range.
        """
        arguments = {name: plain(value) for name, value in super().get_params().items()}
        check_options("Metanet", Arguments, arguments)
        checked_builder(self.model, self.options)
        parse_treatment(self.treatment)

    def training(self, module: MetanetModule, num_train: int) -> Training:
        """Recommended settings of training, but for those that were given.

        Args:
            module: The metanet.
            num_train: Training networks.

        Returns:
            The settings.

        Raises:
            ValueError: If the metanet has no training steps, and a precision of theirs was given.
        """
        recommended = module.recommended
        if not module.has_gradients and self.precision not in (None, recommended.precision):
            raise ValueError(
                f"precision: metanet {self.model!r} has no training steps; "
                f"expected None, got {self.precision!r}"
            )
        # Small training sets still get about 16 steps a pass.
        batch_size = min(recommended.batch_size, max(8, num_train // 16))
        arguments = {name: plain(vars(self)[name]) for name in SETTINGS}
        given = {name: value for name, value in arguments.items() if value is not None}
        return replace(recommended, **{"batch_size": batch_size, **given})
