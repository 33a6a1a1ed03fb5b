"""Find the parameters among all that people save beside them."""

from collections.abc import Mapping
from itertools import islice

from zoo.importers.arrays import Array, Arrays, is_array
from zoo.importers.passive import Passive
from zoo.store.file_map import refuse

WRAPPERS = ("state_dict", "model_state_dict", "model", "params", "net")
"""Keys under which state dicts are saved."""
PREFIXES = ("module.", "_orig_mod.")
"""What `DataParallel` and `torch.compile` put before names."""
_DEEPEST = 8
_MOST_WRAPPERS = 32


def take_state(
    root: object, arrays: Arrays, notes: list[str], depth: int = 0
) -> tuple[dict[str, Array], object]:
    """Take the state dict out of what was saved.

    Args:
        root: What was saved, as a record.
        arrays: Its arrays.
        notes: What was recognized; lines are appended.
        depth: How many wrappers were taken off.

    Returns:
        The tensors by name, in order, and all else, None if there is nothing.

    Raises:
        FormatError: If there is no state dict, or a tensor that is not read.
    """
    if isinstance(root, list | tuple) and root and depth < _DEEPEST and _holds(root[0], set()):
        notes.append(f"took the first of {len(root)} values")
        tensors, rest = take_state(root[0], arrays, notes, depth + 1)
        return tensors, [rest, *root[1:]]
    if not isinstance(root, dict):
        refuse(f"expected a state dict, found {_shown(root)}; save module.state_dict()")
    key = _wrapper(root, set()) if depth < _DEEPEST else None
    if key is None:
        return _split(root, arrays)
    notes.append(f"took the key {key!r}")
    tensors, rest = take_state(root[key], arrays, notes, depth + 1)
    others = {name: value for name, value in root.items() if name != key}
    if rest is not None:
        others[key] = rest
    return tensors, others or None


def _wrapper(root: Mapping[object, object], met: set[int]) -> str | None:
    """The key under which a dict has a state dict."""
    return next((key for key in WRAPPERS if _holds(root.get(key), met)), None)


def _holds(value: object, met: set[int]) -> bool:
    """Whether something is a state dict, or wraps one; what was met before is not asked again."""
    if not isinstance(value, dict) or id(value) in met or len(met) == _MOST_WRAPPERS:
        return False
    met.add(id(value))
    return any(map(is_array, value.values())) or _wrapper(value, met) is not None


def _split(state: Mapping[object, object], arrays: Arrays) -> tuple[dict[str, Array], object]:
    """Tensors of a state dict, and what else it has."""
    tensors, rest = {}, {}
    for name, value in state.items():
        array = arrays.of(value, str(name))
        if array is None and is_array(value):
            refuse(f"{name!r:.200} is {value!r:.200}; expected a dense tensor of real numbers")
        if array is None:
            rest[name] = value
        elif not isinstance(name, str):
            refuse(f"a tensor has the name {name!r:.80}; expected a text")
        else:
            tensors[name] = array
    if not tensors:
        refuse(f"expected a state dict, found {_shown(state)}; save module.state_dict()")
    return tensors, rest or None


def _shown(value: object) -> str:
    if isinstance(value, dict):
        keys = ", ".join(f"{key!r:.60}" for key in islice(value, 10))
        return f"a dict without tensors, of {len(value)} keys: {keys}"
    if isinstance(value, Passive):
        return f"an object of {value.name:.200}, which is not made"
    return f"{type(value).__name__}"


def without_prefixes(tensors: Mapping[str, Array], notes: list[str]) -> dict[str, Array]:
    """Remove what wrappers of modules put before all names.

    Args:
        tensors: Tensors by name.
        notes: What was recognized; lines are appended.

    Returns:
        The same tensors.
    """
    names = list(tensors)
    found = True
    while found:
        found = next((p for p in PREFIXES if all(name.startswith(p) for name in names)), None)
        if found:
            names = [name.removeprefix(found) for name in names]
            notes.append(f"removed the prefix {found!r}")
    return dict(zip(names, tensors.values(), strict=True))
