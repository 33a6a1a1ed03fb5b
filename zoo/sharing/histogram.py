"""Histograms as lines of text, for terminals and cards."""

from itertools import pairwise

import numpy as np
from jaxtyping import Float

_BLOCKS = " ▏▎▍▌▋▊▉█"


def histogram_lines(
    values: Float[np.ndarray, "N"],
    bins: int = 20,
    width: int = 60,
    bounds: tuple[float, float] | None = None,
    blocks: bool = True,
) -> list[str]:
    r"""Count values in equal bins and draw a bar for each.

    Args:
        values: What to count; values that are not finite are left out.
        bins: Number of bins.
        width: Columns of a line, at most, as far as labels leave room for a bar.
        bounds: Lowest and highest edge, those of the values if None; values outside are left out.
        blocks: Whether bars are block characters, an eighth of a column fine, or `#`.

    Returns:
        One line a bin: its edges, its bar and its count. A single line says so if there is nothing
            to count.

    >>> values = np.array([0.1, 0.2, 0.9])
    >>> lines = histogram_lines(values, bins=2, width=24, bounds=(0.0, 1.0), blocks=False)
    >>> print("\n".join(lines))
    0.0 to 0.5 ########### 2
    0.5 to 1.0 ######      1
    """
    finite = values[np.isfinite(values)]
    if not finite.size:
        return ["no finite value"]
    low, high = bounds or (float(finite.min()), float(finite.max()))
    counts, edges = np.histogram(finite, bins=bins, range=(low, high))
    labels, numbers = _labels(edges), [str(count) for count in counts]
    room = max(1, width - len(labels[0]) - len(max(numbers, key=len)) - 2)
    most = max(1, counts.max())
    bars = [_bar(count / most * room, blocks).ljust(room) for count in counts]
    return [
        f"{label} {bar} {number}".rstrip()
        for label, bar, number in zip(labels, bars, numbers, strict=True)
    ]


def _bar(length: float, blocks: bool) -> str:
    if not blocks:
        return "#" * (round(length) or int(length > 0))
    eighths = round(8 * length) or int(length > 0)
    return "█" * (eighths // 8) + _BLOCKS[eighths % 8].strip()


def _labels(edges: Float[np.ndarray, "E"]) -> list[str]:
    """Edges with as few digits as tell them apart."""
    texts: list[str] = []
    for digits in range(1, 18):
        texts = [
            f"{edge:.{digits}f}" if 1e-3 <= np.abs(edges).max() < 1e6 else f"{edge:.{digits}g}"
            for edge in edges
        ]
        if len(set(texts)) == len(set(edges.tolist())) and _are_close(texts, edges):
            break
    longest = max(map(len, texts))
    return [f"{low:>{longest}} to {high:>{longest}}" for low, high in pairwise(texts)]


def _are_close(texts: list[str], edges: Float[np.ndarray, "E"]) -> bool:
    """Whether no text is off by more than a tenth of a bin."""
    step = float(edges[1] - edges[0])
    return all(
        abs(float(text) - edge) <= step / 10 for text, edge in zip(texts, edges, strict=True)
    )
