"""ASE beside LAMMPS: one artifact, independent runs in both, every observable judged by the validator's own tests.

    python examples/engine_agreement.py --output engines [--model FILE.pt] [--cases nve nvt npt stability] [--write docs]

Each case is run as `mdplugin validate` would run the artifact, in either engine, 3 replicas each; what LAMMPS's runs
give is judged against what ASE's give, as a candidate is against float64. Half an hour on two cores; give
the same command again after an interruption. --write keeps the result in docs/policies/ and fills docs/validation.md.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

from policy_pages import ENGINES, fill_pages
from scipy import special

import mdplugin
from mdplugin.machine import describe_machine
from mdplugin.validation.case import REFERENCE, Case
from mdplugin.validation.case_file import read_case
from mdplugin.validation.comparison import Test
from mdplugin.validation.criteria import find_criterion, find_measurable
from mdplugin.validation.evidence import measure_candidate
from mdplugin.validation.measurement import Measurement
from mdplugin.validation.plan import plan_runs
from mdplugin.validation.pool import execute_runs
from mdplugin.validation.potential import load_potential
from mdplugin.validation.profiles import add_profiles
from mdplugin.validation.statistics import subtract
from mdplugin.validation.study import count_jobs, mark_missing
from mdplugin.validation.verdict import Findings, format_estimate, judge
from mdplugin.validation.workspace import MODELS, prepare, read_prepared

# of the runs, at least those of `mdplugin validate all`, whose directories can be taken up; nvt long enough for diffusion
LENGTHS_PS = {"nve": 2.0, "nvt": 6.0, "npt": 3.0, "stability": 0.8}


def measure(case: Case, directory: Path) -> Measurement:
    """Run the artifact alone, and measure all that its runs have; of float64 only frames are evaluated."""
    (label,) = case.labels
    prepare(case, directory)
    plans = [plan for plan in plan_runs(case) if plan.label == label]
    execute_runs(plans, directory, count_jobs(case), quiet=False)
    atoms = read_prepared(directory)[1].atoms
    candidate, reference = (
        load_potential(directory / MODELS / f"{name}.pt", case.threads).make_calculator()
        for name in (label, REFERENCE)
    )
    return measure_candidate(
        case, atoms, label, candidate, reference, directory, list_wanted(case)
    ).measurement


def list_wanted(case: Case) -> tuple[str, ...]:
    """The observables of runs in the bundled box, which has periods."""
    return find_measurable(case.chosen_observables, (True, True, True))


def compare(name: str, model: Path, reference: str, directory: Path, **changes) -> list[dict]:
    """One row for each observable of a case; `changes` are of the case that `mdplugin validate` would run."""
    settings = {"models": [str(model)], "reference": reference, "length_ps": LENGTHS_PS[name], **changes}
    cases = {engine: read_case(name, **settings, engine=engine) for engine in ("ase", "lammps")}
    ase, lammps = (measure(case, directory / name / engine) for engine, case in cases.items())
    profiles = add_profiles(lammps, ase)
    sides = ({**lammps.values, **profiles[0]}, {**ase.values, **profiles[1]})
    of_lammps, of_ase = mark_missing(list_wanted(cases["ase"]), *sides)
    findings = Findings(
        label="LAMMPS",
        candidate=of_lammps,
        reference=of_ase,
        failures=(*ase.failures, *lammps.failures),
        replicas=cases["ase"].replicas,
    )
    return [describe(name, test) for test in judge(findings, cases["ase"].limit_table).tests]


def describe(case: str, test: Test) -> dict:
    """A row; both engines' numbers where there are two, though the limit may be absolute.

    The engines' runs are independent of each other, so that their means are compared (Welch's t), not pairs of runs; but
    not a distance with those of ASE's own runs, which have their noise in them.
    """
    sigma = p_value = None
    has_both = test.reference is not None and test.candidate.is_known and test.reference.is_known
    if has_both and not find_criterion(test.observable).is_distance:
        apart = subtract(test.candidate, test.reference)
        if apart.error:
            sigma = apart.value / apart.error
            p_value = 2 * float(special.stdtr(apart.dof, -abs(sigma)))
    return {
        "case": case,
        "observable": f"{test.title}{f', {test.unit}' if test.unit else ''}",
        "LAMMPS": format_estimate(test.candidate),
        "ASE": format_estimate(test.reference),
        "sigma": sigma,
        "p_value": p_value,
        "limit": test.limit,
        "outcome": str(test.outcome),
    }


def main() -> int:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("engines"))
    parser.add_argument("--model", type=Path, help="artifact (default: the bundled water in fp32)")
    parser.add_argument("--reference", default="water", help="its checkpoint")
    parser.add_argument("--cases", nargs="*", default=list(LENGTHS_PS), choices=list(LENGTHS_PS))
    parser.add_argument("--write", type=Path, metavar="DOCS", help="publish what is there in this docs/")
    arguments = parser.parse_args()
    directory = arguments.output
    directory.mkdir(parents=True, exist_ok=True)
    model = arguments.model
    if model is None and not (model := directory / "water-fp32.pt").is_file():
        mdplugin.export_model("water", model, "fp32")
    rows = []
    for name in arguments.cases:
        print(name, flush=True)
        rows += compare(name, model, arguments.reference, directory)
    result = {"command": sys.argv, "machine": describe_machine(), "model": model.name, "rows": rows}
    (directory / ENGINES).write_text(json.dumps(result, indent=1, ensure_ascii=False))
    if arguments.write:
        shutil.copy(directory / ENGINES, arguments.write / "policies" / ENGINES)
        fill_pages(arguments.write / "policies", [arguments.write / "validation.md"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
