"""`Metanet` keeps scikit-learn's conventions, refuses other spaces, and travels in a file."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import metanet
from metanet import METANETS, Metanet
from metanet.testing import random_population
from tests.metanet.populations import population as small
from zoo.views import view
from zoo.weight_space import NeuronGroup, WeightSpace

POPULATION = random_population(sizes=(40, 16, 16))


@pytest.fixture(scope="module")
def fitted():
    return Metanet("statnn", epochs=5, width=32).fit(POPULATION)


def test_arguments_can_be_read_changed_and_cloned():
    model = Metanet("mlp", width=8, lr=0.1, seed=3)
    assert model.get_params()["width"] == 8
    assert clone(model).get_params() == model.get_params()
    model.set_params(width=16, lr=None, dropout=0.1)
    assert (model.get_params()["width"], model.lr, model.options) == (
        16,
        None,
        {"width": 16, "dropout": 0.1},
    )
    assert Metanet("mlp").set_params(model="dmc", width=32).model == "dmc"
    assert "width=16" in repr(model)


@pytest.mark.parametrize("method", ["predict", "score", "evaluate", "save"])
def test_an_unfitted_metanet_says_so(method, tmp_path):
    with pytest.raises(NotFittedError):
        getattr(Metanet("mlp"), method)(tmp_path / "x" if method == "save" else POPULATION)


def test_unknown_names_list_the_valid_ones():
    with pytest.raises(
        ValueError,
        match=r"unknown metanet 'mpl'; metanets are \['deepsets', 'dmc', .*'mlp', 'nfn', .*"
        r"'tokens', 'width_gmn'\]",
    ):
        Metanet("mpl").fit(POPULATION)
    with pytest.raises(
        ValueError,
        match=r"unknown option 'witdh' of metanet 'mlp'; options are \['width', 'dropout'\]",
    ):
        Metanet("mlp", witdh=3).fit(POPULATION)
    model = Metanet("mlp", dropout=0.1).set_params(model="gbm")
    with pytest.raises(ValueError, match="unknown option 'dropout' of metanet 'gbm'"):
        model.fit(POPULATION)


def test_the_constructor_only_stores_its_arguments():
    options = {"treatment": "no such treatment", "stream": "yes", "workers": -1, "witdh": [3]}
    model = Metanet("no such metanet", **options)
    arguments = model.get_params()
    assert arguments.items() >= options.items()
    assert all(arguments[name] is value for name, value in options.items())
    assert clone(model).get_params() == arguments
    with pytest.raises(ValueError, match="option 'stream' of Metanet"):
        model.fit(POPULATION)


def test_predictions_from_all_kinds_of_input_agree(fitted):
    from_params, from_population = (
        fitted.predict(POPULATION.params("test")),
        fitted.predict(POPULATION, split="test"),
    )
    np.testing.assert_array_equal(from_params, from_population)
    assert from_params.dtype == np.float64
    hparams = Metanet("hparams").fit(POPULATION)
    np.testing.assert_array_equal(
        hparams.predict(POPULATION.table("test")), hparams.predict(POPULATION)
    )


def test_inputs_of_the_wrong_kind_are_refused(fitted):
    with pytest.raises(
        ValueError, match="'statnn' reads params: expected params, a dict of tensors, got DataFrame"
    ):
        fitted.predict(POPULATION.table("test"))
    hparams = Metanet("hparams").fit(POPULATION)
    with pytest.raises(
        ValueError, match=r"expected a table with columns \['lr', 'optimizer'\], got dict"
    ):
        hparams.predict(POPULATION.params("test"))
    with pytest.raises(ValueError, match=r"missing \['optimizer'\]"):
        hparams.predict(POPULATION.table("test")[["lr"]])


@pytest.mark.parametrize("model", ["hparams", "gbm", "statnn"])
def test_it_learns(model):
    population = random_population(sizes=(160, 60, 60))
    scores = Metanet(model, epochs=60).fit(population).evaluate(population)
    assert scores["r2"].value > 0.7
    assert scores["kendall_tau"].low < scores["kendall_tau"].value < scores["kendall_tau"].high


@pytest.mark.parametrize("count", [0, -1, 1.5, 10**12])
@pytest.mark.usefixtures("unchecked")
def test_intervals_need_resamples(fitted, count):
    with pytest.raises(ValueError, match="option 'num_bootstrap' of evaluate"):
        fitted.set_params().evaluate(POPULATION, num_bootstrap=count)


def test_score_of_a_constant_target_is_not_a_number_and_says_so(fitted):
    table = POPULATION.table("test").assign(test_accuracy=0.5)
    constant = view(POPULATION, table=lambda _: table)
    for score in (fitted.score, lambda population: fitted.evaluate(population)["r2"].value):
        with pytest.warns(UserWarning, match=r"R\^2 is not defined, NaN: all 16 targets are 0.5"):
            assert np.isnan(score(constant))


def test_a_metanet_that_has_learned_nothing_says_so():
    with pytest.warns(UserWarning, match="'mlp' has learned nothing: .* lr was 1e"):
        Metanet("mlp", epochs=2, lr=1e30).fit(POPULATION)


def test_score_is_r2_of_evaluate(fitted):
    assert fitted.score(POPULATION) == fitted.evaluate(POPULATION, num_bootstrap=5)["r2"].value


def other_space(**groups):
    return WeightSpace({**POPULATION.space.groups, **groups}, POPULATION.space.tensors)


def test_params_of_another_space_are_refused(fitted):
    params = POPULATION.params("test")
    wider = {**params, "layers.0.bias": torch.zeros(16, 7), "extra": torch.zeros(16, 1)}
    del wider["layers.2.bias"]
    with pytest.raises(ValueError) as error:
        fitted.predict(wider)
    for words in (
        "tensor 'layers.0.bias' has shape [7] instead of [6]",
        "tensor 'layers.2.bias' is missing",
        "tensor 'extra' is unknown",
        POPULATION.space.fingerprint[:12],
    ):
        assert words in str(error.value)
    with pytest.raises(ValueError, match=r"tensor 'layers.0\.weight' has shape"):
        fitted.predict({name: tensor[0, 0] for name, tensor in params.items()})
    with pytest.raises(ValueError, match=r"not, per tensor \{'layers.0.bias': 1\}"):
        fitted.predict({**params, "layers.0.bias": _with_nan(params["layers.0.bias"])})


def _with_nan(tensor):
    tensor = tensor.clone()
    tensor[2, 3] = torch.nan
    return tensor


def test_populations_of_another_space_are_refused(fitted):
    wider = other_space(h1=NeuronGroup(7, activation="relu"))
    with pytest.raises(ValueError) as error:
        fitted.evaluate(view(POPULATION, name="wider", space=wider))
    for words in (
        "population 'wider'",
        "tensor 'layers.0.weight' has shape [7, 5] instead of [6, 5]",
        wider.fingerprint[:12],
    ):
        assert words in str(error.value)
    fixed = other_space(h1=NeuronGroup(6, permutable=False, activation="relu"))
    with pytest.raises(ValueError, match=r"group 'h1' is .*permutable=False"):
        fitted.predict(view(POPULATION, space=fixed))
    with pytest.raises(
        ValueError, match=r"other fixed entries .* in tensors \['layers.0.weight'\]"
    ):
        fitted.score(view(POPULATION, free={"layers.0.weight": torch.arange(30).reshape(6, 5) > 3}))


def test_normalization_sees_training_networks_only():
    def wild(split):
        scale = 1 if split == "train" else 100
        params = POPULATION.params(split)
        return {**params, "layers.0.weight": params["layers.0.weight"] * scale}

    for model in ("mlp", "statnn", "dmc", "deepsets"):
        norms = [
            Metanet(model, epochs=1).fit(population).module_.norm
            for population in (POPULATION, view(POPULATION, params=wild))
        ]
        assert torch.equal(norms[0].center, norms[1].center)
        assert torch.equal(norms[0].scale, norms[1].scale)


def test_the_file_holds_what_it_says(fitted, tmp_path):
    path = tmp_path / "new" / "metanet.safetensors"
    fitted.save(path)
    assert [p.name for p in path.parent.iterdir()] == ["metanet.safetensors"]
    with safe_open(path, framework="pt") as file:
        record = json.loads(file.metadata()["metanet"])
    (space,) = record["spaces"]
    assert space["space_fingerprint"] == POPULATION.space.fingerprint
    assert WeightSpace.from_json(json.dumps(space["space"])) == POPULATION.space
    assert record["params"]["width"] == 32
    assert record["trained_on"] == {
        "population": "standard",
        "num_train": 40,
        "num_validation": 16,
        "num_dropped": 0,
    }
    assert set(record["versions"]) == {"python", "symzoo", "torch", "scikit-learn"}
    again = metanet.load(path)
    assert (again.history_, again.target_, again.training_) == (
        fitted.history_,
        fitted.target_,
        fitted.training_,
    )
    with pytest.raises(ValueError, match="another weight space"):
        again.score(view(POPULATION, space=other_space(h1=NeuronGroup(7))))


def test_masks_travel(tmp_path):
    population = random_population(sizes=(40, 16, 16), masked=True)
    Metanet("mlp", epochs=1).fit(population).save(tmp_path / "m")
    free = metanet.load(tmp_path / "m").reader_.specs[0].free
    assert free.keys() == population.free.keys()
    assert all(torch.equal(free[name], mask) for name, mask in population.free.items())


def test_an_interrupted_save_leaves_the_old_file(fitted, tmp_path, monkeypatch):
    path = tmp_path / "m"
    fitted.save(path)
    before = path.read_bytes()

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("metanet.serialization.save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fitted.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_files_that_are_no_metanets_are_refused(fitted, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        metanet.load(tmp_path / "missing")
    (tmp_path / "text").write_text("hello, this is not a metanet at all")
    save_file({"x": torch.ones(1)}, tmp_path / "other")
    save_file({"x": torch.ones(1)}, tmp_path / "future", metadata={"metanet": '{"format": 99}'})
    fitted.save(tmp_path / "whole")
    (tmp_path / "cut").write_bytes((tmp_path / "whole").read_bytes()[:-100])
    for name, says in (
        ("text", "not a metanet"),
        ("other", "without the record"),
        ("future", "format 3, found 99"),
        ("cut", "not a metanet"),
    ):
        with pytest.raises(ValueError, match=says):
            metanet.load(tmp_path / name)


@pytest.mark.parametrize("thing", [object(), float("nan"), float("inf"), {1, 2}])
def test_options_that_json_cannot_hold_are_named(monkeypatch, tmp_path, thing):
    def builder(spec, *, thing):
        return METANETS["mlp"](spec)

    monkeypatch.setitem(METANETS, "mine", builder)
    model = Metanet("mine", epochs=1, thing=thing).fit(POPULATION)
    with pytest.raises(ValueError, match="metanet 'mine': options must be finite numbers"):
        model.save(tmp_path / "m")


@pytest.mark.parametrize("name", sorted(set(METANETS) - {"hparams", "gbm"}))
def test_every_metanet_with_steps_trains_in_bfloat16(name):
    population = small("mlp")
    exact, rounded = (
        Metanet(name, epochs=2, precision=precision).fit(population)
        for precision in (None, "bfloat16")
    )
    assert rounded.training_.precision == "bfloat16"
    losses = np.array([model.history_.validation_loss for model in (exact, rounded)])
    assert (losses[0] != losses[1]).any()
    np.testing.assert_allclose(losses[0], losses[1], rtol=0.2)


def test_trees_have_no_precision():
    with pytest.raises(
        ValueError,
        match="precision: metanet 'gbm' has no training steps; expected None, got 'bfloat16'",
    ):
        Metanet("gbm", precision="bfloat16").fit(POPULATION)
