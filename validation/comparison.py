"""Estimates of candidate and reference -> tests: difference, error, effect size, p-values, outcome, advice.

The means of both sides over their replicas are compared (Welch's t). What is measured of runs that start from one state
and have not parted yet is compared in pairs, replica i with replica i: at constant energy replicas differ for good, and
only pairs cancel that.

p_fail (significance.py) is corrected for the number of tests of a case (Benjamini and Hochberg, J. R. Stat. Soc. B 57,
289 (1995)); requiring every observable to pass needs no correction (intersection-union test: Berger and Hsu, Stat. Sci.
11, 283 (1996)).

Where a limit holds for every run (a drift's), runs that heat differently have so uncertain a mean that three could heat
by 20 standard errors and more undecided. So it fails too if each of three runs or more exceeds the limit by itself, all
to one side: if none did, the largest of their n p-values would be as small as p with the probability p^n. Of the two
p-values the smaller one is doubled (Bonferroni).

Averages over configurations pass by what reweighting finds of the difference, where that is known (reweighting.py).
"""

import dataclasses
import enum
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from mdplugin.validation.criteria import CRITERIA, Criterion, Kind, find_criterion
from mdplugin.validation.limits import Limit, tighten_levels
from mdplugin.validation.significance import find_count_p_values, find_factors, find_p_values
from mdplugin.validation.statistics import Estimate, combine_replicas, subtract, take_one


class Outcome(enum.StrEnum):
    """What a test or a whole case comes to; the worst test decides."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


EXIT_STATUS = {Outcome.PASS: 0, Outcome.FAIL: 1, Outcome.INCONCLUSIVE: 2}
WORST_FIRST = (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS)
ABSOLUTE = (Kind.BOUND, Kind.MAGNITUDE, Kind.DEVIATION)  # judged without the reference
METHODS = {
    Kind.DIFFERENCE: "difference",
    Kind.RELATIVE: "logarithm of the ratio",
    Kind.DEVIATION: "deviation from its value",
    Kind.BOUND: "bound",
    Kind.MAGNITUDE: "bound of the logarithm",
    Kind.COUNT: "counts (Poisson)",
    Kind.DEFICIT: "difference to one side",
    Kind.RATIO: "logarithm of the ratio, to one side",
}
MIN_RUNS = 3  # that can exceed a limit each by itself
LOGARITHMIC = (Kind.MAGNITUDE, Kind.RATIO, Kind.RELATIVE)  # where the numbers are positive


def find_worst(outcomes: Iterable[Outcome]) -> Outcome:
    """Fail before inconclusive before pass."""
    return min(outcomes, key=WORST_FIRST.index)


@dataclass(frozen=True)
class Test:
    """One observable, judged.

    Attributes:
        observable: its name. title, unit: for people.
        candidate, reference: means over replicas; reference is None where float64 has no such number.
        difference: with error and degrees of freedom, signed so that more is worse where only one side is; of RATIO and
            RELATIVE the logarithm of candidate over reference, of MAGNITUDE over the limit.
        allowed: largest difference that does not matter.
        limit: the same for people, in `unit`; of a RATIO the largest candidate. reason: of the limit.
        sigma: candidate less reference, or the distance between them, in standard errors; NaN if one is not known.
        effect: the same over the reference's scatter between runs (Glass's Delta); NaN if that is not known.
        p_fail: probability of a difference as large as this if the true one is at the limit, uncorrected.
        p_corrected: the same, corrected for all tests of the case.
        p_pass: probability of a difference as small as this if the true one is at the limit; of `reweighted` where that is
            known.
        method: how it is tested, for people.
        reweighted: the difference in `unit` that frames of the candidate give alone (reweighting.py), or None.
        outcome: pass, fail, inconclusive.
        advice: how much more is needed, where inconclusive.
    """

    observable: str
    title: str
    unit: str
    candidate: Estimate
    reference: Estimate | None
    difference: Estimate
    allowed: float
    limit: float
    reason: str
    sigma: float
    effect: float
    p_fail: float
    p_pass: float
    method: str
    reweighted: Estimate | None = None
    p_corrected: float = math.nan
    outcome: Outcome = Outcome.INCONCLUSIVE
    advice: str = ""

    @property
    def evidence(self) -> tuple[Estimate, float]:
        """(difference, allowed) by which it can pass."""
        return (
            (self.difference, self.allowed)
            if self.reweighted is None
            else (self.reweighted, self.least_limit)
        )

    @property
    def least_limit(self) -> float:
        """Of differences in `unit`: where logarithms are judged, the lower one, which is nearer to the reference."""
        is_factor = find_criterion(self.observable).kind is Kind.RELATIVE and self.allowed != self.limit
        return self.limit * math.exp(-self.allowed) if is_factor else self.limit


def compare_observable(
    name: str, candidate: Sequence[Estimate], reference: Sequence[Estimate], limits: dict[str, Limit]
) -> Test:
    """The test of one observable, not yet corrected, from estimates per replica."""
    criterion = find_criterion(name)
    has_reference = bool(reference) or criterion.kind not in ABSOLUTE
    difference, allowed, limit = _difference(criterion, candidate, reference, limits)
    if criterion.kind is Kind.COUNT:
        p_fail, p_pass = find_count_p_values(candidate, reference, allowed)
    else:
        p_fail, p_pass = find_p_values(difference, allowed, one_sided=criterion.is_one_sided)
    method = METHODS[criterion.kind] + (", in pairs" if criterion.is_paired else "")
    if criterion.by_each_run and math.isfinite(p_fail):
        p_of_each = _p_of_each_run(criterion, candidate, reference, limits)
        method += "; each run by itself" if p_of_each < p_fail else ""
        p_fail = min(1.0, 2 * min(p_fail, p_of_each))
    return Test(
        observable=name,
        title=" ".join([criterion.title, name.partition(" ")[2]]).strip(),
        unit=criterion.unit,
        candidate=_combine(criterion, candidate),
        reference=_combine(criterion, reference) if has_reference else None,
        difference=difference,
        allowed=allowed,
        limit=limit,
        reason=_reason(criterion, limit, limits),
        sigma=_sigma(criterion, candidate, reference),
        effect=_effect(criterion, candidate, reference),
        p_fail=p_fail,
        p_pass=p_pass,
        method=method,
    )


def reweigh_test(test: Test, *directions: Sequence[Estimate]) -> Test:
    """The test with the difference that reweighting finds, by which it passes; as it was if one is not known.

    Args:
        directions: a difference for each run of the candidate, and for each of float64's. The one that is farther from a
            pass counts.
    """
    one_sided = find_criterion(test.observable).is_one_sided
    differences = [combine_replicas(runs) for runs in directions]
    p_values = [find_p_values(each, test.least_limit, one_sided=one_sided)[1] for each in differences]
    if not all(map(math.isfinite, p_values)):
        return test
    worst = int(np.argmax(p_values))
    return dataclasses.replace(test, reweighted=differences[worst], p_pass=p_values[worst])


def _combine(criterion: Criterion, side: Sequence[Estimate]) -> Estimate:
    """The mean over replicas; of what is judged by its logarithm, of that."""
    if criterion.kind is Kind.MAGNITUDE and side and _are_positive(side):
        return _exponential(combine_replicas([_logarithm(each) for each in side]))
    return combine_replicas(side)


def _sigma(criterion: Criterion, candidate: Sequence[Estimate], reference: Sequence[Estimate]) -> float:
    """Candidate less reference over its standard error, of logarithms where these are judged."""
    if criterion.is_distance:
        (distance,) = candidate
        return distance.value / distance.error if distance.is_known and distance.error else math.nan
    if len(candidate) != len(reference):
        return math.nan
    if criterion.kind is Kind.COUNT:
        difference = _count_difference(candidate, reference)
    elif criterion.kind in LOGARITHMIC and _are_positive([*candidate, *reference]):
        sides = ([_logarithm(each) for each in side] for side in (candidate, reference))
        difference = subtract_sides(criterion, *sides)
    else:
        difference = subtract_sides(criterion, candidate, reference)
    return difference.value / difference.error if difference.error else math.nan


def _effect(criterion: Criterion, candidate: Sequence[Estimate], reference: Sequence[Estimate]) -> float:
    """Difference of the means over the scatter of the reference's runs (Glass's Delta).

    n runs are sqrt(n / (n - 1)) of their scatter away from the mean of the others.
    """
    if criterion.is_distance and len(reference) > 1:
        n, (distance,) = len(reference), candidate
        scatter = math.sqrt((n - 1) / n * float(np.mean([each.value**2 for each in reference])))
        return distance.value / scatter if scatter > 0 else math.nan
    if len(candidate) != len(reference) or len(reference) < 2:
        return math.nan
    mine, theirs = (np.array([each.value for each in side]) for side in (candidate, reference))
    scatter = theirs.std(ddof=1)
    return float(abs(mine.mean() - theirs.mean()) / scatter) if scatter > 0 else math.nan


def _p_of_each_run(
    criterion: Criterion,
    candidate: Sequence[Estimate],
    reference: Sequence[Estimate],
    limits: dict[str, Limit],
) -> float:
    """p^n of the largest p-value of n runs; 1 if one is not beyond its limit by itself, on the other side, or not known."""
    if len(candidate) < MIN_RUNS:
        return 1.0
    largest, signs, others = 0.0, set(), reference or [None] * len(candidate)
    for mine, theirs in zip(candidate, others, strict=True):
        difference, allowed, _ = _difference(criterion, [mine], [theirs], limits)
        p_fail, _ = find_p_values(difference, allowed, one_sided=criterion.is_one_sided)
        largest = max(largest, p_fail if math.isfinite(p_fail) else 1.0)
        signs.add(math.copysign(1, difference.value))
    is_beyond = len(signs) == 1 and largest < limits["each_run"].value
    return largest ** len(candidate) if is_beyond else 1.0


def _difference(
    criterion: Criterion,
    candidate: Sequence[Estimate],
    reference: Sequence[Estimate],
    limits: dict[str, Limit],
) -> tuple[Estimate, float, float]:
    """(difference, allowed, limit), as `Test` has them."""
    limit = limits[criterion.limit].value
    match criterion.kind:
        case Kind.BOUND:
            difference = combine_replicas(candidate)
        case Kind.MAGNITUDE:
            return *_magnitude(candidate, limit), limit
        case Kind.DEVIATION:
            difference = subtract(combine_replicas(candidate), Estimate(criterion.target))
        case Kind.RATIO | Kind.RELATIVE:
            return _relative_difference(criterion, candidate, reference, limits)
        case Kind.COUNT:
            difference = _count_difference(candidate, reference)
        case Kind.DEFICIT:
            difference = subtract_sides(criterion, reference, candidate)
        case _:
            difference = subtract_sides(criterion, candidate, reference)
    return difference, limit, limit


def _count_difference(candidate: Sequence[Estimate], reference: Sequence[Estimate]) -> Estimate:
    """Per run, with the error of Poisson's counts."""
    mine, theirs = (sum(each.value for each in side) for side in (candidate, reference))
    n = len(candidate)
    return Estimate((mine - theirs) / n, math.sqrt(max(mine + theirs, 1)) / n)


def _magnitude(candidate: Sequence[Estimate], limit: float) -> tuple[Estimate, float]:
    """(difference, allowed) of the logarithms of value over limit; of the numbers where one is zero."""
    if limit > 0 and _are_positive(candidate):
        return combine_replicas([_logarithm(take_one(each.value / limit)) for each in candidate]), 0.0
    return combine_replicas(candidate), limit


def _relative_difference(
    criterion: Criterion,
    candidate: Sequence[Estimate],
    reference: Sequence[Estimate],
    limits: dict[str, Limit],
) -> tuple[Estimate, float, float]:
    """Of the logarithms, so that the reference's error counts in the limit too; of the numbers where the floor is more.

    Of the numbers too where one is not positive, as the diffusion coefficient of what hardly moves may be.
    """
    factor = limits[criterion.limit].value + (1 if criterion.kind is Kind.RELATIVE else 0)
    size = abs(combine_replicas(reference).value)
    floor = limits[criterion.floor].value if criterion.floor else 0.0
    is_ratio = criterion.kind is Kind.RATIO
    limit = factor * size if is_ratio else (factor - 1) * size
    if limit > floor and _are_positive([*candidate, *reference]):
        sides = ([_logarithm(each) for each in side] for side in (candidate, reference))
        return subtract_sides(criterion, *sides), math.log(factor), limit
    difference = combine_replicas(candidate) if is_ratio else subtract_sides(criterion, candidate, reference)
    return difference, max(limit, floor), max(limit, floor)


def _are_positive(estimates: Sequence[Estimate]) -> bool:
    return all(each.value > 0 for each in estimates)


def _logarithm(estimate: Estimate) -> Estimate:
    return Estimate(math.log(estimate.value), estimate.error / estimate.value, estimate.dof)


def _exponential(logarithm: Estimate) -> Estimate:
    value = math.exp(logarithm.value)
    return Estimate(value, value * logarithm.error, logarithm.dof)


def subtract_sides(criterion: Criterion, first: Sequence[Estimate], second: Sequence[Estimate]) -> Estimate:
    """first - second, of pairs of replicas or of the means over all of them."""
    if criterion.is_paired:
        return combine_replicas([subtract(*pair) for pair in zip(first, second, strict=True)])
    return subtract(combine_replicas(first), combine_replicas(second))


def _reason(criterion: Criterion, limit: float, limits: dict[str, Limit]) -> str:
    chosen = limits[criterion.limit]
    if criterion.floor and limit == limits[criterion.floor].value:
        return limits[criterion.floor].reason
    if criterion.kind is Kind.RATIO:
        return f"{chosen.value:.3g} times the reference's: {chosen.reason}"
    if criterion.kind is Kind.RELATIVE:
        return f"{chosen.value:g} {chosen.unit}: {chosen.reason}"
    return chosen.reason


def judge_tests(tests: Sequence[Test], limits: dict[str, Limit]) -> tuple[Test, ...]:
    """The tests with corrected p-values, outcomes and advice."""
    known = [index for index, test in enumerate(tests) if math.isfinite(test.p_fail)]
    corrected = np.full(len(tests), math.nan)
    if known:
        corrected[known] = stats.false_discovery_control(
            [tests[index].p_fail for index in known], method="bh"
        )
    judged = []
    for test, p_corrected in zip(tests, corrected.tolist(), strict=True):
        outcome, advice = Outcome.INCONCLUSIVE, ""
        if p_corrected < limits["false_alarm"].value:
            outcome = Outcome.FAIL
        elif test.p_pass < limits["false_pass"].value:
            outcome = Outcome.PASS
        else:
            advice = _advise(test, len(known), limits)
        judged.append(dataclasses.replace(test, p_corrected=p_corrected, outcome=outcome, advice=advice))
    return tuple(judged)


def _advise(test: Test, n_tests: int, limits: dict[str, Limit]) -> str:
    """How much more data a decision needs (`find_factors`)."""
    # the chi-square test has no criterion
    criterion = CRITERIA.get(test.observable.partition(" ")[0], Criterion)
    difference, allowed = test.evidence
    if not difference.is_known:
        return f"too few samples for an error bar: {criterion.needs}"
    n_p_values = n_tests * (2 if criterion.by_each_run else 1)
    next_look = tighten_levels(limits, 2)
    replicas, length = find_factors(
        difference, allowed, next_look, n_p_values, one_sided=criterion.is_one_sided
    )
    if replicas is None:
        return "the difference is as large as the limit: no length of run will tell"
    if not criterion.grows:
        return f"about {replicas} times the replicas (longer runs say no more)"
    if length is None:
        return f"about {replicas} times the replicas"
    return f"about {replicas} times the replicas, or {'' if length == replicas else f'{length} times '}the length"
