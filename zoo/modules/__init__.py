"""Asymmetric twins of torch modules."""
