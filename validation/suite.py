"""Reports of several ensembles -> one page: what each came to on top, then all of them."""

from collections.abc import Sequence
from pathlib import Path

from mdplugin.errors import CaseError
from mdplugin.validation.comparison import Outcome, find_worst
from mdplugin.validation.figures import find_figures
from mdplugin.validation.page import render_page
from mdplugin.validation.report import ERROR, REPORT_HTML, REPORT_MARKDOWN, Report, format_table, page_content
from mdplugin.validation.stage import open_stage


def write_suite(reports: Sequence[Report], directory: Path) -> None:
    """Write report.html and report.md of all cases, of those too where float64 is not sound; each keeps its own.

    Raises:
        CaseError: the disk is full.
    """
    labels = dict.fromkeys(label for report in reports for label in report.case.labels)
    rows = [(label, list_outcomes(reports, label)) for label in labels]
    names = [report.case.ensemble for report in reports]
    blamed = [report.case.ensemble for report in reports if report.blame]
    parts = [f"float64 is not sound in {', '.join(blamed)}"] if blamed else []
    for label, found in rows:
        if known := [each for each in found if isinstance(each, Outcome)]:
            parts.append(f"{label} {find_worst(known)}")
    title = f"Validation, {', '.join(names)}: {', '.join(parts)}"
    sections = [page_content(report, find_figures(report.directory)) for report in reports]
    cells = [[label, *(str(each or "-") for each in found)] for label, found in rows]
    table = format_table(["", *names], cells)
    try:
        with open_stage(directory, last=REPORT_HTML) as stage:
            (stage / REPORT_MARKDOWN).write_text(
                "\n\n".join([f"# {title}", table, *(report.to_markdown() for report in reports)])
            )
            (stage / REPORT_HTML).write_text(render_page(title, sections, rows))
    except OSError as error:
        raise CaseError(
            f"cannot write {directory}: {error.strerror or error}; make room, the runs and their reports are kept"
        ) from error


def list_outcomes(reports: Sequence[Report], label: str) -> list[Outcome | str | None]:
    """What a candidate came to in each case: "error" where float64 is not sound, None where it was not run."""
    return [
        ERROR
        if report.blame
        else next((verdict.outcome for verdict in report.verdicts if verdict.label == label), None)
        for report in reports
    ]
