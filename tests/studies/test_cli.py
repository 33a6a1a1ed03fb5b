"""The command `symzoo`: help is quick, errors are one message, a study runs from a recipe."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from click.testing import CliRunner

from studies.cli import main
from studies.commands.info import can_show_blocks, describe_column
from tests.studies.zoos import write_zoo

ROOT = Path(__file__).parents[2]
LAZY = ("torch", "matplotlib", "datasets", "pandas", "sklearn", "h5py")


def run(*arguments) -> str:
    result = CliRunner().invoke(
        main, [str(argument) for argument in arguments], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    return result.stdout


def fail(*arguments) -> str:
    result = CliRunner().invoke(
        main, [str(argument) for argument in arguments], catch_exceptions=False
    )
    assert result.exit_code != 0
    assert "Traceback" not in result.stderr
    return result.stderr


def test_help_imports_nothing_heavy():
    code = f"import sys, studies.cli; print([name for name in {LAZY} if name in sys.modules])"
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert finished.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "command",
    [(), ("info",), ("train",), ("evaluate",), ("predict",), ("study",), ("study", "learnability")],
)
def test_every_command_has_help(command):
    assert "Usage:" in run(*command, "--help")


def test_a_plugin_is_imported_before_the_command_runs(tiny_zoo, tmp_path, monkeypatch):
    (tmp_path / "plugin_of_the_command.py").write_text("print('a plugin is here')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    text = run("--plugin", "plugin_of_the_command", "info", tiny_zoo)
    assert text.index("a plugin is here") < text.index("2 populations")
    sys.modules.pop("plugin_of_the_command")


def test_info_shows_every_population(tiny_zoo):
    text = run("info", tiny_zoo)
    for word in (
        "2 populations",
        "standard",
        "w_asymmetric",
        "train 40, validation 20, test 24",
        "26 free",
        "0 diverged",
    ):
        assert word in text
    assert "84" in text


def test_info_draws_a_column_as_wide_as_the_terminal(tiny_zoo, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    text = run("info", tiny_zoo, "--column", "lr", "--bins", "4", "--population", "w_asymmetric")
    histogram = text.split("\n\n")[-1].splitlines()
    assert histogram[0] == "w_asymmetric: lr of 84 networks; 0 diverged"
    assert len(histogram) == 5
    assert sum(int(line.split()[-1]) for line in histogram[1:]) == 84
    assert max(map(len, histogram[1:])) <= 40
    assert max(map(len, histogram[1:])) >= 39
    for column in ("optimizer", "test_acuracy"):
        assert f"column '{column}': expected a column of numbers, one of ['network_id'" in fail(
            "info", tiny_zoo, "--column", column
        )
    assert "no populations ['standrad']" in fail("info", tiny_zoo, "--population", "standrad")


def test_info_counts_diverged_networks_apart(tmp_path):
    from tests.zoo.written import write_zoo as write_drawn_zoo
    from zoo.store.zoo import load

    text = describe_column(
        load(write_drawn_zoo(tmp_path / "zoo")), "test_accuracy", ["standard"], 5, 60, blocks=False
    )
    head, *bars = text.splitlines()
    assert head == "standard: test_accuracy of 72 networks; 2 diverged"
    assert sum(int(line.split()[-1]) for line in bars) == 72
    assert all("#" in line and "█" not in line for line in bars)


@pytest.mark.parametrize(
    ("encoding", "blocks"),
    [("utf-8", True), ("cp437", False), ("ascii", False), ("none", False), (None, False)],
)
def test_block_characters_are_for_terminals_that_have_them(encoding, blocks):
    assert can_show_blocks(encoding) is blocks


def test_export_writes_what_was_asked_for(tiny_zoo, tmp_path):
    out = tmp_path / "out"
    assert f"to {out}" in run(
        "export",
        tiny_zoo,
        out,
        "--format",
        "parquet",
        "--population",
        "standard",
        "--split",
        "test",
    )
    assert [str(path.relative_to(out)) for path in out.rglob("*.*")] == ["standard/test.parquet"]
    assert "new or empty" in fail("export", tiny_zoo, out, "--format", "safetensors")


def test_push_and_pull_hand_over_their_arguments(tiny_zoo, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(
        "zoo.sharing.hub.push", lambda *arguments: calls.append(arguments) or "https://hub/a/b"
    )
    monkeypatch.setattr(
        "zoo.sharing.hub.pull", lambda *arguments: calls.append(arguments) or arguments[1]
    )
    assert f"pushed {tiny_zoo} to https://hub/a/b" in run("push", tiny_zoo, "a/b", "--private")
    run("pull", "a/b", tmp_path / "out", "--revision", "v1")
    assert calls == [(tiny_zoo, "a/b", True), ("a/b", tmp_path / "out", "v1")]


@pytest.mark.parametrize("recipe", ["small", "demo", "large", "treatments", "findings"])
def test_recipes_are_complete(tmp_path, recipe):
    import studies.cli
    from studies.learnability.study import Learnability
    from zoo.config import read_config

    path = Path(studies.cli.__file__).parent / "recipes" / f"learnability-{recipe}.yaml"
    assert read_config(Learnability, path, (f"zoo={tmp_path}",)).metanets[0] == "hparams"


def test_a_study_from_a_recipe(tiny_zoo, tmp_path, counted_fit):
    command = (
        "study",
        "learnability",
        "--zoo",
        tiny_zoo,
        "--out",
        tmp_path,
        "--workers",
        0,
        "--quiet",
    )
    text = run(*command, "--set", "num_bootstrap=20", "--set", "metanets=[mlp]")
    assert "hparams" in text
    assert "report.html" in text
    assert (tmp_path / "report.html").is_file()
    assert set(pd.read_parquet(tmp_path / "rows.parquet")["population"]) == {
        "standard",
        "w_asymmetric",
    }
    stored = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert (stored["metanets"], stored["zoo"]) == (["hparams", "mlp"], str(tiny_zoo))
    num_fits = len(counted_fit.cells)
    again = run(
        "study",
        "learnability",
        "--config",
        tmp_path / "config.yaml",
        "--out",
        tmp_path,
        "--workers",
        0,
        "--quiet",
    )
    assert (again, len(counted_fit.cells)) == (text, num_fits), (
        "the stored config does the same study again"
    )


@pytest.mark.deep
def test_ray_gives_the_rows_of_this_process(tiny_zoo, tmp_path, monkeypatch):
    """Paths are relative to the folder where the command was called, in all processes."""
    pytest.importorskip("ray", reason="Ray is an extra")
    (tmp_path / "zoo").symlink_to(tiny_zoo)
    monkeypatch.chdir(tmp_path)
    command = ("study", "learnability", "--zoo", "zoo", "--set", "num_bootstrap=20", "--quiet")
    command += ("--set", "metanets=[hparams]")
    run(*command, "--out", "here", "--workers", "0")
    on_ray = (*command, "--out", "there", "--executor", "ray", "--workers", "2")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    arguments = [sys.executable, "-m", "studies.cli", *on_ray]
    subprocess.run(arguments, check=True, capture_output=True, env=environment)
    here, there = (
        pd.read_parquet(tmp_path / out / "rows.parquet").drop(columns="seconds")
        for out in ("here", "there")
    )
    assert len(here) == 2
    pd.testing.assert_frame_equal(there, here, check_exact=True)


def test_without_ray_one_line_says_what_to_install(tiny_zoo, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    command = ("study", "learnability", "--zoo", tiny_zoo, "--out", tmp_path / "out")
    assert fail(*command, "--executor", "ray").splitlines() == [
        "Error: the executor ray needs Ray, which is not installed: pip install 'symzoo[ray]'"
    ]
    assert not (tmp_path / "out").exists()


def test_the_folder_of_a_study_is_named_after_zoo_and_recipe(tmp_path, counted_fit):
    zoo = write_zoo(tmp_path / "mine")
    text = run(
        "study",
        "learnability",
        "--zoo",
        zoo,
        "--workers",
        0,
        "--quiet",
        "--set",
        "num_bootstrap=20",
    )
    assert (tmp_path / "mine-small" / "report.html").is_file()
    assert str(tmp_path / "mine-small") in text
    assert "What each way to handle symmetry buys" in text


def test_the_name_of_a_study_in_the_name_of_a_zoo_stays():
    from studies.learnability.config import Learnability

    config = Learnability(zoo=Path("runs/my-learnability"), metanets=("mlp",))
    assert config.folder("learnability", "learnability-small") == Path("runs/my-learnability-small")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ("--recipe", "smal"),
            "unknown recipe 'smal' of study 'learnability'; known are ['demo', 'findings', "
            "'large', 'small', ",
        ),
        (("--set", "metanet=mlp"), "unknown key 'metanet'"),
        (("--set", "num_train=[9999]"), "num_train: 9999 is more than the 40 training networks"),
        (("--set", "targets=acuracy"), "'acuracy'"),
        (("--set", "metanets"), "expected key=value"),
        (("--recipe", "small", "--config", "mine.yaml"), "not both"),
        (("--config", "missing.yaml"), "missing.yaml"),
        (("--workers", "-1"), "workers"),
        (("--address", "auto"), "add --executor ray"),
        (("--workers", "0", "--threads", "2"), "--workers 0"),
    ],
)
def test_errors_of_a_study(tiny_zoo, tmp_path, settings, message):
    assert message in fail(
        "study", "learnability", "--zoo", tiny_zoo, "--out", tmp_path, "--quiet", *settings
    )


def test_a_study_needs_a_zoo(tmp_path):
    assert "'zoo' is missing" in fail("study", "learnability", "--out", tmp_path)
    assert "no such folder" in fail(
        "study", "learnability", "--zoo", tmp_path / "none", "--out", tmp_path
    )


def test_a_bad_config_names_file_and_line(tiny_zoo, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("metanets: [mlp]\nnum_trian: [10]\n")
    assert f"{path}:2: unknown key 'num_trian'" in fail(
        "study", "learnability", "--config", path, "--out", tmp_path
    )


def test_errors_of_the_other_commands(tiny_zoo, tmp_path):
    assert "no such folder" in fail("info", tmp_path / "none")
    assert "not a complete zoo" in fail("info", tmp_path)
    out = ("--out", tmp_path / "m")
    assert "'mpl'" in fail("train", tiny_zoo, "standard", "--model", "mpl", *out)
    assert "no populations ['standrad']" in fail(
        "train", tiny_zoo, "standrad", "--model", "mlp", *out
    )
    assert "expected option=value" in fail(
        "train", tiny_zoo, "standard", "--model", "mlp", "--set", "epochs", *out
    )


def test_train_evaluate_predict(tiny_zoo, tmp_path):
    model, table = tmp_path / "models" / "a.metanet", tmp_path / "predictions.csv"
    options = ("--set", "epochs=20", "--num-train", 30)
    assert str(model) in run(
        "train", tiny_zoo, "standard", "--model", "gbm", *options, "--out", model
    )
    scores = run("evaluate", model, tiny_zoo, "w_asymmetric", "--num-bootstrap", 20).splitlines()
    assert [line.split()[0] for line in scores] == ["r2", "kendall_tau", "spearman", "mae"]
    assert "24 networks" in run("predict", model, tiny_zoo, "standard", "--out", table)
    predictions = pd.read_csv(table)
    assert list(predictions.columns) == ["network_id", "prediction", "test_accuracy"]
    assert predictions.to_csv(index=False) == run("predict", model, tiny_zoo, "standard")


def test_debug_shows_the_trace(tmp_path, monkeypatch):
    monkeypatch.setenv("SYMZOO_DEBUG", "1")
    with pytest.raises(ValueError, match="no such folder"):
        CliRunner().invoke(main, ["info", str(tmp_path / "none")], catch_exceptions=False)


def test_bugs_keep_their_trace(tiny_zoo, monkeypatch):
    def broken(_):
        raise TypeError("a bug")

    monkeypatch.setattr("studies.commands.info.describe_zoo", broken)
    with pytest.raises(TypeError, match="a bug"):
        CliRunner().invoke(main, ["info", str(tiny_zoo)], catch_exceptions=False)
