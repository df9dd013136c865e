"""The artifacts that examples/policy_tables.py compares: every preset of a potential, calibrated ones, and a tuned one."""

import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import ase.io

import mdplugin
from mdplugin.artifact import RECORD
from mdplugin.precision import PRESETS, Precision

ROOT = Path(__file__).resolve().parents[1]
CALIBRATED, TUNED = "-calibrated", "mixed"
TUNING = "tune.txt"  # what `mdplugin tune` printed
CALIBRATING, COMPARED, TUNED_ON = "calibrate.xyz", "compare.xyz", "tune.xyz"  # frames
CALIBRATION_EVERY = 4  # of the test frames, every fourth calibrates; policies are compared on the others
LABELS = (*PRESETS, *(name + CALIBRATED for name in ("w8", "w8a16", "w8a8")), TUNED)


@dataclass(frozen=True)
class Setting:
    """What a potential is tried on.

    Attributes:
        frames: its test frames, in tests/data.
        budget: of the tuned policy.
        cases: bundled cases. lengths_ps, replicas: of their runs.
        policies: of the runs.
    """

    frames: str
    budget: str
    cases: tuple[str, ...]
    lengths_ps: tuple[float, ...]
    replicas: int
    policies: tuple[str, ...]


_RUN = ("fp32", "w8a16-calibrated", "w8-calibrated", "w8", "w16", "bf16", "fp16", "w8a8-calibrated", "w8a8")
SETTINGS = {
    "3bpa": Setting(
        "3bpa_wb97x_test20.xyz.gz", "force-rmse=5meV/A,force-noise=0.1meV/A", ("3bpa-nve",), (20.0,), 6, _RUN
    ),
    "water": Setting(
        "water_pbe0ts_dpmd_test20.xyz.gz", "force-rmse=2meV/A,force-noise=0.1meV/A",
        ("water-192-nve", "water-192-nvt"), (10.0, 20.0), 3, ("fp32", "w8", "w16", "bf16", "fp16", "w8a8", TUNED),
    ),
}  # fmt: skip


def find_reports(kept: Path, case: str, ending: str = ".json") -> list[Path]:
    """A case's reports in docs/policies: the one of all policies, then those that `--policies` added, in their order."""
    return [*kept.glob(f"{case}{ending}"), *sorted(kept.glob(f"{case}-*{ending}"))]


def name_float64(potential: str, beside: Iterable[str] = ()) -> str:
    """The row of float64's runs; of a report that `--policies` added, with the artifacts beside which they were made."""
    labels = ", ".join(f"`{stem.removeprefix(f'{potential}-')}`" for stem in beside)
    return f"float64, beside {labels}" if labels else "float64"


def split_frames(setting: Setting, directory: Path) -> None:
    """Write the frames that calibrate, and those that are compared."""
    frames = ase.io.read(ROOT / "tests" / "data" / setting.frames, ":", format="extxyz")
    every = CALIBRATION_EVERY
    ase.io.write(directory / CALIBRATING, frames[every - 1 :: every])
    ase.io.write(directory / COMPARED, [f for i, f in enumerate(frames) if i % every != every - 1])


def export_policies(potential: str, directory: Path, labels: Sequence[str] = LABELS) -> dict[str, Path]:
    """Artifacts by label. Exits if one that is there is not what this code writes: its runs would be another's."""
    paths = {label: directory / f"{potential}-{label}.pt" for label in labels}
    for label, path in paths.items():
        if path.is_file():
            fresh = directory / "fresh.pt"
            export(potential, label, fresh, path)
            if fingerprint(fresh) != fingerprint(path):
                sys.exit(
                    f"{path} is not what this code exports: remove {directory}, or choose another --output"
                )
            fresh.unlink()
        elif label == TUNED:
            tune(potential, path)
        else:
            export(potential, label, path)
    return paths


def export(potential: str, label: str, path: Path, old: Path | None = None) -> None:
    """One artifact; the tuned one as the `old` one was."""
    frames = ()
    policy = label.removesuffix(CALIBRATED)
    if label == TUNED:
        policy, frames = mdplugin.read_manifest(old).precision, ase.io.read(path.parent / TUNED_ON, ":")
    is_calibrated = label != policy and Precision.parse(policy).can_calibrate
    calibrate = ase.io.read(path.parent / CALIBRATING, ":") if is_calibrated else ()
    mdplugin.export_model(potential, path, policy, frames=frames, calibrate=calibrate)


def fingerprint(path: Path) -> dict[str, str]:
    """Manifest and tensors: the code has names that depend on what a process exported before."""
    with zipfile.ZipFile(path) as archive:
        return {
            name: hashlib.sha256(archive.read(name)).hexdigest()
            for name in archive.namelist()
            if "/data/" in name or name.endswith(RECORD)
        }


def tune(potential: str, path: Path) -> None:
    """The fastest policy inside the setting's budget, on a machine that does nothing else."""
    setting = SETTINGS[potential]
    frames, calibration = path.parent / TUNED_ON, path.parent / CALIBRATING
    ase.io.write(frames, ase.io.read(path.parent / COMPARED, ":4"))
    command = [sys.executable, "-P", "-m", "mdplugin", "tune", potential, "--structures", str(frames)]
    command += ["--budget", setting.budget, "--calibrate", str(calibration), "-o", str(path), "--quiet"]
    (path.parent / TUNING).write_text(run(command))


def run(command: list[str]) -> str:
    """What a command prints; exits with what it complains of if it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout
