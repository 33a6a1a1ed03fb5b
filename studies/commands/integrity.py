"""What `symzoo verify` and `symzoo repair` print."""

from collections.abc import Sequence
from pathlib import Path

import click

from data_gen.executors.processes import default_workers
from data_gen.generation import choose_device
from data_gen.integrity.repair import repair_zoo
from data_gen.integrity.verify import verify_zoo


def run_verify(
    zoo: Path, sample: int | None, seed: int, trust_task: bool, task_path: str | None
) -> bool:
    """Check a zoo and print what was found.

    Args:
        zoo: The zoo.
        sample: Networks of each population to compute again; None for the default.
        seed: Of their choice.
        trust_task: Whether files and downloads that the manifest names may be used.
        task_path: Where the task's data is.

    Returns:
        Whether the zoo is whole.
    """
    checked: list[str] = []
    faults = verify_zoo(zoo, sample, seed, trust_task, task_path, checked.append)
    for line in checked:
        click.echo(line if " not " in line else f"checked: {line}")
    for fault in faults:
        click.echo(f"{zoo}/{fault}")
    click.echo(
        f"{zoo}: {_counted(faults)}; symzoo repair mends what can be made again"
        if faults
        else f"{zoo}: whole"
    )
    return not faults


def run_repair(
    zoo: Path,
    device: str,
    workers: int | None,
    chunk_size: int | None,
    compiled: bool,
    accept_changed: bool,
    trust_task: bool,
    quiet: bool,
) -> None:
    """Repair a zoo and print what was done.

    Args:
        zoo: The zoo.
        device: Device, as the zoo was made.
        workers: Processes; one for each core or GPU if None.
        chunk_size: Networks in lock step, as the zoo was made.
        compiled: Whether to try compiled steps first.
        accept_changed: Whether files with another hash may take the place of damaged ones.
        trust_task: Whether files and downloads that the manifest names may be used.
        quiet: Whether to show no progress.
    """
    count = default_workers(choose_device(device).type == "cuda") if workers is None else workers
    faults = repair_zoo(
        zoo, device, count, chunk_size, compiled, accept_changed, trust_task, quiet, click.echo
    )
    click.echo(f"{zoo}: {_counted(faults)} mended" if faults else f"{zoo}: nothing to repair")


def _counted(faults: Sequence[object]) -> str:
    return f"{len(faults)} fault" + "s" * (len(faults) != 1)
