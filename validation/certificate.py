"""Reports -> certificates in the artifacts that they judged; mdplugin/certificate.py has the mechanism."""

import math
from collections.abc import Sequence
from pathlib import Path

from mdplugin.archive import content_sha256
from mdplugin.certificate import Certificate
from mdplugin.certificate import certify as attach
from mdplugin.errors import CaseError
from mdplugin.validation.case import OBSERVABLES, REFERENCE, Case
from mdplugin.validation.report import Report
from mdplugin.validation.verdict import Verdict


def certify(reports: Sequence[Report]) -> list[str]:
    """Write the verdicts of all reports into the artifacts that they judged; a line for each artifact.

    The certificate is what was found, a fail too. It does not change the artifact's content hash.

    Raises:
        CaseError: a file is not the one that was judged any more; then none is written.
        ArtifactError: one cannot be written; those before it have theirs.
    """
    models = {
        Path(model): label
        for report in reports
        for model, label in zip(report.case.models, report.case.labels, strict=True)
    }
    for path, label in models.items():
        judged = {report.potentials[label]["sha256"] for report in reports if label in report.potentials}
        if judged != {content_sha256(path)}:
            raise CaseError(
                f"{path}: expected the artifact that was judged (content {', '.join(sorted(judged))}), got another: "
                "validate it again"
            )
    return [
        f"{path}: {attach(path, _make_certificates(reports, label)).line}" for path, label in models.items()
    ]


def _make_certificates(reports: Sequence[Report], label: str) -> list[Certificate]:
    return [
        _make_certificate(report, verdict)
        for report in reports
        for verdict in report.verdicts
        if verdict.label == label
    ]


def _make_certificate(report: Report, verdict: Verdict) -> Certificate:
    case, structure = report.case, report.provenance["structure"]
    run = {
        name: getattr(case, name)
        for name in (
            "engine",
            "length_ps",
            "replicas",
            "timestep_fs",
            "temperature_K",
            *(["pressure_bar"] if case.ensemble == "npt" else []),
            "seed",
        )
    }
    tests = {test.observable: test for test in verdict.tests}
    return Certificate(
        kind=f"validate {case.ensemble}",
        outcome=str(verdict.outcome),
        line=f"{case.ensemble} {verdict.outcome} on {structure['formula']}, {case.replicas} x {case.length_ps:g} ps"
        + _qualify(case, report.look),
        content_sha256=report.potentials[verdict.label]["sha256"],
        structures=structure,
        reference=report.potentials[REFERENCE],
        measured={
            "sentence": verdict.sentence,
            "run": run,
            "values": {name: _finite(test.candidate.value) for name, test in tests.items()},
            "errors": {name: _finite(test.candidate.error) for name, test in tests.items()},
            "passed_by_reweighting": {
                name: _finite(test.reweighted.value) for name, test in tests.items() if test.reweighted
            },
        },
        bounds={
            name: {"bound": _finite(test.limit), "unit": test.unit, "outcome": str(test.outcome)}
            for name, test in tests.items()
        },
        provenance={name: value for name, value in report.provenance.items() if name != "structure"},
    )


def _qualify(case: Case, look: int) -> str:
    """What a reader of one line must know: that limits were changed, observables left out, or runs looked at again."""
    known, chosen = OBSERVABLES[case.ensemble], case.chosen_observables
    said = [f"{len(set(chosen))} of {len(known)} observables"] if set(chosen) != set(known) else []
    said += ["own limits"] if case.limits else []
    said += [f"look {look}"] if look > 1 else []
    return f" ({', '.join(said)})" if said else ""


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
