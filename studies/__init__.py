"""Studies: one file an experiment, `run(config) -> rows`, then a report.

Import the defining modules.
"""
