"""The table of studies; their modules are imported when they run."""

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from studies.common.base import Study


@dataclass(frozen=True)
class StudyEntry:
    """A study as the command line knows it.

    Attributes:
        module: Name of the module that defines it, as `STUDY`.
        help: One sentence.
    """

    module: str
    help: str

    def load(self) -> "Study":
        """The study."""
        return import_module(self.module).STUDY


STUDIES = {
    "learnability": StudyEntry(
        "studies.learnability.study",
        "How well metanets predict a target, by the number of training networks and by what is "
        "done about symmetry.",
    ),
    "interpolation": StudyEntry(
        "studies.interpolation.study",
        "Whether the training loss falls all the way on the segment from the initialization to the "
        "trained network.",
    ),
    "mode-connectivity": StudyEntry(
        "studies.connectivity.study",
        "The loss between two networks of a population, before and after alignment: barriers.",
    ),
    "merging": StudyEntry(
        "studies.merging.study",
        "The average of the parameters of 2, 4, 8, ... networks: naive, aligned, asymmetric; "
        "beside "
        "the ensemble.",
    ),
    "bayesian": StudyEntry(
        "studies.bayesian.study",
        "Bayesian networks: variational inference of deep ones with and without symmetry, and how "
        "well Markov chains mix.",
    ),
    "conservation": StudyEntry(
        "studies.conservation.study",
        "Conservation laws in training: residuals, drift, what asymmetry destroys, and what the "
        "conserved quantities foretell.",
    ),
}
