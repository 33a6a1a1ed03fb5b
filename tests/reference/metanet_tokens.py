"""Slow twin of `metanet.models.tokens.tokenize`: entry by entry, no sums."""

from tests.reference.metanet_graph import entries


def rows(space, params):
    """For each neuron (or position of several groups) of a network, the entries that write it."""
    rows = {}
    for (_, written, read), values in entries(space, params).items():
        rows.setdefault(written or read, []).extend(values)
    return list(rows.values())
