"""Artifacts -> milliseconds per evaluation, in turns; rounds -> medians with an interval.

In each round every artifact has its turn, in an order drawn anew, so that what else the machine does meets all alike: one
evaluation to warm the caches, then a turn of at least TURN_S over the frames. What is timed is the network: neighbour lists
are found before and cost every policy the same. With one torch thread the clock is that thread's CPU time, which stops
while another process has the core; with several it is wall time.

A round's times are divided by their median over artifacts, which removes what slows a whole round. The median m over n
rounds has the interval m ± 1.57 (Q3 - Q1) / sqrt(n): where the intervals of two medians do not overlap they differ at
about the 95 % level (McGill, Tukey and Larsen, The American Statistician 32, 12, 1978). It is never less than ± 0.5 % of
m: copies of one artifact, loaded into other places of memory, differed by 1 % whatever the number of rounds.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import ase
import numpy as np
import torch

from mdplugin.artifact import Artifact
from mdplugin.neighbors import Neighbors

TURN_S = 0.02
NOTCH = 1.57
LEAST_HALF = 0.005


@dataclass(frozen=True)
class Timing:
    """Median milliseconds per evaluation and the ends of its interval."""

    ms: float
    low_ms: float
    high_ms: float


class Runner:
    """An artifact with the edges of some frames."""

    def __init__(self, artifact: Artifact, frames: Sequence[ase.Atoms], clock: Callable[[], float]):
        self.artifact, self.clock = artifact, clock
        numbers = np.array(artifact.manifest.atomic_numbers)
        self.inputs = []
        for frame in frames:
            edges = Neighbors(artifact.manifest.r_max, skin=0).find(frame)
            species = torch.from_numpy(np.argmax(frame.numbers[:, None] == numbers, axis=1))
            self.inputs.append((edges.vectors, edges.senders, edges.receivers, species))

    def count_passes(self) -> int:
        """How often the frames are gone through in a turn."""
        return max(1, math.ceil(TURN_S / max(self._pass(), 1e-6)))

    def take_turn(self, n_passes: int) -> float:
        """Mean milliseconds of an evaluation."""
        self.artifact.evaluate(*self.inputs[0])
        return 1000 * sum(self._pass() for _ in range(n_passes)) / (n_passes * len(self.inputs))

    def _pass(self) -> float:
        start = self.clock()
        for each in self.inputs:
            self.artifact.evaluate(*each)
        return self.clock() - start


def take_rounds(
    runners: Mapping[str, Runner],
    numbers: Sequence[int],
    seed: int,
    keep: Callable[[dict[str, float]], object],
) -> None:
    """Time all runners in the rounds of these numbers; `keep` is called with each round's ms by name."""
    names = list(runners)
    for runner in runners.values():
        runner.count_passes()  # warms up
    n_passes = runners[names[0]].count_passes()
    for number in numbers:
        order = np.random.default_rng([seed, number]).permutation(len(names))
        ms = {names[i]: runners[names[i]].take_turn(n_passes) for i in order}
        keep({name: ms[name] for name in names})


def summarize(rounds: Sequence[Mapping[str, float]]) -> dict[str, Timing]:
    """Timings by name; every round has the same names."""
    names = list(rounds[0])
    ms = np.array([[each[name] for name in names] for each in rounds])  # (n_rounds, n_names)
    middle = np.median(ms, axis=1, keepdims=True)
    low, median, high = np.quantile(ms / middle, (0.25, 0.5, 0.75), axis=0) * np.median(middle)
    half = np.maximum(NOTCH * (high - low) / math.sqrt(len(rounds)), LEAST_HALF * median)
    return {
        name: Timing(float(m), float(m - h), float(m + h))
        for name, m, h in zip(names, median, half, strict=True)
    }
