"""The main job, end to end: checkpoint -> artifact -> dynamics in ASE and in LAMMPS -> verdict.

    make demo        (or: python examples/demo.py --output demo)

Exports the bundled water potential, runs NVE of 64 molecules with it and with the float64 reference in both
engines, one thread each, and ends with a table; the reports are in demo/ase and demo/lammps.
"""

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import mdplugin
from mdplugin.validation.case import NveCase
from mdplugin.validation.nve import validate_nve


def judge(engine: str, artifact: Path, reference: Path, steps: int, output: Path):
    """NVE in one engine, from the bundled box at 300 K."""
    case = NveCase(
        model=str(artifact),
        reference=str(reference),
        engine=engine,
        steps=steps,
        timestep_fs=0.5,
        temperature_K=300,
        equilibration_steps=20,  # the bundled box is equilibrated; this randomises velocities
        threads=1,
    )
    return validate_nve(case, output / engine, command=sys.argv)


def format_table(reports: dict) -> str:
    """Rows for artifact and reference in each engine."""
    header = [
        "model",
        "precision",
        "engine",
        "max abs(dF) vs float64, meV/Å",
        "drift, meV/atom/ps",
        "verdict",
        "ms/step",
    ]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for engine, report in reports.items():
        for label, run in (
            ("candidate", report.measures.candidate),
            ("reference", report.measures.reference),
        ):
            potential = report.potentials[label]
            is_candidate = label == "candidate"
            force = f"{report.measures.shadow.force_max_meV_per_A:.2g}" if is_candidate else "0 (reference)"
            verdict = str(report.verdict.outcome) if is_candidate else "reference"
            drift = f"{run.drift.value:.3f} ± {run.drift.error:.3f}"
            cells = [
                potential["name"],
                potential["precision"],
                engine,
                force,
                drift,
                verdict,
                f"{run.ms_per_step:.0f}",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    """Run the demo; exit status 0 if both verdicts are pass."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("demo"))
    parser.add_argument("--steps", type=int, default=2000, help="NVE steps of 0.5 fs, per run")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)

    artifact, reference = (arguments.output / f"water-{precision}.pt" for precision in ("fp32", "fp64"))
    for path, precision in ((artifact, "fp32"), (reference, "fp64")):
        fidelity = mdplugin.export_model("water", path, precision).fidelity
        print(
            f"{path}: largest force error against mace-torch float64 {fidelity['force_eV_per_A']:.1e} eV/Å",
            flush=True,
        )

    print(
        f"NVE in both engines side by side, {arguments.steps} steps with each of the two artifacts",
        flush=True,
    )
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        jobs = {
            engine: pool.submit(judge, engine, artifact, reference, arguments.steps, arguments.output)
            for engine in ("ase", "lammps")
        }
    reports = {engine: job.result() for engine, job in jobs.items()}
    for engine, report in reports.items():
        print(f"{engine}: {report.verdict.sentence}")
    table = format_table(reports)
    (arguments.output / "table.md").write_text(table + "\n")
    print("\n" + table)
    print(f"\nreports: {arguments.output}/ase/report.md, {arguments.output}/lammps/report.md")
    return 0 if all(str(report.verdict.outcome) == "pass" for report in reports.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
