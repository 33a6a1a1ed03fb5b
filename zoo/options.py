"""Options, checked against the signature of the function that takes them.

The annotation of an option says what it may be: `dropout: Share = 0.1`.
"""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache, wraps
from types import GenericAlias
from typing import Annotated, Any, ParamSpec, TypeVar, get_type_hints

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

P = ParamSpec("P")
R = TypeVar("R")
Count = Annotated[int, Field(ge=1, lt=2**31)]
Natural = Annotated[int, Field(ge=0, lt=2**31)]
Width = Annotated[int, Field(ge=1, le=2**16)]
Depth = Annotated[int, Field(ge=1, le=1000)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Layers = Annotated[int, Field(le=2000)]
Widths = Annotated[Sequence[int], Field(max_length=2000)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]

_BOUNDS = {
    "gt": "more than",
    "ge": "at least",
    "lt": "less than",
    "le": "at most",
    "max_length": "a length of at most",
}


def check_options(
    what: str,
    function: Callable[..., Any],
    options: Mapping[str, Any],
    given: tuple[str, ...] = (),
) -> None:
    """Check names and values of options, by the signature of the function that takes them.

    Args:
        what: What has the options, for errors.
        function: The function, or a class.
        options: Its options.
        given: Names of its arguments that are not options.

    Raises:
        ValueError: If it has no such option, or the value is not what its annotation says.
    """
    parameters = inspect.signature(function).parameters.values()
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    valid = {p.name: p.annotation for p in parameters if p.name not in given}
    for name, value in options.items():
        if name in valid:
            check_value(f"option {name!r} of {what}", valid[name], value)
        elif not takes_all:
            raise ValueError(f"unknown option {name!r} of {what}; options are {list(valid)}")


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function check the values of its arguments by their annotations, at each call.

    Args:
        function: The function.

    Returns:
        The same, which raises a ValueError for a value of another type or out of bounds.
    """
    signature = inspect.signature(function)

    @wraps(function)
    def run(*values: P.args, **named: P.kwargs) -> R:
        for name, value in signature.bind(*values, **named).arguments.items():
            parameter = signature.parameters[name]
            if parameter.kind is not parameter.VAR_KEYWORD:
                check_value(f"{function.__name__}: {name}", parameter.annotation, plain(value))
        return function(*values, **named)

    return run


def check_value(what: str, annotation: Any, value: Any) -> None:
    """Check a value against an annotation; nothing is converted to fit.

    Args:
        what: Its name, for the error.
        annotation: What it may be, such as `int` or `Count`; anything if there is none.
        value: The value.

    Raises:
        ValueError: If it is something else.
    """
    try:
        _adapter(annotation).validate_python((value,), strict=True)
    except ValidationError as error:
        raise ValueError(
            f"{what}: expected {_expected(annotation, error)}, found {value!r:.200}"
        ) from error


def plain(value: Any) -> Any:
    """A number of numpy as one of Python, everything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


@cache
def _adapter(annotation: Any) -> TypeAdapter:
    is_unknown = annotation is inspect.Parameter.empty or isinstance(annotation, str)
    # The tuple lets classes that pydantic does not know have the setting, too.
    alone: Any = GenericAlias(tuple, (Any if is_unknown else annotation,))
    return TypeAdapter(alone, config=ConfigDict(arbitrary_types_allowed=True))


def _expected(annotation: Any, error: ValidationError) -> str:
    """The bound that a value of the right type does not keep, else the type."""
    first = error.errors(include_url=False)[0]
    if first["type"] == "finite_number":
        return "a finite number"
    bounds = [
        f"{_BOUNDS[key]} {value}" for key, value in first.get("ctx", {}).items() if key in _BOUNDS
    ]
    return " and ".join(bounds) or _type_name(annotation)


def _type_name(annotation: Any) -> str:
    """A type without its bounds, as code has it."""
    holder = type("Holder", (), {"__annotations__": {"option": annotation}})
    named = inspect.formatannotation(get_type_hints(holder)["option"])
    named = named.replace("collections.abc.", "").replace("Literal[", "one of [")
    return re.sub(r"^Optional\[(.*)\]$", r"\1 or None", named)
