"""`Metanet`: every metanet behind scikit-learn's conventions: fit, predict, score, get_params, set_params, clone."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from metanet import serialization as files
from metanet.contract import (
    PopulationLike,
    Training,
    network_of,
    reads,
    recommended_training,
    resolve_device,
    seeded,
)
from metanet.fitting import fit_module, predict_raw
from metanet.history import History
from metanet.inputs.batches import NetworkSet, as_set
from metanet.inputs.checks import check_network, check_shapes, check_spec
from metanet.inputs.dataset import check_loading, read_examples, read_networks, streams
from metanet.inputs.reader import Reader, spec_of
from metanet.inputs.targets import Target, fit_target
from metanet.inputs.treatments import NONE, TreatmentSpec, parse_treatment
from metanet.metrics import Estimate, bootstrap, r2
from metanet.mixed import MixedReader, join
from metanet.models.table import METANETS, build, build_mixed, check_options


class Metanet(BaseEstimator):
    """A metanet: predicts a property of networks from their weights (or, `hparams`, from their hyperparameters).

    Attributes:
        module_: Fitted torch module.
        reader_: What it reads, and how: spec (weight space, masks, hyperparameter columns) and
            treatment.
        target_: Units of its predictions.
        training_: Training settings that were used.
        history_: Validation loss along training.
        population_: Name of the population it was fitted on; names of several.
        num_train_: Training networks used, after dropping.
        num_validation_: Validation networks used, after dropping.
        num_dropped_: Diverged training and validation networks without a finite target.

    >>> Metanet("mlp", width=32).get_params()["width"]
    32
    """

    def __init__(
        self,
        model: str = "statnn",
        *,
        target: str = "test_accuracy",
        treatment: TreatmentSpec = NONE,
        seed: int = 0,
        epochs: int | None = None,
        batch_size: int | None = None,
        lr: float | None = None,
        weight_decay: float | None = None,
        patience: int | None = None,
        precision: str | None = None,
        device: str = "cpu",
        stream: bool | str = "auto",
        workers: int = 1,
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
        self.options = dict(options)
        check_options(model, self.options)
        parse_treatment(treatment)
        check_loading(stream, workers)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """All constructor arguments, options of the metanet included."""
        return {**super().get_params(deep), **self.options}

    def set_params(self, **params: Any) -> "Metanet":
        """Change constructor arguments; unknown names are taken as options and checked against the metanet."""
        own = set(super().get_params())
        options = {
            **self.options,
            **{name: value for name, value in params.items() if name not in own},
        }
        check_options(params.get("model", self.model), options)
        parse_treatment(params.get("treatment", self.treatment))
        check_loading(params.get("stream", self.stream), params.get("workers", self.workers))
        for name, value in params.items():
            if name in own:
                setattr(self, name, value)
        self.options = options
        return self

    def fit(
        self,
        population: PopulationLike | Sequence[PopulationLike],
        num_train: int | None = None,
        num_validation: int | None = None,
    ) -> "Metanet":
        """Learn from the train split; choose the best pass, and when to stop, by the validation split.

        Args:
            population: A population of a zoo; or several, of any weight spaces, for a metanet that
                reads several.
            num_train: Use the first `num_train` networks of the split by network id, all if None:
                subsets are nested, and the same networks in every population of a zoo. Of several
                populations, that many of each.
            num_validation: Likewise for the validation split.

        Returns:
            Itself, fitted.

        Raises:
            ValueError: If the model, an option, the target or a number of networks is not valid.
        """
        device = resolve_device(self.device)
        mixed = isinstance(population, Sequence)
        populations = list(population) if mixed else [population]
        specs = [spec_of(own, network_of(METANETS[self.model], own)) for own in populations]
        with seeded(self.seed, device):
            module = (
                build_mixed(self.model, specs, self.options)
                if mixed
                else build(self.model, specs[0], self.options)
            )
            kind = reads(module)
            kept = streams(self.stream, populations, ("train", "validation"), kind)
            learn = [
                read_examples(own, "train", self.target, kind, num_train, kept)
                for own in populations
            ]
            check = [
                read_examples(own, "validation", self.target, kind, num_validation, kept)
                for own in populations
            ]
            training_part, validation_part = (
                (join(learn), join(check)) if mixed else (learn[0], check[0])
            )
            name = ", ".join(own.name for own in populations)
            if len(training_part) < 2:
                raise ValueError(
                    f"population {name!r}: expected 2 or more training networks, got {len(training_part)}"
                )
            self.target_ = fit_target(self.target, training_part.y, trees=hasattr(module, "fit"))
            self.training_ = self._training(module, len(training_part))
            readers = tuple(Reader(spec, module, parse_treatment(self.treatment)) for spec in specs)
            reader = MixedReader(readers) if mixed else readers[0]
            self.reader_, self.history_ = fit_module(
                reader,
                training_part,
                validation_part,
                self.target_,
                self.training_,
                seed=self.seed,
                device=device,
                workers=self.workers,
                progress=self.verbose,
            )
        self.module_, self.population_ = module, name
        self.num_train_, self.num_validation_ = len(training_part), len(validation_part)
        self.num_dropped_ = training_part.num_dropped + validation_part.num_dropped
        return self

    def predict(
        self, inputs: Mapping[str, Tensor] | pd.DataFrame | PopulationLike, split: str = "test"
    ) -> Float[np.ndarray, "N"]:
        """Predict the target of networks.

        Args:
            inputs: Full params ``[N, *shape]`` of a weight space that the metanet was fitted on;
                for a metanet that reads hyperparameters a table with their columns; or a
                population, of any weight space if it was fitted on several.
            split: Split of a population, in the order of its `params(split)`; ignored otherwise.

        Returns:
            Predictions ``[N]`` in the target's units, float64.

        Raises:
            ValueError: If the inputs are of another kind or weight space.
        """
        check_is_fitted(self, "module_")
        wanted = reads(self.module_)
        reader = self._reader(inputs)
        networks: Any = inputs
        if not isinstance(inputs, Mapping | pd.DataFrame):
            networks = read_networks(
                inputs, split, wanted, streams(self.stream, [inputs], [split], wanted)
            )
        if isinstance(networks, pd.DataFrame) != (wanted == "hyperparameters"):
            expected = (
                "params, a dict of tensors"
                if wanted == "params"
                else f"a table with columns {self._columns}"
            )
            raise ValueError(
                f"metanet {self.model!r} reads {wanted}: expected {expected}, got {type(networks).__name__}"
            )
        return self._predict(reader, as_set(networks))

    def score(self, population: PopulationLike, split: str = "test") -> float:
        """R^2 on a split of a population.

        Args:
            population: Of the weight space that the metanet was fitted on.
            split: Name of the split.

        Returns:
            Coefficient of determination.
        """
        return r2(*self.predict_examples(population, split))

    def evaluate(
        self, population: PopulationLike, split: str = "test", num_bootstrap: int = 1000
    ) -> dict[str, Estimate]:
        """R^2, Kendall's tau, Spearman's rho and mean absolute error, each with a 95% bootstrap interval over networks.

        Args:
            population: Of the weight space that the metanet was fitted on.
            split: Name of the split.
            num_bootstrap: Resamples of the intervals.

        Returns:
            Estimates by name: `r2`, `kendall_tau`, `spearman`, `mae`.
        """
        return bootstrap(
            *self.predict_examples(population, split), num_bootstrap=num_bootstrap, seed=self.seed
        )

    def predict_examples(
        self, population: PopulationLike, split: str = "test"
    ) -> tuple[Float[np.ndarray, "N"], Float[np.ndarray, "N"]]:
        """True and predicted targets of a split, in the order of network ids, without diverged networks that have no target.

        Args:
            population: Of the weight space that the metanet was fitted on.
            split: Name of the split.

        Returns:
            Targets and predictions.
        """
        check_is_fitted(self, "module_")
        reader = self._reader(population)
        wanted = reads(self.module_)
        kept = streams(self.stream, [population], [split], wanted)
        examples = read_examples(population, split, self.target, wanted, stream=kept)
        return examples.y.numpy(), self._predict(reader, as_set(examples.networks))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted metanet to one file, `safetensors` with a JSON record; see `metanet.serialization`."""
        check_is_fitted(self, "module_")
        files.save(self, path)

    @property
    def _columns(self) -> list[str]:
        return list(self.reader_.spec.hyperparameters)

    def _reader(self, inputs: Any) -> Reader:
        """The reader of the inputs of `predict`; refuses populations that the metanet cannot read."""
        reader = self.reader_
        if isinstance(reader, MixedReader):
            return reader.reader_of(inputs)
        if isinstance(inputs, pd.DataFrame) or reads(self.module_) != "params":
            return reader
        if isinstance(inputs, Mapping):
            check_shapes(reader.spec, dict(inputs))
            return reader
        if inputs.space != reader.spec.space and hasattr(self.module_, "transfer"):
            return reader.transfer(spec_of(inputs, None))
        what = f"population {inputs.name!r}"
        check_spec(reader.spec, inputs.space, inputs.free, what)
        check_network(reader.spec, getattr(inputs, "network", None), what)
        return reader

    def _training(self, module: nn.Module, num_train: int) -> Training:
        recommended = recommended_training(module)
        # Small training sets still get about 16 steps a pass.
        batch_size = min(recommended.batch_size, max(8, num_train // 16))
        if hasattr(module, "fit") and self.precision not in (None, recommended.precision):
            raise ValueError(
                f"precision: metanet {self.model!r} has no training steps; expected None, got {self.precision!r}"
            )
        names = ("epochs", "batch_size", "lr", "weight_decay", "patience", "precision")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        return replace(recommended, **{"batch_size": batch_size, **given})

    def _predict(self, reader: Reader, networks: NetworkSet) -> Float[np.ndarray, "N"]:
        return self.target_.predict(predict_raw(reader, networks, self.workers)).cpu().numpy()


def load(path: str | os.PathLike[str]) -> Metanet:
    """Read a fitted metanet, onto the CPU.

    Args:
        path: File that `Metanet.save` wrote.

    Returns:
        The metanet; predicts what it predicted when it was saved.

    Raises:
        ValueError: If the file is not a metanet, is of another format, or its weights do not fit
            the metanet of that name.
    """
    record, tensors = files.read(path)
    metanet = Metanet(**record["params"])
    specs, mixed = files.read_specs(record, tensors), "spaces" in record
    options = metanet.options
    module = (
        build_mixed(metanet.model, specs, options)
        if mixed
        else build(metanet.model, specs[0], options)
    )
    try:
        module.load_state_dict(
            {n.removeprefix("module."): t for n, t in tensors.items() if n.startswith("module.")}
        )
    except RuntimeError as error:
        raise ValueError(
            f"{path}: its weights do not fit metanet {metanet.model!r}: {error}"
        ) from error
    treatment = parse_treatment(metanet.treatment)
    known = files.read_treatment(tensors, len(treatment.steps))
    readers = tuple(Reader(spec, module, treatment.with_known(known)) for spec in specs)
    metanet.module_, metanet.reader_ = module.eval(), MixedReader(readers) if mixed else readers[0]
    metanet.target_, metanet.training_ = Target(**record["target"]), Training(**record["training"])
    losses = [math.nan if loss is None else loss for loss in record["history"]["validation_loss"]]
    metanet.history_ = History(losses, record["history"]["best_epoch"])
    for name, value in record["trained_on"].items():
        setattr(metanet, f"{name}_", value)
    return metanet
