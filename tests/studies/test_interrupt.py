"""Ctrl-C in the middle of a study ends it in words, and the same command goes on from there.

Deep: what stops a study is tested without a process of its own in `test_learnability.py`.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from studies.cli import main

ROOT = Path(__file__).parents[2]


def cells_in(out):
    return sorted(out.glob("cells/*.parquet"))


def interrupted(command, out):
    """What a command prints that is interrupted, as by a terminal, when the first cell is there."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "studies.cli", *command],
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        text=True,
    )
    while process.poll() is None and not cells_in(out):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate()
    return process.returncode, errors


@pytest.mark.deep
@pytest.mark.parametrize("workers", ["0", "2"])
def test_what_is_finished_is_kept(tiny_zoo, tmp_path, workers):
    out = tmp_path / "out"
    command = ["study", "learnability", "--zoo", str(tiny_zoo), "--out", str(out), "--quiet"]
    command += ["--set", "metanets=[mlp]", "--set", "num_bootstrap=20", "--set", "seeds=[0]"]
    command += ["--workers", workers]
    status, errors = interrupted(command, out)
    assert status == 1
    assert errors.strip().endswith("Aborted!")
    assert "Traceback" not in errors
    kept = {path: path.read_bytes() for path in cells_in(out)}
    assert kept
    assert not list(out.rglob("*.tmp"))
    assert not (out / "rows.parquet").exists()
    result = CliRunner().invoke(main, [*command[:-1], "0"])
    assert result.exit_code == 0, result.output
    assert {path: path.read_bytes() for path in kept} == kept
    assert set(pd.read_parquet(out / "rows.parquet")["metanet"]) == {"hparams", "mlp"}
