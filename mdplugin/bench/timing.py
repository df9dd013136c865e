"""Contenders -> seconds per step: warmed up, then in turns, so that what else the machine does meets all alike."""

import time
from collections.abc import Callable

from mdplugin.bench.contender import Walk

WARM_UP_STEPS = 3  # TorchScript's profiling executor, which mace-torch uses, compiles in the first two calls
ROUND_S = 1.0  # a round is as many steps as fit, so that rebuilt neighbour lists are averaged in
MOST_STEPS = 10


def warm_up(walk: Walk) -> int:
    """Take the first steps; returns how many steps a round shall have."""
    for _ in range(WARM_UP_STEPS):
        start = time.perf_counter()
        walk.take_step()
        elapsed = time.perf_counter() - start
    return max(1, min(MOST_STEPS, round(ROUND_S / elapsed)))


def time_in_turns(walks: list[Walk], rounds: int, tick: Callable[[], None]) -> list[tuple[int, list[float]]]:
    """Per walk its steps per round, and the mean seconds of a step in every round; `tick` is called after each."""
    lengths = []
    for walk in walks:
        lengths.append(warm_up(walk))
        tick()
    times = [[] for _ in walks]
    for _ in range(rounds):
        for walk, n_steps, seconds in zip(walks, lengths, times, strict=True):
            start = time.perf_counter()
            for _ in range(n_steps):
                walk.take_step()
            seconds.append((time.perf_counter() - start) / n_steps)
            tick()
    return list(zip(lengths, times, strict=True))
