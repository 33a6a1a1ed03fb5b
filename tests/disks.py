"""Small file systems for tests.

Where the system does not let this process mount one, the test is skipped and says so; it fails if
$SYMZOO_TEST_DISKS is set, so that a machine that can mount them does not stop to test them unseen.
"""

import os
import subprocess
from contextlib import contextmanager

import pytest


def mount(*arguments):
    return subprocess.run(
        ["mount", *map(str, arguments)], capture_output=True, text=True, check=False
    )


@contextmanager
def small_disk(place, size):
    """A disk in memory with so many bytes; `resize` and `make_read_only` work on its place."""
    place.mkdir()
    made = mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", place)
    if made.returncode:
        reason = f"this process may not mount a small disk: {made.stderr.strip()}"
        (pytest.fail if os.environ.get("SYMZOO_TEST_DISKS") else pytest.skip)(reason)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def resize(place, size):
    assert mount("-o", f"remount,size={size}", place).returncode == 0


def make_read_only(place):
    assert mount("-o", "remount,ro", place).returncode == 0
