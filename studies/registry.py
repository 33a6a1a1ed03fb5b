"""The table of studies; their modules are imported when they run."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Study:
    """A study as the command line knows it.

    Its module has

        CONFIG                                          the config, a `StudyConfig` or, without a zoo, a `PlainConfig`
        run(config, out, *, workers, quiet) -> rows     measures what is not there yet, writes `rows.parquet`, `config.yaml`
        format_study(config, rows, out) -> str          tables for the terminal
        write_report(config, rows, out) -> Path         writes `report.html`

    Attributes:
        module: Name of the module.
        help: One sentence.
    """

    module: str
    help: str

    def load(self) -> Any:
        """The module."""
        return import_module(self.module)


STUDIES = {
    "learnability": Study(
        "studies.learnability.study",
        "How well metanets predict a target, by the number of training networks and by what is done about symmetry.",
    ),
    "interpolation": Study(
        "studies.interpolation.study",
        "Whether the training loss falls all the way on the segment from the initialization to the trained network.",
    ),
    "mode-connectivity": Study(
        "studies.connectivity.study",
        "The loss between two networks of a population, before and after alignment: barriers.",
    ),
    "merging": Study(
        "studies.merging.study",
        "The average of the parameters of 2, 4, 8, ... networks: naive, aligned, asymmetric; beside the ensemble.",
    ),
    "bayesian": Study(
        "studies.bayesian.study",
        "Bayesian networks: variational inference of deep ones with and without symmetry, and how well Markov chains mix.",
    ),
    "conservation": Study(
        "studies.conservation.study",
        "Conservation laws in training: residuals, drift, what asymmetry destroys, and what the conserved quantities foretell.",
    ),
}
