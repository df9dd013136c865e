"""Resident memory of this process while it takes steps."""

from pathlib import Path

from mdplugin.bench.contender import Walk
from mdplugin.bench.results import Memory

STEPS = 2


def measure_memory(walk: Walk) -> Memory:
    """Memory before the first step, and at its highest in the first few."""
    loaded = _read_status("VmRSS")
    _reset_peak()
    for _ in range(STEPS):
        walk.take_step()
    return Memory(loaded=loaded, peak=_read_status("VmHWM"))


def _reset_peak() -> None:
    """Forget what loading needed; where the kernel does not let us, the peak is an upper bound."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _read_status(name: str) -> int:
    """A field of /proc/self/status in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    raise OSError(f"/proc/self/status has no {name}")
