"""Damaged and crafted files: memory is bounded, and only StoreError comes out."""

import io
import json
import random
import sys
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
import torch
from safetensors.torch import save

from tests.zoo.importers.hostile import archive, state, tensor, text
from zoo.importers.checkpoint import Checkpoint
from zoo.importers.table import read_checkpoint
from zoo.store.mapped import StoreError

WORD = 2**20


def outcome(path):
    """A checkpoint or None; anything but a StoreError for a terminal comes out."""
    try:
        return read_checkpoint(path)
    except StoreError as error:
        assert str(error).isprintable()
        return None


def refusal(path):
    """What is said, and memory taken."""
    tracemalloc.start()
    try:
        with pytest.raises(StoreError) as refused:
            read_checkpoint(path)
        return str(refused.value), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_nothing_is_imported_and_no_file_is_opened(tmp_path):
    path = archive(
        tmp_path / "net.pt", state(tensor([4], [1]), b"cantigravity\nfly\n)R"), {"0": bytes(16)}
    )
    met, watching = [], [True]

    def hook(event, arguments):
        if watching and event in ("import", "open", "pickle.find_class", "exec", "compile"):
            met.append((event, str(arguments[0])))

    read_checkpoint(path)
    sys.addaudithook(hook)
    read_checkpoint(path)
    watching.clear()
    assert met == [("open", str(path))]
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"\x80\2Nr\xff\xff\xff\xff.", "found NoneType|found None"),
        (b"\x80\2\x8b\0\0\0\x7f", "is cut"),
        (b"\x80\4\x8e" + b"\xff" * 8, "is cut"),
        (b"\x80\4\x8d\0\0\0\0\0\1\0\0", "is cut"),
        (b"\x80\2\x8b\0\4\1\0" + bytes(2**16 + 1024) + b".", "integer of"),
        (b"L" + b"9" * 4090 + b"L\n.", "found|damaged"),
        (b"L" + b"9" * 9999 + b"L\n.", "line of more than"),
        (b"\x80\2}" + b")" + b"\x85" * 10**5 + b"Ns.", "a dict without tensors"),
        (b"\x80\2" + b"]" * 10**5 + b"a" * (10**5 - 1) + b")R.", "a pickle calls list"),
        (b"\x80\2" + b"]" * 10**5 + b"a" * (10**5 - 1) + b".", "expected a state dict"),
        (b"\x80\2]q\0" + b"h\0h\0\x86q\0" * 200 + b"R.", "a pickle calls"),
        (b"\x80\2]q\0" + b"h\0h\0\x86q\0" * 200 + b".", "expected a state dict"),
        (b"\x80\2}q\0X\5\0\0\0modelh\0s.", "a dict without tensors"),
        (b"\x80\2(X\5\0\0\0modelK\1K\2d.", "damaged"),
        (b"\x80\2K\1K\2a.", "appends to int"),
        (b"\x80\2K\1K\2K\3s.", "sets items of int"),
        (b"\x80\2K\1}b.", "sets the state of"),
        (b"\x80\2cos\nsystem\n}b.", "sets the state of"),
        (b"\x80\2.", "damaged"),
        (b"\x80\2h\7.", "damaged"),
        (b"\x80\2t.", "damaged"),
        (b"\x80\x63.", "protocol 99"),
        (b"\x80\2\x82\1.", "unknown operation 130"),
        (b"\x80\5\x97.", "unknown operation 151"),
        (b"\x80\2c" + b"a" * 400 + b"\n" + b"b" * 400 + b"\n.", "two short texts"),
        (b"\x80\2]]\x93.", "two short texts"),
        (b"\x80\2N" + b"0N" * (2**21 + 1) + b".", "more than 4194304 operations"),
    ],
)
def test_pickles_that_ask_for_too_much(content, why, tmp_path):
    path = archive(tmp_path / "net.pt", content)
    with pytest.raises(StoreError, match=why):
        read_checkpoint(path)


def test_names_are_kept_once(tmp_path):
    """A long name takes memory once, not each time that it is put together."""
    names = b"X\0\1\0\0" + b"m" * 256 + b"q\0X\0\1\0\0" + b"n" * 256 + b"q\1"
    path = archive(tmp_path / "net.pt", b"\x80\2]" + names + b"h\0h\1\x93" * 10**4 + b".")
    assert refusal(path)[1] < 3 * WORD


def test_an_empty_tensor_anywhere(tmp_path):
    content = state(tensor([0, 2**40], [1, 1], 2**40), tensor([4], [1]))
    tensors = read_checkpoint(archive(tmp_path / "a.pt", content, {"0": bytes(16)})).tensors
    assert tensors["a"].shape == (0, 2**40)


def test_many_tensors_of_one_large_storage(tmp_path):
    """26 tensors that overlap would take 26 times the file."""
    views = [tensor([10**5 - i], [1], i) for i in range(26)]
    said, memory = refusal(archive(tmp_path / "net.pt", state(*views), {"0": bytes(4 * 10**5)}))
    assert "one tensor too many" in said
    assert memory < 3 * WORD


@pytest.mark.parametrize("key", ["../0", "/etc/passwd", "..\\0", "\0", "a" * 999])
def test_names_of_storages_are_no_paths(key, tmp_path):
    path = archive(tmp_path / "net.pt", state(tensor([4], [1], key=key)), {"0": bytes(16)})
    with pytest.raises(StoreError, match="no member"):
        read_checkpoint(path)
    if "\0" not in key:
        archive(path, state(tensor([4], [1], key=key)), {key: bytes(16)})
        assert list(read_checkpoint(path).tensors) == ["a"]
    assert [file.name for file in tmp_path.rglob("*")] == ["net.pt"]


def test_a_zip_that_lies_about_its_size(tmp_path):
    path = tmp_path / "net.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.npy", bytes(100 * WORD))
    content = path.read_bytes()
    path.write_bytes(
        content.replace((100 * WORD).to_bytes(4, "little"), (99).to_bytes(4, "little"))
    )
    said, memory = refusal(path)
    assert "unpacks to other than 99 bytes" in said
    assert memory < 2 * WORD


def zipped(method=zipfile.ZIP_STORED, names=("a.npy",)):
    buffer, one = io.BytesIO(), io.BytesIO()
    np.save(one, np.ones(3, np.float32))
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name in names:
            file.writestr(name, one.getvalue())
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda z: z.replace(b"PK\1\2", b"PK\1\3"), "damaged"),
        (
            lambda z: (
                z.replace(b"PK\3\4", b"PK\3\5")[:0] + b"PK" + z.replace(b"PK\3\4", b"PK\3\5")[2:]
            ),
            "is not in",
        ),
        (lambda z: z[:-6] + b"\xff\xff\xff\0" + z[-2:], "is cut|not in it"),
        (lambda z: z[:-12] + b"\xff\xff" + z[-10:], "has 65535 members"),
        (lambda z: z.replace(b"\0\0\x80\x3f", b"\1\0\x80\x3f", 1), "another checksum"),
        (lambda z: zipped(zipfile.ZIP_LZMA), "method 14"),
        (lambda z: zipped(names=("a.npy", "b.npy")).replace(b"b.npy", b"a.npy"), "twice"),
        (lambda z: zipped(zipfile.ZIP_DEFLATED).replace(b"\x93NUMPY"[:1], b"\0"), ""),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_damaged_archives(change, why, tmp_path):
    path = tmp_path / "net.npz"
    path.write_bytes(change(zipped()))
    if why:
        with pytest.raises(StoreError, match=why):
            read_checkpoint(path)
    else:
        outcome(path)


def test_members_that_overlap(tmp_path):
    """One body under many names would be read many times."""
    content = zipped(names=[f"{i}.npy" for i in range(9)])
    entry, first = content.index(b"PK\1\2"), 42
    changed = bytearray(content)
    size = 46 + len("0.npy")
    for i in range(9):
        place = entry + i * size
        changed[place + 20 : place + 28] = (len(content) // 4).to_bytes(4, "little") * 2
        changed[place + first : place + first + 4] = bytes(4)
    (tmp_path / "net.npz").write_bytes(changed)
    with pytest.raises(StoreError, match="overlap"):
        read_checkpoint(tmp_path / "net.npz")


def files():
    """Small files of each format."""
    model = {"a": torch.randn(3, 2), "b": torch.arange(3), "c": torch.zeros(0)}
    value = {"model": model, "lr": 0.1, "x": np.ones(2)}
    found = {"safetensors": save(model), "npz": zipped()}
    for name, is_zip in (("pt", True), ("ckpt", False)):
        buffer = io.BytesIO()
        torch.save(value, buffer, _use_new_zipfile_serialization=is_zip)
        found[name] = buffer.getvalue()
    buffer = io.BytesIO()
    np.savez_compressed(buffer, a=np.arange(9.0), b=np.ones(3, bool))
    found["packed.npz"] = buffer.getvalue()
    return found


FILES = files()


@pytest.mark.parametrize("kind", FILES)
def test_files_cut_anywhere(kind, tmp_path):
    content, path = FILES[kind], tmp_path / f"net.{kind}"
    for length in range(1, len(content), 10):
        path.write_bytes(content[:length])
        with pytest.raises(StoreError):
            read_checkpoint(path)


def check_flips(kind, first, count, tmp_path):
    content, path = FILES[kind], tmp_path / f"net.{kind}"
    for seed in range(first, first + count):
        draw, changed = random.Random(seed), bytearray(content)
        for _ in range(draw.choice([1, 1, 2, 8])):
            changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
        path.write_bytes(_with_checksums(bytes(changed)) if seed % 2 else changed)
        assert isinstance(outcome(path), Checkpoint | None), seed


def _with_checksums(content):
    """The checksums of an archive made right again, so that what is below them is read."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as file:
            entries = file.infolist()
            changed = bytearray(content)
            for entry in entries:
                start = entry.header_offset + 30
                start += sum(content[start - 4 : start : 2]) + 256 * content[start - 1]
                if entry.compress_type == zipfile.ZIP_STORED:
                    right = zlib.crc32(content[start : start + entry.file_size])
                    old = entry.CRC.to_bytes(4, "little")
                    changed = changed.replace(old, right.to_bytes(4, "little"))
            return bytes(changed)
    except (zipfile.BadZipFile, IndexError, ValueError, OSError, NotImplementedError):
        return content


@pytest.mark.parametrize("kind", FILES)
def test_flipped_bits(kind, tmp_path):
    check_flips(kind, 0, 200, tmp_path)


@pytest.mark.deep
@pytest.mark.parametrize("kind", FILES)
def test_more_flipped_bits(kind, tmp_path):
    check_flips(kind, 200, 10_000, tmp_path)


def random_pickle(draw):
    """Operations drawn with sense: most have what they need."""
    parts = [
        *(b"(", b"]", b"}", b")", b"t", b"l", b"d", b"N", b"K\1", b"\x85", b"\x86", b"\x87", b"0"),
        *(b"1", b"2", b"a", b"e", b"s", b"u", b"R", b"b", b"Q", b"o", b"\x81", b"\x92", b"\x94"),
        *(b"q\0", b"q\1", b"h\0", b"h\1", b"X\1\0\0\0a", b"X\5\0\0\0model", b"\x93", b"\x8f"),
        *(b"\x90", b"\x91", b"cos\nsystem\n", b"ccollections\nOrderedDict\n)R"),
        *(b"cnumpy\ndtype\n", b"cnumpy.core.multiarray\n_reconstruct\n", tensor([4], [1])),
        *(b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch._utils\n_rebuild_parameter\n"),
        *(b"cnumpy.core.multiarray\nscalar\n", b"X\2\0\0\0f8", b"C\x08" + bytes(8)),
        *(b"ctorch._tensor\n_rebuild_from_type_v2\n", b"c_codecs\nencode\n", b"I01\n", b"F1\n"),
    ]
    return b"\x80\2" + b"".join(draw.choices(parts, k=draw.randrange(40))) + b"."


def check_pickles(first, count, tmp_path):
    for seed in range(first, first + count):
        content = random_pickle(random.Random(seed))
        path = archive(tmp_path / "net.pt", content, {"0": bytes(16)})
        assert isinstance(outcome(path), Checkpoint | None), seed


def test_random_pickles(tmp_path):
    check_pickles(0, 300, tmp_path)


@pytest.mark.deep
def test_more_random_pickles(tmp_path):
    check_pickles(300, 30_000, tmp_path)


def test_a_hundred_thousand_keys(tmp_path):
    names = [f"layers.{i}.weight" for i in range(10**5)]
    entries = {
        n: {"dtype": "U8", "shape": [], "data_offsets": [i, i + 1]} for i, n in enumerate(names)
    }
    header, path = json.dumps(entries).encode(), tmp_path / "net.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(10**5))
    assert list(read_checkpoint(path).tensors) == names
    pairs = [text(name) + tensor([], [], i, kind="ByteStorage") for i, name in enumerate(names)]
    content = b"\x80\2}(" + b"".join(pairs) + b"u."
    checkpoint = read_checkpoint(archive(tmp_path / "net.pt", content, {"0": bytes(10**5)}))
    assert list(checkpoint.tensors) == names


def test_not_a_number_is_kept(tmp_path):
    path = tmp_path / "net.pt"
    torch.save({"a": torch.tensor([torch.nan, torch.inf]), "b": torch.tensor(1e300).double()}, path)
    tensors = read_checkpoint(path).tensors
    np.testing.assert_array_equal(tensors["a"], [np.nan, np.inf])
    torch.save({"b": torch.tensor(1e300, dtype=torch.float64)}, path)
    assert read_checkpoint(path).tensors["b"] == np.inf
