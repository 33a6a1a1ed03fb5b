"""`generate-zoo`: the command line of this package."""

import sys
from pathlib import Path

import click


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("job")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the zoo; runs/JOB by default.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Replace an entry of the job: --set count=100.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--executor", type=click.Choice(["local"]), default="local", show_default=True)
@click.option("--workers", type=click.IntRange(min=0), help="Processes; one for each core or GPU by default, 0 for this one.")
@click.option("--chunk-size", type=click.IntRange(min=1), help="Networks in lock step; chosen by memory by default.")
@click.option("--compile/--no-compile", "compiled", default=True, help="Compile the training step where it pays.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
def main(
    job: str,
    out: Path | None,
    overrides: tuple[str, ...],
    device: str,
    executor: str,
    workers: int | None,
    chunk_size: int | None,
    compiled: bool,
    quiet: bool,
) -> None:
    """Generate a zoo of networks. JOB is a recipe (demo, digits-large, mnist-cnn, cifar10-cnn) or a YAML file.

    Run the same command again to go on after an interruption.
    """
    from data_gen.config import load_job  # after the command line is parsed: --help must not import torch
    from data_gen.executors import default_workers
    from data_gen.generate import choose_device, generate

    del executor  # one so far
    folder = out or Path("runs") / Path(job).stem
    try:
        checked = load_job(job, overrides)
        count = default_workers(choose_device(device)) if workers is None else workers
        generate(checked, folder, device, count, chunk_size, compiled, quiet)
    except (ValueError, OSError) as error:
        click.echo(f"generate-zoo: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        click.echo(f"generate-zoo: interrupted; run the same command again to go on ({folder})", err=True)
        sys.exit(130)
    if not quiet:
        click.echo(f"{folder}: complete. Load it with zoo.load({str(folder)!r}).", err=True)
