"""Compiled steps: when they pay, whether they work here, and how many of them there may be."""

import re
import shutil
import types
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

# A compiled step saves 15 to 30 microseconds a network and step and takes 5 to 20 seconds to
# compile.
NETWORK_STEPS_WORTH_COMPILING = 200_000


def compile_apart(method: types.MethodType) -> Callable[..., Any]:
    """Compile a method for arguments of one shape.

    torch keeps all compiled forms of a function with its code, searches through them at every call,
    and fails after the eighth, whichever object it belongs to. So each form gets a copy of the
    code.

    Args:
        method: A method in plain Python.

    Returns:
        The compiled method.
    """
    function = method.__func__
    copy = types.FunctionType(
        function.__code__.replace(),
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    options: Any = {"guard_filter_fn": not_of_torch} if torch.__version__ >= "2.8" else None
    return torch.compile(
        types.MethodType(copy, method.__self__), dynamic=False, fullgraph=True, options=options
    )


def not_of_torch(guards: Sequence[Any]) -> list[bool]:
    """Which guards to check at every call: not the hundreds on torch's own code, which stays.

    Args:
        guards: What the compiler took for granted.

    Returns:
        Whether to check it.
    """
    return [not re.match(r"G\['__import_torch|.*__import__\('torch'\)", g.name) for g in guards]


def compile_if_possible(method: types.MethodType) -> Callable[..., Any]:
    """Compile a method for arguments of one shape; one that cannot be runs as it is.

    The compiler does not take some modules, such as recurrent ones. It says so before anything has
    run.

    Args:
        method: A method in plain Python.

    Returns:
        What to call; it warns if the compiler refuses the method.
    """
    from torch._dynamo.exc import TorchDynamoException  # the compiler: seconds that others save

    form = compile_apart(method)

    def run(*arguments: Any) -> Any:
        nonlocal form
        try:
            return form(*arguments)
        except TorchDynamoException as error:
            if form is method:
                raise
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            warnings.warn(
                f"torch.compile does not take this network ({reason:.200}); it trains uncompiled, "
                "2 to 3 times slower",
                stacklevel=2,
            )
            form = method
        return form(*arguments)

    return run


def compiler_works(device: torch.device) -> bool:
    """Whether `torch.compile` can be used on this machine; warns with the reason if it cannot.

    Args:
        device: Where networks train.

    Returns:
        Whether a small function compiled and ran.
    """
    reason = ""
    if device.type == "cpu" and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        reason = "there is no C++ compiler"
    else:
        try:
            torch.compile(lambda x: x.sin() + 1, dynamic=False)(torch.zeros(64, device=device))
        except Exception as error:  # whatever the tool chain of this machine raises
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    if reason:
        warnings.warn(
            f"torch.compile does not work here ({reason}); "
            "networks train uncompiled, 2 to 3 times slower",
            stacklevel=2,
        )
    return not reason
