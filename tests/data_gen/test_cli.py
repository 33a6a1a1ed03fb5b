"""`generate-zoo` from the outside: exit codes and messages."""

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import zoo
from data_gen.cli import main
from data_gen.config import load_job, recipe_names

JOB = """\
task:
  name: digits
  train_size: 100
  test_size: 50
count: 8
hyperparameters:
  lr: {log_uniform: [0.01, 0.1]}
  steps: 5
populations:
  standard:
    architecture: {name: mlp, hidden: [6], activation: relu}
  w_asymmetric:
    architecture: {name: mlp, hidden: [6]}
    asymmetry: {kind: w, n_fix: 0.25, kappa: 1.0}
"""


@pytest.fixture
def job(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    return path


def run(*arguments):
    result = CliRunner().invoke(main, [*map(str, arguments), "--workers", "0", "--quiet"])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def test_a_job_becomes_a_zoo(job, tmp_path):
    result = run(job, "--out", tmp_path / "zoo", "--set", "count=12")
    assert result.exit_code == 0, result.output
    assert len(zoo.load(tmp_path / "zoo")["standard"]) == 12


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("count: 8", "cuont: 8", "job.yaml:5: unknown key 'cuont'"),
        (
            "log_uniform: [0.01, 0.1]",
            "log_uniform: [0.1, 0.01]",
            "job.yaml:7: hyperparameters.lr: log_uniform: expected low <= high",
        ),
        ("activation: relu", "activation: rleu", "unknown activation 'rleu'; known are"),
        (
            "n_fix: 0.25",
            "n_fix: 64",
            "tensor 'layers.0.weight': n_fix=64 would freeze all 64 entries",
        ),
        (
            "kappa: 1.0",
            "kapa: 1.0",
            "job.yaml:14: populations.w_asymmetric.asymmetry.kapa: unknown option 'kapa' of "
            "asymmetry 'w'",
        ),
        (
            "name: digits",
            "name: images\n  path: ./no/such/folder",
            "task.path: no such folder: ./no/such/folder",
        ),
        (
            "name: mlp, hidden: [6], act",
            "name: mpl, hidden: [6], act",
            "job.yaml:11: populations.standard.architecture.name: unknown architecture 'mpl'",
        ),
        ("count: 8", "count: many", "job.yaml:5: count:"),
        ("count: 8", "count: [8", "not valid YAML"),
    ],
)
def test_bad_jobs_end_with_one_clear_message(job, tmp_path, old, new, message):
    assert old in JOB
    job.write_text(JOB.replace(old, new))
    result = run(job, "--out", tmp_path / "zoo")
    assert result.exit_code == 2
    assert message in result.stderr
    assert not list(tmp_path.glob("zoo/**/*.h5"))


def test_unknown_recipe_lists_the_known_ones(tmp_path):
    result = run("dmeo", "--out", tmp_path / "zoo")
    assert result.exit_code == 2
    assert f"no recipe 'dmeo' and no such file; recipes are {recipe_names()}" in result.stderr
    assert {"demo", "digits-large", "mnist-cnn"} <= set(recipe_names())


def test_out_of_another_job_is_refused(job, tmp_path):
    assert run(job, "--out", tmp_path / "zoo").exit_code == 0
    result = run(job, "--out", tmp_path / "zoo", "--set", "seed=1")
    assert result.exit_code == 2
    assert "holds another job, which differs in ['seed']" in result.stderr


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_is_a_valid_job(name):
    job = load_job(name)
    for_pairs = name.startswith(("connectivity", "merging"))
    assert job.count >= (10 if for_pairs else 300)
    assert ({"mlp_32", "cnn_12_12"} if name == "mixed" else {"standard", "w_asymmetric"}) <= set(
        job.populations
    )


def test_every_option_is_documented():
    text = (Path(__file__).parents[2] / "docs" / "jobs.md").read_text(encoding="utf-8")
    options = [
        option for parameter in main.params for option in parameter.opts if option.startswith("--")
    ]
    assert [option for option in options if f"| `{option}" not in text] == []


def test_help_is_quick_because_it_loads_no_torch():
    code = "import sys, data_gen.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    script = Path(sys.executable).with_name("generate-zoo")
    shown = subprocess.run([script, "--help"], capture_output=True, text=True, check=True).stdout
    assert "Generate a zoo of networks" in shown
