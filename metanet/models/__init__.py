"""Metanets, one file each, and their table."""

from metanet.models.table import METANETS, check_options

__all__ = ["METANETS", "check_options"]
