"""Count the processor cores that this process may use: its affinity, and the limit of its container.

Sources: sched_getaffinity(2); the kernel's admin-guide/cgroup-v2.rst (cpu.max) and scheduler/sched-bwc.rst (version 1).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def usable(groups: Path = _GROUPS, membership: Path = _MEMBERSHIP) -> int:
    """Return the number of usable cores, at least 1; a limit of one and a half counts as two."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *map(math.ceil, _limits(groups, membership))]))


def _limits(groups: Path, membership: Path) -> Iterator[float]:
    """Yield the limit in cores of each control group that has one: this process's and those that contain it."""
    for line in _read(membership).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = groups / controllers if controllers else groups
        inside = Path(path.lstrip("/"))
        for group in (inside, *inside.parents):  # a container sees its own group as the top, whatever the path says
            yield from _limit(top / group)


def _limit(group: Path) -> Iterator[float]:
    quota, _, period = _read(group / "cpu.max").partition(" ")
    if not quota:
        quota, period = _read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us")
    try:
        allowed, of = int(quota), int(period)
    except ValueError:  # "max", or no such file
        return
    if allowed > 0 and of > 0:
        yield allowed / of


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
