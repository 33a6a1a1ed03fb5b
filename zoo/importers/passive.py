"""What a pickle says, as data: names of classes, what they were called with, what they hold."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(eq=False, repr=False, slots=True)
class Passive:
    """An object of a pickle that was not made: nothing of its class was imported.

    Attributes:
        name: Module and name of what the pickle would have called, such as
            ``omegaconf.dictconfig.DictConfig``.
        args: What it would have been called with; None where the class or function itself is meant.
        state: What its state would have been set to.
        items: What would have been appended to it, or pairs of key and value.
    """

    name: str
    args: tuple[object, ...] | None = None
    state: object = None
    items: list[object] | tuple[object, ...] = ()

    def __repr__(self) -> str:
        """Its name; what it holds may be long, deep, or itself."""
        return f"Passive({self.name!r})"

    def add(self, values: list[object]) -> None:
        """Append values.

        Args:
            values: Values, or pairs of key and value.
        """
        if isinstance(self.items, tuple):
            self.items = []
        self.items.extend(values)


def shown(value: object) -> str:
    """A short text for errors; of what may be long, deep or itself, only its type.

    Args:
        value: Anything of a record.

    Returns:
        At most 80 characters.
    """
    is_short = isinstance(value, str | int | float | bytes | Passive | None)
    return f"{value!r:.80}" if is_short else type(value).__name__


def walk(root: object) -> Iterator[object]:
    """Everything in a record, each object once, however often it is held: records may hold cycles.

    Args:
        root: Data of a checkpoint.

    Yields:
        Dicts, lists, tuples, `Passive` and what they hold, each before its parts.
    """
    left, met = [root], set()
    while left:
        value = left.pop()
        if isinstance(value, dict | list | tuple | Passive):
            if id(value) in met:
                continue
            met.add(id(value))
            left.extend(_parts(value))
        yield value


def _parts(
    value: dict[object, object] | list[object] | tuple[object, ...] | Passive,
) -> list[object]:
    if isinstance(value, dict):
        return [*value, *value.values()]
    if isinstance(value, Passive):
        return [*(value.args or ()), value.state, *value.items]
    return list(value)
