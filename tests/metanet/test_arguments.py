"""Arguments of a metanet are of the type and in the range that it says, or refused by name."""

import inspect
import math

import numpy as np
import pytest

import metanet
from metanet import METANETS, Metanet
from metanet.arguments import Arguments
from metanet.inputs.steps import Step
from metanet.inputs.treatments import TREATMENTS
from metanet.testing import random_population
from zoo.options import check_options

POPULATION = random_population(sizes=(16, 8, 8))
NEVER = (math.nan, math.inf, -1, "many", [3], {}, 10**400, b"3", 1 + 2j, np.zeros(2))
"""What no number may be."""


def parameters(function):
    return {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is not parameter.empty and name != "known"
    }


def wrong_values(default):
    """Values that an option with this default cannot have."""
    if isinstance(default, bool):
        return [1, "yes", None, *NEVER]
    if isinstance(default, int):
        return [1.5, 3.0, True, None, 10**12, *NEVER]
    if isinstance(default, float):
        return [True, None, *NEVER]
    return [3, 1.5, ["mlp"], "x" * 10**5, np.zeros(2)] if isinstance(default, str) else []


def refused(model, name, value):
    with pytest.raises(ValueError, match=f"{name}|unknown|no preset") as refusal:
        model.check()
    assert len(str(refusal.value)) < 1000 + 10**5 * (name in ("model", "treatment"))
    assert value is model.get_params()[name], "arguments are stored as they are"


@pytest.mark.parametrize("model", METANETS)
def test_every_option_of_every_metanet_is_checked(model):
    options = {n: d for n, d in parameters(METANETS[model]).items() if n != "spec"}
    for name, default in options.items():
        Metanet(model, **{name: default}).check()
        for value in wrong_values(default):
            refused(Metanet(model).set_params(**{name: value}), name, value)


def test_every_option_of_every_treatment_is_checked():
    for treatment, step in TREATMENTS.items():
        assert issubclass(step, Step)
        for name, default in parameters(step).items():
            for value in wrong_values(default):
                model = Metanet("mlp").set_params(treatment={treatment: {name: value}})
                with pytest.raises(ValueError, match=f"option '{name}' of treatment '{treatment}'"):
                    model.check()


ARGUMENTS = {
    "model": ["mpl", 3, ["mlp"], None],
    "target": [3, ["test_accuracy"], None],
    "treatment": [3, ["augment"], {"augment": None}, {3: {}}, None],
    "seed": [*wrong_values(0), 2**32],
    **{n: [1.5, 3.0, True, 0, 2**31, *NEVER] for n in ("epochs", "batch_size", "patience")},
    "lr": [0, True, *NEVER],
    "weight_decay": [True, *NEVER],
    "precision": ["float16", 32],
    "device": [3, None, ["cpu"]],
    "stream": ["yes", None, 2],
    "workers": [*wrong_values(0), 2000],
    "verbose": wrong_values(False),
}


def test_the_table_has_every_argument():
    assert ARGUMENTS.keys() == parameters(Arguments).keys()


@pytest.mark.parametrize("name", ARGUMENTS)
def test_every_argument_is_checked(name):
    for value in ARGUMENTS[name]:
        refused(Metanet("mlp").set_params(**{name: value}), name, value)


@pytest.mark.parametrize("device", ["gpu", "meta", "cuda:99", "cpu:x", "", "cuda" * 100])
def test_devices_that_are_not_here_are_refused_before_work_begins(device):
    def table(split):
        raise AssertionError("networks were read")

    population = random_population().__class__(**{**vars(POPULATION), "table": table})
    with pytest.raises(ValueError, match=r"device: expected one of \['auto', 'cpu'"):
        Metanet("mlp", device=device).fit(population)


@pytest.mark.parametrize("count", [2.5, 0, -1, "all", True, 17, np.zeros(1)])
@pytest.mark.usefixtures("unchecked")
def test_numbers_of_networks_are_whole_and_there(count):
    for name in ("num_train", "num_validation"):
        with pytest.raises(ValueError, match=f"{name}|expected a number of networks from 1 to"):
            Metanet("statnn", epochs=1).fit(POPULATION, **{name: count})


def test_numbers_of_numpy_are_numbers(tmp_path):
    """As grids of scikit-learn have them; they are stored as they are, and saved as numbers."""
    options = {"epochs": np.int64(1), "lr": np.float32(0.01), "width": np.int32(8)}
    model = Metanet("mlp", treatment={"augment": {"noise": np.float64(0.1)}}).set_params(**options)
    model.fit(POPULATION).save(tmp_path / "m")
    again = metanet.load(tmp_path / "m").get_params()
    assert {name: again[name] for name in options} == {
        name: value.item() for name, value in options.items()
    }


def test_an_option_named_self_is_an_unknown_option():
    with pytest.raises(ValueError, match="unknown option 'self' of metanet 'mlp'"):
        Metanet("mlp", self=3).check()


def test_options_without_an_annotation_may_be_anything():
    def builder(spec, *, one=1, two: "int" = 2, three: complex = 3j, **more):
        raise NotImplementedError

    check_options("it", builder, {"one": [], "two": "two", "three": 1j, "four": 4}, ("spec",))
    with pytest.raises(ValueError, match="option 'three' of it: expected complex, found 'x'"):
        check_options("it", builder, {"three": "x"}, ("spec",))
