"""Options of a command line that say where work is done, and the executor that they stand for.

Light, so that `--help` needs no torch.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from data_gen.executors.executor import Executor

Command = TypeVar("Command", bound=Callable[..., Any] | click.Command)

_OPTIONS = (
    click.option(
        "--executor",
        type=click.Choice(["local", "ray"]),
        default="local",
        show_default=True,
        help="Processes of this machine, or actors of a Ray cluster.",
    ),
    click.option(
        "--address",
        help="Ray cluster to use, such as auto; one is started on this machine by default.",
    ),
    click.option(
        "--workers",
        type=click.IntRange(0, 10**5),
        help="Processes; one for each core or GPU by default, 0 for this one.",
    ),
    click.option(
        "--threads",
        type=click.IntRange(1, 1024),
        help="Threads of each process, 1 by default; others round differently.",
    ),
)


def executor_options(command: Command) -> Command:
    """Give a command the options `--executor`, `--address`, `--workers` and `--threads`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def choose_executor(
    executor: str,
    address: str | None,
    workers: int | None,
    threads: int | None,
    threads_here: int | None = None,
) -> "Executor":
    """The executor that the options stand for.

    Args:
        executor: `local` or `ray`.
        address: Of a Ray cluster.
        workers: Number of processes, 0 for this one; None for as many as there is room for.
        threads: Threads of each process; None for 1.
        threads_here: Threads of this process, if it does the work; None for those that torch has.

    Returns:
        The executor.

    Raises:
        UsageError: If options do not go together.
        ValueError: If Ray is needed and not installed.
    """
    if address and executor != "ray":
        raise click.UsageError("--address is the address of a Ray cluster; add --executor ray")
    if workers == 0 and (executor == "ray" or threads):
        raise click.UsageError(
            "--workers 0 trains in this process; it goes with no --executor ray, --threads"
        )
    from data_gen.executors.executor import InThisProcess
    from data_gen.executors.local import LocalProcesses
    from data_gen.executors.ray import RayActors, import_ray

    if executor == "ray":
        import_ray()  # so that a missing library is the first thing to be told
        return RayActors(workers, threads or 1, address)
    return InThisProcess(threads_here) if workers == 0 else LocalProcesses(workers, threads or 1)
