"""From populations to batches that metanets read."""
