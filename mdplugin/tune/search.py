"""What blocks save and cost -> policies ranked by a model of additive savings; measured policies -> the one to take.

The model, to first order in roundings that know nothing of each other: savings of time add, and errors add in quadrature.

    t = t0 - sum of saved_b        e² = e0² + sum of (e_b² - e0²)        b: blocks, 0: fp32 everywhere

It ranks what is worth measuring. What is returned has been measured as a whole (`choose`). Pure functions.
"""

import heapq
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

LARGEST_SEARCH = 500_000  # nodes; two layers have 150,000 policies, and dominated formats are dropped before


@dataclass(frozen=True)
class Option:
    """One format of one block.

    Attributes:
        saved_ms: against the base type, negative where it is slower.
        added: what it adds to each squared error.
    """

    name: str
    saved_ms: float
    added: tuple[float, ...]


@dataclass(frozen=True)
class Prediction:
    """A policy of the model: formats by block, without those of the base type; time; squared errors."""

    formats: Mapping[Hashable, str]
    ms: float
    squares: tuple[float, ...]


def rank(
    options: Mapping[Hashable, Sequence[Option]],
    base: Prediction,
    limits: Sequence[float],
) -> Iterator[Prediction]:
    """Policies whose squared errors are within `limits`, the fastest first; of equally fast ones the most exact.

    Best first: a partial policy is at most as fast as with the best savings of all blocks that are open. Blocks keep the
    base type where no option is better in anything. Gives up after LARGEST_SEARCH nodes.

    Args:
        base: no formats; time and squared errors of the base type.
    """
    blocks = list(options)
    kept = [_drop_dominated([Option("", 0.0, (0.0,) * len(limits)), *options[block]]) for block in blocks]
    best = [max(option.saved_ms for option in each) for each in kept]
    open_ms = [sum(best[k:]) for k in range(len(blocks) + 1)]
    start = (base.ms - open_ms[0], _share(base.squares, limits), (), 0.0, tuple(base.squares))
    heap = [start] if _is_within(base.squares, limits) else []
    for _ in range(LARGEST_SEARCH):
        if not heap:
            return
        bound_ms, _, names, saved_ms, squares = heapq.heappop(heap)
        k = len(names)
        if k == len(blocks):
            yield Prediction({b: n for b, n in zip(blocks, names, strict=True) if n}, bound_ms, squares)
            continue
        for option in kept[k]:
            sums = tuple(a + b for a, b in zip(squares, option.added, strict=True))
            if _is_within(sums, limits):
                saved = saved_ms + option.saved_ms
                node = (
                    base.ms - saved - open_ms[k + 1],
                    _share(sums, limits),
                    (*names, option.name),
                    saved,
                    sums,
                )
                heapq.heappush(heap, node)


def _is_within(squares: Sequence[float], limits: Sequence[float]) -> bool:
    return all(square <= limit for square, limit in zip(squares, limits, strict=True))


def _share(squares: Sequence[float], limits: Sequence[float]) -> float:
    """The largest part of a limit that is used."""
    return max((square / limit for square, limit in zip(squares, limits, strict=True)), default=0.0)


def _drop_dominated(options: Sequence[Option]) -> list[Option]:
    """Without those for which an earlier one, or one that is better in something, is as good in everything."""
    kept = []
    for i, option in enumerate(options):
        others = [
            other
            for j, other in enumerate(options)
            if j != i and (j < i or _values(other) != _values(option))
        ]
        if not any(all(a <= b for a, b in zip(_values(o), _values(option), strict=True)) for o in others):
            kept.append(option)
    return kept


def _values(option: Option) -> tuple[float, ...]:
    return (-option.saved_ms, *option.added)


@dataclass(frozen=True)
class Measured:
    """A policy that was measured as a whole.

    Attributes:
        ms, low_ms, high_ms: median time and its interval (timing.py).
        force_rmse: against float64, meV/Å. is_inside: whether it meets the budget.
    """

    name: str
    ms: float
    low_ms: float
    high_ms: float
    force_rmse: float
    is_inside: bool


def is_faster(a: Measured, b: Measured) -> bool:
    """Whether `a` is faster than `b` beyond the noise: their intervals do not overlap."""
    return a.high_ms < b.low_ms


def equally_fast(policies: Sequence[Measured]) -> list[Measured]:
    """Those inside the budget that nothing inside is faster than; the one with the least median is always among them."""
    inside = [each for each in policies if each.is_inside]
    return [a for a in inside if not any(is_faster(b, a) for b in inside)]


def choose(policies: Sequence[Measured]) -> Measured | None:
    """The policy to take, None where none is inside the budget.

    Of the equally fast ones that with the smallest force error: an error that buys no measurable time is not worth it.
    """
    return min(equally_fast(policies), key=lambda each: (each.force_rmse, each.ms, each.name), default=None)


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points (time, error) that no other point beats in one and equals in the other, by time."""
    front, least = [], float("inf")
    for index in sorted(range(len(points)), key=lambda i: points[i]):
        if points[index][1] < least:
            front.append(index)
            least = points[index][1]
    return front
