"""What a run leaves: energies of every step, samples, frames, spectra; and why it broke off, if it did."""

import contextlib
import json
import os
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import ase
import numpy as np
from ase import units

_META = "meta"


@dataclass(frozen=True)
class Failure:
    """The step at which a run could not go on, and why."""

    step: int
    reason: str


@dataclass(frozen=True)
class Series:
    """One run, or one segment of it; time is zero at its first step.

    Attributes:
        time_ps, potential_eV, kinetic_eV: (n_steps + 1,) of the whole system, every step.
        conserved_eV: (n_steps + 1,) the quantity that the ensemble conserves, up to a constant; NaN if unknown.
        wall_s: (n_steps + 1,) time that the step took.
        sample_time_ps: (n_samples,).
        pressure_bar, volume_A3: (n_samples,); NaN without a cell.
        momentum: (n_samples, 3) sqrt(amu eV), and angular_momentum: (n_samples, 3) Å sqrt(amu eV), about the centre
            of mass.
        frame_time_ps: (n_frames,).
        positions: (n_frames, n_atoms, 3) Å, unwrapped. cells: (n_frames, 3, 3) Å.
        spectrum: (n_windows, n_elements, n_frequencies) power of the velocities by element, ascending atomic number.
        frequency_per_cm: (n_frequencies,).
        n_atoms, degrees_of_freedom: of the system.
        failure: None if all steps were done.
    """

    time_ps: np.ndarray
    potential_eV: np.ndarray
    kinetic_eV: np.ndarray
    conserved_eV: np.ndarray
    wall_s: np.ndarray
    n_atoms: int
    degrees_of_freedom: int
    sample_time_ps: np.ndarray = field(default_factory=lambda: np.zeros((0,)))
    pressure_bar: np.ndarray = field(default_factory=lambda: np.zeros((0,)))
    volume_A3: np.ndarray = field(default_factory=lambda: np.zeros((0,)))
    momentum: np.ndarray = field(
        default_factory=lambda: np.zeros(
            (
                0,
                3,
            )
        )
    )
    angular_momentum: np.ndarray = field(
        default_factory=lambda: np.zeros(
            (
                0,
                3,
            )
        )
    )
    frame_time_ps: np.ndarray = field(default_factory=lambda: np.zeros((0,)))
    positions: np.ndarray = field(
        default_factory=lambda: np.zeros(
            (
                0,
                0,
                3,
            )
        )
    )
    cells: np.ndarray = field(
        default_factory=lambda: np.zeros(
            (
                0,
                3,
                3,
            )
        )
    )
    spectrum: np.ndarray = field(
        default_factory=lambda: np.zeros(
            (
                0,
                0,
                0,
            )
        )
    )
    frequency_per_cm: np.ndarray = field(default_factory=lambda: np.zeros((0,)))
    failure: Failure | None = None

    @property
    def steps(self) -> int:
        """Steps done."""
        return max(0, len(self.time_ps) - 1)

    @property
    def length_ps(self) -> float:
        """Time done."""
        return float(self.time_ps[-1]) if self.steps else 0.0

    @property
    def total_meV_per_atom(self) -> np.ndarray:  # noqa: N802
        """(n_steps + 1,) total energy, relative to the first step's."""
        # subtracted before the division: E0s are thousands of eV
        potential, kinetic = (values - values[:1] for values in (self.potential_eV, self.kinetic_eV))
        return 1000 * (potential + kinetic) / self.n_atoms

    @property
    def conserved_meV_per_atom(self) -> np.ndarray:  # noqa: N802
        """(n_steps + 1,) conserved quantity, relative to the first step's."""
        return 1000 * (self.conserved_eV - self.conserved_eV[:1]) / self.n_atoms

    @property
    def temperature_K(self) -> np.ndarray:  # noqa: N802
        """(n_steps + 1,) kinetic temperature."""
        return 2 * self.kinetic_eV / (self.degrees_of_freedom * units.kB)


def describe_collapse(
    potential_eV: float, kinetic_eV: float, degrees_of_freedom: int, explosion_K: float
) -> str | None:
    """Why a state is not worth another step, or None; above `explosion_K` it is not."""
    if not (np.isfinite(potential_eV) and np.isfinite(kinetic_eV)):
        return f"energy is not finite (potential {potential_eV:g} eV, kinetic {kinetic_eV:g} eV)"
    temperature = 2 * kinetic_eV / (degrees_of_freedom * units.kB)
    if temperature > explosion_K:
        return f"temperature {temperature:.4g} K is above {explosion_K:g} K: the system explodes"
    return None


def find_collapse(
    potential_eV: np.ndarray, kinetic_eV: np.ndarray, degrees_of_freedom: int, explosion_K: float
) -> Failure | None:
    """The first step that is not finite or too hot."""
    for step, (potential, kinetic) in enumerate(zip(potential_eV, kinetic_eV, strict=True)):
        if reason := describe_collapse(potential, kinetic, degrees_of_freedom, explosion_K):
            return Failure(step, reason)
    return None


_PER_STEP = ("time_ps", "potential_eV", "kinetic_eV", "conserved_eV", "wall_s")
_PER_SAMPLE = ("sample_time_ps", "pressure_bar", "volume_A3", "momentum", "angular_momentum")
_PER_FRAME = ("frame_time_ps", "positions", "cells")


def join_series(segments: Sequence[Series]) -> Series:
    """Segments of one run, each of which starts with the last state of the one before, as one series.

    The conserved quantity, which every segment counts from its own zero, is made continuous. The spectrum of a last
    segment that is too short for the resolution of the others is left out.
    """
    first = segments[0]
    columns = {name: [getattr(first, name)] for name in (*_PER_STEP, *_PER_SAMPLE, *_PER_FRAME)}
    failure, time, steps, conserved = first.failure, first.length_ps, first.steps, _last(first.conserved_eV)
    for segment in segments[1:]:
        shift = {"time_ps": time, "sample_time_ps": time, "frame_time_ps": time}
        shift["conserved_eV"] = conserved - segment.conserved_eV[0] if len(segment.conserved_eV) else 0.0
        for name, parts in columns.items():
            parts.append(getattr(segment, name)[1:] + shift.get(name, 0))
        if segment.failure is not None:
            failure = Failure(steps + segment.failure.step, segment.failure.reason)
        time, steps, conserved = (
            time + segment.length_ps,
            steps + segment.steps,
            _last(columns["conserved_eV"][-1]),
        )
    return Series(
        **{name: np.concatenate(parts) for name, parts in columns.items()},
        n_atoms=first.n_atoms,
        degrees_of_freedom=first.degrees_of_freedom,
        spectrum=np.concatenate(
            [each.spectrum for each in segments if len(each.frequency_per_cm) == len(first.frequency_per_cm)]
        ),
        frequency_per_cm=first.frequency_per_cm,
        failure=failure,
    )


def _last(values: np.ndarray) -> float:
    return float(values[-1]) if len(values) else 0.0


def save_series(path: Path, series: Series) -> None:
    """Write a .npz that appears whole or not at all, and stays when the power fails.

    Raises:
        OSError: the disk is full.
    """
    arrays = {each.name: getattr(series, each.name) for each in fields(Series)}
    failure = arrays.pop("failure")
    meta = {"failure": None if failure is None else [failure.step, failure.reason]}
    meta |= {name: arrays.pop(name) for name in ("n_atoms", "degrees_of_freedom")}
    meta["steps"] = series.steps
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.savez(file, **arrays, **{_META: np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)})
    replace_durably(part, path)


def replace_durably(part: Path, path: Path) -> None:
    """Rename `part` to `path` so that a power failure leaves the whole file or what was there before.

    Raises:
        OSError: the disk is full.
    """
    with part.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(part, path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some file systems cannot, and need not
            os.fsync(directory)
    finally:
        os.close(directory)


def copy_durably(source: Path, path: Path) -> None:
    """Copy a file, also to itself or over a link, so that a power failure leaves all of it or what was there before.

    Raises:
        OSError: the disk is full.
    """
    part = path.with_name(f".{path.name}")
    try:
        shutil.copyfile(source, part)
        replace_durably(part, path)
    finally:
        part.unlink(missing_ok=True)


def is_whole(path: Path) -> bool:
    """Whether a .npz is there and its checksums are right: a power failure tears files."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (FileNotFoundError, EOFError, NotImplementedError, zipfile.BadZipFile):
        return False


def load_series(path: Path) -> Series:
    """Read what `save_series` wrote."""
    with np.load(path) as arrays:
        meta = json.loads(arrays[_META].tobytes())
        failure, _ = meta.pop("failure"), meta.pop("steps")
        values = {name: arrays[name] for name in arrays.files if name != _META}
    return Series(**values, **meta, failure=None if failure is None else Failure(*failure))


def read_extent(path: Path) -> tuple[int, Failure | None] | None:
    """Steps and failure of a stored series, without its arrays; None where no whole file of `save_series` is."""
    if not is_whole(path):
        return None
    with np.load(path) as arrays:
        if _META not in arrays.files:
            return None
        meta = json.loads(arrays[_META].tobytes())
    return meta["steps"], None if meta["failure"] is None else Failure(*meta["failure"])


def read_frames(series: Series, atoms: ase.Atoms, indices: Sequence[int]) -> list[ase.Atoms]:
    """Stored frames as atoms like `atoms`, without velocities."""
    frames = []
    for index in indices:
        frame = ase.Atoms(
            atoms.numbers, positions=series.positions[index], cell=series.cells[index], pbc=atoms.pbc
        )
        frame.set_masses(atoms.get_masses())
        frames.append(frame)
    return frames
