"""Folders of checkpoints become a zoo, from Python and from the command line."""

import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner

import zoo
from data_gen.integrity.verify import verify_zoo
from studies.cli import main
from tests.images import image_folder, needs_images
from tests.zoo.writing.networks import MLP, Tied, trained
from zoo import imports
from zoo.importers.collect import fixed_space, import_checkpoints

COUNT = 12


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Checkpoints of perceptrons in a folder of their own each, and a table of them."""
    monkeypatch.chdir(tmp_path)
    rows = []
    for at in range(COUNT):
        path = tmp_path / "runs" / f"{at:02d}" / "model.pt"
        path.parent.mkdir(parents=True)
        torch.save(network(at), path)
        rows.append({"path": f"runs/{at:02d}/model.pt", "lr": 0.1 * at, "acc": at / COUNT})
    pd.DataFrame(rows).to_csv("runs.csv", index=False)
    return tmp_path


def network(at):
    return MLP.init(torch.Generator().manual_seed(at))


def everything(population):
    """Number of each file, and params in its order."""
    rows = pd.concat([population.table(split) for split in population.splits])
    params = [population.params(split) for split in population.splits]
    joined = {name: torch.cat([part[name] for part in params]) for name in params[0]}
    return rows, joined


def check_rows(population, left_out=()):
    rows, params = everything(population)
    numbers = [int(path.split("/")[-2]) for path in rows["path"]]
    assert sorted(numbers) == [at for at in range(COUNT) if at not in left_out]
    for row, at in enumerate(numbers):
        assert rows["lr"].iloc[row] == pytest.approx(0.1 * at)
        for name, tensor in network(at).items():
            assert torch.equal(params[name][row], tensor)


def test_each_network_has_its_row(runs):
    z = import_checkpoints("runs/*/model.pt", "z", MLP, table="runs.csv", roles={"acc": "metric"})
    check_rows(z["networks"])
    assert z["networks"].space == MLP.space
    assert verify_zoo(z.directory) == []
    source = z.manifest.source
    assert [file.name for file in source.files] == [
        f"runs/{at:02d}/model.pt" for at in range(COUNT)
    ]


def test_without_a_model_every_axis_is_fixed_and_shapes_are_populations(runs):
    wide = zoo.architectures.build_architecture("mlp", {"hidden": [7]}, (6,), 2)
    torch.save(wide.init(torch.Generator().manual_seed(0)), "runs/03/model.pt")
    z = import_checkpoints("runs/*/model.pt", "z", split=(1, 0, 0))
    assert [len(z[name]) for name in z] == [COUNT - 1, 1]
    assert z["networks_1"].space.groups == {}
    assert z["networks_2"].table("train")["file"].tolist() == ["runs/03/model.pt"]


def test_paths_of_the_table_may_be_relative_to_it_or_absolute(runs, monkeypatch):
    (runs / "elsewhere").mkdir()
    monkeypatch.chdir(runs / "elsewhere")
    z = import_checkpoints("../runs/*/model.pt", "z", MLP, table="../runs.csv")
    check_rows(z["networks"])
    table = pd.read_csv("../runs.csv")
    table["path"] = [str(runs / path) for path in table["path"]]
    again = import_checkpoints(str(runs / "runs/*/model.pt"), "y", MLP, table=table)
    check_rows(again["networks"])


def bad(at, value):
    torch.save(value, f"runs/{at:02d}/model.pt")


FAULTS = {
    "NaN": (
        lambda: bad(2, network(2) | {"layers.0.bias": torch.full((4,), np.nan)}),
        2,
        "'layers.0.bias' has entries that are not finite",
    ),
    "another shape": (
        lambda: bad(3, network(3) | {"layers.0.bias": torch.zeros(5)}),
        3,
        "expected shape [4], got [5]",
    ),
    "a tensor missing": (lambda: bad(4, {"layers.0.bias": torch.zeros(4)}), 4, "missing"),
    "damaged": (
        lambda: Path("runs/05/model.pt").write_bytes(b"PK\3\4"),
        5,
        "the archive has no directory",
    ),
    "no row": (
        lambda: pd.read_csv("runs.csv").iloc[1:].to_csv("runs.csv", index=False),
        0,
        "no row of the table",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_what_cannot_be_taken_is_left_out_and_said(case, runs):
    spoil, at, reason = FAULTS[case]
    spoil()
    told = []
    z = import_checkpoints("runs/*/model.pt", "z", MLP, table="runs.csv", report=told.append)
    check_rows(z["networks"], left_out=[at])
    assert any(
        line.startswith(f"left out runs/{at:02d}/model.pt") and reason in line for line in told
    )
    (dropped,) = z.manifest.source.dropped
    assert dropped.rows == 1
    assert reason in dropped.reason
    with pytest.raises(ValueError, match=f"runs/{at:02d}/model.pt"):
        import_checkpoints("runs/*/model.pt", "y", MLP, table="runs.csv", strict=True)


ERRORS = {
    "no file": ({"files": "nothing/*.pt"}, "no such file"),
    "no key": ({"key": "name"}, "table: no column 'name'"),
    "no table": ({"table": "none.csv"}, "expected a table as CSV"),
    "none fits": ({"model": fixed_space([("w", (3,))])}, "none of 12 files can be taken"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_come_before_any_file_is_written(case, runs):
    change, message = ERRORS[case]
    given = {"files": "runs/*/model.pt", "model": MLP, "table": "runs.csv"} | change
    with pytest.raises(ValueError, match=message):
        import_checkpoints(out="z", **given)
    assert not (runs / "z").exists()


def test_two_rows_of_one_path_are_refused(runs):
    table = pd.read_csv("runs.csv")
    table["path"] = "runs/00/model.pt"
    with pytest.raises(ValueError, match="stands in two rows"):
        import_checkpoints("runs/*/model.pt", "z", MLP, table=table)


def test_half_precision_is_said(runs):
    bad(1, {name: tensor.half() for name, tensor in network(1).items()})
    told = []
    import_checkpoints("runs/*/model.pt", "z", MLP, report=told.append)
    assert "1 file: float16 became float32" in told


def test_many_files_are_one_entry_of_the_source(runs, monkeypatch):
    monkeypatch.setattr("zoo.importers.collect._MOST_FILES", 5)
    z = import_checkpoints("runs/*/model.pt", "z", MLP)
    (file,) = z.manifest.source.files
    assert file.name.startswith("12 files, runs/00/model.pt first")


@pytest.fixture
def tied_runs(tmp_path, monkeypatch):
    """Checkpoints of a module that a file beside them defines; what is trusted is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(imports, "_allowed", set())
    monkeypatch.setattr(imports, "_plugins", set())
    monkeypatch.syspath_prepend(tmp_path)
    code = """
    from tests.zoo.writing.networks import Tied


    def make(width):
        assert width == 5
        return Tied()
    """
    (tmp_path / "lab_of_checkpoints.py").write_text(textwrap.dedent(code))
    (tmp_path / "runs").mkdir()
    for at in range(8):
        torch.save(trained(at).state_dict(), tmp_path / "runs" / f"{at}.pt")
    yield
    sys.modules.pop("lab_of_checkpoints", None)


def run(*arguments):
    return CliRunner().invoke(main, ["import", "checkpoints", *arguments])


MODULE = ("--module", "lab_of_checkpoints:make", "--options", '{"width": 5}', "--example", "3")


@pytest.mark.usefixtures("tied_runs")
def test_the_command_with_a_module_of_ones_own(tmp_path):
    result = run("runs/*.pt", *MODULE, "--out", "z")
    assert result.exit_code == 0, result.output
    assert "networks: 8 networks of" in result.output
    assert verify_zoo("z") == []
    population = zoo.load("z", modules={"networks": lambda width: Tied()})["networks"]
    assert zoo.load("z").manifest.populations["networks"].architecture == {
        "module": "lab_of_checkpoints:make",
        "options": {"width": 5},
    }
    x, row = torch.randn(4, 3), population.table("test")["file"].iloc[0]
    module = Tied().eval()
    module.load_state_dict(torch.load(row, weights_only=True))
    params = {name: tensor[0] for name, tensor in population.params("test").items()}
    torch.testing.assert_close(population.architecture.apply(params, x), module(x))


def test_the_command_with_a_space(runs):
    (runs / "space.json").write_text(MLP.space.to_json())
    columns = ("--table", "runs.csv", "--hyperparameter", "lr", "--metric", "acc")
    result = run("runs/*/model.pt", "--space", "space.json", *columns, "--out", "z")
    assert result.exit_code == 0, result.output
    assert zoo.load("z")["networks"].space == MLP.space
    assert zoo.load("z")["networks"].hyperparameters == ("lr",)


WRONG = {
    "a module without an example": (("--module", "lab_of_checkpoints:make"), "together"),
    "options that are no JSON": (
        ("--module", "lab_of_checkpoints:make", "--options", "{", "--example", "3"),
        "expected JSON",
    ),
    "an example that does not fit": (
        ("--module", "lab_of_checkpoints:make", "--options", '{"width": 5}', "--example", "4"),
        "cannot be multiplied",
    ),
    "no such attribute": (("--module", "lab_of_checkpoints:nothing", "--example", "3"), "has no"),
    "no such module": (("--module", "lab_of_nobody:x", "--example", "3"), "looked in"),
}


@pytest.mark.usefixtures("tied_runs")
@pytest.mark.parametrize("case", WRONG)
def test_wrong_options_are_one_line(case, tmp_path):
    options, message = WRONG[case]
    result = run("runs/*.pt", *options, "--out", "z")
    assert result.exit_code == 1
    assert message in result.output
    assert not (tmp_path / "z").exists()


@needs_images("inr-orbit")
def test_networks_of_one_orbit_have_one_canonical_form(tmp_path):
    paths = sorted(image_folder("inr-orbit").rglob("*.pth"))[:6]
    siren = zoo.architectures.build_architecture("siren", {"hidden": [32, 32]}, (2,), 1)
    names = list(siren.space.tensors)
    population = import_checkpoints(paths, tmp_path / "z", split=(1, 0, 0))["networks"]
    stored = population.params("train")
    assert len(stored) == len(names)
    params = dict(zip(names, stored.values(), strict=True))
    assert {n: tuple(t.shape[1:]) for n, t in params.items()} == siren.space.shapes
    forms = zoo.canonicalize(siren.space, params)
    for tensor in forms.values():
        torch.testing.assert_close(tensor, tensor[:1].expand_as(tensor), rtol=1e-4, atol=1e-4)
