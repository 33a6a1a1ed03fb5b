"""What people hold of networks is what metanets read, or is refused in words."""

from types import MappingProxyType

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import zoo
from metanet import Metanet
from metanet.inputs.conversion import networks_of, params_of, population_of, populations_of
from metanet.testing import random_population
from tests.zoo.written import write_zoo
from zoo.params import mapped, select
from zoo.store.zoo import Zoo
from zoo.views import view
from zoo.weight_space import WeightSpace

POPULATION = random_population(sizes=(24, 8, 8))
SHAPES = POPULATION.space.shapes
PARAMS = POPULATION.params("test")
ROUNDED = mapped(lambda tensor: tensor.half().float(), PARAMS)
"""Networks that float16 holds; bfloat16 does not."""


@pytest.fixture(scope="module", params=["statnn", "gbm", "nfn"])
def fitted(request):
    return Metanet(request.param, epochs=2).fit(POPULATION)


def swapped(array):
    """The numbers in the other order of bytes."""
    return array.astype(array.dtype.newbyteorder("S"))


HELD = {
    "float16": lambda p: mapped(torch.Tensor.half, p),
    "float64": lambda p: mapped(torch.Tensor.double, p),
    "learned": lambda p: mapped(nn.Parameter, p),
    "mapping": MappingProxyType,
    "numpy float16": lambda p: {n: t.numpy().astype("f2") for n, t in p.items()},
    "numpy float32": lambda p: {n: t.numpy() for n, t in p.items()},
    "numpy float64": lambda p: {n: t.numpy().astype("f8") for n, t in p.items()},
    "numpy big endian": lambda p: {n: swapped(t.numpy()) for n, t in p.items()},
    "numpy backwards": lambda p: {n: t.numpy()[::-1].copy()[::-1] for n, t in p.items()},
    "numpy read only": lambda p: {n: np.broadcast_to(t, t.shape) for n, t in p.items()},
    "numpy columns first": lambda p: {n: np.asfortranarray(t) for n, t in p.items()},
    "state dicts": lambda p: [select(p, at) for at in range(8)],
    "tuple of state dicts": lambda p: tuple(select(p, at) for at in range(8)),
    "state dicts of arrays": lambda p: [
        {n: t[at].numpy().astype("f8") for n, t in p.items()} for at in range(8)
    ],
    "batch norm": lambda p: p | {"norms.0.num_batches_tracked": torch.arange(8)},
}


@pytest.mark.parametrize("kind", HELD)
def test_whatever_holds_the_same_numbers_gives_the_same_predictions(fitted, kind):
    expected = fitted.predict(ROUNDED)
    np.testing.assert_array_equal(fitted.predict(HELD[kind](ROUNDED)), expected)


def test_bfloat16_is_read_as_the_numbers_that_it_holds(fitted):
    rounded = mapped(lambda tensor: tensor.bfloat16().float(), PARAMS)
    np.testing.assert_array_equal(
        fitted.predict(mapped(torch.Tensor.bfloat16, PARAMS)), fitted.predict(rounded)
    )


def test_one_state_dict_is_one_network(fitted):
    one = fitted.predict(select(PARAMS, 3))
    assert one.shape == (1,)
    np.testing.assert_allclose(one, fitted.predict(PARAMS)[3:4], rtol=1e-5)


def test_the_state_dict_of_a_module_is_a_network():
    module = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))
    space = WeightSpace(
        {name: POPULATION.space.groups[name] for name in ("x", "h1", "y")},
        {"0.weight": "h1 <- x", "0.bias": "h1", "2.weight": "y <- h1", "2.bias": "y"},
    )
    generator = torch.Generator().manual_seed(0)
    drawn = {
        name: torch.randn(24, *shape, generator=generator) for name, shape in space.shapes.items()
    }
    sizes = {"train": 24, "validation": 8, "test": 8}
    population = view(
        POPULATION, space=space, params=lambda split: select(drawn, slice(sizes[split]))
    )
    model = Metanet("statnn", epochs=1).fit(population)
    assert model.predict(module.state_dict()).shape == (1,)
    assert model.predict([module.state_dict(), dict(module.named_parameters())]).shape == (2,)
    with pytest.raises(ValueError, match=r"got Sequential; take its state_dict\(\)"):
        networks_of(module, [space.shapes], torch.float32)


def test_populations_in_memory_may_hold_arrays_of_any_type():
    def arrays(split):
        params = POPULATION.params(split)
        return {name: tensor.numpy().astype("f8") for name, tensor in params.items()}

    for model in ("statnn", "gbm", "mlp"):
        held = view(POPULATION, params=arrays)
        given, expected = (Metanet(model, epochs=2).fit(each) for each in (held, POPULATION))
        np.testing.assert_array_equal(given.predict(held), expected.predict(POPULATION))
        assert given.score(held) == expected.score(POPULATION)


class Counts(dict):
    """A dict that is no state dict: its values are no tensors."""


NO_NETWORKS = {
    "path": "runs/demo",
    "bytes": b"x",
    "number": 3,
    "nothing": None,
    "empty list": [],
    "empty dict": {},
    "no networks": mapped(lambda tensor: tensor[:0], PARAMS),
    "empty table": pd.DataFrame({"lr": []}),
    "list of paths": ["a", "b"],
    "list of tensors": list(PARAMS.values()),
    "array": np.zeros((3, 4)),
    "tensor": torch.zeros(3, 4),
    "generator": (select(PARAMS, at) for at in range(2)),
    "whole numbers": mapped(torch.Tensor.int, PARAMS),
    "booleans": mapped(torch.Tensor.bool, PARAMS),
    "complex numbers": mapped(lambda tensor: tensor.to(torch.complex64), PARAMS),
    "arrays of whole numbers": {n: t.numpy().astype("i4") for n, t in PARAMS.items()},
    "arrays of objects": {n: t.numpy().astype("O") for n, t in PARAMS.items()},
    "arrays of long floats": {n: t.numpy().astype(np.longdouble) for n, t in PARAMS.items()},
    "nested lists": {n: t.tolist() for n, t in PARAMS.items()},
    "nested dicts": {"layers": PARAMS},
    "sparse": mapped(torch.Tensor.to_sparse, PARAMS),
    "meta": mapped(lambda tensor: tensor.to("meta"), PARAMS),
    "other tensors": [select(PARAMS, 0), {"a": torch.ones(3)}],
    "two in one": [select(PARAMS, 0), PARAMS],
    "counts": Counts(a=3),
}


@pytest.mark.parametrize("kind", NO_NETWORKS)
def test_what_holds_no_networks_is_refused(kind):
    with pytest.raises(ValueError, match="expected ") as refusal:
        networks_of(NO_NETWORKS[kind], [SHAPES], torch.float32)
    assert len(str(refusal.value)) < 1000


@pytest.mark.parametrize("kind", NO_NETWORKS)
def test_what_is_no_population_is_refused(kind):
    with pytest.raises(ValueError, match=r"expected (a|one|at least)"):
        populations_of(NO_NETWORKS[kind])


def test_networks_of_other_spaces_are_refused_by_name(fitted):
    networks = [select(PARAMS, at) for at in range(3)]
    networks[2] = {**networks[2], "layers.0.bias": torch.zeros(7)}
    with pytest.raises(ValueError, match=r"network 2: .* 'layers.0.bias' has shape \[7\] instead"):
        fitted.predict(networks)
    with pytest.raises(ValueError, match=r"'layers.0.weight' is missing"):
        fitted.predict([{"layers.0.bias": torch.zeros(6)}])
    with pytest.raises(ValueError, match=r"expected leading axes \[8\] as before it, got \[7\]"):
        fitted.predict({**PARAMS, "layers.2.bias": PARAMS["layers.2.bias"][:7]})
    huge = mapped(lambda tensor: 1e39 * tensor.double(), PARAMS)
    with pytest.raises(ValueError, match="expected finite entries"):
        fitted.predict(huge)


def test_tensors_of_the_right_type_are_not_copied():
    params = params_of(PARAMS, [SHAPES], torch.float32)
    assert all(params[name].data_ptr() == tensor.data_ptr() for name, tensor in PARAMS.items())


@pytest.mark.filterwarnings("ignore:population .* dropped 1 of")
def test_a_zoo_with_one_population_is_that_population(tmp_path):
    opened = zoo.load(write_zoo(tmp_path / "written"))
    single = Zoo(opened.directory, opened.manifest)
    single._populations = {"standard": opened["standard"]}
    model = Metanet("statnn", epochs=1).fit(single)
    assert model.population_ == "standard"
    np.testing.assert_array_equal(model.predict(single), model.predict(opened["standard"]))
    assert model.score(single) == model.score(opened["standard"])
    for accept in (population_of, model.fit, model.predict, model.evaluate):
        with pytest.raises(ValueError, match=r"a zoo that has several: choose of \['standard', "):
            accept(opened)
