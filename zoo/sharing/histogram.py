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
    labels, most = _labels(edges), counts.max()
    room = max(1, width - len(labels[0]) - len(str(most)) - 2)
    lines = []
    for label, count in zip(labels, counts, strict=True):
        bar = _bar(count / max(1, most) * room, blocks)
        lines.append(f"{label} {bar:{room}} {count}")
    return lines


def _bar(length: float, blocks: bool) -> str:
    if not blocks:
        return "#" * (round(length) or int(length > 0))
    eighths = round(8 * length) or int(length > 0)
    return "█" * (eighths // 8) + _BLOCKS[eighths % 8].strip()


def _labels(edges: Float[np.ndarray, "E"]) -> list[str]:
    """Edges with as few digits as tell them apart, none off by more than a tenth of a bin."""
    notation = "f" if 1e-3 <= np.abs(edges).max() < 1e6 else "g"
    texts = []
    for digits in range(1, 18):
        texts = [f"{edge:.{digits}{notation}}" for edge in edges]
        is_close = np.abs(np.array(texts, float) - edges) <= (edges[1] - edges[0]) / 10
        if len(set(texts)) == len(set(edges)) and is_close.all():
            break
    longest = max(map(len, texts))
    return [f"{low:>{longest}} to {high:>{longest}}" for low, high in pairwise(texts)]
