"""A judged case -> report.json, report.md, report.html and figures; and report.json -> the verdicts again."""

import csv
import dataclasses
import json
import math
import os
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mdplugin.errors import CaseError
from mdplugin.validation.case import REFERENCE, Case
from mdplugin.validation.case_file import describe_case, parse_case
from mdplugin.validation.comparison import EXIT_STATUS, Outcome, Test, find_worst
from mdplugin.validation.figures import DESCRIPTIONS, draw_figures
from mdplugin.validation.limits import tighten_levels
from mdplugin.validation.page import embed_figures, render_page
from mdplugin.validation.profiles import DISPLACEMENT_COLUMNS, RDF_COLUMNS, list_displacements, list_rdfs
from mdplugin.validation.stage import open_stage
from mdplugin.validation.statistics import Estimate
from mdplugin.validation.verdict import Findings, Verdict, format_estimate, format_limit, judge

SCHEMA = 2
LEAST_P, MOST = 1e-6, 100  # in tables
REPORT_JSON, REPORT_MARKDOWN, REPORT_HTML = "report.json", "report.md", "report.html"
BLAME_HTML = "reference.html"  # where the reference is not sound
ERROR = "error"  # the outcome then: nothing is said of a candidate
RDFS, DISPLACEMENTS = "radial-distribution.csv", "mean-squared-displacement.csv"
SPEED_NOTE = (
    "wall time of the fastest tenth of the steps of these runs, which may have shared the machine; mdplugin bench and "
    "compare time potentials in turns"
)
COLUMNS = (
    "observable",
    "candidate",
    "float64",
    "difference, σ",
    "effect size",
    "limit",
    "verdict",
    "p of fail, corrected",
    "p of pass",
    "test",
    "why this limit",
)


@dataclass(frozen=True)
class Report:
    """Everything that is known of a finished case.

    Attributes:
        case: what was asked for.
        findings, verdicts: of each candidate; a verdict is always `judge_findings(...)`.
        potentials: label -> name, precision, hashes.
        speeds: label -> ms per step (measurement.py).
        provenance: versions, processor, seeds, structure, command.
        directory: where the files lie.
        look: how often verdicts have been made while the runs grew, this one included.
        blame: why there are none, since float64 itself is not sound; or nothing.
    """

    case: Case
    findings: tuple[Findings, ...]
    verdicts: tuple[Verdict, ...]
    potentials: dict
    speeds: dict
    provenance: dict
    directory: Path
    look: int = 1
    blame: str = ""

    @property
    def outcome(self) -> Outcome:
        """The worst of all candidates."""
        return find_worst(verdict.outcome for verdict in self.verdicts)

    @property
    def exit_status(self) -> int:
        """0 pass, 1 fail, 2 inconclusive."""
        return EXIT_STATUS[self.outcome]

    def to_json(self) -> str:
        """The file report.json; a number that is not finite is null."""
        content = {
            "schema": SCHEMA,
            "outcome": ERROR if self.blame else str(self.outcome),
            "look": self.look,
            "verdicts": [dataclasses.asdict(verdict) for verdict in self.verdicts],
            "case": describe_case(self.case),
            "findings": [dataclasses.asdict(findings) for findings in self.findings],
            "potentials": self.potentials,
            "ms_per_step": self.speeds,
            "provenance": self.provenance,
        }
        return json.dumps(_plain(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def to_markdown(self) -> str:
        """The file report.md."""
        lines = [f"# {title(self)}", "", summary(self), ""]
        lines += [f"{_capital(self.blame)}.", ""] if self.blame else []
        for verdict in self.verdicts:
            lines += [f"## {verdict.label}: {verdict.outcome}", "", f"{_capital(verdict.sentence)}.", ""]
            lines += [format_table(COLUMNS, [row(test) for test in verdict.tests]), ""]
        return "\n".join([*lines, *_foot(self)]) + "\n"


def judge_findings(findings: Sequence[Findings], case: Case, look: int) -> tuple[Verdict, ...]:
    """The verdicts on all candidates of a case, at the `look`-th look at its runs."""
    limits = tighten_levels(case.limit_table, look)
    return tuple(judge(each, limits) for each in findings)


def find_look(directory: Path, case: Case) -> int:
    """Which look at these runs the next report is: one more than the last one if they have grown since; a blame is none."""
    try:
        before = json.loads((directory / REPORT_JSON).read_text())
        extent, look = (
            [before["case"][name] for name in ("length_ps", "replicas")],
            int(before.get("look", 1)),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return 1  # none, or none that says so
    is_same = before.get("outcome") == ERROR or extent == [case.length_ps, case.replicas]
    return look if is_same else look + 1


def write_report(report: Report, evidence: dict) -> Path:
    """Write report.json, .md, the page, tables of g(r) and displacements, and the figures; they appear together.

    The page is report.html, or reference.html where float64 is blamed; the other one, of before, is removed.

    Args:
        evidence: label -> `evidence.Evidence`, for the figures.

    Returns:
        The page.

    Raises:
        OSError: the disk is full.
    """
    page, stale = (BLAME_HTML, REPORT_HTML) if report.blame else (REPORT_HTML, BLAME_HTML)
    with open_stage(report.directory, last=REPORT_JSON) as stage:
        figures = draw_figures(report, evidence, stage)
        measurements = {label: each.measurement for label, each in evidence.items()}
        _write_rows(stage / RDFS, RDF_COLUMNS, list_rdfs(measurements))
        _write_rows(stage / DISPLACEMENTS, DISPLACEMENT_COLUMNS, list_displacements(measurements))
        (stage / REPORT_MARKDOWN).write_text(report.to_markdown())
        content = page_content(report, [stage / name for name in figures])
        (stage / page).write_text(render_page(title(report), [content]))
        (stage / REPORT_JSON).write_text(report.to_json())
    (report.directory / stale).unlink(missing_ok=True)
    return report.directory / page


def _write_rows(path: Path, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    """A table of what was measured; no file where nothing was."""
    if rows := list(rows):
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([header, *rows])


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *[[cell.replace("|", "\\|") for cell in row] for row in rows]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def title(report: Report) -> str:
    """`Validation, nve: water-fp32 fail`; of several candidates how many came to what."""
    if report.blame:
        return f"Validation, {report.case.ensemble}: float64 is not sound"
    outcomes = [verdict.outcome for verdict in report.verdicts]
    if len(outcomes) == 1:
        counts = f"{report.verdicts[0].label} {outcomes[0]}"
    else:
        counts = ", ".join(f"{outcomes.count(each)} {each}" for each in Outcome if each in outcomes)
    return f"Validation, {report.case.ensemble}: {counts}"


def summary(report: Report) -> str:
    """What was run, in one sentence."""
    case, structure = report.case, report.provenance["structure"]
    pressure = f" and {case.pressure_bar:g} bar" if case.ensemble == "npt" else ""
    return (
        f"{structure['formula']} ({structure['n_atoms']} atoms), {case.engine}: {case.replicas} replicas of "
        f"{case.length_ps:g} ps with each potential, {case.timestep_fs:g} fs steps, at {case.temperature_K:g} K{pressure}, "
        f"after {case.equilibration_ps:g} ps of equilibration in float64; seeds {case.seed} to "
        f"{case.seed + case.replicas - 1}."
    )


def row(test: Test) -> tuple[str, ...]:
    """A test as cells for COLUMNS."""
    unit = f" {test.unit}" if test.unit else ""
    advice = f": {test.advice}" if test.advice else ""
    return (
        test.title,
        format_estimate(test.candidate) + unit,
        format_estimate(test.reference) + (unit if test.reference else ""),
        _format_capped(test.sigma, ".1f"),
        _format_capped(test.effect, ".2g"),
        format_limit(test) + unit,
        f"{test.outcome}{advice}",
        _format_p(test.p_corrected),
        _format_p(test.p_pass),
        _describe_method(test) + (unit if test.reweighted else ""),
        test.reason,
    )


def _format_p(p: float) -> str:
    return "-" if math.isnan(p) else f"< {LEAST_P:g}" if p < LEAST_P else f"{p:.2g}"


def _format_capped(number: float, form: str) -> str:
    """Beyond MOST standard errors or scatters the number itself says nothing more."""
    if math.isnan(number):
        return "-"
    return f"{'> ' if number > 0 else '< -'}{MOST}" if abs(number) > MOST else f"{number:{form}}"


def _describe_method(test: Test) -> str:
    """What fails and passes the test, and by how much it differs where reweighting says so."""
    if test.reweighted is None:
        return test.method
    held = f" within {test.least_limit:.3g}" if test.least_limit != test.limit else ""
    return f"{test.method}; pass: reweighted{held}, {format_estimate(test.reweighted)}"


def page_content(report: Report, figures: Sequence[Path]) -> dict:
    """What the HTML page shows of a case, as plain values."""
    blamed = {"label": "float64", "outcome": ERROR, "sentence": _capital(report.blame), "rows": []}
    return {
        "name": report.case.ensemble,
        "title": title(report),
        "summary": summary(report),
        "columns": COLUMNS,
        "verdicts": [blamed] * bool(report.blame)
        + [
            {
                "label": verdict.label,
                "outcome": str(verdict.outcome),
                "sentence": _capital(verdict.sentence),
                "rows": [{"cells": row(test), "outcome": str(test.outcome)} for test in verdict.tests],
            }
            for verdict in report.verdicts
        ],
        "speeds": [
            (label, report.potentials[label]["precision"] or "-", f"{speed:.3g}")
            for label, speed in report.speeds.items()
        ],
        "figures": embed_figures(figures, DESCRIPTIONS),
        "speed_note": f"{_capital(SPEED_NOTE)}.",
        "foot": "\n".join(_foot(report)),
    }


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _describe(facts: dict) -> str:
    """A machine and its versions."""
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items() if version)
    code = f", code {facts['code'][:12]}" if "code" in facts else ""  # which older reports lack
    return f"{facts['cpu']}, {facts['cores']} cores, python {facts['python']}, {versions}{code}"


def _name_tables(report: Report) -> str:
    """The tables of profiles that were measured, and what stands for float64 where a distance from it is judged."""
    tests = {test.observable.partition(" ")[0]: test for verdict in report.verdicts for test in verdict.tests}
    text = f"; g(r) and counts: {RDFS}" if "rdf" in tests else ""
    text += f"; displacements: {DISPLACEMENTS}" if "diffusion" in tests else ""
    if any(tests[name].reference for name in ("rdf", "vdos_distance") if name in tests):
        text += ". Of distances from float64 its column has those of its own runs, each from the mean of the others"
    return text


def _describe_again(facts: dict) -> str:
    again = facts.get("judged_again")
    return f"; its numbers judged again by the tests of {again}" if again else ""


def _foot(report: Report) -> list[str]:
    facts = report.provenance
    made_by = [f"{each['runs']} on {_describe(each)}" for each in facts.get("made_by", ())]
    hashes = [f"{label} {each['sha256']}" for label, each in report.potentials.items() if each["sha256"]]
    speeds = ", ".join(f"{label} {speed:.3g}" for label, speed in report.speeds.items())
    return [
        f"Time per step, ms: {speeds}; {SPEED_NOTE}.",
        f"Runs, each with {facts['threads']} threads and {facts['ranks']} ranks: {'; '.join(made_by) or 'not recorded'}.",
        f"Judged {facts['finished']} on {_describe(facts)}{_describe_again(facts)}.",
        f"SHA-256: {'; '.join([*hashes, 'structure ' + facts['structure']['sha256']])}.",
        "",
        f"    {shlex.join(facts['command'])}",
        "",
        "A test fails if the difference is larger than its limit beyond chance, passes if it is smaller beyond chance, "
        "and is inconclusive otherwise (validation/comparison.py). The effect size is the difference over the scatter of "
        "the float64 runs (Glass's Δ). Errors are standard errors from block means and replicas "
        "(validation/statistics.py). "
        f"Raw series: runs/; numbers: {REPORT_JSON}{_name_tables(report)}.",
    ]


def _plain(value):
    """Paths as text, numbers that JSON does not have as null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return str(value) if isinstance(value, os.PathLike) else value


def read_report(path: str | os.PathLike) -> Report:
    """Read report.json; the verdicts are made anew from its numbers.

    Raises:
        CaseError: no such file, or not a report of this version.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CaseError(f"{path}: expected a report.json of mdplugin validate, got {error}") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise CaseError(
            f"{path}: expected a report of schema {SCHEMA} of mdplugin validate, got something else"
        )
    if content.get("outcome") == ERROR:
        raise CaseError(
            f"{path}: expected verdicts, got none: float64 itself was not sound, see {BLAME_HTML}"
        )
    try:
        return _parse_report(content, path)
    except (KeyError, TypeError, AttributeError) as error:
        raise CaseError(
            f"{path}: expected a whole report.json of mdplugin validate, got one with a missing or wrong value ({error!r})"
        ) from error


def _parse_report(content: dict, path: Path) -> Report:
    case, look = parse_case(content["case"], str(path)), content.get("look", 1)
    findings = tuple(_read_findings(each) for each in content["findings"])
    return Report(
        case=case,
        findings=findings,
        verdicts=judge_findings(findings, case, look),
        potentials=content["potentials"],
        speeds={
            label: math.nan if speed is None else speed for label, speed in content["ms_per_step"].items()
        },
        provenance=content["provenance"],
        directory=path.parent,
        look=look,
    )


def _read_findings(content: dict) -> Findings:
    content = {"shifts": {}, "reverse_shifts": {}, **content}  # which reports before 2026-11-29 lack
    sides = {
        side: {name: [_read_estimate(each) for each in values] for name, values in content[side].items()}
        for side in ("candidate", REFERENCE, "shifts", "reverse_shifts")
    }
    return Findings(
        content["label"],
        **sides,
        failures=tuple(content["failures"]),
        replicas=content["replicas"],
        notes=tuple(content.get("notes", ())),
        foreign=content.get("foreign", ""),
    )


def _read_estimate(content: dict) -> Estimate:
    # an exact number has infinitely many degrees of freedom, an unknown one has no error
    dof = math.inf if content["dof"] is None else content["dof"]
    return Estimate(
        *(math.nan if content[name] is None else content[name] for name in ("value", "error")), dof
    )
