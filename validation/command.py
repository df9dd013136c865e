"""`mdplugin validate nve`: options -> case -> exit status 0 pass, 1 fail (errors are raised: 3)."""

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the cases of `mdplugin validate` to its parser; the parser's class serves the cases too."""
    cases = parser.add_subparsers(dest="case", required=True, metavar="CASE")
    nve = cases.add_parser(
        "nve",
        help="energy conservation at constant energy",
        description="Run an artifact and its float64 reference at constant energy from the same state, and\n"
        "judge whether the artifact conserves energy as well. Exit status: 0 pass, 1 fail, 3 error.",
        epilog="example: mdplugin validate nve --model water-fp32.pt --reference water --engine ase \\\n"
        "    --steps 2000 --timestep-fs 0.5 --temperature-K 300 -o water-nve",
    )
    _add_nve_arguments(nve)


def _add_nve_arguments(nve: argparse.ArgumentParser) -> None:
    nve.add_argument("--model", required=True, type=Path, help="the artifact to judge")
    nve.add_argument(
        "--reference", required=True, help="its checkpoint, a bundled potential (water), or an fp64 artifact"
    )
    nve.add_argument("--engine", required=True, help="ase or lammps")
    nve.add_argument("--steps", required=True, type=int, help="length of each of the two runs")
    nve.add_argument("--timestep-fs", type=float, default=0.5, help="timestep in fs (default 0.5)")
    nve.add_argument("--temperature-K", type=float, default=300.0, help="temperature in K (default 300)")
    nve.add_argument(
        "--equilibration-steps", type=int, default=500, help="Langevin steps before (default 500)"
    )
    nve.add_argument(
        "--structure",
        help="file that ASE reads, or a bundled one (water-64, water-hexamer); default: the reference's",
    )
    nve.add_argument("--seed", type=int, default=0, help="of velocities and thermostat (default 0)")
    nve.add_argument("--threads", type=int, help="torch threads (default: torch's own number)")
    nve.add_argument(
        "--trajectory-every", type=int, default=20, help="steps between written frames (default 20)"
    )
    nve.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="directory of the report"
    )
    nve.add_argument(
        "--trust",
        action="store_true",
        help="open a .model by running its pickle: only if you trust its origin",
    )
    nve.add_argument("--json", action="store_true", help="print report.json instead of the summary")
    nve.add_argument("--quiet", action="store_true", help="no progress bar")


def run(arguments: argparse.Namespace) -> int:
    """Run the case and print its verdict.

    Raises:
        MDPluginError: the case cannot be run; see `mdplugin.validation.validate_nve`.
    """
    from mdplugin.validation.case import NveCase
    from mdplugin.validation.nve import validate_nve
    from mdplugin.validation.report import REPORT_MARKDOWN
    from mdplugin.validation.verdict import Outcome

    case = NveCase(
        model=arguments.model,
        reference=arguments.reference,
        engine=arguments.engine,
        steps=arguments.steps,
        timestep_fs=arguments.timestep_fs,
        temperature_K=arguments.temperature_K,
        equilibration_steps=arguments.equilibration_steps,
        structure=arguments.structure,
        seed=arguments.seed,
        threads=arguments.threads,
        trajectory_every=arguments.trajectory_every,
        trust=arguments.trust,
    )
    report = validate_nve(case, arguments.output, quiet=arguments.quiet, command=sys.argv)
    if arguments.json:
        print(report.to_json(), end="")
    else:
        for check in report.verdict.checks:
            limit = f"{check.limit:.3g} {check.unit}".rstrip()
            print(f"{check.outcome:4}  {check.name}: {check.value:.3g} (limit {limit})")
        print(report.verdict.sentence)
        print(f"report: {arguments.output / REPORT_MARKDOWN}")
    return 0 if report.verdict.outcome is Outcome.PASS else 1
