"""How much memory this process may still take."""

import os
import resource
import sys
from pathlib import Path

_MEMINFO, _STATM, _CGROUP = Path("/proc/meminfo"), Path("/proc/self/statm"), Path("/sys/fs/cgroup")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def free_memory() -> int:
    """Memory that this process can take before it swaps, is refused or is killed.

    Returns:
        Bytes: the least of what the system has available, what the control group allows and what
            `ulimit -v` allows.
    """
    limits = [_of_system()]
    limits += [_of_group()] if (_CGROUP / "memory.max").is_file() else []
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    if most != resource.RLIM_INFINITY and _STATM.is_file():
        limits.append(most - int(_STATM.read_text().split()[0]) * _PAGE)
    return max(0, min(limits))


def _of_system() -> int:
    if _MEMINFO.is_file():
        lines = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
        return 1024 * int(lines["MemAvailable"].split()[0])
    return _PAGE * os.sysconf("SC_PHYS_PAGES")


def _of_group() -> int:
    """What the control group allows; its page cache can be given back and does not count."""
    most = (_CGROUP / "memory.max").read_text().strip()
    if most == "max":
        return sys.maxsize
    counted = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
    cache = int(counted.get("inactive_file", 0)) + int(counted.get("active_file", 0))
    return int(most) - int((_CGROUP / "memory.current").read_text()) + cache
