"""Treatments do to networks what they say, and work with every metanet that reads weights."""
