"""Estimates per replica + limits -> verdict. Needs the numbers of report.json and nothing else."""

import math
from dataclasses import dataclass

from scipy import stats

from mdplugin.errors import CaseError
from mdplugin.validation.case import Case
from mdplugin.validation.comparison import Outcome, Test, compare_observable, find_worst, judge_tests
from mdplugin.validation.criteria import CRITERIA
from mdplugin.validation.limits import Limit
from mdplugin.validation.statistics import Estimate, combine_replicas, scale

P_VALUE = "kinetic_p_value"
COMPLETED = "completed"
MAX_DECIMALS = 7  # smaller errors have an exponent
MAX_NAMED = 3  # undecided tests in the sentence; the table has them all


@dataclass(frozen=True)
class Findings:
    """All that the verdict on one candidate needs.

    Attributes:
        label: of the candidate.
        candidate, reference: observable -> one estimate per replica.
        failures: the candidate's replicas that broke off, in words.
        replicas: how many were run.
        notes: what else is worth telling of the candidate's replicas, in words.
    """

    label: str
    candidate: dict[str, list[Estimate]]
    reference: dict[str, list[Estimate]]
    failures: tuple[str, ...]
    replicas: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """The outcome for one candidate, the tests behind it, and one sentence for people."""

    label: str
    outcome: Outcome
    tests: tuple[Test, ...]
    sentence: str


def judge(findings: Findings, limits: dict[str, Limit]) -> Verdict:
    """The verdict on a candidate."""
    tests = [_test_completion(findings)]
    for name in sorted(findings.candidate, key=_rank):
        if name == P_VALUE:
            tests.append(_test_distribution(findings, limits))
        elif not findings.failures:
            tests.append(
                compare_observable(name, findings.candidate[name], findings.reference.get(name, []), limits)
            )
    judged = judge_tests(tests, limits)
    outcome = find_worst(test.outcome for test in judged)
    sentence = "; ".join([_summarise(findings, outcome, judged), *findings.notes])
    return Verdict(findings.label, outcome, judged, sentence)


def _rank(name: str) -> tuple[int, str]:
    order = [*CRITERIA, P_VALUE]
    return order.index(name.partition(" ")[0]), name


def _test_completion(findings: Findings) -> Test:
    broken = len(findings.failures)
    return Test(
        observable=COMPLETED,
        title="runs that broke off",
        unit="",
        candidate=Estimate(float(broken)),
        reference=None,
        difference=Estimate(float(broken)),
        allowed=0.0,
        limit=0.0,
        reason="every run ends; energies stay finite and the temperature below explosion_K",
        effect=math.nan,
        p_fail=0.0 if broken else 1.0,
        p_pass=1.0 if broken else 0.0,
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
        effect=math.nan,
        p_fail=p_values[0],
        p_pass=0.0 if is_known else math.nan,  # a goodness of fit can be refuted, not shown
    )


BLAMED_P = 0.001  # a case is only refused for what is plain
# where the error of one run is known from its own fluctuations, three runs that all exceed the limit are plain too: the
# scatter of three is known so badly that it alone would excuse 22 standard errors
BLAMED_BY_EACH_RUN = ("energy_drift", "drift_ratio", "timestep_exponent", "gradient")


def _is_beyond(estimate: Estimate, limit: float, target: float, level: float) -> bool:
    """Whether a number is farther from its target than the limit, at a level of Student's t."""
    margin = stats.t.isf(level, estimate.dof) * estimate.error
    return abs(estimate.value - target) - margin > limit


def require_sound_reference(case: Case, values: dict[str, list[Estimate]], failures: tuple[str, ...]) -> None:
    """The float64 runs themselves, by the tests that do not compare and whatever the case asks for.

    Raises:
        CaseError: they fail: the case is at fault, and nothing can be said of a candidate.
    """
    if failures:
        raise _blame(f"fails ({failures[0]})")
    limits = case.limit_table

    def exceeds(name: str, limit: str, target: float = 0.0) -> Estimate | None:
        """The reference's number if it is plainly farther from the target than the limit allows."""
        runs = values.get(name, [])
        estimate = combine_replicas(runs)
        by_each = name in BLAMED_BY_EACH_RUN and len(runs) > 1
        each = by_each and all(
            _is_beyond(run, limits[limit].value, target, BLAMED_P ** (1 / len(runs))) for run in runs
        )
        return estimate if each or _is_beyond(estimate, limits[limit].value, target, BLAMED_P) else None

    if ratio := exceeds("drift_ratio", "drift_ratio"):
        raise _blame(
            f"drifts by {ratio.value:.3g} times what its kinetic energy fluctuates, allowed {limits['drift_ratio'].value:g}"
        )
    if drift := exceeds("energy_drift", "drift_meV_per_atom_per_ps"):
        raise _blame(
            f"drifts by {format_estimate(drift)} meV/atom/ps, allowed {limits['drift_meV_per_atom_per_ps'].value:g}"
        )
    if trend := exceeds("volume_trend", "volume_trend"):
        raise _blame(
            f"is not in equilibrium: its volume changes by {format_estimate(scale(trend, 100))} % during the runs; choose "
            "the pressure that it has at this density, or equilibrate it before"
        )
    if exponent := exceeds("timestep_exponent", "timestep_exponent", 2.0):
        raise _blame(
            f"has a fluctuation of E that goes as dt^{exponent.value:.2g} ± {exponent.error:.1g}, velocity Verlet's as dt^2"
        )
    if gradient := exceeds("gradient", "gradient", 1.0):
        raise _blame(f"has forces that are {format_estimate(gradient)} times the gradient of its energy")
    if temperature := exceeds("temperature", "temperature", 1.0):
        measured = format_estimate(scale(temperature, case.temperature_K))
        raise _blame(f"is at {measured} K, the thermostat at {case.temperature_K:g} K")
    p_value = _combine_p_values(values.get(P_VALUE, []))
    if p_value < BLAMED_P:
        raise _blame(f"has kinetic energies that are not canonical (chi-square, p {p_value:.1g})")


def _combine_p_values(p_values: list[Estimate]) -> float:
    """Fisher's combination; NaN where one is not known."""
    values = [each.value for each in p_values]
    if not values or not all(map(math.isfinite, values)):
        return math.nan
    return float(stats.combine_pvalues(values).pvalue)


def _blame(what: str) -> CaseError:
    return CaseError(
        f"the float64 reference itself {what}: the case is at fault, not the candidate; try a shorter timestep, a longer "
        "equilibration or another structure"
    )


def _summarise(findings: Findings, outcome: Outcome, tests: tuple[Test, ...]) -> str:
    concerned = [test for test in tests if test.outcome is outcome]
    if outcome is Outcome.FAIL:
        return "fail: " + "; ".join(
            f"replicas broke off: {len(findings.failures)} of {findings.replicas} ({findings.failures[0]})"
            if test.observable == COMPLETED
            else describe_failure(test)
            for test in concerned
        )
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


def describe_failure(test: Test) -> str:
    """A failed test in words."""
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
    if not (math.isfinite(estimate.error) and estimate.error > 0):
        return f"{estimate.value:.4g}"
    decimals = max(0, 1 - math.floor(math.log10(estimate.error)))
    if decimals > MAX_DECIMALS:
        return f"{estimate.value:.4g} ± {estimate.error:.2g}"
    return f"{estimate.value:.{decimals}f} ± {estimate.error:.{decimals}f}"
