"""What commands are given: options of a metanet as text, and a place for a file."""

import json
from pathlib import Path
from typing import Any

_OPTIONS = {"model": "--model", "target": "--target", "seed": "--seed"}


def parse_setting(text: str) -> tuple[str, Any]:
    """An option of a metanet.

    Args:
        text: Such as `epochs=50`; the value is JSON, or else text.

    Returns:
        Name and value.

    Raises:
        ValueError: If it is of another form, or the command has an option for it.
    """
    from zoo.config import whole

    name, separator, value = text.partition("=")
    if not separator or not name.isidentifier():
        raise ValueError(f"--set {text}: expected option=value, for example --set epochs=50")
    if name in _OPTIONS:
        raise ValueError(f"--set {text}: expected an option of the metanet; give {_OPTIONS[name]}")
    try:
        return name, whole(json.loads(value))
    except (json.JSONDecodeError, RecursionError):
        return name, value


def check_place(out: Path) -> None:
    """Refuse a place where no file can be written, before hours of work.

    Args:
        out: Name of the file; missing folders are made.

    Raises:
        ValueError: If it cannot be.
    """
    from zoo.store.atomic import temporary_path

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_path(out)
        temporary.touch()
        temporary.unlink()
    except OSError as error:
        raise ValueError(f"--out {out}: expected a file that can be written: {error}") from error
