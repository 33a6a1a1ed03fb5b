"""Files that others wrote: checkpoints of many formats, read as data; nothing of them is run."""
