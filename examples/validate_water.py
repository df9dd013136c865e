"""The table of policies for water: NVE of 10 ps and NVT of 20 ps, three replicas each, against float64.

    python examples/validate_water.py --policies fp64 fp32 --output validate-water

Exports the policies, runs the bundled cases water-192-nve and water-192-nvt, and writes table.md. Hours; give the same
command again after an interruption, or with more policies: it goes on from what is there.
"""

import argparse
import sys
from pathlib import Path

import mdplugin
from mdplugin.validation.case_file import read_case
from mdplugin.validation.statistics import combine_replicas
from mdplugin.validation.study import validate
from mdplugin.validation.verdict import format_estimate

CASES = ("water-192-nve", "water-192-nvt")
COLUMNS = {  # observable -> title; the first case that has it gives the number
    "energy_drift": "drift, meV/atom/ps",
    "force_rmse": "shadow force error, meV/Å",
    "rdf O-O": "g_OO, distance from float64",
    "diffusion O": "D, 1e-9 m²/s",
}

# histogram of the 400 DFT frames that the potential was trained on and tested with (bins of 0.05 Å)
DFT_PEAK = "2.83 at 2.725 Å"


def export(policies: list[str], directory: Path) -> tuple[str, ...]:
    """Artifacts of all policies; those that exist are kept, since a case must not change under its runs."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for policy in policies:
        path = directory / f"water-{policy}.pt"
        if not path.is_file():
            mdplugin.export_model("water", path, policy)
        paths.append(str(path))
    return tuple(paths)


def format_table(reports: list) -> str:
    """One row for each policy."""
    header = [
        "model",
        "precision",
        *COLUMNS.values(),
        "ms/step",
        *(f"{report.case.ensemble}" for report in reports),
    ]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for index, label in enumerate(reports[0].case.labels):
        verdicts = [report.verdicts[index] for report in reports]
        tests = {test.observable: test for verdict in reversed(verdicts) for test in verdict.tests}
        numbers = [format_estimate(tests[name].candidate) if name in tests else "-" for name in COLUMNS]
        precision = reports[0].potentials[label]["precision"]
        speed = f"{reports[0].speeds[label]:.3g}"
        cells = [label, precision, *numbers, speed, *(str(verdict.outcome) for verdict in verdicts)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def describe_reference(report) -> str:
    """Is the reference itself water? Its first peak of g_OO beside that of its training data."""
    reference = report.findings[0].reference
    height, position = (
        combine_replicas(reference[f"rdf_peak_{name} O-O"]) for name in ("height", "position")
    )
    return f"float64: g_OO peak {format_estimate(height)} at {format_estimate(position)} Å; DFT frames: {DFT_PEAK}"


def main() -> int:
    """Run the cases and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--policies", nargs="+", default=["fp64", "fp32"])
    parser.add_argument("--output", type=Path, default=Path("validate-water"))
    parser.add_argument("--jobs", type=int, help="runs at a time (default: as many as the cores serve)")
    parser.add_argument(
        "--length-ps", type=float, help="of each run, to try the command out (default: the cases')"
    )
    arguments = parser.parse_args()
    models = export(arguments.policies, arguments.output / "artifacts")
    reports = []
    for name in CASES:
        changes = {"length_ps": arguments.length_ps} if arguments.length_ps else {}
        case = read_case(name, models=list(models), **changes)
        print(
            f"{name}: {case.replicas} replicas of {case.length_ps:g} ps with {len(models) + 1} potentials",
            flush=True,
        )
        reports.append(validate(case, arguments.output / name, jobs=arguments.jobs, command=sys.argv))
    table = f"{format_table(reports)}\n\n{describe_reference(reports[-1])}"
    (arguments.output / "table.md").write_text(table + "\n")
    print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
