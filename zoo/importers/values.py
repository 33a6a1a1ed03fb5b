"""Operations of pickles that push a number, a text or bytes."""

import re
from collections.abc import Callable
from struct import Struct

from zoo.importers.machine import Machine
from zoo.store.file_map import refuse

U16, U32, I32, U64, F64 = (Struct(code) for code in ("<H", "<I", "<i", "<Q", ">d"))
_LARGEST_NUMBER = 1024
_ESCAPES = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL)
_PLAIN = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", "'": "'", '"': '"'}


def pushes(value: object) -> Callable[[Machine], None]:
    """An operation that pushes a value."""

    def operation(machine: Machine) -> None:
        machine.stack.append(value)

    return operation


def pushes_new(kind: Callable[[], object]) -> Callable[[Machine], None]:
    """An operation that pushes something new."""

    def operation(machine: Machine) -> None:
        machine.stack.append(kind())

    return operation


def pushes_number(form: Struct) -> Callable[[Machine], None]:
    """An operation that pushes the number behind it."""

    def operation(machine: Machine) -> None:
        machine.stack.append(machine.number(form))

    return operation


def pushes_bytes(form: Struct, read: Callable[[memoryview], object]) -> Callable[[Machine], None]:
    """Push what lies behind its own length."""

    def operation(machine: Machine) -> None:
        machine.stack.append(read(machine.take(machine.number(form))))

    return operation


def text(raw: memoryview) -> str:
    """Bytes as text, what is no UTF-8 as escapes."""
    return str(raw, "utf-8", "backslashreplace")


def old_text(raw: memoryview) -> str:
    """Bytes as text of protocols 0 and 1."""
    return str(raw, "latin-1")


def integer(raw: memoryview) -> int:
    """Bytes as a signed integer, little-endian; one that is too long is refused."""
    if len(raw) > _LARGEST_NUMBER:
        refuse(f"a pickle has an integer of {len(raw)} bytes; expected {_LARGEST_NUMBER} at most")
    return int.from_bytes(raw, "little", signed=True)


def pushes_line(read: Callable[[str], object]) -> Callable[[Machine], None]:
    """An operation that pushes what the line behind it means."""

    def operation(machine: Machine) -> None:
        machine.stack.append(read(machine.line()))

    return operation


def number_of_line(line: str) -> int | bool:
    """A line as an integer, or as a boolean in the form of protocol 1."""
    return {"00": False, "01": True}.get(line, 0) if line in ("00", "01") else int(line)


def long_of_line(line: str) -> int:
    """A line as an integer that may end with L."""
    return int(line.removesuffix("L"))


def text_of_line(line: str) -> str:
    """A line as text, escapes resolved."""
    return _ESCAPES.sub(_escaped, line)


def quoted(line: str) -> str:
    """A line in quotes as text."""
    if len(line) < 2 or line[0] not in "'\"" or line[-1] != line[0]:
        refuse(f"a pickle has the text {line!r:.80} without quotes")
    return text_of_line(line[1:-1])


def _escaped(match: re.Match[str]) -> str:
    code = match[1]
    return chr(int(code[1:], 16)) if len(code) > 1 else _PLAIN.get(code, f"\\{code}")


def skips(length: int) -> Callable[[Machine], None]:
    """An operation that does nothing but to take bytes."""

    def operation(machine: Machine) -> None:
        machine.take(length)

    return operation


def protocol(machine: Machine) -> None:
    """Check the protocol."""
    version = machine.take(1)[0]
    if version > 5:
        refuse(f"a pickle of protocol {version}; expected 0 to 5")


def pushes_byte(machine: Machine) -> None:
    """Push the byte behind the operation."""
    machine.stack.append(machine.take(1)[0])


def pushes_short_bytes(read: Callable[[memoryview], object]) -> Callable[[Machine], None]:
    """An operation that pushes what lies behind its length of one byte."""

    def operation(machine: Machine) -> None:
        machine.stack.append(read(machine.take(machine.take(1)[0])))

    return operation
