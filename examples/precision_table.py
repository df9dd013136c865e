"""The tables of docs/precision.md: every policy on the bundled potentials, errors, noise, drift and size.

    python examples/precision_table.py --output precision-tables [--potentials 3bpa water] [--write docs]

Exports every preset (fixed point also calibrated, on frames of their own), compares them with float64 on others, runs
the NVE cases beside float64, and keeps all that was found in DIR/POTENTIAL.json. Takes hours on two cores; give the same
command again after an interruption. --write copies the results to docs/precision/ and fills the tables of docs/precision.md.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import ase.io

import mdplugin
from mdplugin.machine import describe_machine
from mdplugin.validation.case_file import read_case
from mdplugin.validation.study import validate
from mdplugin.validation.verdict import format_estimate

ROOT = Path(__file__).resolve().parents[1]
PRESETS = ("fp64", "fp32", "w16", "w8", "w8a16", "bf16", "fp16", "w8a8")
CALIBRATED = ("w8", "w8a16", "w8a8")
# largest force RMSE: meV/Å, or a share of the potential's own error against DFT (issue "Precision")
BOUNDS = {
    "fp32": (0.01, None),
    "w16": (0.1, None),
    "w8": (None, 0.25),
    "w8+": (None, 0.10),
    "w8a16+": (None, 0.10),
}
CALIBRATION_EVERY = 4  # of the test frames, every fourth calibrates; policies are compared on the others
MARKERS = re.compile(r"(<!-- precision:(\w+) -->\n).*?(<!-- /precision:\2 -->)", re.DOTALL)


@dataclass(frozen=True)
class Setting:
    """What a potential is tried on: its test frames and its NVE case."""

    frames: str
    case: str
    length_ps: float
    replicas: int
    policies: tuple[str, ...]  # of the NVE runs, "+" marks calibrated ones


SETTINGS = {
    "3bpa": Setting(
        "3bpa_wb97x_test20.xyz.gz", "3bpa-nve", 20.0, 3, ("fp32", "w16", "w8", "w8+", "w8a16+", "bf16", "fp16", "w8a8+")
    ),
    "water": Setting(
        "water_pbe0ts_dpmd_test20.xyz.gz", "water-192-nve", 20.0, 2,
        ("w8+", "w8a16+", "bf16", "w16", "fp32", "fp16", "w8a8+"),
    ),
}  # fmt: skip


def split_frames(setting: Setting, directory: Path) -> tuple[Path, Path]:
    """Files of the frames that calibrate, and of those that are compared."""
    frames = ase.io.read(ROOT / "tests" / "data" / setting.frames, ":", format="extxyz")
    paths = directory / "calibrate.xyz", directory / "compare.xyz"
    every = CALIBRATION_EVERY
    ase.io.write(paths[0], frames[every - 1 :: every])
    ase.io.write(paths[1], [f for i, f in enumerate(frames) if i % every != every - 1])
    return paths


def export(potential: str, directory: Path, calibration: Path) -> dict[str, Path]:
    """Artifacts by label; those that exist are kept, since a case must not change under its runs."""
    frames, paths = ase.io.read(calibration, ":"), {}
    for label in (*PRESETS, *(f"{name}+" for name in CALIBRATED)):
        path = directory / f"{potential}-{label.replace('+', '-calibrated')}.pt"
        if not path.is_file():
            mdplugin.export_model(
                potential, path, label.rstrip("+"), calibrate=frames if label.endswith("+") else ()
            )
        paths[label] = path
    return paths


def compare(potential: str, paths: dict[str, Path], frames: Path) -> dict:
    """What `mdplugin compare --json` says."""
    command = [
        sys.executable,
        "-P",
        "-m",
        "mdplugin",
        "compare",
        *map(str, paths.values()),
        "--reference",
        potential,
    ]
    command += ["--structures", str(frames), "--json", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout)


def run_dynamics(potential: str, paths: dict[str, Path], directory: Path, jobs: int | None) -> dict:
    """Drift of every policy and of float64, with the verdict of the case."""
    setting = SETTINGS[potential]
    models = [str(paths[label]) for label in setting.policies]
    case = read_case(setting.case, models=models, length_ps=setting.length_ps, replicas=setting.replicas)
    report = validate(case, directory / "nve", jobs=jobs, command=sys.argv)
    found = {}
    for label, verdict in zip(setting.policies, report.verdicts, strict=True):
        drift = next(test for test in verdict.tests if test.observable == "energy_drift")
        found[label] = {
            "drift_meV_per_atom_per_ps": format_estimate(drift.candidate),
            "float64": format_estimate(drift.reference),
            "verdict": str(verdict.outcome),
            "sentence": verdict.sentence,
        }
    return {"case": setting.case, "length_ps": case.length_ps, "replicas": case.replicas, "policies": found}


def study(potential: str, directory: Path, jobs: int | None, skip_dynamics: bool) -> None:
    """Everything of one potential, to DIR/POTENTIAL.json."""
    place = directory / potential
    place.mkdir(parents=True, exist_ok=True)
    calibration, frames = split_frames(SETTINGS[potential], place)
    paths = export(potential, place, calibration)
    result = {"command": sys.argv, "machine": describe_machine()}
    result["compare"] = compare(potential, paths, frames)
    for label, row in zip(paths, result["compare"]["rows"][1:], strict=True):
        row["label"] = label
    target = directory / f"{potential}.json"
    target.write_text(json.dumps(result, indent=1))
    if not skip_dynamics:
        result["nve"] = run_dynamics(potential, paths, place, jobs)
        target.write_text(json.dumps(result, indent=1))


def format_number(value: float | None) -> str:
    """Three digits, – for what was not measured."""
    return "–" if value is None else f"{value:.3g}"


COLUMNS = (
    "policy",
    "force RMSE, meV/Å",
    "of the DFT error",
    "bound",
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


def hold_bound(label: str, rmse: float, own: float) -> str:
    """The bound of a policy's force RMSE and whether it holds; `own` is the potential's error against DFT."""
    if label not in BOUNDS:
        return "–"
    absolute, share = BOUNDS[label]
    bound = absolute if absolute is not None else share * own
    return f"≤ {bound:.3g}: {'holds' if rmse <= bound else 'missed'}"


def format_noise(smoothness: dict) -> str:
    """Force noise, or what it is surely below."""
    if smoothness["is_noise_resolved"]:
        return format_number(smoothness["force_noise_meV_per_A"])
    return f"< {format_number(3 * smoothness['force_noise_resolution_meV_per_A'])}"


def write_table(result: dict) -> str:
    """One row for each policy."""
    rows = result["compare"]["rows"]
    own = rows[0]["labels"]["force_rmse_meV_per_A"]
    dynamics = result.get("nve", {}).get("policies", {})
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for row in rows[1:]:
        error, nve = row["float64"], dynamics.get(row["label"], {})
        rmse = error["force_rmse_meV_per_A"]
        cells = [
            row["label"].replace("+", ", calibrated"),
            format_number(rmse),
            f"{100 * rmse / own:.2g} %",
            hold_bound(row["label"], rmse, own),
            format_number(error["force_max_meV_per_A"]),
            format_number(error["energy_rmse_meV_per_atom"]),
            format_number(row["equivariance"]["force_max_meV_per_A"]),
            format_noise(row["smoothness"]),
            format_number(row["smoothness"]["force_roughness_meV_per_A"]),
            nve.get("drift_meV_per_atom_per_ps", "–"),
            nve.get("verdict", "–"),
            format_number(row["ms_per_frame"]),
            format_number(row["file_MB"]),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    notes = [f"The potential itself misses DFT by {own:.1f} meV/Å on these frames."]
    if dynamics:
        nve = result["nve"]
        reference = next(iter(dynamics.values()))["float64"]
        notes.append(
            f"NVE: case `{nve['case']}`, {nve['replicas']} replicas of {nve['length_ps']:g} ps; float64 drifts by "
            f"{reference}."
        )
    machine = result["machine"]
    notes.append(f"{machine['cpu']}; torch {machine['versions']['torch']}; {machine['finished']}.")
    return "\n".join(lines) + "\n\n" + " ".join(notes)


def publish(directory: Path, docs: Path) -> None:
    """Copy the results beside the page and fill its tables."""
    keep = docs / "precision"
    keep.mkdir(exist_ok=True)
    for file in directory.glob("*.json"):
        shutil.copy(file, keep / file.name)
    page = docs / "precision.md"
    results = {file.stem: json.loads(file.read_text()) for file in keep.glob("*.json")}

    def fill(match: re.Match) -> str:
        begin, name, end = match.groups()
        return begin + (write_table(results[name]) if name in results else "*Not measured.*") + "\n" + end

    page.write_text(MARKERS.sub(fill, page.read_text()))


def main() -> int:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("precision-tables"))
    parser.add_argument("--potentials", nargs="*", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--jobs", type=int, help="runs at a time (default: as many as the cores serve)")
    parser.add_argument("--skip-dynamics", action="store_true", help="no NVE runs")
    parser.add_argument("--write", type=Path, metavar="DOCS", help="publish what is there in this docs/")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for potential in arguments.potentials:
        study(potential, arguments.output, arguments.jobs, arguments.skip_dynamics)
    if arguments.write:
        publish(arguments.output, arguments.write)
    return 0


if __name__ == "__main__":
    sys.exit(main())
