"""A folder belongs to one study of one zoo: nothing is written over its rows."""

import shutil

import pandas as pd
import pytest

from studies.bayesian.config import Bayesian
from studies.common.claim import RECORD, claim_folder
from studies.common.runner import run
from studies.learnability.config import Learnability
from studies.learnability.study import STUDY
from tests.studies.zoos import write_zoo


def config_of(zoo, **options):
    return Learnability(zoo=zoo, metanets=("statnn",), num_bootstrap=20, **options)


def test_another_zoo_does_not_take_the_place_of_the_first(tiny_zoo, tmp_path, counted_fit):
    out, other = tmp_path / "out", write_zoo(tmp_path / "other", shift=0.1)
    rows = run(STUDY, config_of(tiny_zoo), out, quiet=True)
    measured = len(counted_fit.cells)
    with pytest.raises(ValueError, match=r"out holds rows of another zoo; choose another --out"):
        run(STUDY, config_of(other), out, quiet=True)
    assert len(counted_fit.cells) == measured
    pd.testing.assert_frame_equal(pd.read_parquet(out / "rows.parquet"), rows)


def test_the_same_zoo_in_another_place_and_other_settings_go_on(tiny_zoo, tmp_path):
    moved = shutil.copytree(tiny_zoo, tmp_path / "moved")
    claim_folder(tmp_path / "out", "learnability", config_of(tiny_zoo))
    claim_folder(tmp_path / "out", "learnability", config_of(moved, seeds=(1, 2)))


def test_another_study_is_refused(tiny_zoo, tmp_path):
    claim_folder(tmp_path, "learnability", config_of(tiny_zoo))
    config = Bayesian.model_validate(
        {"task": {}, "architectures": {"a": {"name": "mlp"}}, "asymmetries": {"none": None}}
    )
    for name, other in (("merging", config_of(tiny_zoo)), ("bayesian", config)):
        with pytest.raises(ValueError, match="holds rows of the study 'learnability'; choose"):
            claim_folder(tmp_path, name, other)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "the record of a study is not JSON"), ('{"study": 1}', "study: Input should be")],
)
def test_a_record_that_is_none_is_refused(tiny_zoo, tmp_path, text, message):
    (tmp_path / RECORD).write_text(text)
    with pytest.raises(ValueError, match=message):
        claim_folder(tmp_path, "learnability", config_of(tiny_zoo))
