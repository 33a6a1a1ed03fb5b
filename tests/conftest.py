"""What every test starts from."""

import functools
import gc
import random
from multiprocessing import forkserver

import pytest
import torch
from hypothesis import settings
from torch._export import utils as exporting

from tests import cost
from zoo import imports

IMPORTED = (
    "data_gen.generation",
    "hypothesis",
    "metanet.estimator",
    "pandas",
    "pytest",
    "sklearn.datasets",
    "studies.learnability.study",
)

# The same examples in every run, and no clock: the machine may be busy. `--hypothesis-profile=deep`
# is what `make test-deep` asks for.
settings.register_profile("ci", deadline=None, derandomize=True, max_examples=30)
settings.register_profile("deep", deadline=None, derandomize=True, max_examples=300)
settings.load_profile("ci")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of our own."""
    parser.addoption("--order-seed", type=int, help="Run the tests in a random order.")
    parser.addoption("--record-cost", action="store_true", help=f"Write {cost.TABLE.name} anew.")


def pytest_configure(config: pytest.Config) -> None:
    """One sum of costs a run."""
    config.pluginmanager.register(cost.Cost(), "cost of tests")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """No test may lean on another one: files, and the tests within, run in a random order.

    The tests of one file stay together, as what they share is made once a file.
    """
    seed = config.getoption("order_seed")
    if seed is None:
        return
    draw = random.Random(seed)
    place_of_file = {path: draw.random() for path in sorted({item.path for item in items})}
    items.sort(key=lambda item: (place_of_file[item.path], draw.random()))


def pytest_collection_finish() -> None:
    """The libraries are imported: the collector of garbage need not look through them again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000)


@pytest.fixture(scope="session", autouse=True)
def _operators_are_listed_once():
    """torch lists those of all libraries 50 times for each module that is exported.

    No test adds one.
    """
    listed = "_materialize_cpp_cia_ops"
    with pytest.MonkeyPatch.context() as patch:
        if hasattr(exporting, listed):
            patch.setattr(exporting, listed, functools.cache(getattr(exporting, listed)))
        yield


@pytest.fixture(scope="session", autouse=True)
def _processes_start_with_what_tests_import():
    """The server that forks processes imports once what each of them would import by itself."""
    preload = forkserver.set_forkserver_preload
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            forkserver, "set_forkserver_preload", lambda names: preload([*names, *IMPORTED])
        )
        yield


@pytest.fixture
def unchecked(request):
    """Skips a test of wrong types where annotations are checked before the code is."""
    if request.config.getoption("jaxtyping_packages"):
        pytest.skip("annotations are checked, which refuse wrong types")


@pytest.fixture(autouse=True)
def _trust_ends_with_the_test(monkeypatch):
    """What a test has let be imported is no other test's business."""
    monkeypatch.setattr(imports, "_allowed", set(imports._allowed))
    monkeypatch.setattr(imports, "_plugins", set(imports._plugins))


@pytest.fixture(autouse=True)
def _same_draws_in_every_run():
    """Modules built without a generator draw from the global state of torch.

    The same in every run and order of the tests.
    """
    torch.default_generator.manual_seed(0)  # `torch.manual_seed` takes a thousand times as long
