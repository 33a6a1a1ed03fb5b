"""The command `symzoo study NAME`."""

import json
from pathlib import Path

import click

from data_gen.executors.options import choose_executor, executor_options
from studies.registry import STUDIES

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)
RECIPES = Path(__file__).parents[1] / "recipes"


@click.command()
@click.option("--recipe", help="Name of a recipe; `small` if neither this nor --config is given.")
@click.option("--config", "config_file", type=FILE, help="YAML file instead of a recipe.")
@click.option(
    "--zoo",
    type=FOLDER,
    help="The zoo; needed unless the config names one. Made if the config names a job.",
)
@click.option(
    "--out",
    type=FOLDER,
    help="Directory of the study; by default named after the recipe and the zoo.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Replace an entry of the config.",
)
@executor_options
@click.option("--quiet", is_flag=True, help="Show no progress.")
@click.pass_context
def run_study(
    context: click.Context,
    recipe: str | None,
    config_file: Path | None,
    zoo: Path | None,
    out: Path | None,
    overrides: tuple[str, ...],
    executor: str,
    address: str | None,
    workers: int | None,
    threads: int | None,
    quiet: bool,
) -> None:
    """Run the study that the command is named after, and show its tables."""
    if recipe and config_file:
        raise click.UsageError("give --recipe or --config, not both")
    chosen = choose_executor(executor, address, workers, threads, threads_here=1)
    from studies.common.runner import format_study, run, write_report
    from zoo.config import read_config

    name = context.command.name or ""
    study = STUDIES[name].load()
    path = config_file or _recipe_path(name, recipe or "small")
    of_zoo = () if zoo is None else (f"zoo={json.dumps(str(zoo))}",)
    config = read_config(study.config, path, (*overrides, *of_zoo))
    folder = out or config.folder(name, path.stem)
    try:
        rows = run(study, config, folder, executor=chosen, quiet=quiet)
    except KeyboardInterrupt:
        click.echo(
            "stopped; finished cells are kept, the same command goes on from there", err=True
        )
        raise
    click.echo(format_study(study, config, rows, folder))
    report = write_report(study, config, rows, folder)
    click.echo(f"\nrows {folder / 'rows.parquet'}, report {report}")


def study_commands() -> list[click.Command]:
    """A command for each study, all with the same options."""
    return [
        click.Command(name, callback=run_study.callback, params=run_study.params, help=entry.help)
        for name, entry in STUDIES.items()
    ]


def _recipe_path(name: str, recipe: str) -> Path:
    paths = {path.stem.removeprefix(f"{name}-"): path for path in sorted(RECIPES.glob(f"{name}-*"))}
    short = recipe.removeprefix(f"{name}-")
    if short not in paths:
        raise ValueError(f"unknown recipe {recipe!r} of study {name!r}; known are {list(paths)}")
    return paths[short]
