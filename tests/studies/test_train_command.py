"""`symzoo train`, `evaluate` and `predict`: slips are one message, and come before work begins."""

import pytest
from click.testing import CliRunner

from metanet import Metanet
from metanet.testing import random_population
from studies.cli import main
from studies.commands.settings import check_place, parse_setting
from tests.disks import small_disk
from tests.studies.zoos import write_zoo
from zoo.store.atomic import atomic_write


@pytest.fixture(scope="module")
def tiny_zoo(tmp_path_factory):
    return write_zoo(tmp_path_factory.mktemp("zoos") / "tiny")


def fail(*arguments):
    result = CliRunner().invoke(main, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code != 0, result.output
    assert len(result.stderr) < 1500
    return result.stderr


@pytest.fixture
def untouched(monkeypatch):
    """No network is read."""

    def read(*_, **__):
        raise AssertionError("work began")

    monkeypatch.setattr("metanet.estimator.read_examples", read)


SETTINGS = {
    "epochs=abc": "option 'epochs' of Metanet: expected int or None, found 'abc'",
    "epochs=0": "expected at least 1, found 0",
    "epochs=1.5": "expected int or None, found 1.5",
    "epochs=[1]": "expected int or None, found [1]",
    "lr=NaN": "expected a finite number, found nan",
    "lr=-Infinity": "expected a finite number, found -inf",
    "lr=1e400": "expected a finite number, found inf",
    "batch_size=1e30": "expected less than 2147483648",
    "batch_size=" + "1" * 5000: "digits",
    "width=" + "[" * 10**5: "option 'width' of metanet 'mlp': expected int",
    "width=true": "option 'width' of metanet 'mlp': expected int, found True",
    "dropout=2": "expected less than 1",
    "device=gpu": "device: expected one of ['auto', 'cpu'",
    "device=cuda:77": "device: expected one of ['auto', 'cpu'",
    "model=gmn": "expected an option of the metanet; give --model",
    "seed=3": "expected an option of the metanet; give --seed",
    "target=lr": "expected an option of the metanet; give --target",
    "self=3": "unknown option 'self' of metanet 'mlp'",
    "options=3": "unknown option 'options' of metanet 'mlp'",
    "treatment=augmnt": "unknown treatment 'augmnt'",
    'treatment={"augment": {"noise": NaN}}': "'noise' of treatment 'augment'",
    'treatment={"align": 3}': "option 'treatment' of Metanet",
    "stream=maybe": "option 'stream' of Metanet",
    "epochs": "expected option=value",
    "=3": "expected option=value",
    "a b=3": "expected option=value",
    "precision=float8": "option 'precision' of Metanet",
}


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda text: text[:20])
def test_slips_in_settings_are_named_before_work_begins(tiny_zoo, tmp_path, untouched, setting):
    out = ("--model", "mlp", "--set", setting, "--out", tmp_path / "m")
    assert SETTINGS[setting] in fail("train", tiny_zoo, "standard", *out)


def test_settings_are_json_or_text():
    texts = ("lr=1e-3", "widths=[8, 4]", "device=auto", "a=b=c", "epochs=1e3", "stream=false")
    assert [parse_setting(text)[1] for text in texts] == [0.001, [8, 4], "auto", "b=c", 1000, False]


ARGUMENTS = {
    "negative seed": (("--seed", "-1"), "option 'seed' of Metanet: expected at least 0"),
    "large seed": (("--seed", 2**40), "option 'seed' of Metanet: expected less than"),
    "no networks": (("--num-train", 0), "--num-train"),
    "class": (("--target", "diverged"), "holds classes, true and false"),
    "name": (("--target", "network_id"), "holds labels (role 'id')"),
    "text": (("--target", "optimizer"), "is not numeric"),
    "no column": (("--target", ""), "target column '' does not exist"),
}


@pytest.mark.parametrize("case", ARGUMENTS)
def test_slips_in_options_are_named(tiny_zoo, tmp_path, case):
    arguments, says = ARGUMENTS[case]
    out = ("--model", "mlp", "--out", tmp_path / "m")
    assert says in fail("train", tiny_zoo, "standard", *out, *arguments)
    assert not (tmp_path / "m").exists()


def test_places_that_take_no_file_are_refused_before_work_begins(tiny_zoo, tmp_path, untouched):
    (tmp_path / "file").write_text("x")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for place in ("file/m", "dangling/m", "a" * 250, "/proc/m", "x" * 300 + "/m"):
        out = ("--model", "mlp", "--out", tmp_path / place)
        assert "--out" in fail("train", tiny_zoo, "standard", *out)
    check_place(tmp_path / "new" / "folder" / "m")
    assert list((tmp_path / "new" / "folder").iterdir()) == []


def test_a_disk_that_is_full_is_an_error_of_the_disk(tmp_path):
    model = Metanet("mlp", epochs=1, width=2048).fit(random_population())
    with (
        small_disk(tmp_path / "disk", 16 * 1024) as disk,
        pytest.raises(OSError, match=r"no space left on the disk for .*; free some and run again"),
    ):
        model.save(disk / "m")


@pytest.mark.parametrize(("number", "says"), [(28, "no space left on the disk"), (5, "os error 5")])
def test_errors_of_the_system_that_a_library_has_in_words_are_such(tmp_path, number, says):
    class OfALibrary(Exception):
        pass

    with pytest.raises(OSError, match=says) as refusal, atomic_write(tmp_path / "m"):
        raise OfALibrary(f"Error while serializing: I/O error: some words (os error {number})")
    assert refusal.value.errno == number
    with pytest.raises(OfALibrary), atomic_write(tmp_path / "m"):
        raise OfALibrary("os error of another kind")


def test_intervals_need_resamples(tiny_zoo, tmp_path):
    for count in (0, -3, "many"):
        given = ("evaluate", tmp_path / "m", tiny_zoo, "standard", "--num-bootstrap", count)
        assert "--num-bootstrap" in fail(*given)
