"""What a manifest names stays in the folder, links and pipes included."""

import os
from pathlib import Path

import pytest

import zoo
from tests.zoo.untrusted.edits import SHARD
from zoo.store.mapped import StoreError


@pytest.mark.parametrize("name", [SHARD, "standard", "zoo.json"])
def test_links_that_lead_out_of_the_zoo_are_refused(folder, tmp_path, name):
    (folder / name).rename(tmp_path / "outside")
    (folder / name).symlink_to(tmp_path / "outside")
    with pytest.raises(StoreError, match="a link that leads out of the zoo"):
        zoo.load(folder)["standard"].params("train")


def test_links_inside_the_zoo_and_to_the_zoo_are_fine(folder, tmp_path):
    (folder / SHARD).rename(folder / "standard" / ".file")
    (folder / SHARD).symlink_to(".file")
    (tmp_path / "link").symlink_to(folder)
    assert len(zoo.load(tmp_path / "link")["standard"].params("train")) > 0


def test_a_link_to_itself_is_refused(folder):
    (folder / SHARD).unlink()
    (folder / SHARD).symlink_to(Path(SHARD).name)
    with pytest.raises(StoreError, match=r"missing|cannot be followed"):
        zoo.load(folder)["standard"].params("train")


def test_a_pipe_in_the_place_of_a_shard_is_not_waited_for(folder):
    (folder / SHARD).unlink()
    os.mkfifo(folder / SHARD)
    with pytest.raises(StoreError, match="missing"):
        zoo.load(folder)["standard"].params("train")
