"""Operations of pickles that build containers and calls, and the table of all operations."""

from collections.abc import Callable
from typing import Any

from zoo.importers.machine import Machine
from zoo.importers.passive import Passive, shown
from zoo.importers.values import (
    F64,
    I32,
    U16,
    U32,
    U64,
    integer,
    long_of_line,
    number_of_line,
    old_text,
    protocol,
    pushes,
    pushes_byte,
    pushes_bytes,
    pushes_line,
    pushes_new,
    pushes_number,
    pushes_short_bytes,
    quoted,
    skips,
    text,
    text_of_line,
)
from zoo.store.file_map import refuse

_KEYS = (str, float, bool, bytes, type(None))


def _mark(machine: Machine) -> None:
    machine.marks.append(len(machine.stack))


def _pop(machine: Machine) -> None:
    at_mark = bool(machine.marks) and machine.marks[-1] == len(machine.stack)
    (machine.marks if at_mark else machine.stack).pop()


def _pop_mark(machine: Machine) -> None:
    machine.since_mark()


def _duplicate(machine: Machine) -> None:
    machine.stack.append(machine.stack[-1])


def _memoizes(place: Callable[[Machine], int]) -> Callable[[Machine], None]:
    def operation(machine: Machine) -> None:
        machine.memo[place(machine)] = machine.stack[-1]

    return operation


def _recalls(place: Callable[[Machine], int]) -> Callable[[Machine], None]:
    def operation(machine: Machine) -> None:
        machine.stack.append(machine.memo[place(machine)])

    return operation


def _byte(machine: Machine) -> int:
    return machine.take(1)[0]


def _word(machine: Machine) -> int:
    return machine.number(U32)


def _line_number(machine: Machine) -> int:
    return int(machine.line())


def _next_place(machine: Machine) -> int:
    return len(machine.memo)


def _tuple_of(length: int) -> Callable[[Machine], None]:
    def operation(machine: Machine) -> None:
        stack = machine.stack
        if len(stack) < length:
            refuse("a pickle takes more values than it has")
        stack[-length:] = [tuple(stack[-length:])]

    return operation


def _tuple(machine: Machine) -> None:
    machine.stack.append(tuple(machine.since_mark()))


def _list(machine: Machine) -> None:
    machine.stack.append(machine.since_mark())


def _dict(machine: Machine) -> None:
    values = machine.since_mark()
    machine.stack.append({})
    _set(machine.stack[-1], values)


def _frozen_set(machine: Machine) -> None:
    machine.stack.append(Passive("builtins.frozenset", (), None, machine.since_mark()))


def _append(machine: Machine) -> None:
    value = machine.stack.pop()
    _extend(machine.stack[-1], [value])


def _appends(machine: Machine) -> None:
    values = machine.since_mark()
    _extend(machine.stack[-1], values)


def _extend(owner: object, values: list[Any]) -> None:
    if isinstance(owner, list):
        owner.extend(values)
    elif isinstance(owner, Passive):
        owner.add(values)
    else:
        refuse(f"a pickle appends to {type(owner).__name__}; expected a list")


def _set_item(machine: Machine) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    _set(machine.stack[-1], [key, value])


def _set_items(machine: Machine) -> None:
    values = machine.since_mark()
    _set(machine.stack[-1], values)


def _set(owner: object, values: list[Any]) -> None:
    """Set items: `values` has keys and values in turn."""
    pairs = zip(values[::2], values[1::2], strict=True)
    if isinstance(owner, dict):
        owner.update((_key(key), value) for key, value in pairs)
    elif isinstance(owner, Passive):
        owner.add([(_key(key), value) for key, value in pairs])
    else:
        refuse(f"a pickle sets items of {type(owner).__name__}; expected a dict")


def _key(value: object) -> object:
    """A key whose hash is cheap and cannot be chosen: a tuple may be deep, an integer crafted."""
    is_plain = isinstance(value, _KEYS) or (type(value) is int and -(2**63) <= value < 2**64)
    return value if is_plain or isinstance(value, Passive) else Passive("key", (value,))


def _global(machine: Machine) -> None:
    module, name = machine.line(), machine.line()
    machine.stack.append(machine.known(module, name))


def _stack_global(machine: Machine) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    machine.stack.append(machine.known(module, name))


def _reduce(machine: Machine) -> None:
    args, function = machine.stack.pop(), machine.stack.pop()
    machine.stack.append(machine.call(function, args))


def _new_with_keywords(machine: Machine) -> None:
    keywords, args, function = (machine.stack.pop() for _ in range(3))
    if not isinstance(args, tuple):
        refuse("a pickle makes an object without a tuple of arguments")
    machine.stack.append(machine.call(function, (*args, keywords) if keywords else args))


def _object(machine: Machine) -> None:
    function, *args = machine.since_mark()
    machine.stack.append(machine.call(function, tuple(args)))


def _instance(machine: Machine) -> None:
    module, name = machine.line(), machine.line()
    args = machine.since_mark()
    machine.stack.append(machine.call(machine.known(module, name), tuple(args)))


def _build(machine: Machine) -> None:
    """Set the state of an object; what a dict has besides its items, such as metadata, is left."""
    state = machine.stack.pop()
    owner = machine.stack[-1]
    if isinstance(owner, Passive) and owner.args is not None:
        owner.state = state
    elif not isinstance(owner, dict):
        refuse(f"a pickle sets the state of {shown(owner)}")


def _persistent(machine: Machine) -> None:
    """Refer to something outside: old files of torch have classes so, beside their source."""
    reference = machine.stack[-1]
    if isinstance(reference, tuple) and len(reference) > 1 and reference[0] == "module":
        machine.stack[-1] = reference[1]
    else:
        machine.external.append(reference)


OPERATIONS: dict[int, Callable[[Machine], None]] = {
    ord("("): _mark,
    ord("0"): _pop,
    ord("1"): _pop_mark,
    ord("2"): _duplicate,
    ord("F"): pushes_line(float),
    ord("I"): pushes_line(number_of_line),
    ord("J"): pushes_number(I32),
    ord("K"): pushes_byte,
    ord("L"): pushes_line(long_of_line),
    ord("M"): pushes_number(U16),
    ord("N"): pushes(None),
    ord("Q"): _persistent,
    ord("R"): _reduce,
    ord("S"): pushes_line(quoted),
    ord("T"): pushes_bytes(U32, old_text),
    ord("U"): pushes_short_bytes(old_text),
    ord("V"): pushes_line(text_of_line),
    ord("X"): pushes_bytes(U32, text),
    ord("a"): _append,
    ord("b"): _build,
    ord("c"): _global,
    ord("d"): _dict,
    ord("e"): _appends,
    ord("g"): _recalls(_line_number),
    ord("h"): _recalls(_byte),
    ord("i"): _instance,
    ord("j"): _recalls(_word),
    ord("l"): _list,
    ord("o"): _object,
    ord("p"): _memoizes(_line_number),
    ord("q"): _memoizes(_byte),
    ord("r"): _memoizes(_word),
    ord("s"): _set_item,
    ord("t"): _tuple,
    ord("u"): _set_items,
    ord("}"): pushes_new(dict),
    ord("]"): pushes_new(list),
    ord(")"): pushes(()),
    ord("G"): pushes_number(F64),
    ord("B"): pushes_bytes(U32, bytes),
    ord("C"): pushes_short_bytes(bytes),
    0x80: protocol,
    0x81: _reduce,  # NEWOBJ: the same in a record
    0x85: _tuple_of(1),
    0x86: _tuple_of(2),
    0x87: _tuple_of(3),
    0x88: pushes(True),
    0x89: pushes(False),
    0x8A: pushes_short_bytes(integer),
    0x8B: pushes_bytes(U32, integer),
    0x8C: pushes_short_bytes(text),
    0x8D: pushes_bytes(U64, text),
    0x8E: pushes_bytes(U64, bytes),
    0x8F: pushes_new(lambda: Passive("builtins.set", ())),
    0x90: _appends,
    0x91: _frozen_set,
    0x92: _new_with_keywords,
    0x93: _stack_global,
    0x94: _memoizes(_next_place),
    0x95: skips(8),
    0x96: pushes_bytes(U64, bytes),
}
