"""`make check` runs the tests that a change can break, nearest first."""

import json

import pytest

from tests import changed, cost


@pytest.mark.parametrize(
    ("path", "test", "steps"),
    [
        ("studies/merging/study.py", "tests/studies/test_merging.py", 1),
        ("metanet/metrics.py", "tests/metanet/test_metrics.py", 1),
        ("zoo/tracing/values.py", "tests/zoo/test_trace.py", 3),
        ("tests/tiers.py", "tests/data_gen/test_training_oracle.py", 1),
        ("tests/zoo/test_params.py", "tests/zoo/test_params.py", 0),
    ],
)
def test_a_test_is_as_far_away_as_its_imports_say(path, test, steps):
    assert changed.tests_of([path])[test] <= steps


def test_a_name_that_a_package_loads_lazily_leads_to_its_module(tmp_path):
    path = tmp_path / "test_mine.py"
    path.write_text("import zoo\nfrom zoo import align\nzoo.canonicalize(1, 2)\n")
    assert {"zoo.symmetry.canonical", "zoo.symmetry.alignment"} <= set(changed._lazy_imports(path))


def test_types_are_checked_of_what_changed_and_of_what_imports_it():
    files = changed.typed(["studies/common/grid.py", "docs/jobs.md", "tests/tiers.py"])
    assert {"studies/common/grid.py", "studies/common/runner.py"} <= set(files)
    assert not {"zoo/params.py", "docs/jobs.md", "tests/tiers.py"} & set(files)
    assert changed.typed(["docs/jobs.md"]) == []
    assert any(file.startswith("benchmarks/") for file in changed.typed(["zoo/params.py"]))


def test_the_nearest_come_first_and_the_seconds_are_kept(tmp_path, monkeypatch):
    table = tmp_path / "cost.json"
    table.write_text(json.dumps({"files": {"near": 3.0, "dear": 100.0, "far": 2.0, "last": 2.0}}))
    monkeypatch.setattr(changed, "TABLE", table)
    assert changed.affordable(["near", "dear", "new", "far", "last"], 6) == ["near", "new", "far"]


def test_the_test_named_like_a_file_comes_before_others_as_near():
    tests = list(changed.tests_of(["zoo/params.py"]))
    assert tests[0] == "tests/zoo/test_params.py"


def test_the_page_of_one_file_reaches_only_what_imports_it():
    tests = changed.tests_of(["studies/merging/study.py"])
    assert "tests/zoo/test_params.py" not in tests
    assert list(tests.values()) == sorted(tests.values())


def test_every_file_of_the_table_of_costs_exists():
    for path in json.loads(cost.TABLE.read_text())["files"]:
        assert (changed.ROOT / path).is_file(), f"{path}: run the tests with --record-cost"
