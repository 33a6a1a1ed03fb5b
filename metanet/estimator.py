"""`Metanet`: every metanet behind scikit-learn's conventions.

They are: fit, predict, score, get_params, set_params, clone.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from sklearn.utils.validation import check_is_fitted

from metanet import serialization
from metanet.arguments import Arguments
from metanet.contract import MetanetModule, declared, dtype_of, resolve_device, seeded
from metanet.fitting import Fit, fit_module, predict_raw
from metanet.inputs.batches import JoinedNetworks, ParamsInMemory, TableInMemory
from metanet.inputs.conversion import Given, networks_of, population_of, populations_of
from metanet.inputs.dataset import (
    Examples,
    join,
    read_examples,
    read_networks,
    streams,
)
from metanet.inputs.reader import Reader, spec_of
from metanet.inputs.targets import fit_target
from metanet.inputs.treatments import parse_treatment
from metanet.metrics import Estimate, bootstrap, r2
from metanet.models.table import METANETS, build, rebuild_trained
from zoo.options import Count, check_options, checked
from zoo.store.zoo import Zoo
from zoo.views import PopulationLike

TRAINED_ON = ("population", "num_train", "num_validation", "num_dropped")
"""What a file says of the networks that a metanet was fitted on."""


class Metanet(Arguments):
    """A metanet: predicts a property of networks from their weights.

    (Or from their hyperparameters: `hparams`.) Arguments are checked by `fit`.

    Attributes:
        module_: Fitted torch module.
        reader_: What it reads, and how: specs (weight space, masks, hyperparameter columns) of the
            populations, and treatment.
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

    def fit(
        self,
        population: PopulationLike | Zoo | Sequence[PopulationLike],
        num_train: Count | None = None,
        num_validation: Count | None = None,
    ) -> "Metanet":
        """Learn from the train split; the validation split says which pass is best, and the last.

        Args:
            population: A population, or a zoo that has one; or several, of any weight spaces, for a
                metanet that reads several.
            num_train: Use the first `num_train` networks of the split by network id, all if None:
                subsets are nested, and the same networks in every population of a zoo. Of several
                populations, that many of each.
            num_validation: Likewise for the validation split.

        Returns:
            Itself, fitted.

        Raises:
            ValueError: If an argument, the target or a number of networks is not valid.
        """
        self.check()
        counts = {"num_train": num_train, "num_validation": num_validation}
        check_options("fit", Metanet.fit, counts)
        device = resolve_device(self.device)
        populations = populations_of(population)
        self.population_ = ", ".join(each.name for each in populations)
        runs_networks = declared(METANETS[self.model]).runs_networks
        specs = tuple(spec_of(each, runs_networks) for each in populations)
        with seeded(self.seed, device):
            module = build(self.model, specs, self.options)
            learn = self._read(module, populations, "train", num_train)
            held_out = self._read(module, populations, "validation", num_validation)
            reader = Reader(specs, module, parse_treatment(self.treatment))
            self._learn(reader, learn, held_out, device)
        self.num_train_, self.num_validation_ = len(learn), len(held_out)
        self.num_dropped_ = learn.num_dropped + held_out.num_dropped
        return self

    def _learn(
        self, reader: Reader, learn: Examples, held_out: Examples, device: torch.device
    ) -> None:
        """Fit target, treatment and module."""
        if len(learn) < 2:
            raise ValueError(
                f"population {self.population_!r}: "
                f"expected 2 or more training networks, got {len(learn)}"
            )
        module = reader.module
        self.target_ = fit_target(self.target, learn.y, trees=not module.has_gradients)
        self.training_ = self.training(module, len(learn))
        how = Fit(self.target_, self.training_, self.seed, device, self.workers, self.verbose)
        self.reader_, self.history_ = fit_module(reader, learn, held_out, how)
        self.module_ = module
        if not np.isfinite(self.history_.validation_loss).any():
            warnings.warn(
                f"metanet {self.model!r} has learned nothing: no validation loss was finite; "
                f"lr was {self.training_.lr:g}, try a smaller one",
                stacklevel=3,
            )

    def _read(
        self,
        module: MetanetModule,
        populations: Sequence[PopulationLike],
        split: str,
        count: int | None,
    ) -> Examples:
        """Examples of a split of all populations."""
        stream = streams(self.stream, populations, ("train", "validation"), module.reads)
        parts = [
            read_examples(
                population, split, self.target, module.reads, count, stream, dtype_of(module)
            )
            for population in populations
        ]
        return join(parts)

    def predict(self, inputs: Given | Zoo, split: str = "test") -> Float[np.ndarray, "N"]:
        """Predict the target of networks.

        Args:
            inputs: Full params of a weight space that the metanet was fitted on: tensors or arrays
                ``[N, *shape]``, a state dict, or a list of state dicts, see
                `metanet.inputs.conversion`; for a metanet that reads hyperparameters a table with
                their columns; or a population, of any weight space if it was fitted on several.
            split: Split of a population, in the order of its `params(split)`; ignored otherwise.

        Returns:
            Predictions ``[N]`` in the target's units, float64.

        Raises:
            ValueError: If the inputs are of another kind or weight space.
        """
        check_is_fitted(self, "module_")
        spaces = [spec.space.shapes for spec in self.reader_.specs]
        given = networks_of(inputs, spaces, dtype_of(self.module_))
        if isinstance(given, dict):
            self._check_kind("params", inputs)
            networks = JoinedNetworks((ParamsInMemory(given),))
            return self._predict(self.reader_.of_params(given), networks)
        if isinstance(given, pd.DataFrame):
            self._check_kind("hyperparameters", inputs)
            return self._predict(self.reader_, JoinedNetworks((TableInMemory(given),)))
        reader = self.reader_.of_population(given)
        stream, dtype = self._streams(given, split), dtype_of(self.module_)
        networks = read_networks(given, split, self.module_.reads, stream, dtype)
        return self._predict(reader, networks)

    def _check_kind(self, kind: str, inputs: Any) -> None:
        wanted = self.module_.reads
        if kind != wanted:
            columns = list(self.reader_.specs[0].hyperparameters)
            expected = {
                "params": "params, a dict of tensors",
                "hyperparameters": f"a table with columns {columns}",
            }
            raise ValueError(
                f"metanet {self.model!r} reads {wanted}: "
                f"expected {expected[wanted]}, got {type(inputs).__name__}"
            )

    def score(self, population: PopulationLike | Zoo, split: str = "test") -> float:
        """R^2 on a split of a population.

        Args:
            population: Of the weight space that the metanet was fitted on.
            split: Name of the split.

        Returns:
            Coefficient of determination.
        """
        return r2(*self.predict_examples(population, split))

    def evaluate(
        self, population: PopulationLike | Zoo, split: str = "test", num_bootstrap: Count = 1000
    ) -> dict[str, Estimate]:
        """Four metrics, each with a 95% bootstrap interval over networks.

        R^2, Kendall's tau, Spearman's rho and mean absolute error.

        Args:
            population: Of the weight space that the metanet was fitted on.
            split: Name of the split.
            num_bootstrap: Resamples of the intervals.

        Returns:
            Estimates by name: `r2`, `kendall_tau`, `spearman`, `mae`.
        """
        check_options("evaluate", Metanet.evaluate, {"num_bootstrap": num_bootstrap})
        return bootstrap(
            *self.predict_examples(population, split), num_bootstrap=num_bootstrap, seed=self.seed
        )

    def predict_examples(
        self, population: PopulationLike | Zoo, split: str = "test"
    ) -> tuple[Float[np.ndarray, "N"], Float[np.ndarray, "N"]]:
        """True and predicted targets of a split, in the order of network ids.

        Diverged networks that have no target are left out.

        Args:
            population: Of the weight space that the metanet was fitted on.
            split: Name of the split.

        Returns:
            Targets and predictions.
        """
        check_is_fitted(self, "module_")
        given, dtype = population_of(population), dtype_of(self.module_)
        reader, stream = self.reader_.of_population(given), self._streams(given, split)
        examples = read_examples(
            given, split, self.target, self.module_.reads, stream=stream, dtype=dtype
        )
        return examples.y.numpy(), self._predict(reader, examples.networks)

    def _streams(self, population: PopulationLike, split: str) -> bool:
        """Whether networks to predict stay on disk."""
        self.check()
        return streams(self.stream, [population], [split], self.module_.reads)

    def save(self, path: str | Path) -> None:
        """Write the fitted metanet to one file, see `metanet.serialization`."""
        check_is_fitted(self, "module_")
        fitted = serialization.Fitted(
            self.reader_.specs,
            self.module_.state_dict(),
            self.reader_.treatment.known,
            self.target_,
            self.training_,
            self.history_,
            {name: vars(self)[f"{name}_"] for name in TRAINED_ON},
        )
        serialization.save(path, self.get_params(), fitted)

    def _predict(self, reader: Reader, networks: JoinedNetworks) -> Float[np.ndarray, "N"]:
        return self.target_.predict(predict_raw(reader, networks, self.workers)).cpu().numpy()


@checked
def load(path: str | Path) -> Metanet:
    """Read a fitted metanet, onto the CPU.

    Args:
        path: File that `Metanet.save` wrote.

    Returns:
        The metanet; predicts what it predicted when it was saved.

    Raises:
        ValueError: If the file is not a metanet, is of another format, or its weights do not fit
            the metanet of that name.
    """
    params, fitted = serialization.read(path)
    metanet = Metanet(**params)
    try:
        metanet.check()
        module = rebuild_trained(metanet.model, fitted.specs, metanet.options, fitted.state)
        treatment = parse_treatment(metanet.treatment).with_known(fitted.known)
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a metanet: {error}") from error
    metanet.module_, metanet.reader_ = module.eval(), Reader(fitted.specs, module, treatment)
    metanet.target_, metanet.training_ = fitted.target, fitted.training
    metanet.history_ = fitted.history
    for name in TRAINED_ON:
        setattr(metanet, f"{name}_", fitted.trained_on[name])
    return metanet
