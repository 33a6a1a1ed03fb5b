"""State of the machine that reads pickles as data, and what each operation may take from it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from struct import Struct
from typing import Any

from zoo.importers.passive import Passive, shown
from zoo.store.file_map import refuse

Makers = Mapping[str, Callable[[tuple[Any, ...]], object]]
"""By the name of a global, what becomes of its call; of all others, a `Passive`."""
_LONGEST_LINE = 4096
_LONGEST_NAME = 512


@dataclass(slots=True)
class Machine:
    """State of the machine.

    Attributes:
        data: The pickle.
        makers: What becomes of calls.
        at: The next byte.
        stack: Values.
        marks: Lengths of the stack where marks lie.
        memo: Values to come again.
        globals: Names, so far.
        external: External values, so far.
    """

    data: memoryview
    makers: Makers
    at: int
    stack: list[Any] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    globals: dict[str, Passive] = field(default_factory=dict)
    external: list[Any] = field(default_factory=list)

    def take(self, length: int) -> memoryview:
        """The next bytes."""
        start, self.at = self.at, self.at + length
        if self.at > len(self.data):
            refuse(f"a pickle is cut: {length} bytes expected at {start}")
        return self.data[start : self.at]

    def number(self, form: Struct) -> Any:
        """The next number."""
        start, self.at = self.at, self.at + form.size
        return form.unpack_from(self.data, start)[0]

    def line(self) -> str:
        """The next line of text."""
        start = bytes(self.data[self.at : self.at + _LONGEST_LINE])
        length = start.find(b"\n")
        if length < 0:
            refuse(f"a pickle has a line of more than {_LONGEST_LINE} bytes at {self.at}")
        self.at += length + 1
        return start[:length].decode("utf-8", "backslashreplace")

    def since_mark(self) -> list[Any]:
        """Take what was pushed since the last mark."""
        place = self.marks.pop()
        values = self.stack[place:]
        del self.stack[place:]
        return values

    def known(self, module: object, name: object) -> Passive:
        """A global by its name."""
        if type(module) is not str or type(name) is not str or len(module + name) > _LONGEST_NAME:
            refuse(f"a pickle names {shown(module)} {shown(name)}; expected two short texts")
        full = f"{module}.{name}"
        return self.globals.setdefault(full, Passive(full))

    def call(self, function: object, args: object) -> object:
        """What becomes of a call."""
        if not isinstance(function, Passive) or not isinstance(args, tuple):
            refuse(f"a pickle calls {shown(function)}; expected a global and a tuple")
        if function.args is not None:
            return Passive("call", (function, *args))
        make = self.makers.get(function.name)
        return Passive(function.name, args) if make is None else make(args)
