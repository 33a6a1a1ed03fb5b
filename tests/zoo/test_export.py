"""Exported zoos have the bits of the store.

Parquet through pandas, pyarrow and `datasets`, and safetensors.
"""

import json

import datasets
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from safetensors import safe_open

import zoo
import zoo.sharing.export
import zoo.store.streaming
from tests.zoo.written import write_zoo
from zoo.sharing.export import export_zoo

SHARDS = {"train": 5, "validation": 2, "test": 3}


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    return zoo.load(write_zoo(tmp_path_factory.mktemp("zoos") / "written"))


@pytest.fixture
def small_blocks(monkeypatch):
    """Row groups of eight networks."""
    monkeypatch.setattr(zoo.store.streaming, "READ_BYTES", 4 * 485 * 8)


def bits(values):
    return np.asarray(values).tobytes()


def assert_table(exported, table):
    assert list(exported)[: len(table.columns)] == list(table.columns)
    for name in table:
        if pd.api.types.is_numeric_dtype(table[name]):
            assert exported[name].dtype == table[name].dtype
            assert bits(exported[name]) == bits(table[name])
        else:
            assert exported[name].tolist() == table[name].tolist()


def test_parquet_is_bit_equal(opened, tmp_path, small_blocks):
    export_zoo(opened, tmp_path / "out", "parquet")
    for name, population in opened.items():
        for split in population.splits:
            path = tmp_path / "out" / name / f"{split}.parquet"
            params, frame = population.params(split), pd.read_parquet(path)
            assert_table(frame, population.table(split))
            assert list(frame)[-len(params) :] == list(params)
            schema = pq.read_schema(path)
            for tensor, values in params.items():
                assert json.loads(schema.field(tensor).metadata[b"shape"]) == list(values.shape[1:])
                assert bits(np.stack(frame[tensor].tolist())) == bits(values)
            record = json.loads(schema.metadata[b"symzoo"])
            assert (record["population"], record["split"], record["space"]) == (
                name,
                split,
                json.loads(population.space.to_json()),
            )
            assert record["hyperparameters"] == list(population.hyperparameters)
    assert pq.ParquetFile(tmp_path / "out" / "standard" / "train.parquet").num_row_groups == 5


def test_datasets_loads_parquet(opened, tmp_path):
    export_zoo(opened, tmp_path / "out", "parquet", populations=["standard"])
    datasets.disable_progress_bars()
    files = {split: str(tmp_path / "out" / "standard" / f"{split}.parquet") for split in SHARDS}
    loaded = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "cache"))
    for split, rows in loaded.items():
        params = opened["standard"].params(str(split))
        for name, tensor in params.items():
            assert torch.equal(rows.with_format("torch")[name][:].reshape(tensor.shape), tensor)


def test_safetensors_are_bit_equal_a_file_a_shard(opened, tmp_path):
    export_zoo(opened, tmp_path / "out", "safetensors")
    for name, population in opened.items():
        for split, count in SHARDS.items():
            paths = sorted((tmp_path / "out" / name).glob(f"{split}-*.safetensors"))
            assert [path.name for path in paths] == [
                f"{split}-{k:05d}-of-{count:05d}.safetensors" for k in range(count)
            ]
            parts, text = {}, {}
            for path in paths:
                with safe_open(path, framework="pt") as file:
                    record = json.loads(file.metadata()["symzoo"])
                    for key in file.keys():  # noqa: SIM118
                        parts.setdefault(key, []).append(file.get_tensor(key))
                for key, values in record["text"].items():
                    text.setdefault(key, []).extend(values)
            assert record["architecture"] == {"name": "mlp", "hidden": [6, 5]}
            table = population.table(split)
            for tensor, values in population.params(split).items():
                assert torch.equal(torch.cat(parts.pop(tensor)), values)
            assert_table(
                pd.DataFrame(
                    {**text, **{key: torch.cat(rest).numpy() for key, rest in parts.items()}}
                )[list(table)],
                table,
            )


@pytest.mark.parametrize("kind", ["parquet", "safetensors"])
def test_constants_travel(opened, tmp_path, kind):
    export_zoo(opened, tmp_path / "out", kind, splits=["test"])
    assert [path.name for path in (tmp_path / "out" / "constants").iterdir()] == [
        "w_asymmetric.safetensors"
    ]
    with safe_open(
        tmp_path / "out" / "constants" / "w_asymmetric.safetensors", framework="pt"
    ) as file:
        constants = opened["w_asymmetric"].constants
        assert set(file.keys()) == set(constants)
        assert all(torch.equal(file.get_tensor(name), constants[name]) for name in constants)
    assert not list((tmp_path / "out").rglob("train*"))


def test_only_what_was_asked_for_and_nothing_over_anything(opened, tmp_path):
    out = export_zoo(opened, tmp_path / "out", "parquet", ["standard"], ["test"])
    files = [str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()]
    assert files == ["standard/test.parquet"]
    with pytest.raises(ValueError, match="expected a folder that is new or empty"):
        export_zoo(opened, out, "safetensors")
    assert [path for path in out.rglob("*") if path.is_file()] == [
        out / "standard" / "test.parquet"
    ]
    for options, message in [
        (
            {"populations": ["standrad"]},
            r"no populations \['standrad'\] in .*; populations are \['standard', 'w_asymmetric'\]",
        ),
        ({"splits": ["tset"]}, r"no splits \['tset'\]; splits are"),
    ]:
        with pytest.raises(ValueError, match=message):
            export_zoo(opened, tmp_path / "new", "parquet", **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_a_failure_leaves_nothing(opened, tmp_path, monkeypatch):
    def fail(*args):
        raise OSError("the disk is full")

    monkeypatch.setattr(zoo.sharing.export, "save_file", fail)
    with pytest.raises(OSError, match="the disk is full"):
        export_zoo(opened, tmp_path / "out", "parquet")
    assert list(tmp_path.iterdir()) == []
