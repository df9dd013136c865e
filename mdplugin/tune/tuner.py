"""Workshop + budget -> the policy to take, and all that was measured on the way.

1. every preset as a whole; 2. every format of every block, alone, for error and time; 3. the policies that the model
(search.py) expects to be the fastest inside the budget, as wholes, until enough of them are; 4. presets and those of 3.
timed in turns; 5. the choice. Every decision is a function of stored measurements.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mdplugin.bounds import Finding, worst
from mdplugin.compare import Effort
from mdplugin.errors import CheckpointError
from mdplugin.precision import PRESETS, Precision
from mdplugin.tune.blocks import BASE, Block, combine, list_blocks
from mdplugin.tune.budget import excess, hold, require_measured, value_of
from mdplugin.tune.search import Measured, Option, Prediction, choose, equally_fast, rank
from mdplugin.tune.timing import Timing
from mdplugin.tune.workshop import Workshop

# the ranking's errors are a model's: what it expects this far beyond the budget may still be inside
SLACK = 1.1
WHOLE_ROUNDS = 2  # wholes are timed in so many times the rounds of blocks: they decide
TRIES = 3  # policies measured for each that shall be found inside the budget


@dataclass(frozen=True)
class Single:
    """One block in one format, all else fp32: its row and time, or why there are none."""

    block: Block
    format: str
    row: Mapping
    timing: Timing | None


@dataclass(frozen=True)
class Whole:
    """A policy measured as a whole.

    Attributes:
        row: of `compare`, or {"refused": reason}. findings: held against the budget; none where it was refused.
        expected: what the model said of it, None for a preset.
    """

    policy: Precision
    row: Mapping
    findings: tuple[Finding, ...]
    timing: Timing | None = None
    expected: Prediction | None = None

    @property
    def is_preset(self) -> bool:
        """Whether it has a name."""
        return str(self.policy) in PRESETS

    @property
    def is_inside(self) -> bool:
        """Whether it meets the budget."""
        return bool(self.findings) and worst(list(self.findings)) == "pass"

    @property
    def force_rmse(self) -> float:
        """Against float64, meV/Å."""
        return self.row["float64"]["force_rmse_meV_per_A"]

    @property
    def summary(self) -> Measured:
        """What the choice is made by."""
        timing = self.timing
        return Measured(
            str(self.policy), timing.ms, timing.low_ms, timing.high_ms, self.force_rmse, self.is_inside
        )


@dataclass(frozen=True)
class Outcome:
    """All that was measured; `chosen` is None where nothing meets the budget."""

    budget: Mapping[str, float]
    singles: tuple[Single, ...]
    wholes: tuple[Whole, ...]
    chosen: Whole | None

    @property
    def equals(self) -> tuple[str, ...]:
        """The policies among which `chosen` is the nearest to float64: equally fast within the noise."""
        return tuple(
            each.name for each in equally_fast([each.summary for each in self.wholes if each.timing])
        )

    @property
    def nearest(self) -> Whole:
        """The policy least beyond the budget."""
        return min((each for each in self.wholes if each.findings), key=lambda each: excess(each.findings)[0])


def quick(effort: Effort) -> Effort:
    """The effort for single blocks, whose probes only rank."""
    return replace(
        effort,
        probe_frames=min(effort.probe_frames, 2),
        rotations=min(effort.rotations, 4),
        directions=min(effort.directions, 2),
    )


def count_steps(n_layers: int, effort: Effort, n_candidates: int) -> int:
    """About how many measurements a run has: presets, blocks, candidates, rounds."""
    singles = 1 + sum(len(block.formats) for block in list_blocks(n_layers))
    return 1 + len(PRESETS) + singles + n_candidates + (1 + WHOLE_ROUNDS) * effort.rounds


def tune(workshop: Workshop, budget: Mapping[str, float], effort: Effort, n_candidates: int) -> Outcome:
    """Find the policy; see the module.

    Raises:
        BoundError: the frames do not show a quantity of the budget.
        CheckpointError: the native engine does not know the network.
    """
    wholes = [_measure(workshop, Precision.parse(name), budget, effort) for name in PRESETS]
    by_name = {str(each.policy): each for each in wholes}
    for name in ("fp64", BASE):
        if "refused" in by_name[name].row:
            raise CheckpointError(f"{workshop.checkpoint.name} as {name}: {by_name[name].row['refused']}")
    require_measured(by_name["fp64"].row, budget)
    singles: tuple[Single, ...] = ()
    if by_name[BASE].is_inside:  # else nothing that rounds more is
        singles = measure_blocks(workshop, effort)
        wholes += find_candidates(workshop, singles, budget, effort, n_candidates)
    wholes = _time(workshop, wholes, effort)
    best = choose([each.summary for each in wholes if each.timing])
    chosen = None if best is None else next(each for each in wholes if str(each.policy) == best.name)
    return Outcome(budget, singles, tuple(wholes), chosen)


def _measure(
    workshop: Workshop,
    policy: Precision,
    budget: Mapping[str, float],
    effort: Effort,
    expected: Prediction | None = None,
) -> Whole:
    row = workshop.measure(policy, effort)
    return Whole(policy, row, () if "refused" in row else tuple(hold(row, budget)), expected=expected)


def _time(workshop: Workshop, wholes: Sequence[Whole], effort: Effort) -> list[Whole]:
    """Presets, and all others that are inside the budget; nothing where none is."""
    if not any(each.is_inside for each in wholes):
        return list(wholes)
    timed = [each.policy for each in wholes if each.findings and (each.is_preset or each.is_inside)]
    timings = workshop.time(timed, replace(effort, rounds=WHOLE_ROUNDS * effort.rounds))
    return [replace(each, timing=timings.get(each.policy)) for each in wholes]


def measure_blocks(workshop: Workshop, effort: Effort) -> tuple[Single, ...]:
    """fp32 (the block named "") and every format of every block, alone."""
    n_layers = workshop.checkpoint.n_layers
    cases = [(Block(""), BASE)]
    cases += [(block, name) for block in list_blocks(n_layers) for name in block.formats]
    policies = [combine({block: name} if block.role else {}, n_layers) for block, name in cases]
    rows = [workshop.measure(policy, quick(effort)) for policy in policies]
    sound = [policy for policy, row in zip(policies, rows, strict=True) if "refused" not in row]
    timings = workshop.time(sound, effort)
    return tuple(
        Single(block, name, row, timings.get(policy))
        for (block, name), policy, row in zip(cases, policies, rows, strict=True)
    )


def find_candidates(
    workshop: Workshop,
    singles: Sequence[Single],
    budget: Mapping[str, float],
    effort: Effort,
    n_candidates: int,
) -> list[Whole]:
    """The best of two rankings, half each: by savings beyond the noise, and by all medians as they are.

    Of either, policies are measured as wholes in the order of the ranking until enough of them are inside the budget.
    """
    base = Prediction({}, singles[0].timing.ms, _squares(singles[0].row, budget))
    limits = [(SLACK * bound) ** 2 for bound in budget.values()]
    seen = {Precision.parse(name): None for name in PRESETS}
    for is_cautious in (True, False):
        n_wanted = (n_candidates + 1) // 2 if is_cautious else n_candidates // 2
        ranking = rank(list_options(singles, budget, is_cautious), base, limits)
        for expected in itertools.islice(ranking, TRIES * n_wanted):
            policy = combine(expected.formats, workshop.checkpoint.n_layers)
            if n_wanted == 0:
                break
            if policy not in seen:
                seen[policy] = _measure(workshop, policy, budget, effort, expected)
            if seen[policy] is not None:
                n_wanted -= seen[policy].is_inside
    return [each for each in seen.values() if each is not None]


def list_options(
    singles: Sequence[Single], budget: Mapping[str, float], is_cautious: bool
) -> dict[Block, list[Option]]:
    """What each block can do, after the first single, fp32.

    Args:
        is_cautious: count a saving only where it is beyond the noise: where the intervals of the times do not overlap.
    """
    base, *others = singles
    squares = _squares(base.row, budget)
    options: dict[Block, list[Option]] = {}
    for each in others:
        mine = options.setdefault(each.block, [])
        if each.timing is None:
            continue
        saved = base.timing.ms - each.timing.ms
        if is_cautious and saved > 0 and each.timing.high_ms >= base.timing.low_ms:
            saved = 0.0
        added = tuple(max(0.0, a - b) for a, b in zip(_squares(each.row, budget), squares, strict=True))
        mine.append(Option(each.format, saved, added))
    return options


def _squares(row: Mapping, budget: Mapping[str, float]) -> tuple[float, ...]:
    """Squared errors of the budget's quantities; a noise by its roughness where that is what it is judged by."""
    return tuple(value_of(row, name) ** 2 for name in budget)
