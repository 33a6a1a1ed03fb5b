"""Configuration files: YAML in, a checked pydantic model out, errors that name file and line."""

import re
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from annotated_types import Ge, Gt, Lt
from pydantic import (
    AllowInfNan,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Strict,
    ValidationError,
)

MAX_BYTES, MAX_DEPTH = 2**20, 50


class _Loader(yaml.SafeLoader):
    """Safe YAML in which `1e-3` is a number; the YAML 1.1 of the library wants `1.0e-3`.

    Depth is bounded, and there are no aliases: nine levels of them are a billion values.
    """

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a value that is not too deep."""
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.YAMLError(f"line {mark.line + 1}: an alias; write its value out instead")
        if self._depth == MAX_DEPTH:
            raise yaml.YAMLError(f"values lie deeper than {MAX_DEPTH} levels")
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)

M = TypeVar("M", bound=BaseModel)
Loc = tuple[str | int, ...]


class ConfigError(ValueError):
    """A configuration that cannot be used; the message is meant for the person who wrote it."""


class EntryError(ValueError):
    """What is wrong with one entry of a mapping that is checked as a whole; told with its line.

    Attributes:
        key: Key of the entry.
        message: What is wrong with it.
    """

    def __init__(self, key: str, message: str) -> None:
        super().__init__(f"{key}: {message}")
        self.key = key
        self.message = message


@contextmanager
def entry(key: str) -> Iterator[None]:
    """Errors are of the entry of a mapping."""
    try:
        yield
    except ValueError as error:
        raise EntryError(key, str(error)) from error


def whole(value: Any) -> Any:
    """A value, `1e3` as the integer 1,000."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Flag = Annotated[bool, Strict()]
Whole = Annotated[int, Strict(), BeforeValidator(whole), Ge(-(2**63)), Lt(2**63)]
Number = Annotated[float, Strict(), AllowInfNan(False)]
NonNegativeWhole = Annotated[Whole, Ge(0)]
PositiveWhole = Annotated[Whole, Ge(1)]
NonNegativeNumber = Annotated[Number, Ge(0)]
PositiveNumber = Annotated[Number, Gt(0)]
"""What fields of configurations are: `yes` is no number, `"3"` is none, and 1 is no `yes`."""


class StrictModel(BaseModel):
    """A pydantic model that refuses unknown keys and cannot be changed afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def read_config(
    model: type[M],
    path: Path,
    overrides: Sequence[str] = (),
    prepare: Callable[[dict[str, Any]], object] = lambda _: None,
) -> M:
    """Read a YAML file into a pydantic model.

    Args:
        model: The model's class.
        path: YAML file.
        overrides: `key=value` texts that replace single entries; keys are dotted paths, values
            YAML.
        prepare: Called with the entries before they are checked; may change them.

    Returns:
        The checked model.

    Raises:
        ConfigError: If the file cannot be read, is not YAML, or does not fit the model.
    """
    text = _read_text(path)
    data, lines = _parse(text, path)
    set_by = {_apply_override(data, override): override for override in overrides}
    prepare(data)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ConfigError(
            "\n".join(_describe(item, path, lines, set_by) for item in error.errors())
        ) from error


def first_error(error: ValidationError) -> str:
    """The first of the errors of a model on one line: key, what was expected, what was found.

    Args:
        error: What pydantic raised.

    Returns:
        Bounded text; it may hold what a terminal cannot show.
    """
    first = error.errors(include_url=False)[0]
    key = ".".join(map(str, first["loc"])) + ": " if first["loc"] else ""
    got = "" if first["type"] == "value_error" else f", found {first['input']!r:.200}"
    why = first["msg"].removeprefix("Value error, ")
    return f"{key:.300}{why:.1000}{got}"


def _read_text(path: Path) -> str:
    """The text of a regular file of bounded length; a pipe is not waited for."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES:
            raise ConfigError(f"{path}: expected a file of at most {MAX_BYTES} bytes")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error


def _parse(text: str, path: Path) -> tuple[dict[str, Any], dict[Loc, int]]:
    """YAML text to plain data and the line of every key."""
    data = _data(text, f"{path}: not valid YAML")
    if not isinstance(data, dict):
        raise ConfigError(
            f"{path}: expected a mapping of keys at the top, found {type(data).__name__}"
        )
    lines: dict[Loc, int] = {}
    _collect_lines(yaml.compose(text, Loader=_Loader), (), lines, path)
    return data, lines


def _data(text: str, refusal: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError) as error:  # an impossible date is a ValueError
        raise ConfigError(f"{refusal}: {error}") from error


def _collect_lines(node: Any, loc: Loc, lines: dict[Loc, int], path: Path) -> None:
    if isinstance(node, yaml.MappingNode):
        entries = [(key.value, key, value) for key, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        entries = [(index, value, value) for index, value in enumerate(node.value)]
    else:
        return
    for key, start, value in entries:
        inner, line = (*loc, key), start.start_mark.line + 1
        if inner in lines:
            raise ConfigError(
                f"{path}:{line}: key {key!r} stands twice (first: line {lines[inner]})"
            )
        lines[inner] = line
        _collect_lines(value, inner, lines, path)


def _apply_override(data: dict[str, Any], override: str) -> Loc:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"--set {override}: expected key=value, for example --set count=100")
    value = _data(text, f"--set {override}: the value is not valid YAML")
    *parents, last = loc = key.split(".")
    target = data
    for parent in parents:
        target = target.setdefault(parent, {})
        if not isinstance(target, dict):
            raise ConfigError(f"--set {override}: {parent!r} is not a mapping, it holds {target!r}")
    target[last] = value
    return tuple(loc)


def _describe(item: Any, path: Path, lines: dict[Loc, int], set_by: dict[Loc, str]) -> str:
    """One pydantic error as one line: where, which key, what was expected, what was found."""
    loc: Loc = item["loc"]
    error = item.get("ctx", {}).get("error")
    if isinstance(error, EntryError):
        loc, error = (*loc, error.key), error.message
    key = ".".join(map(str, loc)) or "(top level)"
    what = f"{key}: {item['msg']}, found {item['input']!r}"
    if item["type"] == "extra_forbidden":
        what = f"unknown key {key!r}, found {item['input']!r}"
    elif item["type"] == "missing":
        what = f"key {key!r} is missing"
    elif item["type"] == "value_error":
        what = f"{key}: {error}"
    return f"{_place(loc, path, lines, set_by)}: {what}"


def _place(loc: Loc, path: Path, lines: dict[Loc, int], set_by: dict[Loc, str]) -> str:
    """Where a key was set: by an override, which hides the lines below it, or on a line."""
    prefixes = [loc[:length] for length in range(len(loc), 0, -1)]
    overrides = [f"--set {set_by[prefix]}" for prefix in prefixes if prefix in set_by]
    written = [f"{path}:{lines[prefix]}" for prefix in prefixes if prefix in lines]
    return [*overrides, *written, str(path)][0]
