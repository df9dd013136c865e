"""Estimates of candidate and reference -> tests: difference, error, effect size, p-values, outcome, advice.

Replicas are compared in pairs: replica i of the candidate with replica i of the reference, which start from the same
state. At constant energy replicas differ for good, and only pairs cancel that.

With a difference d, its standard error s and a limit D two questions are asked of Student's t distribution:

    fail   is |true difference| > D?   p_fail = P(|t s + D| >= |d|) under |true difference| = D, small if beyond
    pass   is |true difference| < D?   p_pass = P(t s <= |d| - D), small if within (two one-sided tests)

Neither shown means that the runs are too short to tell. p_fail is corrected for the number of tests of a case
(Benjamini and Hochberg, J. R. Stat. Soc. B 57, 289 (1995)); requiring every observable to pass needs no correction
(intersection-union test: Berger and Hsu, Stat. Sci. 11, 283 (1996)). Equivalence testing: Schuirmann,
J. Pharmacokinet. Biopharm. 15, 657 (1987).

Where a limit holds for every run (a drift's), runs that heat differently have so uncertain a mean that three could heat
by 20 standard errors and more undecided. So it fails too if each of three runs or more exceeds the limit by itself, all
to one side: if none did, the largest of their n p-values would be as small as p with the probability p^n. Of the two
p-values the smaller one is doubled (Bonferroni).
"""

import bisect
import dataclasses
import enum
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from mdplugin.validation.criteria import CRITERIA, Criterion, Kind, find_criterion
from mdplugin.validation.limits import Limit
from mdplugin.validation.statistics import Estimate, combine_replicas, subtract, take_one


class Outcome(enum.StrEnum):
    """What a test or a whole case comes to; the worst test decides."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


EXIT_STATUS = {Outcome.PASS: 0, Outcome.FAIL: 1, Outcome.INCONCLUSIVE: 2}
WORST_FIRST = (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS)
ONE_SIDED = (Kind.BOUND, Kind.MAGNITUDE, Kind.COUNT, Kind.DEFICIT, Kind.RATIO)
ABSOLUTE = (Kind.BOUND, Kind.MAGNITUDE, Kind.DEVIATION)  # judged without the reference
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
        p_pass: probability of a difference as small as this if the true one is at the limit.
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
    p_corrected: float = math.nan
    outcome: Outcome = Outcome.INCONCLUSIVE
    advice: str = ""


def compare_observable(
    name: str, candidate: Sequence[Estimate], reference: Sequence[Estimate], limits: dict[str, Limit]
) -> Test:
    """The test of one observable, not yet corrected, from estimates per replica."""
    criterion = find_criterion(name)
    has_reference = bool(reference) or criterion.kind not in ABSOLUTE
    difference, allowed, limit = _difference(criterion, candidate, reference, limits)
    if criterion.kind is Kind.COUNT:
        p_fail, p_pass = _count_p_values(candidate, reference, allowed)
    else:
        p_fail, p_pass = _p_values(difference, allowed, one_sided=criterion.kind in ONE_SIDED)
    if criterion.by_each_run and math.isfinite(p_fail):
        p_fail = min(1.0, 2 * min(p_fail, _p_of_each_run(criterion, candidate, reference, limits)))
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
    )


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
        difference = combine_pairs(*([_logarithm(each) for each in side] for side in (candidate, reference)))
    else:
        difference = combine_pairs(candidate, reference)
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
        p_fail, _ = _p_values(difference, allowed, one_sided=criterion.kind in ONE_SIDED)
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
            difference = combine_pairs(reference, candidate)
        case _:
            difference = combine_pairs(candidate, reference)
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
        return combine_pairs(*sides), math.log(factor), limit
    difference = combine_replicas(candidate) if is_ratio else combine_pairs(candidate, reference)
    return difference, max(limit, floor), max(limit, floor)


def _are_positive(estimates: Sequence[Estimate]) -> bool:
    return all(each.value > 0 for each in estimates)


def _logarithm(estimate: Estimate) -> Estimate:
    return Estimate(math.log(estimate.value), estimate.error / estimate.value, estimate.dof)


def _exponential(logarithm: Estimate) -> Estimate:
    value = math.exp(logarithm.value)
    return Estimate(value, value * logarithm.error, logarithm.dof)


def combine_pairs(first: Sequence[Estimate], second: Sequence[Estimate]) -> Estimate:
    """Mean of first - second over the replicas, which are in the same order."""
    return combine_replicas([subtract(*pair) for pair in zip(first, second, strict=True)])


def _reason(criterion: Criterion, limit: float, limits: dict[str, Limit]) -> str:
    chosen = limits[criterion.limit]
    if criterion.floor and limit == limits[criterion.floor].value:
        return limits[criterion.floor].reason
    if criterion.kind is Kind.RATIO:
        return f"{chosen.value:.3g} times the reference's: {chosen.reason}"
    if criterion.kind is Kind.RELATIVE:
        return f"{chosen.value:g} {chosen.unit}: {chosen.reason}"
    return chosen.reason


def _p_values(difference: Estimate, limit: float, *, one_sided: bool) -> tuple[float, float]:
    """(p_fail, p_pass) of a difference; see the head of this file. NaN if the error is not known."""
    value = difference.value if one_sided else abs(difference.value)
    if math.isinf(value):
        return 0.0, 1.0
    if not difference.is_known:
        return math.nan, math.nan
    if difference.error == 0:
        return (1.0, 0.0) if value <= limit else (0.0, 1.0)
    # Student's distribution is special.stdtr
    inside = float(special.stdtr(difference.dof, (value - limit) / difference.error))
    beyond = float(special.stdtr(difference.dof, (limit - value) / difference.error))
    if not one_sided:
        beyond += float(special.stdtr(difference.dof, -(value + limit) / difference.error))
    return min(1.0, beyond), inside


def _count_p_values(
    candidate: Sequence[Estimate], reference: Sequence[Estimate], allowed: float
) -> tuple[float, float]:
    """(p_fail, p_pass) of counts of rare events, whose scatter in a few runs says nothing.

    The candidate's count is held against a Poisson variable of the reference's rate and `allowed` more per run. The
    reference's rate is as uncertain as its own count makes it: gamma-distributed (Jeffreys' prior), which makes its part
    of the candidate's count negative binomial.
    """
    n = len(candidate)
    mine, theirs = (round(sum(each.value for each in side)) for side in (candidate, reference))

    def p_at_most(count: int) -> float:
        of_background = np.arange(count + 1)
        weights = stats.nbinom.pmf(of_background, theirs + 0.5, 0.5)
        return float(weights @ special.pdtr(count - of_background, n * allowed))

    return max(0.0, 1 - p_at_most(mine - 1)), p_at_most(mine)


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


FACTORS = np.geomspace(1.0, 1000.0, 400).tolist()  # more data than there is


def _advise(test: Test, n_tests: int, limits: dict[str, Limit]) -> str:
    """How many times more data a decision needs, if the difference stays what it is.

    Variances fall with the number of replicas, and with the length of what is measured all along. (The variance of a
    slope falls faster, but only if nothing heats by chance.) Degrees of freedom grow with the replicas; with the length
    they do where errors are those of blocks, but not where they are the scatter of runs: not to be counted on.
    """
    difference = test.difference
    if not difference.is_known:
        # the chi-square test has no criterion
        criterion = CRITERIA.get(test.observable.partition(" ")[0], Criterion)
        return f"too few samples for an error bar: {criterion.needs}"
    criterion = find_criterion(test.observable)

    def is_decided(factor: float, dof: float) -> bool:
        more = Estimate(difference.value, difference.error / math.sqrt(factor), dof)
        p_fail, p_pass = _p_values(more, test.allowed, one_sided=criterion.kind in ONE_SIDED)
        n_p_values = n_tests * (2 if criterion.by_each_run else 1)
        return p_pass < limits["false_pass"].value or n_p_values * p_fail < limits["false_alarm"].value

    def find_factor(growth: int) -> int | None:
        """The least of FACTORS that decides; degrees of freedom grow with this power of it."""
        k = bisect.bisect_left(FACTORS, True, key=lambda f: is_decided(f, difference.dof * f**growth))
        return max(2, math.ceil(FACTORS[k])) if k < len(FACTORS) else None

    replicas, length = find_factor(1), find_factor(0)
    if replicas is None:
        return "the difference is as large as the limit: no length of run will tell"
    if not criterion.grows:
        return f"about {replicas} times the replicas (longer runs say no more)"
    if length is None:
        return f"about {replicas} times the replicas"
    return f"about {replicas} times the replicas, or {'' if length == replicas else f'{length} times '}the length"
