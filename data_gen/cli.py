"""`generate-zoo`: the command line of this package."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from data_gen.executors.options import choose_executor, executor_options

if TYPE_CHECKING:
    from data_gen.config import Job


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("job")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder of the zoo; runs/JOB by default."
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Replace an entry of the job: --set count=100.",
)
@click.option(
    "--plugin",
    "plugins",
    multiple=True,
    metavar="MODULE",
    help="Python module of yours that adds architectures, tasks, ... to the tables.",
)
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True
)
@executor_options
@click.option(
    "--shard",
    type=int,
    metavar="K",
    help="Make shard K only, from 0, in this process; for job arrays.",
)
@click.option(
    "--list-shards",
    is_flag=True,
    help="Show number, state, networks and path of each shard, and make none.",
)
@click.option(
    "--chunk-size",
    type=click.IntRange(min=1),
    help="Networks in lock step; chosen by memory by default.",
)
@click.option(
    "--compile/--no-compile",
    "compiled",
    default=True,
    help="Compile the training step where it pays.",
)
@click.option("--quiet", is_flag=True, help="Show no progress.")
def main(
    job: str,
    out: Path | None,
    overrides: tuple[str, ...],
    plugins: tuple[str, ...],
    device: str,
    executor: str,
    address: str | None,
    workers: int | None,
    threads: int | None,
    shard: int | None,
    list_shards: bool,
    chunk_size: int | None,
    compiled: bool,
    quiet: bool,
) -> None:
    """Generate a zoo of networks.

    JOB is a recipe (demo, digits-large, mnist-cnn, cifar10-cnn) or a YAML file.

    Run the same command again to go on after an interruption.
    """
    _check_shard(shard, executor, workers, list_shards)
    folder = out or Path("runs") / Path(job).stem
    with _errors_are_one_line(folder):
        # after the command line is parsed: --help must not import torch
        from data_gen.config import load_job
        from data_gen.generation import generate, generate_shard

        chosen = choose_executor(executor, address, workers, threads)
        checked = load_job(job, overrides, plugins)
        if list_shards:
            _list_shards(checked, folder)
            return
        missing = []
        if shard is None:
            generate(
                checked,
                folder,
                device,
                chunk_size=chunk_size,
                compile=compiled,
                quiet=quiet,
                executor=chosen,
            )
        else:
            missing = generate_shard(
                checked, folder, shard, device, chunk_size, compiled, quiet, threads or 1
            )
        if not quiet:
            _say(folder, len(missing), shard)


def _check_shard(shard: int | None, executor: str, workers: int | None, list_shards: bool) -> None:
    if shard is not None and (executor == "ray" or workers is not None or list_shards):
        raise click.UsageError(
            "--shard makes one shard in this process; "
            "it goes with no --executor, --workers, --list-shards"
        )


def _list_shards(job: "Job", folder: Path) -> None:
    from data_gen.generation import missing_shards
    from data_gen.planning import make_plan

    planned = make_plan(job)
    missing = set(missing_shards(job, folder, planned))
    for number, shard in enumerate(planned.shards):
        state = "missing" if shard in missing else "complete"
        click.echo(f"{number} {state} {shard.count} {shard.path()}")


def _say(folder: Path, missing: int, shard: int | None) -> None:
    """What is there now: the zoo, or one shard while others are missing."""
    if missing:
        message = f"shard {shard} is complete, {missing} others are still missing"
    else:
        message = f"complete. Load it with zoo.load({str(folder)!r})."
    click.echo(f"{folder}: {message}", err=True)


@contextmanager
def _errors_are_one_line(folder: Path) -> Iterator[None]:
    """What a user can mend is a message; an error of the code comes with its trace."""
    from data_gen.executors.failures import MissingShards, NoProcess

    try:
        yield
    except (MissingShards, NoProcess) as error:
        for trace in getattr(error, "__notes__", ()):
            click.echo(trace, err=True)
        click.echo(f"generate-zoo: {error}", err=True)
        sys.exit(1)
    except (ValueError, OSError) as error:
        click.echo(f"generate-zoo: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        click.echo(
            f"generate-zoo: interrupted; run the same command again to go on ({folder})", err=True
        )
        sys.exit(130)
