"""Artifacts + frames -> errors against mace-torch in float64, and against the frames' own labels."""

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ase
import numpy as np

from mdplugin.artifact import Artifact
from mdplugin.calculator import MACEQuantCalculator
from mdplugin.checkpoint import Checkpoint, Evaluation, evaluate_mace, require_elements


@dataclass(frozen=True)
class Errors:
    """Root mean square and largest errors over frames; energies per atom, forces and stresses per component.

    Stress errors cover the frames that are periodic in three directions; NaN where there is none.
    """

    energy_rmse_meV_per_atom: float
    energy_max_meV_per_atom: float
    force_rmse_meV_per_A: float
    force_max_meV_per_A: float
    stress_max_meV_per_A3: float


@dataclass(frozen=True)
class Comparison:
    """One row of `mdplugin compare`.

    Attributes:
        name, precision: what was compared.
        float64: errors against mace-torch in float64.
        labels: errors against the frames' own energies and forces (DFT), or None without labels.
        ms_per_frame: median time of one ASE evaluation.
        file_MB: size of the artifact in 10⁶ bytes.
    """

    name: str
    precision: str
    float64: Errors
    labels: Errors | None
    ms_per_frame: float
    file_MB: float

    def as_dict(self) -> dict:
        """Plain values for JSON; what was not measured is None."""
        return _without_nan(dataclasses.asdict(self))


def _without_nan(value):
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    return None if isinstance(value, float) and np.isnan(value) else value


def compare_artifacts(
    artifacts: Sequence[Artifact], checkpoint: Checkpoint, frames: Sequence[ase.Atoms]
) -> list[Comparison]:
    """Compare each artifact with mace-torch in float64 on `frames`; the first row is mace-torch itself.

    Raises:
        StructureError: a frame has an element the model does not know.
    """
    require_elements(checkpoint, frames)
    references = evaluate_mace(checkpoint, list(frames))
    labels = [read_labels(frame) for frame in frames]
    labelled = labels if all(label is not None for label in labels) else None
    rows = [
        Comparison(
            checkpoint.name, "mace-torch float64", _errors(references, references), None, np.nan, np.nan
        )
    ]
    if labelled:
        rows[0] = dataclasses.replace(rows[0], labels=_errors(references, labelled))
    for artifact in artifacts:
        results, seconds = _evaluate(artifact, frames)
        rows.append(
            Comparison(
                name=artifact.path.name,
                precision=artifact.manifest.precision,
                float64=_errors(results, references),
                labels=_errors(results, labelled) if labelled else None,
                ms_per_frame=1000 * float(np.median(seconds)),
                file_MB=Path(artifact.path).stat().st_size / 1e6,
            )
        )
    return rows


def read_labels(frame: ase.Atoms) -> Evaluation | None:
    """The frame's own energy and forces (`REF_energy`, `REF_forces`, or ASE's stored results), or None."""
    energy, forces = frame.info.get("REF_energy"), frame.arrays.get("REF_forces")
    if energy is None and frame.calc is not None:
        energy, forces = frame.calc.results.get("energy"), frame.calc.results.get("forces")
    if energy is None or forces is None:
        return None
    return Evaluation(
        energy=float(energy), energies=np.full(len(frame), np.nan), forces=np.asarray(forces), stress=None
    )


def _evaluate(artifact: Artifact, frames: Sequence[ase.Atoms]) -> tuple[list[Evaluation], list[float]]:
    calculator = MACEQuantCalculator(artifact)
    results, seconds = [], []
    for frame in frames:
        start = time.perf_counter()
        calculator.calculate(frame, ["energy", "forces"])
        seconds.append(time.perf_counter() - start)
        values = calculator.results
        results.append(
            Evaluation(values["energy"], values["energies"], values["forces"], values.get("stress"))
        )
    return results, seconds


def _errors(values: list[Evaluation], references: list[Evaluation]) -> Errors:
    pairs = list(zip(values, references, strict=True))
    energy = np.array([(a.energy - b.energy) / len(a.forces) for a, b in pairs])
    force = np.concatenate([(a.forces - b.forces).ravel() for a, b in pairs])
    stress = [
        np.abs(a.stress - b.stress).max() for a, b in pairs if a.stress is not None and b.stress is not None
    ]
    return Errors(
        energy_rmse_meV_per_atom=1000 * float(np.sqrt(np.mean(energy**2))),
        energy_max_meV_per_atom=1000 * float(np.abs(energy).max()),
        force_rmse_meV_per_A=1000 * float(np.sqrt(np.mean(force**2))),
        force_max_meV_per_A=1000 * float(np.abs(force).max()),
        stress_max_meV_per_A3=1000 * float(np.max(stress)) if stress else float("nan"),
    )


def format_table(rows: Sequence[Comparison]) -> str:
    """The rows as a Markdown table."""
    header = [
        "model",
        "precision",
        "reference",
        "energy RMSE meV/atom",
        "energy max meV/atom",
        "force RMSE meV/Å",
        "force max meV/Å",
        "stress max meV/Å³",
        "ms/frame",
        "MB",
    ]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for row in rows:
        for reference, errors in (("float64", row.float64), ("labels", row.labels)):
            if errors is None or (reference == "float64" and np.isnan(row.file_MB)):
                continue
            numbers = (
                errors.energy_rmse_meV_per_atom,
                errors.energy_max_meV_per_atom,
                errors.force_rmse_meV_per_A,
                errors.force_max_meV_per_A,
                errors.stress_max_meV_per_A3,
                row.ms_per_frame,
                row.file_MB,
            )
            cells = ["–" if np.isnan(number) else f"{number:.3g}" for number in numbers]
            lines.append("| " + " | ".join([row.name, row.precision, reference, *cells]) + " |")
    return "\n".join(lines)
