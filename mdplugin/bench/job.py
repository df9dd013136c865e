"""What a child process is asked to measure: plain values that travel as JSON."""

from dataclasses import dataclass

TIMING, MEMORY = "timing", "memory"
ALLOCATORS = {
    "stock": {},
    # glibc keeps what was freed and asks the kernel for memory in large steps: no page faults on edge-sized tensors
    "tuned": {
        "MALLOC_MMAP_THRESHOLD_": "4000000000",
        "MALLOC_TRIM_THRESHOLD_": "8000000000",
        "MALLOC_TOP_PAD_": "268435456",
    },
}


@dataclass(frozen=True)
class Job:
    """One measurement of a child process.

    Attributes:
        work: TIMING or MEMORY.
        checkpoint: the `.model` file or bundled name, for mace-torch; its head, and whether to trust it.
        mace_dtypes: types in which mace-torch takes part.
        artifacts: (precision, file) of every artifact that takes part.
        system, n_atoms, seed: see systems.build_system.
        threads: of torch. rounds: how often every contender has its turn.
    """

    work: str
    checkpoint: str
    head: str
    mace_dtypes: tuple[str, ...]
    artifacts: tuple[tuple[str, str], ...]
    system: str
    n_atoms: int
    seed: int
    threads: int
    rounds: int
    trust: bool = False
