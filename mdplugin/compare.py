"""Artifacts + frames -> errors against mace-torch in float64 and against labels, symmetry, smoothness, speed, size.

Errors are measured on all frames; what takes many evaluations of a frame, the probes (equivariance.py, smoothness.py),
on some of them, evenly spread. Every artifact meets the same frames, rotations and paths.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import ase
import numpy as np
import torch
from ase.data import chemical_symbols

from mdplugin.archive import content_sha256
from mdplugin.artifact import Artifact
from mdplugin.calculator import MACEQuantCalculator
from mdplugin.checkpoint import Checkpoint, Evaluation, evaluate_mace, require_elements
from mdplugin.equivariance import Equivariance, Evaluate, measure_equivariance
from mdplugin.errors import BoundError
from mdplugin.machine import choose_clock
from mdplugin.smoothness import N_POINTS, Smoothness, measure_smoothness
from mdplugin.structures import spread

FLOAT64 = "mace-torch float64"


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        probe_frames: frames of the probes, 0 for no probes.
        rotations, directions: of each of these frames, for equivariance and for paths.
        rounds: how often the artifacts are timed on each frame, in turns.
        seed: of rotations and directions.
    """

    probe_frames: int = 4
    rotations: int = 8
    directions: int = 4
    rounds: int = 15
    seed: int = 0

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value, least = getattr(self, field.name), int(field.name in ("rotations", "directions", "rounds"))
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**31:
                name = field.name.replace("_", "-")
                raise BoundError(f"{name}: expected a whole number of {least} or more, got {value!r}")

    def count_evaluations(self, n_frames: int, n_artifacts: int) -> int:
        """Evaluations of frames, mace-torch's too."""
        probed = min(self.probe_frames, n_frames)
        probes = probed * (1 + self.rotations + self.directions * N_POINTS)
        timing = (1 + self.rounds) * min(max(self.probe_frames, 1), n_frames)
        return n_frames + n_artifacts * (n_frames + probes + timing)


@dataclass(frozen=True)
class Errors:
    """Root mean square and largest errors over frames; energies per atom, forces and stresses per component.

    Energies of both sides have the same E0s, so that the error is that of the energy after E0s. Stress errors cover the
    frames that are periodic in three directions; NaN where there is none.
    """

    energy_rmse_meV_per_atom: float
    energy_max_meV_per_atom: float
    force_rmse_meV_per_A: float
    force_max_meV_per_A: float
    stress_max_meV_per_A3: float
    force_rmse_by_element_meV_per_A: dict[str, float]


@dataclass(frozen=True)
class Comparison:
    """One row of `mdplugin compare`.

    Attributes:
        name, precision: what was compared. content_sha256: of the artifact (archive.py), "" for mace-torch.
        float64: errors against mace-torch in float64.
        labels: errors against the frames' own energies and forces (DFT), or None without labels.
        equivariance, smoothness: of the probes, None without.
        ms_per_frame: median time of one ASE evaluation with a new neighbour list; CPU time where torch has one thread.
        file_MB: size of the artifact in 10⁶ bytes.
    """

    name: str
    precision: str
    content_sha256: str
    float64: Errors
    labels: Errors | None = None
    equivariance: Equivariance | None = None
    smoothness: Smoothness | None = None
    ms_per_frame: float = float("nan")
    file_MB: float = float("nan")

    def as_dict(self) -> dict:
        """Plain values for JSON; what was not measured is None."""
        return _without_nan(dataclasses.asdict(self))


def _without_nan(value):
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    return None if isinstance(value, float) and np.isnan(value) else value


def compare_artifacts(
    artifacts: Sequence[Artifact],
    checkpoint: Checkpoint,
    frames: Sequence[ase.Atoms],
    effort: Effort | None = None,
    advance: Callable[[], object] = lambda: None,
) -> list[Comparison]:
    """Compare each artifact with mace-torch in float64 on `frames`; the first row is mace-torch itself.

    Args:
        effort: None for the default.
        advance: called after each of `Effort.count_evaluations` evaluations.

    Raises:
        StructureError: a frame has an element the model does not know.
    """
    effort = effort or Effort()
    require_elements(checkpoint, frames)
    for artifact in artifacts:
        require_elements(checkpoint, frames, artifact.manifest.atomic_numbers)
    references = evaluate_mace(checkpoint, _counted(frames, advance))
    labels = [read_labels(frame) for frame in frames]
    rows = [
        Comparison(
            checkpoint.name,
            FLOAT64,
            "",
            _errors(references, references, frames),
            _label_errors(references, labels, frames),
        )
    ]
    rows += [measure_artifact(artifact, frames, references, effort, advance) for artifact in artifacts]
    calculators = [MACEQuantCalculator(artifact, skin=0) for artifact in artifacts]
    times = _time(calculators, spread(frames, max(effort.probe_frames, 1)), effort.rounds, advance)
    timed = zip(rows[1:], times, strict=True)
    return rows[:1] + [dataclasses.replace(row, ms_per_frame=ms) for row, ms in timed]


def measure_artifact(
    artifact: Artifact,
    frames: Sequence[ase.Atoms],
    references: Sequence[Evaluation],
    effort: Effort,
    advance: Callable[[], object] = lambda: None,
) -> Comparison:
    """The artifact's row, without its speed.

    Args:
        references: mace-torch in float64 on the frames. advance: called after each evaluation.

    Raises:
        StructureError: a result that is not finite.
    """
    calculator = MACEQuantCalculator(artifact, skin=0)
    results = [_evaluate(calculator, frame) for frame in _counted(frames, advance)]
    equivariance, smoothness = _probe(calculator, frames, effort, advance)
    return Comparison(
        name=artifact.path.name,
        precision=artifact.manifest.precision,
        content_sha256=content_sha256(artifact.path),
        float64=_errors(results, references, frames),
        labels=_label_errors(results, [read_labels(frame) for frame in frames], frames),
        equivariance=equivariance,
        smoothness=smoothness,
        file_MB=Path(artifact.path).stat().st_size / 1e6,
    )


def _counted(frames: Sequence[ase.Atoms], advance: Callable[[], object]) -> Iterator[ase.Atoms]:
    for frame in frames:
        yield frame
        advance()


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


def _evaluate(calculator: MACEQuantCalculator, frame: ase.Atoms) -> Evaluation:
    calculator.calculate(frame, ["energy", "forces"])
    values = calculator.results
    return Evaluation(values["energy"], values["energies"], values["forces"], values.get("stress"))


def _probe(
    calculator: MACEQuantCalculator,
    frames: Sequence[ase.Atoms],
    effort: Effort,
    advance: Callable[[], object],
) -> tuple[Equivariance | None, Smoothness | None]:
    if effort.probe_frames == 0:
        return None, None

    def evaluate(atoms: ase.Atoms) -> tuple[float, np.ndarray]:
        result = _evaluate(calculator, atoms)
        advance()
        return result.energy, result.forces

    return probe(evaluate, frames, effort)


def probe(evaluate: Evaluate, frames: Sequence[ase.Atoms], effort: Effort) -> tuple[Equivariance, Smoothness]:
    """Symmetry and smoothness of anything that gives energy and forces, on the effort's frames."""
    chosen = spread(frames, effort.probe_frames)
    return (
        measure_equivariance(evaluate, chosen, effort.rotations, effort.seed),
        measure_smoothness(evaluate, chosen, effort.directions, effort.seed),
    )


def _time(
    calculators: Sequence[MACEQuantCalculator],
    frames: Sequence[ase.Atoms],
    rounds: int,
    advance: Callable[[], object],
) -> list[float]:
    """Time per frame in ms: the median over rounds for each frame, their mean over frames.

    On each frame every calculator has its turn, and the one that begins changes from round to round: what else the
    machine does, and what the one before left in the caches, meets all alike. One round more goes first, to warm up.
    """
    clock = choose_clock(torch.get_num_threads())[1]
    times = np.empty((len(calculators), rounds + 1, len(frames)))
    for turn in range(rounds + 1):
        order = np.roll(np.arange(len(calculators)), -turn)
        for number, frame in enumerate(frames):
            for each in order:
                start = clock()
                calculators[each].calculate(frame, ["energy", "forces"])
                times[each, turn, number] = 1000 * (clock() - start)
                advance()
    return np.median(times[:, 1:], axis=1).mean(axis=1).tolist()


def _label_errors(
    values: Sequence[Evaluation], labels: Sequence[Evaluation | None], frames: Sequence[ase.Atoms]
) -> Errors | None:
    """Over the frames that carry labels."""
    kept = [each for each in zip(values, labels, frames, strict=True) if each[1] is not None]
    return _errors(*map(list, zip(*kept, strict=True))) if kept else None


def _errors(
    values: Sequence[Evaluation], references: Sequence[Evaluation], frames: Sequence[ase.Atoms]
) -> Errors:
    pairs = list(zip(values, references, strict=True))
    energy = np.array([(a.energy - b.energy) / len(a.forces) for a, b in pairs])
    force = np.concatenate([a.forces - b.forces for a, b in pairs])
    numbers = np.concatenate([frame.numbers for frame in frames])
    stress = [
        np.abs(a.stress - b.stress).max() for a, b in pairs if a.stress is not None and b.stress is not None
    ]
    return Errors(
        energy_rmse_meV_per_atom=1000 * _rms(energy),
        energy_max_meV_per_atom=1000 * float(np.abs(energy).max()),
        force_rmse_meV_per_A=1000 * _rms(force),
        force_max_meV_per_A=1000 * float(np.abs(force).max()),
        stress_max_meV_per_A3=1000 * float(np.max(stress)) if stress else float("nan"),
        force_rmse_by_element_meV_per_A={
            chemical_symbols[z]: 1000 * _rms(force[numbers == z]) for z in np.unique(numbers)
        },
    )


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))
