"""Measures + limits -> verdict. Needs the numbers of report.json and nothing else."""

import enum
import math
from dataclasses import dataclass

from mdplugin.errors import CaseError
from mdplugin.validation.drift import combined_half_width
from mdplugin.validation.limits import LIMITS
from mdplugin.validation.observables import NveMeasures, RunMeasures


class Outcome(enum.StrEnum):
    """What a check or a whole case comes to; the worst check decides."""

    PASS = "pass"
    FAIL = "fail"


@dataclass(frozen=True)
class Check:
    """One criterion: passed if value <= limit; a value that is not a number fails.

    Attributes:
        name: what is checked.
        value, limit: in `unit`.
        reason: of the limit.
        detail: the numbers that value and limit come from, or why there is no value.
    """

    name: str
    value: float
    limit: float
    unit: str
    reason: str
    detail: str = ""

    @property
    def outcome(self) -> Outcome:
        """Pass if the value is within the limit."""
        return Outcome.PASS if self.value <= self.limit else Outcome.FAIL


@dataclass(frozen=True)
class Verdict:
    """The outcome of a case, the checks behind it, and one sentence for people."""

    checks: tuple[Check, ...]
    sentence: str

    @property
    def outcome(self) -> Outcome:
        """Fail if any check failed."""
        failed = any(check.outcome is Outcome.FAIL for check in self.checks)
        return Outcome.FAIL if failed else Outcome.PASS


def judge(measures: NveMeasures) -> Verdict:
    """The verdict on the candidate.

    Raises:
        CaseError: the reference itself does not conserve energy, so that nothing can be said.
    """
    require_sound_reference(measures.reference)
    completion, drift = _check_completion(measures), _check_drift(measures)
    checks = (
        completion,
        _check_ratio(measures.candidate),
        drift,
        _check_fluctuation(measures),
        _check_forces(measures),
    )
    if completion.outcome is Outcome.FAIL:
        return Verdict(checks, f"fail: {completion.detail}")
    return Verdict(checks, _summarise(measures, checks, resolution=drift.limit))


def require_sound_reference(reference: RunMeasures) -> None:
    """Raise CaseError if the float64 run fails the tests that do not compare.

    Called before the candidate runs too, so that a hopeless case costs half.
    """
    if reference.failure is not None:
        raise CaseError(
            f"the float64 reference itself fails at step {reference.failure.step} "
            f"({reference.failure.reason}): the case is at fault, not the candidate; try a shorter "
            "--timestep-fs or another structure"
        )
    limit = LIMITS["drift_ratio"].value
    if not reference.drift_ratio <= limit:
        raise CaseError(
            f"the float64 reference itself drifts by {reference.drift.value:.3g} meV/atom/ps, ratio "
            f"{reference.drift_ratio:.3g}, allowed {limit:g}: the case is at fault, not the candidate; try a "
            "shorter --timestep-fs or a longer run"
        )


def _check_completion(measures: NveMeasures) -> Check:
    failures = {"equilibration": measures.equilibration_failure, "NVE run": measures.candidate.failure}
    broken = [f"{name} fails at step {f.step}: {f.reason}" for name, f in failures.items() if f is not None]
    return Check(
        name="failed runs",
        value=float(len(broken)),
        limit=0.0,
        unit="",
        reason=f"all energies finite, temperature at most {LIMITS['explosion_K'].value:g} K: "
        f"{LIMITS['explosion_K'].reason}",
        detail="; ".join(broken) or f"{measures.candidate.steps} steps done",
    )


def _check_ratio(candidate: RunMeasures) -> Check:
    limit = LIMITS["drift_ratio"]
    return Check(
        name="drift against thermal fluctuation",
        value=candidate.drift_ratio,
        limit=limit.value,
        unit=limit.unit,
        reason=limit.reason,
        detail=f"|{candidate.drift.value:.3g}| meV/atom/ps over {candidate.length_ps:g} ps",
    )


def _check_drift(measures: NveMeasures) -> Check:
    candidate, reference = measures.candidate.drift, measures.reference.drift
    sigma, floor = LIMITS["drift_sigma"], LIMITS["drift_floor_meV_per_atom_per_ps"]
    by_chance = math.nan
    if math.isfinite(candidate.error):
        by_chance = combined_half_width(candidate, reference, sigma.value)
    deciding = sigma if by_chance > floor.value else floor
    return Check(
        name="drift against reference",
        value=abs(candidate.value - reference.value),
        limit=max(floor.value, by_chance),
        unit=floor.unit,
        reason=deciding.reason,
        detail=f"candidate {candidate.value:.3g} ± {candidate.error:.2g}, reference {reference.value:.3g} "
        f"± {reference.error:.2g}; limit: {sigma.value:g} combined errors (Student t) {by_chance:.2g}, at "
        f"least {floor.value:g}",
    )


def _check_fluctuation(measures: NveMeasures) -> Check:
    factor, floor = LIMITS["rms_factor"], LIMITS["rms_floor_meV_per_atom"]
    allowed = factor.value * measures.reference.rms_meV_per_atom
    deciding = factor if allowed > floor.value else floor
    return Check(
        name="fluctuation of the total energy",
        value=measures.candidate.rms_meV_per_atom,
        limit=max(floor.value, allowed),
        unit=floor.unit,
        reason=deciding.reason,
        detail=f"reference {measures.reference.rms_meV_per_atom:.3g}; limit: {factor.value:.3g} times it, at "
        f"least {floor.value:g}",
    )


def _check_forces(measures: NveMeasures) -> Check:
    limit, shadow = LIMITS["force_rmse_meV_per_A"], measures.shadow
    detail = "not measured: the run failed"
    if shadow is not None:
        detail = f"{shadow.n_frames} frames of its own run, largest {shadow.force_max_meV_per_A:.3g}"
    return Check(
        name="force error (rms) against reference",
        value=shadow.force_rmse_meV_per_A if shadow else math.nan,
        limit=limit.value,
        unit=limit.unit,
        reason=limit.reason,
        detail=detail,
    )


def _summarise(measures: NveMeasures, checks: tuple[Check, ...], resolution: float) -> str:
    candidate, reference = measures.candidate.drift, measures.reference.drift
    numbers = (
        f"drift {candidate.value:.2g} ± {candidate.error:.1g} meV/atom/ps, float64 reference "
        f"{reference.value:.2g} ± {reference.error:.1g}"
    )
    failed = [
        f"{check.name} is {check.value:.3g} {check.unit}".rstrip() + f", allowed {check.limit:.3g}"
        for check in checks
        if check.outcome is Outcome.FAIL
    ]
    if failed:
        return f"fail: {'; '.join(failed)} ({numbers}; the run resolves differences above {resolution:.2g})"
    floor = LIMITS["drift_floor_meV_per_atom_per_ps"].value
    if resolution > floor:
        return (
            f"pass: no drift away from float64 within the {resolution:.2g} meV/atom/ps that this run resolves; "
            f"it is too short to resolve {floor:g} ({numbers})"
        )
    return f"pass: energy is conserved as in float64, to {floor:g} meV/atom/ps ({numbers})"
