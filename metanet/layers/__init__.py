"""Layers that metanets are made of."""
