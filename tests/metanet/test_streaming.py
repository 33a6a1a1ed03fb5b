"""A metanet that learns from networks on disk is the one that learns from them in memory."""

import warnings
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

import metanet.inputs.batches
import metanet.inputs.dataset
import metanet.train
import zoo
from metanet import METANETS, Metanet, load
from metanet.inputs.batches import Drawn, JoinedNetworks, ParamsInMemory
from metanet.inputs.dataset import streams
from metanet.inputs.steps import Align, Step
from metanet.inputs.treatments import TREATMENTS
from metanet.testing import random_population
from tests.zoo.written import write_zoo
from zoo.store.streaming import StoredParams

CHEAP = {"epochs": 2, "batch_size": 8, "lr": 1e-2}
OPTIONS = {"gbm": {"epochs": 5}, "hparams": {"epochs": 5}}
BALANCED = "scale_gmn"
"""Balances scales until all networks of a call are done: company moves the last digits."""


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    return zoo.load(write_zoo(tmp_path_factory.mktemp("zoos") / "written"))


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """Blocks of a few networks, validation in several batches; two networks are dropped."""
    monkeypatch.setattr(metanet.inputs.batches, "BLOCK_ENTRIES", 10_000)
    monkeypatch.setattr(metanet.train, "EVALUATION_BATCH", 8)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="population .* dropped 1 of")
        yield


@pytest.fixture
def on_disk(monkeypatch):
    """Params that are read as a whole are an error."""

    def refuse(*args, **kwargs):
        raise RuntimeError("all networks were read at once")

    return lambda: monkeypatch.setattr("zoo.store.split_files.read_tensors", refuse)


def fitted(model, population, **options):
    return Metanet(model, **{**CHEAP, **OPTIONS.get(model, {}), **options}).fit(population)


def assert_same(streamed, kept, population, model=""):
    predictions, expected = (metanet.predict(population) for metanet in (streamed, kept))
    assert len(expected) == 21
    assert expected.std() > 0
    if model == BALANCED:
        np.testing.assert_allclose(predictions, expected, rtol=1e-3)
    else:
        np.testing.assert_array_equal(predictions, expected)
        assert streamed.history_ == kept.history_


@pytest.mark.parametrize(
    ("model", "name"),
    [
        *((model, "standard") for model in METANETS),
        ("mlp", "w_asymmetric"),
        ("gmn", "w_asymmetric"),
    ],
)
def test_every_metanet_gives_the_same_from_disk(opened, model, name, on_disk, monkeypatch):
    kept = fitted(model, opened[name], stream=False)
    expected = kept.evaluate(opened[name], num_bootstrap=10)
    on_disk()
    if not kept.module_.compact and model != "hparams":
        monkeypatch.setattr(
            Drawn, "kept", lambda self: pytest.fail("the features of all networks were kept")
        )
    streamed = fitted(model, opened[name], stream=True, workers=2)
    kept.stream = True
    assert_same(streamed, kept, opened[name], model)
    assert (streamed.num_train_, streamed.num_validation_, streamed.num_dropped_) == (39, 12, 2)
    assert kept.evaluate(opened[name], num_bootstrap=10) == expected


LEARNING = {"align": {"rounds": 1, "num_reference": 9}, "augment": {"noise": 0.1, "dropout": 0.1}}
AVERAGED = {"canonicalize": {}, "orbit_average": {"samples": 2}}


@pytest.mark.parametrize(
    ("model", "treatment"),
    [("mlp", LEARNING), ("mlp", AVERAGED), ("statnn", "augment"), ("gbm", "augment")],
)
def test_treatments_do_the_same_from_disk(opened, model, treatment):
    kept, streamed = (
        fitted(model, opened["standard"], treatment=treatment, stream=stream)
        for stream in (False, True)
    )
    assert_same(streamed, kept, opened["standard"])
    if treatment is LEARNING:
        params = {
            name: tensor[torch.arange(40) != 3]
            for name, tensor in opened["standard"].params("train").items()
        }
        reference = Align(rounds=1, num_reference=9).fit(streamed.reader_.specs[0], params).known
        assert all(
            torch.equal(tensor, reference[name])
            for name, tensor in streamed.reader_.treatment.known[0].items()
        )


def test_several_populations_stream_together(opened, on_disk):
    populations, small = (
        [opened["standard"], opened["w_asymmetric"]],
        {"width": 8, "edge_width": 4, "layers": 1},
    )
    kept = fitted("gmn", populations, treatment="augment", stream=False, **small)
    expected = kept.predict(opened["w_asymmetric"])
    on_disk()
    streamed = fitted("gmn", populations, treatment="augment", stream=True, **small)
    np.testing.assert_array_equal(streamed.predict(opened["w_asymmetric"]), expected)
    assert streamed.history_ == kept.history_


def test_networks_of_several_populations_come_in_the_order_of_the_index(opened):
    whole = [opened[name].params("test") for name in ("standard", "w_asymmetric")]
    joined = JoinedNetworks(
        (opened["standard"].stored("test"), ParamsInMemory(whole[1])), are_stored=True
    )
    parts = [torch.tensor(rows) for rows in ([30, 2, 41, 0, 21], [7, 5], [40, 22])]
    for index, chosen in zip(parts, joined.stream(parts, workers=1), strict=True):
        assert [networks is None for networks in chosen.networks] == [
            not (index < 21).any(),
            not (index >= 21).any(),
        ]
        for name in whole[0]:
            laid = torch.cat(
                [networks[name] for networks in chosen.networks if networks is not None]
            )
            assert torch.equal(
                laid[chosen.order], torch.cat([params[name] for params in whole])[index]
            )


def test_the_number_of_workers_and_subsets_change_nothing(opened):
    fits = [
        fitted("mlp", opened["standard"], stream=True, workers=workers) for workers in (0, 1, 3)
    ]
    for streamed in fits[1:]:
        assert_same(streamed, fits[0], opened["standard"])
    subsets = [
        Metanet("mlp", **CHEAP, stream=stream).fit(opened["standard"], 17, 6)
        for stream in (True, False)
    ]
    assert_same(*subsets, opened["standard"])
    assert (subsets[0].num_train_, subsets[0].num_validation_) == (16, 5)


def test_settings_travel_with_the_file_and_predictions_stream(opened, tmp_path, on_disk):
    kept = fitted("mlp", opened["standard"], stream=False, workers=3)
    kept.set_params(stream=True).save(tmp_path / "metanet")
    expected = kept.predict(opened["standard"].params("test"))
    on_disk()
    again = load(tmp_path / "metanet")
    assert (again.stream, again.workers) == (True, 3)
    np.testing.assert_array_equal(again.predict(opened["standard"]), expected)


def test_auto_streams_what_would_take_more_than_a_third_of_the_free_memory(opened, monkeypatch):
    population, needed = opened["standard"], 4 * (40 + 13) * opened["standard"].space.num_params
    for free, expected in [(3 * needed, False), (3 * needed - 3, True)]:
        monkeypatch.setattr(metanet.inputs.dataset, "free_memory", lambda free=free: free)
        assert streams("auto", [population], ("train", "validation"), "params") is expected
        assert not streams("auto", [population], ("train", "validation"), "hyperparameters")
        assert not streams("auto", [random_population()], ("train",), "params")
    reads = []
    monkeypatch.setattr(
        StoredParams,
        "read",
        lambda self, index, read=StoredParams.read: reads.append(1) or read(self, index),
    )
    fitted("mlp", population)
    assert reads


def test_what_cannot_stream_is_refused_by_name(opened, monkeypatch):
    class Trees(METANETS["gbm"]):
        compact = False

    @dataclass(frozen=True)
    class Mean(Step):
        def fit(self, spec, params):
            return self

    monkeypatch.setitem(METANETS, "trees", Trees)
    monkeypatch.setitem(TREATMENTS, "mean", Mean)
    with pytest.raises(
        ValueError, match=r"stream: Trees cannot .* trains on the features of all networks at once"
    ):
        fitted("trees", opened["standard"], stream=True)
    with pytest.raises(
        ValueError, match="treatment 'mean' learns from all training networks at once"
    ):
        fitted("mlp", opened["standard"], stream=True, treatment="mean")
    with pytest.raises(
        ValueError,
        match="population 'standard' is in memory: expected stream=False or 'auto', got True",
    ):
        fitted("mlp", random_population(), stream=True)
    for stream in (False, "auto"):
        fitted("trees", opened["standard"], stream=stream, treatment="mean")


BAD = {
    "stream": ("yes", r"expected one of \[True, False, 'auto'\], found 'yes'"),
    "workers": (-1, "expected at least 0, found -1"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_settings_are_refused(name):
    options, message = {name: BAD[name][0]}, f"option {name!r} of Metanet: {BAD[name][1]}"
    with pytest.raises(ValueError, match=message):
        Metanet("mlp", **options).fit(random_population())
    fitted = Metanet("mlp", epochs=1).fit(random_population()).set_params(**options)
    with pytest.raises(ValueError, match=message):
        fitted.predict(random_population())


def test_a_module_without_normalization_streams(opened, monkeypatch):
    class Plain(nn.Module):
        def __init__(self, spec):
            super().__init__()
            self.linear = nn.Linear(spec.space.num_params, 1)

        def forward(self, params):
            return self.linear(
                torch.cat([tensor.flatten(1) for tensor in params.values()], dim=1)
            ).squeeze(-1)

    monkeypatch.setitem(METANETS, "plain", Plain)
    kept, streamed = (
        fitted("plain", opened["standard"], stream=stream) for stream in (False, True)
    )
    assert_same(streamed, kept, opened["standard"])
