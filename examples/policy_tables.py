"""Every precision policy on the bundled potentials: errors, noise, dynamics, verdicts; fills the tables of docs/.

    python examples/policy_tables.py --output policies [--potentials 3bpa water] [--cases water-192-nve] [--write docs]

Exports every preset (fixed point also calibrated, on frames of their own) and what `mdplugin tune` finds, compares them
with float64 on other frames, and runs the dynamics of `policy_artifacts.SETTINGS` beside float64. Results are kept in DIR.
Hours on two cores; give the same command again after an interruption (to compare anew, remove compare.json).
--write copies them to docs/policies/ and fills the tables of README.md, docs/precision.md and docs/validation.md.
--policies runs some alone, beside float64 runs of their own, and adds what they give to the tables.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from policy_artifacts import COMPARED, LABELS, SETTINGS, TUNING, export_policies, run, split_frames
from policy_pages import fill_pages
from policy_rdf import draw_rdf

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


def is_newer(file: Path, others: Iterable[Path]) -> bool:
    """Whether a file is there and was written after all others."""
    return file.is_file() and all(file.stat().st_mtime > other.stat().st_mtime for other in others)


def study(potential: str, directory: Path, arguments: argparse.Namespace) -> None:
    """Everything of one potential, in `directory`: compare.json, and a directory for each case."""
    setting, addition = SETTINGS[potential], arguments.policies
    directory.mkdir(parents=True, exist_ok=True)
    split_frames(setting, directory)
    paths = export_policies(potential, directory, addition or LABELS)
    kept = directory / "compare.json"
    if not addition and not is_newer(kept, paths.values()):
        kept.write_text(json.dumps(compare(potential, paths, directory / COMPARED), indent=1))
    for name, published_ps in zip(setting.cases, setting.lengths_ps, strict=True):
        if arguments.cases is None or name in arguments.cases:
            models = [str(paths[label]) for label in addition or setting.policies]
            case = read_case(
                name,
                models=models,
                length_ps=arguments.length_ps or published_ps,
                replicas=setting.replicas,
            )
            print(
                f"{name}: {len(models) + 1} potentials, {case.replicas} x {case.length_ps:g} ps", flush=True
            )
            runs = "-".join([name, *(addition or ())])
            validate(case, directory / runs, jobs=arguments.jobs, command=["python", *sys.argv])


def publish(directory: Path, docs: Path) -> None:
    """Copy the results to docs/policies/ and fill the pages."""
    kept = docs / "policies"
    kept.mkdir(exist_ok=True)
    for potential, setting in SETTINGS.items():
        source = directory / potential
        for file, name in (("compare.json", f"{potential}.json"), (TUNING, f"{potential}-{TUNING}")):
            if (source / file).is_file():
                shutil.copy(source / file, kept / name)
        for case in setting.cases:
            for found in (source / case, *sorted(source.glob(f"{case}-*"))):
                for file in (REPORT_JSON, REPORT_HTML, "energy.png"):
                    if (found / file).is_file():
                        shutil.copy(found / file, kept / f"{found.name}{Path(file).suffix}")
                if (found / RDFS).is_file():
                    shutil.copy(found / RDFS, kept / f"{found.name}-rdf.csv")
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
    parser.add_argument("--policies", nargs="*", choices=list(LABELS), help="run these alone, as an addition")
    parser.add_argument("--jobs", type=int, help="runs at a time (default: as many as the cores serve)")
    parser.add_argument(
        "--length-ps", type=float, help="of each run, for a rehearsal (default: what is published)"
    )
    parser.add_argument("--write", type=Path, metavar="DOCS", help="publish what is there in this docs/")
    arguments = parser.parse_args()
    for potential in arguments.potentials:
        study(potential, arguments.output / potential, arguments)
    if arguments.write:
        publish(arguments.output, arguments.write)
    return 0


if __name__ == "__main__":
    sys.exit(main())
