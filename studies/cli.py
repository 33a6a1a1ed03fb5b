"""The command `symzoo`: look at zoos, train metanets, run studies.

It only wires; each command imports what it needs.
"""

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from data_gen.executors.failures import NoProcess
from studies.commands.importing import import_group
from studies.commands.settings import check_place, parse_setting
from studies.commands.study import FILE, FOLDER, study_commands

if TYPE_CHECKING:
    from zoo.store.population import Population


class _Group(click.Group):
    """Commands whose user errors are a message on stderr and exit status 1.

    Other exceptions are bugs and keep their trace.
    """

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; errors that a user can cause become click's."""
        try:
            return super().invoke(ctx)
        except (ValueError, OSError, NoProcess) as error:
            if os.environ.get("SYMZOO_DEBUG"):
                raise
            raise click.ClickException(str(error)) from error


@click.group(cls=_Group)
@click.version_option(package_name="symzoo")
@click.option(
    "--plugin",
    "plugins",
    multiple=True,
    metavar="MODULE",
    help="Python module of yours: adds rows to tables, and names of code in it are trusted.",
)
def main(plugins: tuple[str, ...]) -> None:
    """Weight-space learning.

    Zoos of networks, metanets that learn from their weights, studies of what symmetry does.

    Set SYMZOO_DEBUG=1 to see the trace of an error.
    """
    if plugins:
        from zoo.imports import import_plugin

        for name in plugins:
            import_plugin(name)


@main.command()
@click.argument("zoo", type=FOLDER)
@click.option(
    "--column", default="test_accuracy", show_default=True, help="Column to draw a histogram of."
)
@click.option(
    "--bins",
    type=click.IntRange(1, 1000),
    default=20,
    show_default=True,
    help="Bars of the histogram.",
)
@click.option(
    "--population", "populations", multiple=True, help="Histograms of these populations only."
)
def info(zoo: Path, column: str, bins: int, populations: tuple[str, ...]) -> None:
    """Show what a zoo holds, with a histogram of one column."""
    from studies.commands.info import can_show_blocks, describe_column, describe_zoo
    from zoo.store.zoo import load

    opened, width = load(zoo), shutil.get_terminal_size().columns
    blocks = can_show_blocks(sys.stdout.encoding)
    histograms = describe_column(opened, column, populations, bins, width, blocks)
    click.echo(f"{describe_zoo(opened)}\n\n{histograms}")


@main.command()
@click.argument("zoo", type=FOLDER)
@click.argument("repo")
@click.option("--private", is_flag=True, help="Make the repository private, if it is made.")
def push(zoo: Path, repo: str, private: bool) -> None:
    """Upload a zoo to the Hugging Face Hub as the data set REPO, owner/name.

    The token is that of `hf auth login` or of the environment variable HF_TOKEN.
    """
    from zoo.sharing.hub import push as upload

    click.echo(f"pushed {zoo} to {upload(zoo, repo, private)}")


@main.command()
@click.argument("repo")
@click.argument("out", type=FOLDER)
@click.option("--revision", help="Branch, tag or commit; the main branch if not given.")
def pull(repo: str, out: Path, revision: str | None) -> None:
    """Download the zoo REPO, owner/name, from the Hugging Face Hub and check every byte.

    Goes on after an interruption.
    """
    from zoo.sharing.hub import pull as download

    click.echo(f"pulled {repo} to {download(repo, out, revision)}")


@main.command()
@click.argument("zoo", type=FOLDER)
@click.argument("out", type=FOLDER)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["parquet", "safetensors"]),
    required=True,
    help="Format of the files.",
)
@click.option("--population", "populations", multiple=True, help="Only these populations.")
@click.option(
    "--split",
    "splits",
    type=click.Choice(["train", "validation", "test"]),
    multiple=True,
    help="Only these splits.",
)
def export(
    zoo: Path, out: Path, kind: Any, populations: tuple[str, ...], splits: tuple[str, ...]
) -> None:
    """Write a zoo in another format, bit for bit, into the new folder OUT."""
    from zoo.sharing.export import export_zoo
    from zoo.store.zoo import load

    click.echo(
        f"exported {zoo} to {export_zoo(load(zoo), out, kind, populations or None, splits or None)}"
    )


@main.command()
@click.argument("zoo", type=FOLDER)
@click.option(
    "--sample",
    type=click.IntRange(min=0),
    help="Networks of each population to compute again; 4 by default.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of their choice.")
@click.option(
    "--trust-task", is_flag=True, help="Let the zoo name files and downloads for its task."
)
@click.option("--task-path", help="Where the task's data is, instead of what the zoo says.")
def verify(
    zoo: Path, sample: int | None, seed: int, trust_task: bool, task_path: str | None
) -> None:
    """Check every file of a zoo against its manifest, and metrics of some networks."""
    # Status 1 if anything is wrong.
    from studies.commands.integrity import run_verify

    if not run_verify(zoo, sample, seed, trust_task, task_path):
        raise SystemExit(1)


@main.command()
@click.argument("zoo", type=FOLDER)
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True
)
@click.option(
    "--workers",
    type=click.IntRange(0, 1024),
    help="Processes; one for each core or GPU by default, 0 for this one.",
)
@click.option(
    "--chunk-size", type=click.IntRange(min=1), help="Networks in lock step, as the zoo was made."
)
@click.option(
    "--compile/--no-compile", "compiled", default=True, help="Which kind of step to try first."
)
@click.option(
    "--accept-changed", is_flag=True, help="Take files that differ from the lost ones by rounding."
)
@click.option(
    "--trust-task",
    is_flag=True,
    help="Let the zoo name files and downloads for its task, and any number of networks.",
)
@click.option("--quiet", is_flag=True, help="Show no progress.")
def repair(zoo: Path, **options: Any) -> None:
    """Make the damaged files of a zoo again.

    They are put in place if they are those of the manifest, byte for byte.
    """
    from studies.commands.integrity import run_repair

    run_repair(zoo, **options)


@main.command()
@click.argument("zoo", type=FOLDER)
@click.argument("population")
@click.option("--model", required=True, help="Name of a metanet, such as mlp.")
@click.option("--target", default="test_accuracy", show_default=True, help="Column to predict.")
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--num-train", type=click.IntRange(min=1), help="Use the first N training networks only."
)
@click.option("--out", type=FILE, required=True, help="File to save the metanet in.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="OPTION=VALUE",
    help="Option of the metanet, such as epochs=50; JSON, or else text.",
)
def train(
    zoo: Path,
    population: str,
    model: str,
    target: str,
    seed: int,
    num_train: int | None,
    out: Path,
    settings: tuple[str, ...],
) -> None:
    """Train a metanet on one population of a zoo and save it."""
    from metanet.estimator import Metanet

    options = dict(parse_setting(text) for text in settings)
    check_place(out)
    fitted = Metanet(model, target=target, seed=seed, **options).fit(
        _population(zoo, population), num_train=num_train
    )
    fitted.save(out)
    click.echo(f"saved {out}")


@main.command()
@click.argument("metanet_file", metavar="METANET", type=FILE)
@click.argument("zoo", type=FOLDER)
@click.argument("population")
@click.option("--split", default="test", show_default=True)
@click.option("--num-bootstrap", type=click.IntRange(min=1), default=1000, show_default=True)
def evaluate(
    metanet_file: Path, zoo: Path, population: str, split: str, num_bootstrap: int
) -> None:
    """Score a saved metanet, with 95% bootstrap intervals over networks."""
    from metanet.estimator import load

    scores = load(metanet_file).evaluate(
        _population(zoo, population), split=split, num_bootstrap=num_bootstrap
    )
    for name, estimate in scores.items():
        click.echo(f"{name:<12} {estimate.value:8.4f}  [{estimate.low:.4f}, {estimate.high:.4f}]")


@main.command()
@click.argument("metanet_file", metavar="METANET", type=FILE)
@click.argument("zoo", type=FOLDER)
@click.argument("population")
@click.option("--split", default="test", show_default=True)
@click.option("--out", type=FILE, help="CSV file to write, standard output if not given.")
def predict(metanet_file: Path, zoo: Path, population: str, split: str, out: Path | None) -> None:
    """Predict every network of a split with a saved metanet.

    CSV with network_id, prediction and, if known, the truth.
    """
    from metanet.estimator import load
    from zoo.store.atomic import write_text

    if out is not None:
        check_place(out)
    fitted, networks = load(metanet_file), _population(zoo, population)
    table = networks.table(split)
    predicted = table[["network_id"]].assign(prediction=fitted.predict(networks, split=split))
    if fitted.target in table:
        predicted[fitted.target] = table[fitted.target]
    if out is None:
        click.echo(predicted.to_csv(index=False), nl=False)
        return
    write_text(out, predicted.to_csv(index=False))
    click.echo(f"saved {out}: {len(predicted)} networks")


@main.command()
@click.argument("out", type=FOLDER)
@click.argument("folders", metavar="IN...", type=FOLDER, nargs=-1, required=True)
def merge(out: Path, folders: tuple[Path, ...]) -> None:
    """Copy the shards of folders of one job, made on several machines, into the zoo OUT."""
    from data_gen.integrity.merge import merge_zoos

    missing = merge_zoos(out, folders)
    if missing:
        raise ValueError(
            f"{out}: {len(missing)} shards are in none of the folders: "
            f"{', '.join(s.path() for s in missing)}"
        )
    click.echo(f"{out}: complete")


@main.group()
def study() -> None:
    """Run a study.

    Rows.parquet, report.html and its config go to --out; a stopped run goes on where it was.
    """


main.add_command(import_group)
for _command in study_commands():
    study.add_command(_command)


def _population(zoo: Path, name: str) -> "Population":
    from zoo.store.zoo import load

    return load(zoo).choose([name])[name]


if __name__ == "__main__":
    main()
