"""A second reader of shards, written from `docs/store_format.md` alone.

Numpy, no checks, no speed.
"""

import json
from pathlib import Path

import numpy as np


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str | int]]:
    """Columns and attributes of a file that `write_columns` wrote."""
    data = path.read_bytes()
    length = int.from_bytes(data[8:16], "little")
    content = json.loads(data[16 : 16 + length])
    columns = {}
    for name, column in content["columns"].items():
        is_text = column["dtype"] == "text"
        stored = np.dtype("<u4" if is_text else column["dtype"])
        count = int(np.prod(column["shape"]))
        array = np.frombuffer(data, stored, count, column["offset"]).reshape(column["shape"])
        if is_text:
            array = np.array([column["values"][code] for code in array], dtype=object)
        columns[name] = array
    return columns, content["attributes"]
