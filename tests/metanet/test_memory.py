"""How much memory is left: the least of what the system, the group and `ulimit` leave."""

import os
import sys

import pytest

from metanet.inputs import memory

PAGE = os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine of files: 900 KiB are available, the group may have 700 KiB."""
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_STATM", tmp_path / "statm")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    monkeypatch.setattr("resource.getrlimit", lambda _: (memory.resource.RLIM_INFINITY,) * 2)
    (tmp_path / "meminfo").write_text("MemTotal: 1000 kB\nMemAvailable: 900 kB\n")
    (tmp_path / "statm").write_text("10 5 1\n")
    (tmp_path / "memory.max").write_text(f"{700 * 1024}\n")
    (tmp_path / "memory.current").write_text(f"{500 * 1024}\n")
    (tmp_path / "memory.stat").write_text(
        f"anon 1\nactive_file {20 * 1024}\ninactive_file {30 * 1024}\n"
    )
    return tmp_path


def test_the_group_may_take_what_it_has_not_and_its_cache(machine):
    assert memory.free_memory() == (700 - 500 + 20 + 30) * 1024


def test_a_group_without_a_limit_leaves_what_the_system_has(machine):
    (machine / "memory.max").write_text("max\n")
    assert memory._of_group() == sys.maxsize
    assert memory.free_memory() == 900 * 1024


def test_a_limit_counts_what_this_process_has(machine, monkeypatch):
    monkeypatch.setattr("resource.getrlimit", lambda _: (12 * PAGE, 12 * PAGE))
    assert memory.free_memory() == 2 * PAGE


def test_a_system_that_does_not_tell_has_all_its_pages(machine):
    for name in ("meminfo", "memory.max"):
        (machine / name).unlink()
    assert memory.free_memory() == PAGE * os.sysconf("SC_PHYS_PAGES")
