"""Proof, repair and merging of zoos."""
