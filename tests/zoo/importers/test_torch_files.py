"""Files of torch: what is read is what torch itself reads."""

import argparse
import collections
import io
import pickle
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.images import image_folder, needs_images
from tests.zoo.importers.oracle import as_arrays, check_same, loaded
from zoo.importers.inert import read_pickle
from zoo.importers.passive import Passive, walk
from zoo.importers.table import read_checkpoint
from zoo.store.mapped import StoreError

NEW_AND_OLD = pytest.mark.parametrize("zipped", [True, False], ids=["archive", "before 1.6"])
DTYPES = (
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
)


def saved(path, value, zipped=True, **options):
    torch.save(value, path, _use_new_zipfile_serialization=zipped, **options)
    return read_checkpoint(path)


def module():
    return torch.nn.Sequential(
        torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.Linear(3, 2)
    )


@NEW_AND_OLD
def test_a_state_dict(zipped, tmp_path):
    path = tmp_path / "net.pt"
    checkpoint = saved(path, module().state_dict(), zipped)
    check_same(checkpoint.tensors, loaded(path))
    assert (checkpoint.notes, checkpoint.record) == ((), None)


@NEW_AND_OLD
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_type(dtype, zipped, tmp_path):
    values = torch.randn(4, 5) * 3
    state = {
        "plain": values.to(dtype),
        "turned": values.to(dtype).T,
        "part": values.to(dtype)[1:, 2:4],
        "steps": values.to(dtype)[::2, ::3],
        "scalar": values[0, 0].to(dtype),
        "empty": torch.zeros(0, 3, dtype=dtype),
        "none": values.to(dtype)[4:],
    }
    path = tmp_path / "net.pth"
    checkpoint = saved(path, state, zipped)
    check_same(checkpoint.tensors, loaded(path))
    told = f"{dtype}".removeprefix("torch.") + " became float32"
    assert (told in checkpoint.notes) == (dtype in DTYPES[1:4])


@NEW_AND_OLD
@pytest.mark.parametrize("seed", range(5))
def test_random_modules(seed, zipped, tmp_path):
    draw = np.random.default_rng(seed)
    layers = [
        torch.nn.Linear(*map(int, draw.integers(1, 9, 2))) for _ in range(draw.integers(1, 5))
    ]
    layers += [torch.nn.BatchNorm1d(int(draw.integers(1, 9))), torch.nn.GRU(3, 2)]
    path = tmp_path / "net.pt"
    checkpoint = saved(path, torch.nn.ModuleList(layers).state_dict(), zipped)
    check_same(checkpoint.tensors, loaded(path))


@given(data=st.data())
def test_random_views_of_one_storage(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("views") / "net.pt"
    storage = torch.arange(24.0)
    state = {}
    for name in data.draw(st.lists(st.text(min_size=1, max_size=9), min_size=1, unique=True)):
        shape = data.draw(st.sampled_from([(2, 3, 4), (4, 6), (24,), (3, 8), (1, 24)]))
        view = storage.reshape(shape)
        view = view.permute(*data.draw(st.permutations(range(len(shape)))))
        state[name] = view[data.draw(st.integers(0, len(view) - 1)) :]
    try:
        checkpoint = saved(path, state)
    except StoreError as error:
        assert "one tensor too many" in str(error)
    else:
        check_same(checkpoint.tensors, loaded(path))


def test_tied_tensors_share_their_memory(tmp_path):
    weight = torch.randn(3, 3)
    tensors = saved(tmp_path / "a.pt", {"a": weight, "b": weight, "c": weight.T}).tensors
    assert tensors["a"] is tensors["b"]
    np.testing.assert_array_equal(tensors["c"], weight.T)


def test_parameters_and_tensors_with_attributes(tmp_path):
    parameter = torch.nn.Parameter(torch.randn(2))
    noted = torch.nn.Parameter(torch.randn(3))
    noted.sharded = "no"
    state = collections.OrderedDict(a=parameter, b=noted)
    check_same(saved(tmp_path / "a.pt", state).tensors, as_arrays(state))


def test_unsigned_words(tmp_path):
    state = {"a": torch.arange(5).to(torch.uint16), "b": torch.arange(5).to(torch.uint32)}
    check_same(saved(tmp_path / "a.pt", state).tensors, as_arrays(state))


@NEW_AND_OLD
@pytest.mark.parametrize(
    ("wrap", "notes", "record"),
    [
        (lambda s: {"epoch": 3, "state_dict": s}, ("took the key 'state_dict'",), {"epoch": 3}),
        (lambda s: {"model": s}, ("took the key 'model'",), None),
        (lambda s: {"model_state_dict": s}, ("took the key 'model_state_dict'",), None),
        (lambda s: {"params": s, "image_idx": 4}, ("took the key 'params'",), {"image_idx": 4}),
        (lambda s: {"net": s}, ("took the key 'net'",), None),
        (lambda s: (s, 93.25), ("took the first of 2 values",), [None, 93.25]),
        (lambda s: {**s, "label": 7}, (), {"label": 7}),
        (
            lambda s: {"loss": torch.ones(1).item(), "model": {"state_dict": {**s, "label": 7}}},
            ("took the key 'model'", "took the key 'state_dict'"),
            {"loss": 1.0, "model": {"state_dict": {"label": 7}}},
        ),
        (
            lambda s: {f"_orig_mod.module.{name}": value for name, value in s.items()},
            ("removed the prefix '_orig_mod.'", "removed the prefix 'module.'"),
            None,
        ),
        (
            lambda s: {"pytorch-lightning_version": "2.5", "state_dict": s},
            ("took the key 'state_dict'", "a checkpoint of Lightning '2.5'"),
            {"pytorch-lightning_version": "2.5"},
        ),
    ],
)
def test_wrappers(wrap, notes, record, zipped, tmp_path):
    state = module().state_dict()
    checkpoint = saved(tmp_path / "net.ckpt", wrap(state), zipped)
    check_same(checkpoint.tensors, as_arrays(state))
    assert checkpoint.notes == notes
    assert checkpoint.record == record


def test_one_name_with_a_prefix_keeps_it(tmp_path):
    state = {"module.a": torch.ones(1), "b": torch.ones(1)}
    assert list(saved(tmp_path / "a.pt", state).tensors) == list(state)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_arrays_of_numpy_and_objects_beside_them(protocol, tmp_path):
    arrays = {
        "a": np.arange(6.0).reshape(2, 3),
        "b": np.asfortranarray(np.arange(6, dtype=">i4").reshape(2, 3)),
        "c": np.zeros((0, 2), np.float32),
    }
    options = argparse.Namespace(lr=0.1, betas=[0.9, 0.99])
    value = {"model": arrays, "args": options, "best": np.float64(0.5), "seen": {1, 2}}
    path = tmp_path / "net.pt"
    checkpoint = saved(path, value, pickle_protocol=protocol)
    expected = {n: a.astype(a.dtype.newbyteorder("=")) for n, a in arrays.items()}
    check_same(checkpoint.tensors, {**expected, "a": expected["a"].astype(np.float32)})
    record = checkpoint.record
    assert record["best"] == 0.5
    assert (record["args"].name, record["args"].state) == ("argparse.Namespace", vars(options))
    assert any("imported or called for: argparse.Namespace" in note for note in checkpoint.notes)
    assert isinstance(record["seen"], Passive)
    assert {1, 2} <= {part for part in walk(record) if isinstance(part, int)}


@NEW_AND_OLD
@pytest.mark.parametrize(
    ("value", "why"),
    [
        (lambda: {"a": torch.eye(3).to_sparse()}, "_rebuild_sparse_tensor"),
        (
            lambda: {"a": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)},
            "_rebuild_qtensor",
        ),
        (lambda: {"a": torch.ones(2, dtype=torch.complex64)}, "ComplexFloat"),
        (lambda: {"a": torch.ones(1).expand(9)}, "save it contiguous"),
        (lambda: {"a": torch.arange(9.0).unfold(0, 5, 1)}, "save it contiguous"),
        (lambda: {"a": torch.ones(2).to(torch.float8_e4m3fn)}, "real numbers"),
        (
            lambda: {"state": {0: {"step": torch.ones(1)}}, "param_groups": []},
            "a dict without tensors, of 2",
        ),
        (lambda: {3: torch.ones(1)}, "has the name 3"),
        (lambda: torch.ones(3), "expected a state dict, found an object"),
        (
            lambda: torch.nn.Linear(2, 2),
            "object of torch.nn.modules.linear.Linear, which is not made",
        ),
        (dict, "a dict without tensors, of 0"),
        (lambda: [1, 2], "found list"),
        (lambda: "text", "found str"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_what_has_no_weights_is_refused(value, why, zipped, tmp_path):
    path = tmp_path / "net.pt"
    with pytest.raises(StoreError, match=why) as refused:
        saved(path, value(), zipped)
    assert str(path) in str(refused.value)


def test_torchscript_is_refused(tmp_path):
    path = tmp_path / "net.pt"
    with pytest.warns(DeprecationWarning):
        torch.jit.script(torch.nn.Linear(2, 2)).save(path)
    with pytest.raises(StoreError, match="TorchScript"):
        read_checkpoint(path)


def test_big_endian_files(tmp_path):
    path, swapped = tmp_path / "a.pt", tmp_path / "b.pt"
    state = {"a": torch.randn(3), "b": torch.arange(4)}
    torch.save(state, path)
    sizes = {"data/0": 4, "data/1": 8}
    with zipfile.ZipFile(path) as given, zipfile.ZipFile(swapped, "w") as changed:
        for name in given.namelist():
            content = given.read(name)
            size = sizes.get(name.partition("/")[2])
            if size:
                content = np.frombuffer(content, f"<i{size}").byteswap().tobytes()
            if name.endswith("byteorder"):
                content = b"big"
            changed.writestr(name, content)
    check_same(read_checkpoint(swapped).tensors, as_arrays(state))


def test_archives_that_were_packed_again(tmp_path):
    buffer, path = io.BytesIO(), tmp_path / "net"
    state = {"a": torch.zeros(10_000)}
    torch.save(state, buffer)
    with zipfile.ZipFile(buffer) as given, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in given.namelist():
            new.writestr(name, given.read(name))
    check_same(read_checkpoint(path).tensors, as_arrays(state))


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_every_protocol_says_what_python_says(protocol):
    shared = ["é\n'\\", b"\0\xff", 2**70, -(2**31) - 1, -1, 255, 65536, 1.5, True, None]
    value = {
        "a": [*shared, shared, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
        5: {"long": "x" * 300},
    }
    read = read_pickle(memoryview(pickle.dumps(value, protocol)), {}).root
    if protocol < 3:  # bytes are a call there
        coded = read["a"][1]
        assert coded.name == "_codecs.encode"
        read["a"][1] = b"\0\xff"
        read["a"][10][1] = b"\0\xff"
    assert read == value
    assert read["a"][10] is not read["a"]


@needs_images("inr-orbit")
def test_real_networks_of_others():
    paths = sorted(image_folder("inr-orbit").glob("*/checkpoints/model_final.pth"))
    assert len(paths) == 256
    for path in paths[::16]:
        checkpoint = read_checkpoint(path)
        check_same(checkpoint.tensors, loaded(path))
        assert (checkpoint.notes, checkpoint.record) == ((), None)
