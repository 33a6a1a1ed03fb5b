"""Networks that stream from disk are those of memory, in the order of the seed, with any number of
workers.
"""

import os
import threading
from itertools import chain
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import zoo
import zoo.store.streaming
from metanet.inputs.memory import free_memory
from tests.zoo.written import SPLIT, write_zoo
from zoo.store.mapped import StoreError
from zoo.store.streaming import group_batches, shuffled

POPULATIONS = ("standard", "w_asymmetric")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_zoo(tmp_path_factory.mktemp("zoos") / "written")


@pytest.fixture(params=POPULATIONS)
def population(folder, request):
    return zoo.load(folder)[request.param]


@pytest.fixture(params=[0, 2**15])
def gap(request, monkeypatch):
    """Every row by itself, and all rows of a shard at once."""
    monkeypatch.setattr(zoo.store.streaming, "GAP", request.param)


def same(one, other):
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in other)


@pytest.mark.parametrize("view", ["full", "free"])
def test_any_rows_are_those_of_memory(population, view, gap):
    params = population.params("train", view)
    stored = population.stored("train", view)
    for rows in (
        [5],
        [3, 3, 39, 0],
        list(range(40)),
        list(range(39, -1, -1)),
        [8, 9, 10, 17, 18],
        [],
    ):
        index = torch.tensor(rows, dtype=torch.int64)
        assert same(stored.read(index), {name: tensor[index] for name, tensor in params.items()})
    odd = stored.select(np.arange(1, 40, 2))
    assert (len(stored), len(odd), stored.num_params) == (40, 20, population.space.num_params)
    assert same(
        odd.read(torch.tensor([4, 1])), {name: tensor[[9, 3]] for name, tensor in params.items()}
    )


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("block_bytes", [1, 2**14, 2**25])
def test_the_order_is_that_of_the_seed_with_any_number_of_workers(
    population, workers, block_bytes, monkeypatch
):
    monkeypatch.setattr(zoo.store.streaming, "READ_BYTES", block_bytes)
    order = torch.randperm(40, generator=seeded_as_documented(seed=5, epoch=2))
    params, table = population.params("train"), population.table("train")
    wanted = ["optimizer", "test_accuracy", "diverged"]
    streamed = list(
        population.batches("train", 7, seed=5, epoch=2, columns=wanted, workers=workers)
    )
    assert [len(batch.columns["diverged"]) for batch in streamed] == [7, 7, 7, 7, 7, 5]
    for batch, index in zip(streamed, order.split(7), strict=True):
        assert same(batch.params, {name: tensor[index] for name, tensor in params.items()})
        assert list(batch.columns) == wanted
        assert batch.columns["optimizer"] == table["optimizer"].iloc[index.numpy()].tolist()
        np.testing.assert_array_equal(
            batch.columns["test_accuracy"], table["test_accuracy"].to_numpy()[index]
        )
        assert batch.columns["diverged"].dtype == torch.bool


def seeded_as_documented(seed, epoch):
    state = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state))


def test_seeds_and_epochs_have_orders_of_their_own_and_each_is_a_permutation():
    orders = {(seed, epoch): shuffled(30, seed, epoch) for seed in range(3) for epoch in range(3)}
    assert len({tuple(order.tolist()) for order in orders.values()}) == 9
    assert all(torch.equal(order.sort().values, torch.arange(30)) for order in orders.values())
    firsts = np.bincount([int(shuffled(4, seed)[0]) for seed in range(2000)], minlength=4)
    assert (
        (firsts - 500) ** 2 / 500
    ).sum() < 16.3  # chi-square with 3 degrees of freedom, p = 0.001


def test_without_a_seed_networks_come_in_order_and_subsets_are_nested(population):
    def ids(**options):
        return [
            batch.columns["network_id"].tolist()
            for batch in population.batches("test", 6, columns=["network_id"], **options)
        ]

    assert [*chain(*ids())] == list(range(53, 74))
    assert ids(num_networks=8) == [list(range(53, 59)), [59, 60]]
    assert ids(num_networks=8, drop_last=True) == [list(range(53, 59))]
    assert ids(num_networks=5, drop_last=True) == []
    assert sorted(chain(*ids(num_networks=8, seed=1))) == list(range(53, 61))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, r"split 'train': expected batch_size >= 1.*got 0, 0 and None"),
        ({"workers": -1}, "workers >= 0"),
        ({"num_networks": 41}, "num_networks from 1 to 40, got 4, 0 and 41"),
        (
            {"columns": ["test_acuracy"]},
            r"no columns \['test_acuracy'\]; columns are \['network_id', ",
        ),
        ({"split": "holdout"}, r"no split 'holdout'; splits are \['train'"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_read(folder, options, message):
    with pytest.raises(ValueError, match=message):
        zoo.load(folder)["standard"].batches(**{"split": "train", "batch_size": 4, **options})


def test_a_pass_that_is_left_early_leaves_no_thread(population, monkeypatch):
    monkeypatch.setattr(zoo.store.streaming, "READ_BYTES", 1)
    passing = population.batches("train", 2, workers=2)
    next(passing)
    assert any(thread.name.startswith("zoo-reader") for thread in threading.enumerate())
    passing.close()
    assert not any(thread.name.startswith("zoo-reader") for thread in threading.enumerate())


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_is_cut_while_it_is_read_is_an_error(tmp_path, monkeypatch, workers):
    population = zoo.load(write_zoo(tmp_path / "zoo"))["standard"]
    passing = population.batches("train", 40, workers=workers)
    path = tmp_path / "zoo" / "standard" / "train-00002-of-00005.h5"
    identity_of = zoo.store.streaming.Identity.of

    def cut_afterwards(descriptor: int):
        identity = identity_of(descriptor)
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            os.truncate(path, 3000)
        return identity

    monkeypatch.setattr(zoo.store.streaming, "Identity", SimpleNamespace(of=cut_afterwards))
    with pytest.raises(
        StoreError, match=r"train-00002-of-00005.h5: expected \d+ more bytes at \d+, found the end"
    ):
        list(passing)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("length", [3000, None], ids=["cut", "replaced"])
def test_a_file_that_changed_since_it_was_checked_is_an_error(tmp_path, workers, length):
    population = zoo.load(write_zoo(tmp_path / "zoo"))["standard"]
    passing = population.stored("train").stream([torch.arange(40)], workers)
    path = tmp_path / "zoo" / "standard" / "train-00002-of-00005.h5"
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:length])
    with pytest.raises(StoreError, match=r"train-00002-of-00005.h5: the file changed since"):
        list(passing)


def test_blocks_keep_the_order_and_hold_no_more_than_asked_unless_a_batch_does():
    batches = list(torch.arange(20).split([3, 3, 9, 1, 1, 3]))
    blocks = group_batches(batches, 6)
    assert [[len(batch) for batch in block] for block in blocks] == [[3, 3], [9], [1, 1, 3]]
    assert torch.equal(torch.cat([batch for block in blocks for batch in block]), torch.arange(20))
    assert group_batches([], 6) == []


def test_free_memory_is_a_number_of_bytes_that_a_limit_lowers(monkeypatch):
    free = free_memory()
    assert 2**20 < free < 2**50
    monkeypatch.setattr("resource.getrlimit", lambda kind: (2**20, 2**20))
    assert free_memory() == 0


def test_all_splits_stream(population):
    for split, count in SPLIT.items():
        assert (
            sum(
                len(batch.params["layers.0.bias"]) for batch in population.batches(split, 8, seed=0)
            )
            == count
        )
