"""Names of code: what is imported, and what is said if that does not work."""

import sys

import pytest

from zoo.imports import allow, import_attribute

MODULE = """
class Data:
    @staticmethod
    def load():
        return 7

number = 3
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with modules that are not installed."""
    (tmp_path / "lab_of_tests.py").write_text(MODULE)
    (tmp_path / "broken_of_tests.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    allow(
        ["lab_of_tests", "broken_of_tests", "colorsys", "no_lab_of_tests.nets", "lab_of_tests.nets"]
    )
    yield tmp_path
    sys.modules.pop("lab_of_tests", None)


@pytest.mark.parametrize("attribute", ["Data", "Data.load"])
def test_a_module_beside_the_job_is_imported(folder, attribute):
    assert callable(import_attribute(f"lab_of_tests:{attribute}", "task.name"))


def test_the_current_folder_hides_nothing_that_is_installed(folder):
    (folder / "colorsys.py").write_text("rgb_to_hls = None\n")
    assert import_attribute("colorsys:rgb_to_hls", "task.name") is not None


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("lab_of_tests", "expected 'module:attribute'"),
        ("lab of tests:load", "expected 'module:attribute'"),
        ("lab_of_tests:Data:load", "expected 'module:attribute'"),
        ("no_lab_of_tests.nets:load", r"No module named 'no_lab_of_tests'; looked in \['/"),
        ("lab_of_tests.nets:load", "No module named 'lab_of_tests.nets'"),
        ("broken_of_tests:load", "importing 'broken_of_tests' raised ZeroDivisionError: division"),
        ("lab_of_tests:lod", r"lab_of_tests.py\) has no 'lod'; it has \['Data', 'number'\]"),
        ("lab_of_tests:Data.lod", "has no 'Data.lod'"),
        ("lab_of_tests:number", "expected a callable, found int"),
    ],
)
def test_an_error_says_the_key_and_what_went_wrong(folder, name, why):
    with pytest.raises(ValueError, match=rf"^task\.name: .*{why}"):
        import_attribute(name, "task.name")
