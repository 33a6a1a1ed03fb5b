"""Read pickles without running them: every class and function that they name stays a name.

This is a machine of its own for the operations of pickles, protocols 0 to 5. It imports nothing, it
has no way to import, and it calls nothing that a pickle names. Python's own unpickler was no base
for it: one byte of a file makes it allocate gigabytes for its memo, and a tuple that holds itself a
million times over ends the process when it becomes a key. What this machine holds is at most some
hundred bytes for each operation, and their number is bounded.
"""

from struct import error as StructError
from typing import Any, NamedTuple

from zoo.importers.machine import Machine, Makers
from zoo.importers.operations import OPERATIONS
from zoo.store.file_map import FormatError, refuse

MAX_OPERATIONS = 2**22
"""Operations of one pickle: 200,000 tensors."""


class Pickle(NamedTuple):
    """What a pickle says.

    Attributes:
        root: The object: dicts, lists, tuples, texts, bytes, numbers and `Passive`.
        names: Every global that it names.
        external: What it refers to outside itself, such as the storages of tensors, in order.
        end: Its first byte after the end of the pickle.
    """

    root: Any
    names: tuple[str, ...]
    external: list[Any]
    end: int


def read_pickle(
    data: memoryview, makers: Makers, start: int = 0, most: int = MAX_OPERATIONS
) -> Pickle:
    """Read a pickle of unknown origin.

    Args:
        data: Bytes that hold it.
        makers: What becomes of calls of some globals; they may not run anything.
        start: Where it starts.
        most: Operations in it, at most.

    Returns:
        What it says.

    Raises:
        FormatError: If it is none, damaged, or too long.
    """
    machine = Machine(data, makers, start)
    try:
        _run(machine, most)
        root = machine.stack.pop()
    except FormatError:
        raise
    except (IndexError, KeyError, ValueError, OverflowError, StructError) as error:
        raise FormatError(
            f"a pickle is damaged before byte {machine.at}: {type(error).__name__}"
        ) from error
    return Pickle(root, tuple(machine.globals), machine.external, machine.at)


def _run(machine: Machine, most: int) -> None:
    data, stop = machine.data, ord(".")
    for _ in range(most):
        code = data[machine.at]
        machine.at += 1
        if code == stop:
            return
        operation = OPERATIONS.get(code)
        if operation is None:
            refuse(f"a pickle has the unknown operation {code} at byte {machine.at - 1}")
        operation(machine)
    refuse(f"a pickle has more than {most} operations")
