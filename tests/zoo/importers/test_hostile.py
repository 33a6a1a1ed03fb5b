"""Files that mean harm: nothing runs, nothing leaves the file, and memory is bounded by it."""

import io
import os
import pickle
import struct
import tracemalloc
import zipfile
from contextlib import suppress

import numpy as np
import pytest
import torch

from zoo.importers.table import read_checkpoint
from zoo.store.mapped import StoreError

LIMIT = 2**24
"""Bytes that reading a small file may take."""


class Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, touched):
        self.touched = touched

    def __reduce__(self):
        return os.system, (f"touch {self.touched}",)


def archive(content, path, **members):
    """A file of `torch.save` with this pickle."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("model/data.pkl", content)
        for name, data in members.items():
            file.writestr(f"model/data/{name}", data)
    return path


def peak_of(function):
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def runs(opcodes, touched):
    """Pickles that run `os.system` by each operation that calls."""
    command = f"touch {touched}".encode()
    text = b"X" + struct.pack("<I", len(command)) + command
    return {
        "reduce": b"\x80\x02cos\nsystem\n" + text + b"\x85R.",
        "instance": b"(" + text + b"ios\nsystem\n.",
        "object": b"(cos\nsystem\n" + text + b"o.",
        "new": b"\x80\x02cos\nsystem\n" + text + b"\x85\x81.",
        "new with keywords": b"\x80\x04cos\nsystem\n" + text + b"\x85}\x92.",
        "by names on the stack": b"\x80\x04\x8c\x02os\x8c\x06system\x93" + text + b"\x85R.",
        "build": b"\x80\x02cos\nsystem\n" + text + b"\x85R}b.",
    }[opcodes]


CALLS = ["reduce", "instance", "object", "by names on the stack", "build"]
"""Those that run a function when Python's own unpickler meets them."""


@pytest.mark.parametrize("call", [*CALLS, "new", "new with keywords"])
def test_nothing_that_a_pickle_names_is_called(call, tmp_path):
    touched = tmp_path / "touched"
    content = runs(call, touched)
    if call in CALLS:
        with suppress(TypeError, AttributeError, ValueError):
            pickle.loads(content)
        assert touched.exists()  # the attack works where pickles are run
        touched.unlink()
    with pytest.raises(StoreError, match=r"expected a state dict"):
        read_checkpoint(archive(content, tmp_path / "model.pt"))
    assert not touched.exists()


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_bomb_beside_the_weights_is_a_record(is_zip, tmp_path):
    touched, path = tmp_path / "touched", tmp_path / "model.pt"
    value = {"state_dict": {"w": torch.ones(3)}, "bomb": Bomb(touched)}
    torch.save(value, path, _use_new_zipfile_serialization=is_zip)
    checkpoint = read_checkpoint(path)
    assert checkpoint.tensors["w"].tolist() == [1, 1, 1]
    assert checkpoint.record["bomb"].name.endswith(".system")
    assert not touched.exists()


def tensor_pickle(shape, strides, offset=0, kind="FloatStorage", size=4):
    """A state dict of one tensor with this place in its storage."""

    def number(value):
        return (
            b"J" + struct.pack("<i", value)
            if value < 2**31
            else b"\x8a\x08" + struct.pack("<q", value)
        )

    def many(values):
        return b"(" + b"".join(map(number, values)) + b"t"

    storage = (
        b"(X\x07\0\0\0storagectorch\n"
        + kind.encode()
        + b"\nX\x01\0\0\x000X\x03\0\0\0cpu"
        + number(size)
        + b"tQ"
    )
    rebuilt = (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + number(offset)
        + many(shape)
        + many(strides)
        + b"\x89}tR"
    )
    return b"\x80\x02}X\x01\0\0\0w" + rebuilt + b"s."


def test_the_planted_pickle_is_one(tmp_path):
    path = archive(tensor_pickle([2, 2], [2, 1]), tmp_path / "a.pt", **{"0": bytes(16)})
    assert np.array_equal(read_checkpoint(path).tensors["w"], np.zeros((2, 2)))


PLACES = {
    "more than the storage": ([3, 2], [2, 1], 0),
    "behind its end": ([2, 2], [2, 1], 1),
    "expanded a billion times": ([2**30], [0], 0),
    "more than memory": ([2**40, 2**40], [1, 1], 0),
    "a negative size": ([-1, 2], [2, 1], 0),
    "a negative stride": ([2, 2], [-2, 1], 3),
    "a negative offset": ([2, 2], [2, 1], -1),
    "other strides than sizes": ([2, 2], [1], 0),
}


@pytest.mark.parametrize("case", PLACES)
def test_tensors_lie_in_their_storage(case, tmp_path):
    path = archive(tensor_pickle(*PLACES[case]), tmp_path / "a.pt", **{"0": bytes(16)})

    def read():
        with pytest.raises(StoreError, match="'w'"):
            read_checkpoint(path)

    assert peak_of(read) < LIMIT


def doubled_wrappers(depth):
    """Dicts that hold the one before them under five keys that are taken for wrappers."""
    keys = (b"state_dict", b"model_state_dict", b"model", b"params", b"net")
    code = b"q\0"
    for place in range(depth):
        held = b"h" + bytes([place])
        items = b"".join(b"X" + struct.pack("<I", len(key)) + key + held for key in keys)
        code += b"0}(" + items + b"uq" + bytes([place + 1])
    return code


PICKLES = {
    "a huge place of the memo": b"\x80\x02}r\xff\xff\xff\xff.",
    "a huge text": b"\x80\x02X\xff\xff\xff\xff.",
    "huge bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b".",
    "a huge integer": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "deep lists": b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".",
    "tuples that double": b"\x80\x02K\x01" + b"2\x86" * 60 + b".",
    "doubled tuples that are called": b"\x80\x02K\x01" + b"2\x86" * 60 + b")R.",
    "doubled tuples as a state": b"\x80\x02K\x01" + b"2\x86" * 60 + b"}b.",
    "doubled tuples as a name": b"\x80\x04K\x01" + b"2\x86" * 60 + b"2\x93.",
    "wrappers that double": b"\x80\x02}" + doubled_wrappers(12) + b".",
    "a wrapper in itself": b"\x80\x02}q\0X\x05\0\0\0modelh\0s.",
    "a tuple that is deep as a key": b"\x80\x02})" + b"\x85" * 100_000 + b"Ns.",
    "no end": b"\x80\x02" + b"}0" * 1000,
    "an empty stack": b"\x80\x020.",
    "protocol 9": b"\x80\x09}.",
    "an unknown operation": b"\x80\x02\xee.",
    "appending to a number": b"\x80\x02K\x01K\x01a.",
}


@pytest.mark.parametrize("case", PICKLES)
def test_pickles_that_would_fill_memory_or_stack(case, tmp_path):
    path = archive(PICKLES[case], tmp_path / "a.pt")

    def read():
        with pytest.raises(StoreError, match=r"a\.pt"):
            read_checkpoint(path)

    assert peak_of(read) < 4 * LIMIT


def test_zip_bombs(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("w.npy", bytes(2**28))

    def read():
        with pytest.raises(StoreError, match="zip bomb"):
            read_checkpoint(path)

    assert peak_of(read) < LIMIT


def test_members_that_overlap_or_stand_twice(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("w.npy", b"x")
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("w.npy", b"y")
    with pytest.raises(StoreError, match="twice"):
        read_checkpoint(path)


@pytest.mark.parametrize("name", ["../../outside", "/etc/outside", "a\\..\\b"])
def test_names_in_archives_are_never_paths(name, tmp_path):
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "a.npz"
    content = io.BytesIO()
    np.save(content, np.ones(3, np.float32))
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{name}.npy", content.getvalue())
    before = sorted(tmp_path.rglob("*"))
    tensors = read_checkpoint(path).tensors
    assert [array.tolist() for array in tensors.values()] == [[1, 1, 1]]
    assert sorted(tmp_path.rglob("*")) == before


def test_tensors_of_one_storage_are_read_once(tmp_path):
    big = torch.arange(2.0**20)
    state = {f"k{i}": big[i : i + 1] for i in range(2000)}
    torch.save(state, tmp_path / "a.pt")
    tensors = read_checkpoint(tmp_path / "a.pt").tensors
    assert [array.item() for array in tensors.values()] == list(range(2000))
