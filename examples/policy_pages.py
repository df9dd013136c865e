"""Results of examples/policy_tables.py -> the tables between markers in docs/.

`<!-- policies:water -->` is what policies cost on a potential's test frames and in its NVE runs; `<!-- dynamics:water -->`
what its runs of all ensembles found; `<!-- rdf:water -->` g_OO beside DFT's; `<!-- engines:water -->` LAMMPS beside ASE.
"""

import functools
import json
from collections.abc import Sequence
from pathlib import Path

from policy_artifacts import CALIBRATED, SETTINGS, TUNED, TUNING, find_reports, name_float64
from policy_bounds import write_bounds
from policy_rdf import NOT_RUN, read_band, write_rdf

from mdplugin.bench.blocks import fill_blocks
from mdplugin.bench.table import NOTHING, format_number, format_table
from mdplugin.smoothness import RESOLVED
from mdplugin.validation.comparison import Outcome
from mdplugin.validation.report import read_report
from mdplugin.validation.verdict import format_estimate

ENGINES = "engines.json"
ERRORS = (
    "policy",
    "force RMSE, meV/Å",
    "of the DFT error",
    "force max",
    "energy RMSE, meV/atom",
    "equivariance max, meV/Å",
    "force noise, meV/Å",
    "force roughness, meV/Å",
    "NVE drift, meV/atom/ps",
    "NVE verdict",
    "ms/frame",
    "MB",
)
RDF, DRIFT = "rdf O-O", "energy_drift"
# observable of a case -> title
DYNAMICS = {
    DRIFT: "drift in NVE, meV/atom/ps",
    "energy_fluctuation": "fluctuation of E, meV/atom",
    "force_rmse": "shadow force error, meV/Å",
    RDF: "g_OO, rms from float64",
    "diffusion O": "D, 1e-9 m²/s",
}


def fill_pages(kept: Path, pages: Sequence[Path]) -> None:
    """Write the tables of what lies in `kept` into the pages."""

    writers = {
        "policies": write_errors,
        "dynamics": write_dynamics,
        "rdf": write_rdf,
        "engines": write_engines,
    }
    of_kept = {kind: functools.partial(write, kept) for kind, write in writers.items()}
    for page in pages:
        page.write_text(fill_blocks(page.read_text(), of_kept, str(page)))


def write_errors(kept: Path, potential: str) -> str:
    """One row for each policy: errors on frames, and its NVE runs where there are any."""
    path = kept / f"{potential}.json"
    if not path.is_file():
        return "*Not measured.*"
    result = json.loads(path.read_text())
    reports = read_reports(kept, potential, "nve")
    float64, *rows = result["compare"]["rows"]
    own = float64["labels"]["force_rmse_meV_per_A"]
    machine = result["machine"]
    notes = [f"The potential itself misses DFT by {own:.1f} meV/Å on these frames."]
    notes += [_describe_runs(name, report) for name, report in reports.items()]
    if (kept / f"{potential}-{TUNING}").is_file():
        notes.append(
            f"`{TUNED}` is the choice of `mdplugin tune --budget {SETTINGS[potential].budget}`, which printed "
            f"[this]({kept.name}/{potential}-{TUNING})."
        )
    notes.append(f"{machine['cpu']}; torch {machine['versions']['torch']}; {machine['finished']}.")
    table = format_table(ERRORS, [_error_row(row, own, potential, reports) for row in rows])

    def outcome(label: str) -> str:
        return find_verdict(reports, potential, label, "nve")[1]

    bounds = write_bounds({row["label"]: row for row in rows}, own, outcome)
    return f"{table}\n\n{' '.join(notes)}\n\nHeld against what was asked for:\n\n{bounds}"


def _error_row(row: dict, own: float, potential: str, reports: dict) -> list[str]:
    error, smoothness, rmse = row["float64"], row["smoothness"], row["float64"]["force_rmse_meV_per_A"]
    tests, verdict = find_verdict(reports, potential, row["label"], "nve")
    drift = format_estimate(tests[DRIFT].candidate) if tests else NOTHING
    return [
        name_policy(row["label"], row["precision"]),
        format_number(rmse),
        f"{100 * rmse / own:.2g} %",
        format_number(error["force_max_meV_per_A"]),
        format_number(error["energy_rmse_meV_per_atom"]),
        format_number(row["equivariance"]["force_max_meV_per_A"]),
        format_noise(smoothness),
        format_number(smoothness["force_roughness_meV_per_A"]),
        drift,
        verdict,
        format_number(row["ms_per_frame"]),
        format_number(row["file_MB"]),
    ]


def write_dynamics(kept: Path, potential: str) -> str:
    """One row for each policy: what its runs found, and their verdicts."""
    reports = read_reports(kept, potential)
    if not reports:
        return "*Not measured.*"
    times = read_times(kept / f"{potential}.json")
    ensembles = list(dict.fromkeys(report.case.ensemble for report in reports.values()))
    header = ["policy", *DYNAMICS.values(), "ms/frame", *(each.upper() for each in ensembles)]
    rows = []
    for beside, of_float64 in _group(reports, potential).items():
        numbers = dict(zip(DYNAMICS, _numbers(of_float64), strict=True))
        if band := read_band(kept, potential, beside):
            numbers[RDF] = f"one run from the others' mean: {band:.2g}"
        rows.append(
            [beside, *numbers.values(), format_number(times.get("fp64")), *[NOTHING] * len(ensembles)]
        )
    judged = [stem.removeprefix(f"{potential}-") for each in reports.values() for stem in each.case.labels]
    for label in dict.fromkeys([*SETTINGS[potential].policies, *judged]):
        stem = f"{potential}-{label}"
        of_label = [each for each in reports.values() if stem in each.case.labels]
        if of_label:
            name = name_policy(label, of_label[0].potentials[stem]["precision"])
            outcomes = [describe_outcome(reports, potential, label, each) for each in ensembles]
            rows.append([name, *_numbers(of_label, stem), format_number(times.get(label)), *outcomes])
    notes = [
        f"{_describe_runs(name, report)} {report.provenance['cpu']}; {report.provenance['finished']}."
        for name, report in reports.items()
    ]
    return f"{format_table(header, rows)}\n\n{' '.join(notes)}"


def write_engines(kept: Path, _: str) -> str:
    """Each observable in LAMMPS and in ASE, of examples/engine_agreement.py."""
    if not (kept / ENGINES).is_file():
        return NOT_RUN
    result = json.loads((kept / ENGINES).read_text())
    header = ["case, observable", "LAMMPS", "ASE", "difference, σ", "p", "limit", "within it"]
    rows = [
        [
            f"{row['case']}: {row['observable']}",
            row["LAMMPS"],
            row["ASE"],
            NOTHING if row["sigma"] is None else f"{row['sigma']:.1f}",
            NOTHING if row["p_value"] is None else f"{row['p_value']:.2g}",
            f"{row['limit']:.3g}",
            row["outcome"],
        ]
        for row in result["rows"]
    ]
    machine = result["machine"]
    return f"{format_table(header, rows)}\n\n`{result['model']}`. {machine['cpu']}; {machine['finished']}."


def read_times(path: Path) -> dict[str, float]:
    """Policy -> ms per frame in ASE, timed in turns; the runs themselves may have shared the machine with others."""
    if not path.is_file():
        return {}
    return {row["label"]: row["ms_per_frame"] for row in json.loads(path.read_text())["compare"]["rows"][1:]}


def _group(reports: dict, potential: str) -> dict[str, list]:
    """`name_float64` -> the reports with those float64 runs."""
    groups: dict[str, list] = {}
    for name, report in reports.items():
        beside = () if name in SETTINGS[potential].cases else report.case.labels
        groups.setdefault(name_float64(potential, beside), []).append(report)
    return groups


def _numbers(reports: Sequence, stem: str | None = None) -> list[str]:
    """Of each observable, the estimate of an artifact, or float64's for None; the first report that has it gives it."""
    found: dict[str, str] = {}
    for report in reports:
        verdict = report.verdicts[report.case.labels.index(stem) if stem else 0]
        tests = {test.observable: test for test in verdict.tests}
        foreign = set() if report.case.ensemble == "nve" else {DRIFT}
        for name in set(tests) & set(DYNAMICS) - set(found) - foreign:
            found[name] = _number(tests[name]) if stem else format_estimate(tests[name].reference)
    return [found.get(name, NOTHING) for name in DYNAMICS]


def _number(test) -> str:
    """Of the candidate; what reweighting says first, then what the runs do."""
    of_runs = format_estimate(test.candidate)
    return f"{format_estimate(test.reweighted)} (runs: {of_runs})" if test.reweighted else of_runs


def read_reports(kept: Path, potential: str, ensemble: str = "") -> dict:
    """Name -> report of those that are there, the ones of all policies first in each case."""
    names = [name for name in SETTINGS[potential].cases if name.endswith(ensemble)]
    return {path.stem: read_report(path) for name in names for path in find_reports(kept, name)}


def read_verdict(report, potential: str, label: str) -> tuple[dict, str]:
    """(observable -> test, outcome) of a policy; nothing if it was not run."""
    stem = f"{potential}-{label}"
    if stem not in report.case.labels:
        return {}, NOTHING
    verdict = report.verdicts[report.case.labels.index(stem)]
    return {test.observable: test for test in verdict.tests}, str(verdict.outcome)


def find_verdict(reports: dict, potential: str, label: str, ensemble: str) -> tuple[dict, str]:
    """`read_verdict` of the first report of an ensemble that has the policy."""
    found = (
        read_verdict(each, potential, label) for each in reports.values() if each.case.ensemble == ensemble
    )
    return next((each for each in found if each[0]), ({}, NOTHING))


def describe_outcome(reports: dict, potential: str, label: str, ensemble: str) -> str:
    """The verdict; of one that is not decided, how many tests pass."""
    tests, outcome = find_verdict(reports, potential, label, ensemble)
    if outcome != Outcome.INCONCLUSIVE:
        return outcome
    passed = sum(test.outcome == Outcome.PASS for test in tests.values())
    return f"{outcome}, {passed} of {len(tests)} pass"


def _describe_runs(name: str, report) -> str:
    case, test = report.case, report.verdicts[0].tests
    drift = next((each.reference for each in test if each.observable == DRIFT), None)
    runs = f"`{name}`: {case.replicas} replicas of {case.length_ps:g} ps"
    return f"{runs}, float64 drifts by {format_estimate(drift)} meV/atom/ps." if drift else f"{runs}."


def name_policy(label: str, precision: str) -> str:
    """The label for people; what was tuned, with what it is."""
    name = label.replace(CALIBRATED, ", calibrated")
    return name if precision == label.removesuffix(CALIBRATED) else f"{name} (`{precision}`)"


def format_noise(smoothness: dict) -> str:
    """Force noise, or what it is surely below."""
    if smoothness["is_noise_resolved"]:
        return format_number(smoothness["force_noise_meV_per_A"])
    return f"< {format_number(RESOLVED * smoothness['force_noise_resolution_meV_per_A'])}"
