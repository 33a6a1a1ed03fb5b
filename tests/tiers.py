"""Two tiers of cases: what `make test` runs, and what only `make test-deep` does."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def tiered(cases: Iterable[tuple[Any, ...]], is_quick: Callable[..., bool]) -> list[Any]:
    """Cases for `pytest.mark.parametrize`.

    Args:
        cases: Values of one case each.
        is_quick: Given the values of a case, whether the quick tier runs it.

    Returns:
        The cases, those of the deep tier marked.
    """
    return [
        pytest.param(*case, marks=() if is_quick(*case) else pytest.mark.deep) for case in cases
    ]
