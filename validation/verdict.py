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
MAX_NAMED = 3  # undecided tests in the sentence; the table has them all


@dataclass(frozen=True)
class Findings:
    """All that the verdict on one candidate needs.

    Attributes:
        label: of the candidate.
        candidate, reference: observable -> one estimate per replica.
        failures: the candidate's replicas that broke off, in words.
        replicas: how many were run.
    """

    label: str
    candidate: dict[str, list[Estimate]]
    reference: dict[str, list[Estimate]]
    failures: tuple[str, ...]
    replicas: int


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
    judged = judge_tests([test for test in tests if test is not None], limits)
    outcome = find_worst(test.outcome for test in judged)
    return Verdict(findings.label, outcome, judged, _summarise(findings, outcome, judged))


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


def _test_distribution(findings: Findings, limits: dict[str, Limit]) -> Test | None:
    """Fisher's combination of the replicas' p-values; None where there were too few samples."""
    sides = [
        [each.value for each in side.get(P_VALUE, [])] for side in (findings.candidate, findings.reference)
    ]
    if not all(sides) or not all(math.isfinite(value) for side in sides for value in side):
        return None
    p_values = [float(stats.combine_pvalues(side).pvalue) for side in sides]
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
        p_pass=0.0,  # a goodness of fit can be refuted, not shown
    )


def require_sound_reference(case: Case, values: dict[str, list[Estimate]], failures: tuple[str, ...]) -> None:
    """The float64 runs themselves, by the tests that do not compare.

    Raises:
        CaseError: they fail: the case is at fault, and nothing can be said of a candidate.
    """
    if failures:
        raise _blame(f"fails ({failures[0]})")
    limits = case.limit_table
    ratio = combine_replicas(values.get("drift_ratio", []))
    if ratio.value > limits["drift_ratio"].value:
        drift = combine_replicas(values["energy_drift"]).value if "energy_drift" in values else math.nan
        raise _blame(
            f"drifts by {drift:.3g} meV/atom/ps, ratio {ratio.value:.3g}, allowed {limits['drift_ratio'].value:g}"
        )
    exponent = combine_replicas(values.get("timestep_exponent", []))
    if abs(exponent.value - 2) - 3 * exponent.error > limits["timestep_exponent"].value:
        raise _blame(
            f"has a fluctuation of E that goes as dt^{exponent.value:.2g} ± {exponent.error:.1g}, velocity Verlet's as dt^2"
        )
    temperature = combine_replicas(values.get("temperature", []))
    if abs(temperature.value - 1) - 3 * temperature.error > limits["temperature"].value:
        measured = format_estimate(scale(temperature, case.temperature_K))
        raise _blame(f"is at {measured} K, the thermostat at {case.temperature_K:g} K")


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
    return f"pass: as float64 in all {len(tests)} tests, within their limits{numbers}"


def describe_failure(test: Test) -> str:
    """A failed test in words."""
    unit = f" {test.unit}" if test.unit else ""
    against = f", float64 {format_estimate(test.reference)}" if test.reference else ""
    return f"{test.title} is {format_estimate(test.candidate)}{unit}{against}, allowed {test.limit:.3g}"


def format_estimate(estimate: Estimate | None) -> str:
    """`0.0123 ± 0.004`."""
    if estimate is None or not math.isfinite(estimate.value):
        return "-"
    error = f" ± {estimate.error:.2g}" if math.isfinite(estimate.error) and estimate.error > 0 else ""
    return f"{estimate.value:.4g}{error}"
