"""The main job, end to end: checkpoint -> artifact -> dynamics in ASE and in LAMMPS -> verdict.

    make demo        (or: python examples/demo.py --output demo)

Exports the bundled water potential, runs NVE of 64 molecules with it and with the float64 reference in both engines,
three replicas each, and ends with a table; the reports are in demo/ase and demo/lammps. Exit status as of
`mdplugin validate`: 0 pass, 1 fail, 2 inconclusive.
"""

import argparse
import sys
from pathlib import Path

import mdplugin
from mdplugin.validation.case import REFERENCE, Case
from mdplugin.validation.statistics import combine_replicas
from mdplugin.validation.study import validate
from mdplugin.validation.verdict import format_estimate

OBSERVABLES = ("energy_drift", "drift_ratio", "energy_fluctuation", "gradient", "shadow")
HEADER = (
    "model",
    "precision",
    "engine",
    "force error vs float64, meV/Å",
    "drift, meV/atom/ps",
    "verdict",
    "ms/step",
)


def judge(engine: str, artifact: Path, reference: Path, length_ps: float, output: Path):
    """NVE in one engine, from the bundled box at 300 K."""
    case = Case(
        ensemble="nve",
        models=(str(artifact),),
        reference=str(reference),
        engine=engine,
        structure="water-64",
        length_ps=length_ps,
        equilibration_ps=0.02,  # the bundled box is equilibrated; this randomises velocities
        replicas=3,
        observables=OBSERVABLES,
    )
    return validate(case, output / engine, command=sys.argv)


def format_table(reports: dict) -> str:
    """Rows for artifact and reference in each engine."""
    lines = ["| " + " | ".join(HEADER) + " |", "|" + "---|" * len(HEADER)]
    for engine, report in reports.items():
        (findings,), (verdict,) = report.findings, report.verdicts
        force = format_estimate(combine_replicas(findings.candidate["force_rmse"]))
        for label, drifts, cells in (
            (findings.label, findings.candidate, (force, str(verdict.outcome))),
            (REFERENCE, findings.reference, ("0 (reference)", "reference")),
        ):
            potential = report.potentials[label]
            drift = format_estimate(combine_replicas(drifts["energy_drift"]))
            speed = f"{report.speeds[label]:.0f}"
            row = (potential["name"], potential["precision"], engine, cells[0], drift, cells[1], speed)
            lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def main() -> int:
    """Run the demo; the exit status is the worse of the two verdicts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("demo"))
    parser.add_argument("--length-ps", type=float, default=2.0, help="NVE time of each run")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)

    artifact, reference = (arguments.output / f"water-{precision}.pt" for precision in ("fp32", "fp64"))
    for path, precision in ((artifact, "fp32"), (reference, "fp64")):
        if path.is_file():  # an interrupted demo goes on
            continue
        fidelity = mdplugin.export_model("water", path, precision).fidelity
        print(
            f"{path}: largest force error against mace-torch float64 {fidelity['force_eV_per_A']:.1e} eV/Å",
            flush=True,
        )

    reports = {}
    for engine in ("ase", "lammps"):
        print(f"NVE in {engine}: three replicas of {arguments.length_ps:g} ps with each artifact", flush=True)
        reports[engine] = judge(engine, artifact, reference, arguments.length_ps, arguments.output)
        print(f"{engine}: {reports[engine].verdicts[0].sentence}")
    table = format_table(reports)
    (arguments.output / "table.md").write_text(table + "\n")
    print("\n" + table)
    print(f"\nreports: {arguments.output}/ase/report.html, {arguments.output}/lammps/report.html")
    statuses = [report.exit_status for report in reports.values()]
    return 1 if 1 in statuses else max(statuses)


if __name__ == "__main__":
    sys.exit(main())
