"""Hypothesis for all tests of the package.

The same examples in every run, and no clock (the machine may be busy).
"""

from hypothesis import settings

settings.register_profile("zoo", deadline=None, derandomize=True, max_examples=30)
settings.load_profile("zoo")
