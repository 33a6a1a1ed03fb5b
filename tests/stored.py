"""Readers of files by their paths, for tests."""

from zoo.store import columns
from zoo.store.mapped import open_mapped


def read_columns(paths, names=None):
    return columns.read_columns([open_mapped(path) for path in paths], names)


def read_tensors(paths, shapes):
    return columns.read_tensors([open_mapped(path) for path in paths], shapes)


def read_attributes(path):
    return dict(open_mapped(path).map.attributes)
