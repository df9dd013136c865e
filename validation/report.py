"""A judged case -> report.json and report.md; and report.json -> the case again, verdict included."""

import dataclasses
import json
import math
import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from mdplugin.errors import CaseError
from mdplugin.validation.case import NveCase
from mdplugin.validation.drift import Slope
from mdplugin.validation.observables import NveMeasures, RunMeasures, Shadow
from mdplugin.validation.series import Failure
from mdplugin.validation.verdict import Verdict, judge

SCHEMA = 1
REPORT_JSON, REPORT_MARKDOWN, SERIES, FIGURE = "report.json", "report.md", "energies.npz", "energy.png"


@dataclass(frozen=True)
class Report:
    """Everything that is known of a finished case.

    Attributes:
        case: what was asked for.
        measures: numbers with errors.
        verdict: their judgement, always `judge(measures)`.
        potentials: "candidate" and "reference": name, precision, hashes.
        provenance: versions, processor, seed, structure, command.
        series_sha256: of energies.npz beside the report, which holds the raw series.
        directory: where the files lie.
    """

    case: NveCase
    measures: NveMeasures
    verdict: Verdict
    potentials: dict
    provenance: dict
    series_sha256: str
    directory: Path

    def to_json(self) -> str:
        """The file report.json; a number that is not finite is null."""
        content = {
            "schema": SCHEMA,
            "kind": "nve",
            "verdict": {
                "outcome": str(self.verdict.outcome),
                "sentence": self.verdict.sentence,
                "checks": [{**dataclasses.asdict(c), "outcome": str(c.outcome)} for c in self.verdict.checks],
            },
            "case": dataclasses.asdict(self.case),
            "potentials": self.potentials,
            "measures": dataclasses.asdict(self.measures),
            "series": {"file": SERIES, "sha256": self.series_sha256},
            "provenance": self.provenance,
        }
        return json.dumps(_plain(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def to_markdown(self) -> str:
        """The file report.md."""
        return (
            "\n".join([*_head(self), *_checks_table(self.verdict), *_runs_table(self), *_foot(self)]) + "\n"
        )


def _plain(value):
    """Paths as text, numbers that JSON does not have as null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, os.PathLike) else value


def read_report(path: str | os.PathLike) -> Report:
    """Read report.json; the verdict is made anew from its numbers.

    Raises:
        CaseError: no such file, or not a report of this version.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CaseError(f"{path}: expected a report.json of mdplugin validate, got {error}") from error
    if content.get("schema") != SCHEMA or content.get("kind") != "nve":
        raise CaseError(
            f"{path}: expected an nve report of schema {SCHEMA}, got {content.get('kind')} "
            f"{content.get('schema')}"
        )
    measures = _read_measures(content["measures"])
    return Report(
        case=NveCase(**content["case"]),
        measures=measures,
        verdict=judge(measures),
        potentials=content["potentials"],
        provenance=content["provenance"],
        series_sha256=content["series"]["sha256"],
        directory=path.parent,
    )


def _read_measures(content: dict) -> NveMeasures:
    shadow = content["shadow"]
    return NveMeasures(
        candidate=_read_run(content["candidate"]),
        reference=_read_run(content["reference"]),
        shadow=None if shadow is None else Shadow(**_numbers(shadow)),
        equilibration_failure=_read_failure(content["equilibration_failure"]),
    )


def _read_run(content: dict) -> RunMeasures:
    values = {name: content[name] for name in content if name not in ("failure", "drift")}
    return RunMeasures(
        **_numbers(values),
        failure=_read_failure(content["failure"]),
        drift=Slope(**_numbers(content["drift"])),
    )


def _read_failure(content: dict | None) -> Failure | None:
    return None if content is None else Failure(**content)


def _numbers(content: dict) -> dict:
    return {name: math.nan if value is None else value for name, value in content.items()}


def _head(report: Report) -> list[str]:
    case, candidate = report.case, report.potentials["candidate"]
    structure = report.provenance["structure"]
    return [
        f"# Energy conservation of {candidate['name']}: {report.verdict.outcome}",
        "",
        f"{report.verdict.sentence[0].upper()}{report.verdict.sentence[1:]}.",
        "",
        f"{structure['formula']} ({structure['n_atoms']} atoms), {case.engine}, {case.steps} steps of "
        f"{case.timestep_fs:g} fs ({case.length_ps:g} ps) after {case.equilibration_steps} equilibration "
        f"steps at {case.temperature_K:g} K, seed {case.seed}.",
        "",
        f"![total energy]({FIGURE})",
        "",
    ]


def _checks_table(verdict: Verdict) -> list[str]:
    rows = ["| check | value | limit | verdict | from | why this limit |", "|---|---|---|---|---|---|"]
    for check in verdict.checks:
        unit = f" {check.unit}" if check.unit else ""
        cells = (
            check.name,
            f"{check.value:.3g}{unit}",
            f"{check.limit:.3g}{unit}",
            str(check.outcome),
            check.detail,
            check.reason,
        )
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return [*rows, ""]


def _runs_table(report: Report) -> list[str]:
    runs = (report.measures.candidate, report.measures.reference)
    names = [f"{kind}: {report.potentials[kind]['name']}" for kind in ("candidate", "reference")]
    rows = [
        ("precision", *(report.potentials[kind]["precision"] or "-" for kind in ("candidate", "reference"))),
        ("drift, meV/atom/ps", *(f"{run.drift.value:.3g} ± {run.drift.error:.2g}" for run in runs)),
        ("drift x length / std(E_kin)", *(f"{run.drift_ratio:.3g}" for run in runs)),
        ("fluctuation of E, meV/atom", *(f"{run.rms_meV_per_atom:.3g}" for run in runs)),
        ("mean temperature, K", *(f"{run.temperature_K:.1f}" for run in runs)),
        ("time per step, ms (median)", *(f"{run.ms_per_step:.3g}" for run in runs)),
    ]
    lines = [
        f"| | {names[0]} | {names[1]} |",
        "|---|---|---|",
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
    ]
    if shadow := report.measures.shadow:
        lines += [
            f"On {shadow.n_frames} frames of the candidate's own run its forces differ from the reference's "
            f"by {shadow.force_rmse_meV_per_A:.3g} meV/Å rms, {shadow.force_max_meV_per_A:.3g} at most (the "
            f"forces themselves: {shadow.force_scale_meV_per_A:.3g} rms); its energy by "
            f"{shadow.energy_max_meV_per_atom:.3g} meV/atom at most.",
            "",
        ]
    return lines


def _foot(report: Report) -> list[str]:
    facts = report.provenance
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items() if version)
    return [
        f"{facts['finished']}, {facts['cpu']}, threads {facts['threads']}, python {facts['python']}, "
        f"{versions}.",
        f"SHA-256: candidate {report.potentials['candidate']['sha256']}, structure "
        f"{facts['structure']['path']} {facts['structure']['sha256']}.",
        "",
        f"    {shlex.join(facts['command'])}",
        "",
        f"Errors are standard errors from block means (validation/drift.py). Raw series: {SERIES}; numbers: "
        f"{REPORT_JSON}.",
    ]
