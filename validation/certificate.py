"""Reports -> the certificate in an artifact's manifest, which both engines print."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import mdplugin
from mdplugin import artifact
from mdplugin.errors import CaseError
from mdplugin.validation.potential import hash_file
from mdplugin.validation.report import Report


def certify(reports: Sequence[Report]) -> list[str]:
    """Write the verdicts of all reports into the artifacts that they judged; a line for each artifact.

    The certificate is what was found, a fail too. The SHA-256 in it is that of the file that was judged; the file's own
    changes by this.

    Raises:
        CaseError: a file is not the one that was judged any more.
        ArtifactError: it cannot be written.
    """
    models = {
        Path(model): label
        for report in reports
        for model, label in zip(report.case.models, report.case.labels, strict=True)
    }
    lines = []
    for path, label in models.items():
        judged = next(report.potentials[label]["sha256"] for report in reports)
        if hash_file(path) != judged:
            raise CaseError(
                f"{path}: expected the file that was judged (SHA-256 {judged}), got another: validate it again"
            )
        loaded = mdplugin.load(path)
        certificate = _make_certificate(reports, label, judged)
        artifact.save(loaded.network, dataclasses.replace(loaded.manifest, certificate=certificate), path)
        lines.append(f"{path}: {certificate['line']}")
    return lines


def _make_certificate(reports: Sequence[Report], label: str, sha256: str) -> dict:
    verdicts = {
        report.case.ensemble: {
            "outcome": str(verdict.outcome),
            "sentence": verdict.sentence,
            "structure": report.provenance["structure"]["formula"],
            "length_ps": report.case.length_ps,
            "replicas": report.case.replicas,
            "temperature_K": report.case.temperature_K,
            "engine": report.case.engine,
            "finished": report.provenance["finished"],
        }
        for report in reports
        for verdict in report.verdicts
        if verdict.label == label
    }
    outcomes = ", ".join(f"{ensemble} {each['outcome']}" for ensemble, each in verdicts.items())
    formula = next(iter(verdicts.values()))["structure"]
    return {"line": f"validated on {formula}: {outcomes}", "verdicts": verdicts, "judged_sha256": sha256}
