"""What a learnability study is asked to do: a pydantic model over YAML."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from metanet.inputs.treatments import NONE
from studies.common.base import StudyConfig
from zoo.config import Flag, Number, PositiveWhole, Whole

FLOOR = "hparams"
All = Literal["all"]
Steps = str | dict[str, dict[str, Any]]


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str | int | float | Path) else value


def _names_or_all(value: Any) -> Any:
    return value if value == "all" else _as_tuple(value)


Sizes = Annotated[tuple[PositiveWhole | All, ...], BeforeValidator(_as_tuple), Field(min_length=1)]
Names = Annotated[tuple[str, ...], BeforeValidator(_as_tuple), Field(min_length=1)]


class Learnability(StudyConfig):
    """What to measure.

    Attributes:
        populations: Names of populations, or `all`.
        metanets: Names of metanets; the floor `hparams` is added if it is not among them.
        treatments: Treatments as texts, such as `augment` or `align+augment`, or a mapping from
            labels to treatments with options; `none` is added if it is not among them.
        treated: Metanets that the treatments apply to: names, a mapping from names to labels of
            treatments, or `all`, which stands for all that read weights. The others run with `none`
            only.
        treated_num_train: Numbers of training networks of treated metanets; those of `num_train` if
            not given.
        num_train: Numbers of training networks; `all` stands for as many as a population has.
        seeds: Seeds of the metanets.
        targets: Columns to predict.
        options: Further options of single metanets, such as `{mlp: {epochs: 50}}`.
        shuffled: Whether to fit the first metanet but the floor on shuffled labels too; or the name
            of the one to fit.
        transfer: Whether to score each fitted metanet on the other populations of its weight space
            too.
        transfer_zoos: Further zoos, on whose equally named populations each fitted metanet is
            scored too.
        reach: Values of R^2 for which the number of training networks that reaches them is looked
            up.
        num_bootstrap: Number of bootstrap samples of an interval.
        match_bins: Largest number of bins of label matching.
        match_minimum: With fewer matched test networks, matched metrics are NaN.
    """

    populations: All | tuple[str, ...] = "all"
    metanets: tuple[str, ...] = Field(min_length=1)
    treatments: Annotated[dict[str, Steps] | tuple[str, ...], BeforeValidator(_as_tuple)] = (NONE,)
    treated: Annotated[All | dict[str, Names] | tuple[str, ...], BeforeValidator(_names_or_all)] = (
        "all"
    )
    treated_num_train: Sizes | None = None
    num_train: Sizes = ("all",)
    seeds: Annotated[
        tuple[Annotated[Whole, Field(ge=0)], ...], BeforeValidator(_as_tuple), Field(min_length=1)
    ] = (0,)
    targets: Names = ("test_accuracy",)
    options: dict[str, dict[str, Any]] = Field(default_factory=dict)
    shuffled: Flag | str = False
    transfer: Flag = False
    transfer_zoos: Annotated[tuple[Path, ...], BeforeValidator(_as_tuple)] = ()
    reach: Annotated[
        tuple[Annotated[Number, Field(gt=0, lt=1)], ...], BeforeValidator(_as_tuple)
    ] = (0.5, 0.8)
    num_bootstrap: PositiveWhole = 1000
    match_bins: PositiveWhole = 16
    match_minimum: PositiveWhole = 30

    @field_validator("metanets")
    @classmethod
    def _with_floor(cls, metanets: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys((FLOOR, *metanets)))

    @field_validator("treatments")
    @classmethod
    def _with_none(
        cls, treatments: dict[str, Steps] | tuple[str, ...]
    ) -> dict[str, Steps] | tuple[str, ...]:
        if not isinstance(treatments, dict):
            return tuple(dict.fromkeys((NONE, *treatments)))
        if treatments.get(NONE, NONE) != NONE:
            raise ValueError(
                f"the label {NONE!r} stands for no treatment, found {treatments[NONE]!r}; choose "
                "another label"
            )
        return {NONE: NONE, **treatments}

    @property
    def population_names(self) -> tuple[str, ...] | None:
        """Names of the populations, None for all."""
        return None if self.populations == "all" else self.populations

    @property
    def chains(self) -> dict[str, Steps]:
        """The treatments by label, `none` first."""
        return (
            self.treatments
            if isinstance(self.treatments, dict)
            else {name: name for name in self.treatments}
        )
