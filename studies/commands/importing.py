"""`symzoo import`: networks that were trained elsewhere become a zoo."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from studies.commands.study import FILE, FOLDER

if TYPE_CHECKING:
    from zoo.architectures.base import Architecture
    from zoo.weight_space import WeightSpace

_ROLES = {
    "hyperparameter": "chosen before training",
    "metric": "measured of the network",
    "target": "a label, such as the class of what the network holds",
    "group": "networks of one group stay on one side of a split",
}


@click.group("import")
def import_group() -> None:
    """Make a zoo of networks that were trained elsewhere."""


@import_group.command()
@click.argument("files", nargs=-1, required=True)
@click.option("--out", type=FOLDER, required=True, help="Folder of the zoo; new, or of this call.")
@click.option("--table", type=FILE, help="CSV file with a row for each checkpoint.")
@click.option("--key", default="path", show_default=True, help="Its column of paths.")
@click.option("--module", help="What makes the module, module:attribute; it is imported.")
@click.option("--options", default="{}", metavar="JSON", help="Its arguments.")
@click.option("--example", metavar="SHAPE", help="Shape of one input, such as 1,28,28.")
@click.option("--space", type=FILE, help="Weight space as JSON, if there is no module.")
@click.option("--split", help="Column with train, validation or test; drawn if not given.")
@click.option("--strict", is_flag=True, help="Stop at the first file that cannot be taken.")
@click.option("--seed", default=0, show_default=True, help="Seed of the drawn split.")
@click.option("--hyperparameter", "hyperparameters", multiple=True, help=_ROLES["hyperparameter"])
@click.option("--metric", "metrics", multiple=True, help=_ROLES["metric"])
@click.option("--target", "targets", multiple=True, help=_ROLES["target"])
@click.option("--group", "groups", multiple=True, help=_ROLES["group"])
def checkpoints(
    files: tuple[str, ...],
    out: Path,
    table: Path | None,
    key: str,
    module: str | None,
    options: str,
    example: str | None,
    space: Path | None,
    split: str | None,
    strict: bool,
    seed: int,
    hyperparameters: tuple[str, ...],
    metrics: tuple[str, ...],
    targets: tuple[str, ...],
    groups: tuple[str, ...],
) -> None:
    """Import FILES, one network each: paths, or patterns in quotes.

    Formats: files of torch.save, safetensors and NumPy's .npz. They are read as data: nothing in
    them is run.
    """
    from zoo.importers.collect import import_checkpoints

    names = zip(_ROLES, (hyperparameters, metrics, targets, groups), strict=True)
    roles: Any = {name: role for role, columns in names for name in columns}
    zoo = import_checkpoints(
        files,
        out,
        _model(module, options, example, space),
        table,
        key,
        split or (0.7, 0.15, 0.15),
        roles,
        strict,
        seed,
        click.echo,
    )
    for name, population in zoo.items():
        click.echo(
            f"{name}: {len(population)} networks of {population.space.num_params} parameters"
        )
    click.echo(f"{out}: complete")


def _model(
    module: str | None, options: str, example: str | None, space: Path | None
) -> "Architecture | WeightSpace | None":
    """What the networks are, as far as the options say it."""
    from zoo.weight_space import WeightSpace

    if (module is None) != (example is None) or (module is not None and space is not None):
        raise ValueError("expected --module and --example together, or --space, or none of them")
    if space is not None:
        return WeightSpace.from_json(space.read_text("utf-8"))
    if module is None or example is None:
        return None
    import torch

    from data_gen.populations import build_module
    from zoo.imports import import_plugin

    import_plugin(module.partition(":")[0])
    try:
        arguments = json.loads(options)
        shape = [int(size) for size in example.split(",")]
    except ValueError as error:
        raise ValueError(
            f"--options {options}, --example {example}: expected JSON and sizes such as 1,28,28"
        ) from error
    described = {"module": module, "options": arguments}
    return replace(build_module(described, torch.randn(2, *shape)), options=described)
