"""Every precision policy on the bundled potentials: errors, noise, dynamics, verdicts; fills the tables of docs/.

    python examples/policy_tables.py --output policies [--potentials 3bpa water] [--cases water-192-nve] [--write docs]

Exports every preset (fixed point also calibrated, on frames of their own) and what `mdplugin tune` finds, compares them
with float64 on other frames, and runs the dynamics of `policy_artifacts.SETTINGS` beside float64. Results are kept in DIR.
Hours on two cores; give the same command again after an interruption. --write copies them to docs/policies/ and fills
the tables of README.md, docs/precision.md and docs/validation.md.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

from policy_artifacts import COMPARED, SETTINGS, TUNING, export_policies, run, split_frames
from policy_pages import fill_pages
from policy_rdf import draw_rdf, keep_rdfs

from mdplugin.machine import describe_machine
from mdplugin.validation.case_file import read_case
from mdplugin.validation.report import RDFS, REPORT_HTML, REPORT_JSON
from mdplugin.validation.study import validate


def compare(potential: str, paths: dict[str, Path], frames: Path) -> dict:
    """What `mdplugin compare --json` says, rows by label."""
    command = [sys.executable, "-P", "-m", "mdplugin", "compare", *map(str, paths.values())]
    command += ["--reference", potential, "--structures", str(frames), "--json", "--quiet"]
    result = {"command": sys.argv, "machine": describe_machine(), "compare": json.loads(run(command))}
    for label, row in zip(paths, result["compare"]["rows"][1:], strict=True):
        row["label"] = label
    return result


def study(
    potential: str, directory: Path, cases: list[str] | None, jobs: int | None, length_ps: float | None
) -> None:
    """Everything of one potential, in `directory`: compare.json, and a directory for each case."""
    setting = SETTINGS[potential]
    directory.mkdir(parents=True, exist_ok=True)
    split_frames(setting, directory)
    paths = export_policies(potential, directory)
    compared = compare(potential, paths, directory / COMPARED)
    (directory / "compare.json").write_text(json.dumps(compared, indent=1))
    for name, published_ps in zip(setting.cases, setting.lengths_ps, strict=True):
        if cases is None or name in cases:
            models = [str(paths[label]) for label in setting.list_policies(name)]
            case = read_case(
                name,
                models=models,
                length_ps=published_ps if length_ps is None else length_ps,
                replicas=setting.replicas,
            )
            print(
                f"{name}: {len(models) + 1} potentials, {case.replicas} x {case.length_ps:g} ps", flush=True
            )
            validate(case, directory / name, jobs=jobs, command=["python", *sys.argv])


def publish(directory: Path, docs: Path) -> None:
    """Copy the results to docs/policies/ and fill the pages."""
    kept = docs / "policies"
    kept.mkdir(exist_ok=True)
    for potential, setting in SETTINGS.items():
        source = directory / potential
        for file, name in (("compare.json", f"{potential}.json"), (TUNING, f"{potential}-{TUNING}")):
            if (source / file).is_file():
                shutil.copy(source / file, kept / name)
        for name in setting.cases:
            for file in (REPORT_JSON, REPORT_HTML, "energy.png"):
                if (source / name / file).is_file():
                    shutil.copy(source / name / file, kept / f"{name}{Path(file).suffix}")
            if (source / name / RDFS).is_file():
                keep_rdfs(source / name, kept / f"{name}-rdf.csv")
        draw_rdf(kept, potential)
    fill_pages(kept, [docs / "precision.md", docs / "validation.md", docs.parent / "README.md"])


def main() -> int:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    every_case = [name for setting in SETTINGS.values() for name in setting.cases]
    parser.add_argument("--output", type=Path, default=Path("policies"))
    parser.add_argument("--potentials", nargs="*", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--cases", nargs="*", choices=every_case, help="dynamics to run (default: all)")
    parser.add_argument("--jobs", type=int, help="runs at a time (default: as many as the cores serve)")
    parser.add_argument(
        "--length-ps", type=float, help="of each run, for a rehearsal (default: what is published)"
    )
    parser.add_argument("--write", type=Path, metavar="DOCS", help="publish what is there in this docs/")
    arguments = parser.parse_args()
    for potential in arguments.potentials:
        output = arguments.output / potential
        study(potential, output, arguments.cases, arguments.jobs, arguments.length_ps)
    if arguments.write:
        publish(arguments.output, arguments.write)
    return 0


if __name__ == "__main__":
    sys.exit(main())
