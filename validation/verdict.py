"""Estimates per replica + limits -> verdict. Needs the numbers of report.json and nothing else."""

import math
from dataclasses import dataclass, field

from scipy import stats

from mdplugin.errors import CaseError
from mdplugin.validation.case import Case
from mdplugin.validation.comparison import (
    MIN_RUNS,
    Outcome,
    Test,
    compare_observable,
    find_worst,
    judge_tests,
    reweigh_test,
)
from mdplugin.validation.criteria import CRITERIA, find_criterion
from mdplugin.validation.limits import Limit
from mdplugin.validation.statistics import Estimate, combine_replicas, scale

P_VALUE = "kinetic_p_value"
# tests that must pass before reweighting counts: the first, and the second where a case has it
GATES = ("gradient", "pressure_gradient")
COMPLETED, ORIGIN = "completed", "origin"
MAX_DECIMALS = 7  # smaller errors have an exponent; beside numbers near 1 three more
EXACT = 1e-12  # of the number: an error that is rounding
MAX_NAMED = 3  # undecided tests in the sentence; the table has them all


class UnsoundReferenceError(CaseError):
    """The float64 runs are not fit to judge anything by; `report` is the report that says so, once there is one."""

    def __init__(self, message: str, report=None):
        super().__init__(message)
        self.report = report


@dataclass(frozen=True)
class Findings:
    """All that the verdict on one candidate needs.

    Attributes:
        label: of the candidate.
        candidate, reference: observable -> one estimate per replica.
        shifts: observable -> candidate less float64 on the candidate's own frames (reweighting.py), one per replica.
        reverse_shifts: the same on float64's frames.
        failures: the candidate's replicas that broke off, in words.
        replicas: how many were run.
        notes: what else is worth telling of the candidate's replicas, in words.
        foreign: that it is of another checkpoint than the reference, in words, or nothing.
    """

    label: str
    candidate: dict[str, list[Estimate]]
    reference: dict[str, list[Estimate]]
    failures: tuple[str, ...]
    replicas: int
    notes: tuple[str, ...] = ()
    foreign: str = ""
    shifts: dict[str, list[Estimate]] = field(default_factory=dict)
    reverse_shifts: dict[str, list[Estimate]] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """The outcome for one candidate, the tests behind it, and one sentence for people."""

    label: str
    outcome: Outcome
    tests: tuple[Test, ...]
    sentence: str


def judge(findings: Findings, limits: dict[str, Limit]) -> Verdict:
    """The verdict on a candidate."""
    tests = [
        _test_fact(
            COMPLETED,
            "runs that broke off",
            len(findings.failures),
            "every run ends; energies stay finite and the temperature below explosion_K",
        )
    ]
    if findings.foreign:
        reason = "what differs from the reference's checkpoint is not rounding, however close it comes"
        tests.append(_test_fact(ORIGIN, "of another checkpoint than the reference", 1, reason))
    for name in sorted(findings.candidate, key=_rank):
        if name == P_VALUE:
            tests.append(_test_distribution(findings, limits))
        elif not findings.failures:
            tests.append(
                compare_observable(name, findings.candidate[name], findings.reference.get(name, []), limits)
            )
    judged = judge_tests(_reweigh(tests, findings, limits), limits)
    outcome = find_worst(test.outcome for test in judged)
    sentence = "; ".join([_summarise(findings, outcome, judged), *findings.notes])
    return Verdict(findings.label, outcome, judged, sentence)


def _reweigh(tests: list[Test], findings: Findings, limits: dict[str, Limit]) -> list[Test]:
    """The tests, averages over configurations by reweighting where forces and pressure are those of the energy."""
    p_of_gates = {test.observable: test.p_pass for test in tests if test.observable in GATES}
    if GATES[0] not in p_of_gates or not all(p < limits["false_pass"].value for p in p_of_gates.values()):
        return tests
    directions = (findings.shifts, findings.reverse_shifts)
    return [
        reweigh_test(test, *(each[test.observable] for each in directions))
        if all(test.observable in each for each in directions)
        else test
        for test in tests
    ]


def _rank(name: str) -> tuple[int, str]:
    order = [*CRITERIA, P_VALUE]
    return order.index(name.partition(" ")[0]), name


def _test_fact(observable: str, title: str, count: int, reason: str) -> Test:
    """What is known without an error: none of it passes, any fails."""
    return Test(
        observable=observable,
        title=title,
        unit="",
        candidate=Estimate(float(count)),
        reference=None,
        difference=Estimate(float(count)),
        allowed=0.0,
        limit=0.0,
        reason=reason,
        sigma=math.nan,
        effect=math.nan,
        p_fail=0.0 if count else 1.0,
        p_pass=1.0 if count else 0.0,
        method="fact",
    )


def _test_distribution(findings: Findings, limits: dict[str, Limit]) -> Test:
    """Fisher's combination of the replicas' p-values; undecided where there were too few samples."""
    p_values = [_combine_p_values(side.get(P_VALUE, [])) for side in (findings.candidate, findings.reference)]
    is_known = math.isfinite(p_values[0])
    level = limits["false_alarm"].value
    return Test(
        observable=P_VALUE,
        title="canonical distribution of the kinetic energy (chi-square p)",
        unit="",
        candidate=Estimate(p_values[0]),
        reference=Estimate(p_values[1]),
        difference=Estimate(math.nan, math.nan),
        allowed=level,
        limit=level,
        reason="chi-square test against the gamma distribution; replicas combined by Fisher's method",
        sigma=math.nan,
        effect=math.nan,
        p_fail=p_values[0],
        p_pass=0.0 if is_known else math.nan,  # a goodness of fit can be refuted, not shown
        method="chi-square",
    )


def require_sound_reference(
    case: Case, values: dict[str, list[Estimate]], failures: tuple[str, ...]
) -> tuple[str, ...]:
    """The float64 runs themselves, by the tests that do not compare and whatever the case asks for.

    Returns:
        Notes: what could not be judged, since the runs are too short or too few to tell.

    Raises:
        UnsoundReferenceError: they fail: the case is at fault, and nothing can be said of a candidate.
    """
    if failures:
        raise _blame(f"fails ({failures[0]})")
    limits = case.limit_table
    for name, describe in _BLAMED.items():
        if estimate := _find_excess(name, values.get(name, []), limits):
            raise _blame(describe(estimate, limits[find_criterion(name).limit].value, case))
    p_value = _combine_p_values(values.get(P_VALUE, []))
    if p_value < limits["blamed"].value:
        raise _blame(f"has kinetic energies that are not canonical (chi-square, p {p_value:.1g})")
    unknown = [
        find_criterion(name).title
        for name in _BLAMED
        if name in case.sound_observables and not combine_replicas(values.get(name, [])).is_known
    ]
    if "kinetic_distribution" in case.sound_observables and not math.isfinite(p_value):
        unknown.append("its chi-square test")
    return (f"float64 itself could not be judged by {', '.join(unknown)}",) if unknown else ()


def _find_excess(name: str, runs: list[Estimate], limits: dict[str, Limit]) -> Estimate | None:
    """The reference's number if it is plainly farther from its target than the limit allows: the mean, or each run."""
    criterion, level = find_criterion(name), limits["blamed"].value
    limit, estimate = limits[criterion.limit].value, combine_replicas(runs)
    if _is_beyond(estimate, limit, criterion.target, level):
        return estimate
    if not criterion.by_each_run or len(runs) < MIN_RUNS:
        return None
    signs = {math.copysign(1, run.value - criterion.target) for run in runs}
    of_each = min((level / 2) ** (1 / len(runs)), limits["each_run"].value)  # either sign, all runs of one
    each = len(signs) == 1 and all(_is_beyond(run, limit, criterion.target, of_each) for run in runs)
    return estimate if each else None


def _is_beyond(estimate: Estimate, limit: float, target: float, level: float) -> bool:
    """Whether a number is farther from its target than the limit, at a level of Student's t."""
    margin = stats.t.isf(level, estimate.dof) * estimate.error
    return abs(estimate.value - target) - margin > limit


# what the reference is judged by -> how it is said, from (estimate, limit, case)
_BLAMED = {
    "drift_ratio": lambda found, limit, case: (
        f"drifts by {abs(found.value):.3g} times what its kinetic energy fluctuates, allowed {limit:g}"
    ),
    "energy_drift": lambda found, limit, case: (
        f"drifts by {format_estimate(found)} meV/atom/ps, allowed {limit:g}"
    ),
    "volume_trend": lambda found, limit, case: (
        f"is not in equilibrium: its volume changes by {format_estimate(scale(found, 100))} % during the runs; choose "
        "the pressure that it has at this density, or equilibrate it before"
    ),
    "timestep_exponent": lambda found, limit, case: (
        f"has a fluctuation of E that goes as dt^{found.value:.2g} ± {found.error:.1g}, velocity Verlet's as dt^2"
    ),
    "gradient": lambda found, limit, case: (
        f"has forces that are {format_estimate(found)} times the gradient of its energy"
    ),
    "temperature": lambda found, limit, case: (
        f"is at {format_estimate(scale(found, case.temperature_K))} K, the thermostat at {case.temperature_K:g} K"
    ),
    "bonds_share": lambda found, limit, case: (
        f"does not hold together: {format_estimate(scale(found, 100))} % of the bonds of the structure change, allowed "
        f"{100 * limit:g} %"
    ),
}


def _combine_p_values(p_values: list[Estimate]) -> float:
    """Fisher's combination; NaN where one is not known."""
    values = [each.value for each in p_values]
    if not values or not all(map(math.isfinite, values)):
        return math.nan
    return float(stats.combine_pvalues(values).pvalue)


def _blame(what: str) -> UnsoundReferenceError:
    return UnsoundReferenceError(
        f"the float64 reference itself {what}: the case is at fault, not the candidate; try a shorter timestep, a longer "
        "equilibration or another structure"
    )


def _summarise(findings: Findings, outcome: Outcome, tests: tuple[Test, ...]) -> str:
    concerned = [test for test in tests if test.outcome is outcome]
    if outcome is Outcome.FAIL:
        return "fail: " + "; ".join(_describe_failure(findings, test) for test in concerned)
    decided = len(tests) - len(concerned)
    if outcome is Outcome.INCONCLUSIVE:
        wanting = "; ".join(f"{test.title}: {test.advice}" for test in concerned[:MAX_NAMED])
        wanting += f"; and {len(concerned) - MAX_NAMED} more" if len(concerned) > MAX_NAMED else ""
        return f"inconclusive: {decided} of {len(tests)} tests pass and none fails; to decide the others: {wanting}"
    drift = next((test for test in tests if test.observable == "energy_drift"), None)
    numbers = (
        f" (drift {format_estimate(drift.candidate)} meV/atom/ps, float64 {format_estimate(drift.reference)})"
        if drift
        else ""
    )
    return f"pass: within the stated limits of float64 in all {len(tests)} tests{numbers}"


def _describe_failure(findings: Findings, test: Test) -> str:
    """A failed test in words."""
    if test.observable == COMPLETED:
        return f"replicas broke off: {len(findings.failures)} of {findings.replicas} ({findings.failures[0]})"
    if test.observable == ORIGIN:
        return findings.foreign
    unit = f" {test.unit}" if test.unit else ""
    against = f", float64 {format_estimate(test.reference)}" if test.reference else ""
    return f"{test.title} is {format_estimate(test.candidate)}{unit}{against}, allowed {format_limit(test)}"


def format_limit(test: Test) -> str:
    """Three digits; a dash where it hangs on a reference that could not be measured."""
    return f"{test.limit:.3g}" if math.isfinite(test.limit) else "-"


def format_estimate(estimate: Estimate | None) -> str:
    """`0.0123 ± 0.0040`: two digits of the error, and the number as far; four digits where there is no error."""
    if estimate is None or not math.isfinite(estimate.value):
        return "-"
    if not (math.isfinite(estimate.error) and estimate.error > EXACT * abs(estimate.value)):
        return f"{estimate.value:.4g}"
    decimals = max(0, 1 - math.floor(math.log10(estimate.error)))
    if decimals > (MAX_DECIMALS if abs(estimate.value) < 0.5 else MAX_DECIMALS + 3):
        return f"{estimate.value:.4g} ± {estimate.error:.2g}"
    return f"{estimate.value:.{decimals}f} ± {estimate.error:.{decimals}f}"
