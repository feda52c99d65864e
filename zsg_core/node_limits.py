"""Reads what a process may use of its node: CPUs, memory, and the room for what ranks
share."""

import os
import resource
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
CGROUP_LISTING = Path("/proc/self/cgroup")
MEMORY_TABLE = Path("/proc/meminfo")
# what version 1 has where there is no limit: a page short of 2^63
UNLIMITED = 1 << 60


def count_cpus() -> int:
    """The CPUs that this process may run on."""
    return len(os.sched_getaffinity(0))


def read_memory_limit(
    root: Path = CGROUPS, listing: Path = CGROUP_LISTING, table: Path = MEMORY_TABLE
) -> int | None:
    """The bytes of memory that this process may use: the least of its cgroups' limits
    and of what the node has; None where none of them can be read."""
    limits = [*_list_cgroup_limits(root, listing), *_list_total(table)]
    return min(limits, default=None)


def _list_total(table: Path) -> list[int]:
    for line in _read_lines(table):
        name, _, value = line.partition(":")
        if name == "MemTotal":
            return [int(value.split()[0]) * 1024]
    return []


def _list_cgroup_limits(root: Path, listing: Path) -> list[int]:
    """The limits of this process' cgroup and of those that it lies in."""
    limits: list[int] = []
    for line in _read_lines(listing):
        _, controllers, path = line.split(":", 2)
        if not controllers:
            limits += _list_limits_on_path(root, path, "memory.max")
        elif controllers == "memory":
            name = "memory.limit_in_bytes"
            limits += _list_limits_on_path(root / "memory", path, name)
    return limits


def _list_limits_on_path(root: Path, path: str, name: str) -> list[int]:
    folder = root / path.lstrip("/")
    limits: list[int] = []
    for above in (folder, *folder.parents):
        for line in _read_lines(above / name):
            if line.isdigit() and int(line) < UNLIMITED:
                limits.append(int(line))
        if above == root:
            break
    return limits


def _read_lines(path: Path) -> list[str]:
    """The lines of a file of the kernel's; none where it cannot be read."""
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def read_locked_memory_limit() -> int | None:
    """The bytes that this process may lock in memory, as networks with RDMA do; None
    where there is no limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return None if soft == resource.RLIM_INFINITY else soft
