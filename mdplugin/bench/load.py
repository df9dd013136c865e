"""How many cores other processes kept busy while we measured."""

import os
import time
from pathlib import Path

_STAT = Path("/proc/stat")


class OtherLoad:
    """Counts from its creation on: busy time of all cores, less that of this process and its children."""

    def __init__(self):
        self._start = time.monotonic()
        self._others = _read_busy_s() - _read_own_s()

    def read(self) -> float:
        """Mean number of cores that others used; children that still run count as others."""
        others = _read_busy_s() - _read_own_s() - self._others
        return max(0.0, others / (time.monotonic() - self._start))


def _read_busy_s() -> float:
    """Seconds that all cores together were not idle, since the machine started; the kernel counts in 10 ms."""
    user, nice, system, _idle, _wait, irq, softirq, steal = map(int, _STAT.read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _read_own_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
