"""The table of rules: what every operator does to the neurons along the axes of its inputs.

A rule is `rule(ctx, *args, **kwargs)` with the arguments of the operator, tensors replaced by
`Value`. It is sound if the operator commutes with every permutation and scale that the rule leaves
possible.
"""

from collections.abc import Callable
from typing import Any

Rule = Callable[..., Any]
Number = int | float
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for operators, by their names without `aten.`, with or without overload."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register
