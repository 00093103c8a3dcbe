"""What a measurement needs of the machine: cores to pin to, and the books the kernel keeps on processes.

CPU time is that of a whole tree of processes, user and system, in nanoseconds:
``/proc/PID/schedstat`` counts what each thread really ran, where ``stat`` counts
ticks of ten milliseconds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

__all__ = ["Cores", "busy_seconds", "cpu_seconds", "describe", "resident_bytes"]

_TICKS = os.sysconf("SC_CLK_TCK")


class Cores:
    """Who runs where: the proxy under test on a core of its own, load and backend on the others.

    :ivar proxy: the core of the proxy.
    :ivar rest: those of everybody else.
    """

    def __init__(self) -> None:
        cores = sorted(os.sched_getaffinity(0))
        self.proxy = {cores[-1]}
        self.rest = set(cores[:-1]) or self.proxy


def _tree(pid: int) -> Iterator[int]:
    yield pid
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children") as file:
                for child in file.read().split():
                    yield from _tree(int(child))
    except FileNotFoundError:
        pass  # it has ended meanwhile


def _own_seconds(pid: int) -> float:
    seconds = 0.0
    for thread in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{thread}/schedstat") as file:
                seconds += int(file.read().split()[0]) / 1e9
        except FileNotFoundError:  # a kernel without these books; then ticks have to do
            with open(f"/proc/{pid}/task/{thread}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
            seconds += (int(fields[11]) + int(fields[12])) / _TICKS
    return seconds


def cpu_seconds(pid: int) -> float:
    """User and system time of *pid* and everything it has started that still runs."""
    return sum(_own_seconds(each) for each in _tree(pid))


def busy_seconds() -> float:
    """What all cores of the machine have done for anybody, and what a hypervisor has kept from them."""
    with open("/proc/stat") as file:
        user, nice, system, _idle, _waiting, *rest = map(int, file.readline().split()[1:])
    return (
        user + nice + system + sum(rest[:3])
    ) / _TICKS  # rest: interrupts, soft ones, stolen; guests are in user


def resident_bytes(pid: int) -> int:
    """The memory that *pid* and everything it has started have in use."""
    pages = 0
    for each in _tree(pid):
        with open(f"/proc/{each}/statm") as file:
            pages += int(file.read().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


def describe() -> dict[str, object]:
    """What was measured on, for whoever reads the figures later."""
    model = "unknown"
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return {"cpu": model, "cores": len(os.sched_getaffinity(0)), "kernel": os.uname().release}
