"""The machine's measured peaks: a matrix product and a memory copy, on the threads that torch has."""

import time

import torch

GEMM_SIZE = 1024
COPY_BYTES = 128 * 2**20  # beyond any last-level cache of two cores
REPEATS = 8


def measure_gemm(dtype: torch.dtype) -> float:
    """FLOP/s of torch's product of two square matrices, 2 n³ operations each; the best of a few."""
    a, b = (torch.rand((GEMM_SIZE, GEMM_SIZE), dtype=dtype) for _ in range(2))
    product = torch.empty_like(a)
    return 2 * GEMM_SIZE**3 / _shortest(lambda: torch.mm(a, b, out=product))


def measure_copy() -> float:
    """Bytes/s that a memory copy reads and writes; the best of a few."""
    source = torch.ones(COPY_BYTES, dtype=torch.uint8)
    target = torch.zeros_like(source)
    return 2 * COPY_BYTES / _shortest(lambda: target.copy_(source))


def _shortest(work) -> float:
    times = []
    for _ in range(REPEATS + 1):  # the first also warms caches and threads up
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times[1:])
