"""Safetensors and archives of numpy: what is read is what their own libraries wrote."""

import io
import json
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file

from tests.zoo.importers.oracle import as_arrays, check_same
from zoo.importers.table import read_checkpoint
from zoo.store.mapped import StoreError

STATE = {
    "module.a": torch.randn(2, 3),
    "module.b": torch.randn(4).bfloat16(),
    "module.c": torch.randn(3).half(),
    "module.d": torch.randn(3).double(),
    "module.e": torch.arange(5),
    "module.f": torch.tensor([True, False]),
    "module.g": torch.zeros(0, 2),
    "module.h": torch.tensor(3, dtype=torch.int16),
}
HALVES = ("float16 became float32", "bfloat16 became float32", "float64 became float32")


def test_safetensors(tmp_path):
    path = tmp_path / "net.safetensors"
    save_file(STATE, path, {"epoch": "3"})
    checkpoint = read_checkpoint(path)
    names = json.loads(path.read_bytes()[8:].partition(b"}}")[0] + b"}}")
    order = [name for name in names if name != "__metadata__"]
    expected = as_arrays({name: STATE[name] for name in order})
    check_same(checkpoint.tensors, {n.removeprefix("module."): a for n, a in expected.items()})
    assert checkpoint.record == {"epoch": "3"}
    assert checkpoint.notes == ("removed the prefix 'module.'", *HALVES)


def header_of(entries, content=b"\0" * 8, length=None):
    text = json.dumps(entries).encode() if isinstance(entries, dict) else entries
    return (len(text) if length is None else length).to_bytes(8, "little") + text + content


def entry(start, end, shape, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (header_of({"a": entry(0, 8, [2])}, length=2**30), "header of at most"),
        (header_of({"a": entry(0, 8, [2])}, length=2**63), "header of at most"),
        (header_of({"a": entry(0, 8, [2]), "b": entry(4, 8, [1])}), "where the one before it ends"),
        (header_of({"a": entry(4, 8, [1])}), "start at 0"),
        (header_of({"a": entry(0, 4, [1])}), "expected 4 bytes of tensors, found 8"),
        (header_of({"a": entry(0, 16, [4])}), "lies at 0 to 16 of 8"),
        (header_of({"a": entry(0, 8, [3])}), "expected 12 bytes, found 8"),
        (header_of({"a": entry(0, 8, [2**40, 2**40])}), "more values than memory"),
        (header_of({"a": entry(0, 8, [-2])}), "natural numbers"),
        (header_of({"a": entry(0, 8, [True, 2])}), "natural numbers"),
        (header_of({"a": entry(0, 8, 2)}), "expected a shape"),
        (header_of({"a": entry(0, 8, [1] * 99)}), "at most 32"),
        (header_of({"a": entry(8, 0, [2])}), "has offsets"),
        (header_of({"a": entry(0, 8, [8], "F8_E4M3")}), "real numbers"),
        (header_of({"a": entry(0, 8, [1], "C64")}), "real numbers"),
        (header_of({"a": entry(0, 8, [8], "BOOL")}, b"\2" * 8), "neither False nor True"),
        (header_of({"a": entry(0, 8, [1], ["F64"])}), "real numbers"),
        (header_of({"a": 3}), "has offsets"),
        (header_of({}, b""), "expected tensors, found none"),
        (header_of(b"[1]"), "no object of JSON"),
        (header_of(b'{"a"'), "not JSON"),
        (header_of(b"[" * 10**5), "not JSON"),
        (header_of(b"[" + b"," * (2**22 + 1)), "values; expected at most"),
        (b"\1", "header of at most"),
    ],
)
def test_hostile_safetensors(content, why, tmp_path):
    path = tmp_path / "net.safetensors"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=why):
        read_checkpoint(path)


def npz(path, **arrays):
    np.savez(path, **arrays)
    return read_checkpoint(path)


def test_npz(tmp_path):
    arrays = {
        "a": np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32),
        "b": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "c": np.float32(2),
        "d": np.zeros((0, 4), np.uint8),
        "e": np.array([True, False]),
        "f": np.arange(3, dtype=">i2"),
    }
    label = np.array(["cat", "dog"])
    checkpoint = npz(tmp_path / "net.npz", **arrays, g=np.ones(2), label=label)
    native = {n: np.asarray(a, a.dtype.newbyteorder("="), "C") for n, a in arrays.items()}
    check_same(checkpoint.tensors, {**native, "g": np.ones(2, np.float32)})
    assert checkpoint.record == {"label": ["cat", "dog"]}
    assert checkpoint.notes == ("float64 became float32",)
    np.savez_compressed(tmp_path / "packed.npz", **arrays)
    check_same(read_checkpoint(tmp_path / "packed.npz").tensors, native)


@pytest.mark.parametrize(
    ("array", "why"),
    [
        (np.array([{}], dtype=object), r"'\|O'"),
        (np.ones(2, complex), "'<c16'"),
        (np.zeros(2, [("a", "f4")]), "expected an array of numbers"),
        (np.zeros(2, "M8[s]"), "expected an array of numbers"),
    ],
)
def test_arrays_without_numbers_are_refused(array, why, tmp_path):
    with pytest.raises(StoreError, match=why):
        npz(tmp_path / "net.npz", a=array)


def members(path, contents, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (b"(2, 3)", b"(2, 4)", "expected 32 bytes, found 24"),
        (b"(2, 3)", b"(9999999999999999999999, 3)"[:6], "expected an array of numbers"),
        (b"'<f4'", b"'<O4'", "not read|real numbers"),
        (b"'<f4'", b"'<q0'", "not read|real numbers"),
        (b"False", b"Pwned", "expected an array of numbers"),
        (b"NUMPY\1", b"NUMPY\7", "no array of numpy"),
        (b"\x76\0", b"\xff\xff", "header of 65535 bytes"),
    ],
)
def test_hostile_arrays(old, new, why, tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, np.ones((2, 3), np.float32))
    assert old in buffer.getvalue()
    members(tmp_path / "net.npz", {"a.npy": buffer.getvalue().replace(old, new, 1)})
    with pytest.raises(StoreError, match=why):
        read_checkpoint(tmp_path / "net.npz")


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("net.pt", b"version https://git-lfs.github.com/spec/v1\n", "git-lfs"),
        ("net.pt", b"<html>not found</html>", "expected a checkpoint of"),
        ("net.pt", b"\x80\x02}q\x00.", "expected a checkpoint of"),
        ("net.npz", b"PK\x03\x04 and no more", "no directory"),
        ("net.pt", b"", "empty"),
    ],
)
def test_other_files_are_named(name, content, why, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(StoreError, match=why):
        read_checkpoint(tmp_path / name)


def test_an_archive_of_anything(tmp_path):
    members(tmp_path / "a.zip", {"readme.txt": b"hello"})
    with pytest.raises(StoreError, match=r"found one with \['readme.txt'\]"):
        read_checkpoint(tmp_path / "a.zip")


def test_a_file_whose_name_does_not_tell(tmp_path):
    (tmp_path / "net").write_bytes(save(STATE))
    assert len(read_checkpoint(tmp_path / "net").tensors) == len(STATE)
