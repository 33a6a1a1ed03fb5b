"""What the map of a file may not say is refused unread."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.stored import read_attributes, read_columns, read_tensors
from zoo.store import proof
from zoo.store.hdf5 import write_columns
from zoo.store.mapped import MappedFile, StoreError, open_mapped

TEXTS = ["sgd", "adamw", "", "a" * 300]


@pytest.fixture
def good(tmp_path) -> Path:
    path = tmp_path / "good.h5"
    columns = {f"layers.{i}": np.full((4, 2), i, np.float32) for i in range(40)}
    write_columns(
        path,
        {"text": np.array(TEXTS), "diverged": np.arange(4) > 1, **columns},
        {"population": "standard"},
    )
    return path


def remap(path: Path, change: Callable[[dict], object]) -> None:
    """Change the map of a file as a stranger would."""
    data = bytearray(path.read_bytes())
    length = int.from_bytes(data[8:16], "little")
    content = json.loads(data[16 : 16 + length])
    change(content)
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
    assert len(text) <= length + 64
    data[16 : 16 + len(text)] = text
    data[8:16] = len(text).to_bytes(8, "little")
    path.write_bytes(data)


def column(name: str, **values: object) -> Callable[[dict], object]:
    return lambda content: content["columns"][name].update(values)


MAPS = {
    "outside": (column("layers.0", offset=10**6), "'layers.0' declares 32 bytes at 1000000"),
    "far outside": (column("layers.0", offset=2**64), "'layers.0' declares 32 bytes"),
    "negative": (column("layers.0", offset=-32), "'layers.0' lies at -32"),
    "fraction": (column("layers.0", offset=1.5), "'layers.0' lies at 1.5"),
    "truth": (column("layers.0", offset=True), "'layers.0' lies at True"),
    "over the map": (column("layers.0", offset=0), "'layers.0' overlaps the map"),
    "a terabyte": (column("layers.0", shape=[10**12]), "'layers.0' declares 4000000000000 bytes"),
    "more than 64 bits": (column("layers.0", shape=[2**31, 2**40]), "'layers.0' declares"),
    "no rows": (column("layers.0", shape=[0, 2]), "expected positive sizes"),
    "scalar": (column("layers.0", shape=[]), "expected 1 to 6 sizes"),
    "rank 7": (column("layers.0", shape=[1] * 7), "expected 1 to 6 sizes"),
    "object": (column("layers.0", dtype="|O"), "'layers.0' has type '|O'"),
    "big-endian": (column("layers.0", dtype=">f4"), "'layers.0' has type '>f4'"),
    "list as type": (column("layers.0", dtype=["<f4"]), "'layers.0' has type"),
    "more keys": (column("layers.0", more=1), "'layers.0': expected"),
    "text of numbers": (column("text", values=[1, 2]), "expected text without zero characters"),
    "zero character": (column("text", values=["a\0"]), "expected text without zero characters"),
    "more texts than rows": (column("text", values=list("abcde")), "as many values as rows"),
    "codes in HDF5": (lambda c: column("text", offset=c["start"])(c), "'text' declares 16 bytes"),
    "no columns": (lambda c: c.update(columns={}), "no columns"),
    "other length": (lambda c: c.update(length=c["length"] + 1), "not a complete file"),
    "start": (lambda c: c.update(start=10**9), "HDF5 starts at 1000000000"),
    "list": (lambda c: c.update(columns=[]), "no columns"),
    "float attribute": (lambda c: c.update(attributes={"a": 0.5}), "attribute 'a' is 0.5"),
    "large attribute": (lambda c: c.update(attributes={"a": 2**63}), "expected an int64"),
    "odd attribute": (lambda c: c.update(attributes={"a\x07": 1}), r"attribute 'a\\x07'"),
    "newer": (lambda c: c.update(format_version=3), "written by a newer symzoo"),
    "newer and other": (lambda c: (c.clear(), c.update(format_version=3)), "by a newer symzoo"),
    "older": (lambda c: c.update(format_version=1), r"written by an older symzoo \(format 1"),
    "text as version": (lambda c: c.update(format_version="2"), "no integer format_version"),
}


@pytest.mark.parametrize(("change", "part"), MAPS.values(), ids=MAPS)
def test_hostile_maps_are_refused_before_any_column_is_read(good, monkeypatch, change, part):
    remap(good, change)
    monkeypatch.setattr(MappedFile, "view", lambda *_: pytest.fail("data was read"))
    for read in (
        lambda: read_columns([good]),
        lambda: read_tensors([good], {"layers.0": (2,)}),
        lambda: read_attributes(good),
    ):
        with pytest.raises(StoreError, match=part) as error:
            read()
        assert str(error.value).startswith(f"{good}: ")
        assert str(error.value).isprintable()


def test_columns_that_lie_over_each_other_are_refused(good):
    offset = open_mapped(good).columns["layers.1"].offset
    remap(good, column("layers.0", offset=offset))
    with pytest.raises(StoreError, match=r"'layers\.\d' overlaps 'layers\.\d'"):
        read_columns([good])


def test_columns_that_are_exchanged_in_the_map_are_faults(good):
    """The map is sound by itself: only HDF5 says otherwise."""
    assert list(proof.prove(good.parent, [good.name])) == []
    first, second = (open_mapped(good).columns[f"layers.{i}"].offset for i in (0, 1))
    remap(
        good, lambda c: (column("layers.0", offset=second)(c), column("layers.1", offset=first)(c))
    )
    ((name, reason),) = list(proof.prove(good.parent, [good.name]))[:1]
    assert name == good.name
    assert f"'layers.0' lies at {first}, the map says {second}" in reason


@pytest.mark.parametrize("change", ["code", "padding", "value"])
def test_texts_and_padding_that_hdf5_does_not_have_are_faults(good, change):
    content = bytearray(good.read_bytes())
    mapped = open_mapped(good)
    if change == "code":
        content[mapped.columns["text"].offset] ^= 1
    elif change == "padding":
        content[mapped.map.start - 1] = 1
    else:
        content[content.index(b'"sgd"') + 1] = ord("t")
    good.write_bytes(content)
    assert list(proof.prove(good.parent, [good.name]))


@pytest.mark.parametrize("excess", [0, 100])
def test_a_code_that_stands_for_no_text_is_refused(good, excess):
    content = bytearray(good.read_bytes())
    column = open_mapped(good).columns["text"]
    content[column.offset] = len(column.values) + excess
    good.write_bytes(content)
    with pytest.raises(StoreError, match="'text' has a code that stands for no text"):
        read_columns([good], ["text"])


def test_many_rows_of_one_large_text_share_it(tmp_path):
    path = tmp_path / "large.h5"
    write_columns(path, {"text": np.array(["a" * 10**6] * 50, dtype=object)}, {})
    texts = read_columns([path])["text"]
    assert all(text is texts[0] for text in texts)


def test_a_file_that_kills_the_child_is_a_fault_and_the_next_is_checked(good, monkeypatch):
    processes = []
    ask = proof._ask

    def kill_the_first(child, path):
        processes.append(child)
        if len(processes) == 1:
            child.kill()
            child.wait()
        return ask(child, path)

    monkeypatch.setattr(proof, "_ask", kill_the_first)
    (fault,) = proof.prove(good.parent, [good.name] * 3)
    assert "crashes libhdf5" in fault[1]
    assert processes[0] is not processes[1] is processes[2]


def test_booleans_that_are_neither_are_refused(good):
    content = bytearray(good.read_bytes())
    content[open_mapped(good).columns["diverged"].offset] = 2
    good.write_bytes(content)
    with pytest.raises(StoreError, match="'diverged' holds bytes that are neither False nor True"):
        read_columns([good])


def test_pipes_and_devices_and_folders_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.h5")
    (tmp_path / "folder.h5").mkdir()
    for path in (tmp_path / "pipe.h5", tmp_path / "folder.h5", Path("/dev/zero")):
        with pytest.raises(StoreError, match="not a regular file"):
            read_columns([path])


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StoreError, match=r"a.h5: cannot be read \(Permission denied\)"):
        read_columns([tmp_path / "a.h5"])


def test_nothing_heavy_is_loaded_to_read_libhdf5_least_of_all(good):
    code = f"""
import sys
from pathlib import Path
import zoo.store.zoo
import zoo.store.population
from zoo.store.mapped import open_mapped
print(list(open_mapped(Path({str(good)!r})).array("text")))
heavy = ("h5py", "datasets", "torch_geometric", "matplotlib", "ray")
assert not [name for name in heavy if name in sys.modules]
"""
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert shown.strip() == str(TEXTS)
