"""Slow twin of `metanet.models.tokens.tokenize`: what each neuron is written by, entry by entry, for patterns without sums."""

from tests.reference.metanet_graph import entries


def rows(space, params):
    """Of one network: for each neuron (or position of several groups) that is written, all entries that write it."""
    found = {}
    for (_, written, read), values in entries(space, params).items():
        found.setdefault(written or read, []).extend(values)
    return list(found.values())
