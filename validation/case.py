"""The statement of an NVE case: what is run, how long, how hot; refused before any work if impossible."""

import math
import os
from dataclasses import dataclass

from mdplugin.errors import CaseError

ENGINES = ("ase", "lammps")
# The drift's error bar comes from 64 coarse means of at least 4 samples (drift.py).
MIN_STEPS = 256
MAX_SEED = 900_000_000 - 2  # LAMMPS's thermostat takes seeds below 9e8


@dataclass(frozen=True)
class NveCase:
    """One constant-energy comparison of an artifact with its float64 reference.

    Attributes:
        model: the artifact to judge.
        reference: `.model` of mace-torch, name of a bundled potential, or an artifact of precision fp64.
        engine: "ase" or "lammps".
        steps: length of each of the two NVE runs.
        timestep_fs: of the equilibration too.
        temperature_K: of the velocities drawn and of the thermostat.
        equilibration_steps: Langevin steps with the artifact before the NVE runs; 0 for none.
        structure: file for ASE (its last frame) or bundled structure; None for the reference's own box.
        seed: of velocities and thermostat.
        threads: torch threads of both engines; None leaves torch's number.
        trajectory_every: steps between the frames that are written.
        trust: whether a `.model` as reference is opened by running its pickle, see `read_checkpoint`.
    """

    model: str | os.PathLike
    reference: str | os.PathLike
    engine: str
    steps: int
    timestep_fs: float = 0.5
    temperature_K: float = 300.0
    equilibration_steps: int = 500
    structure: str | os.PathLike | None = None
    seed: int = 0
    threads: int | None = None
    trajectory_every: int = 20
    trust: bool = False

    def __post_init__(self):
        if self.engine not in ENGINES:
            raise CaseError(f"engine: expected one of {', '.join(ENGINES)}, got '{self.engine}'")
        _require_integer("steps", self.steps, MIN_STEPS, "the drift's error bar needs them")
        _require_integer("equilibration_steps", self.equilibration_steps, 0)
        _require_integer("trajectory_every", self.trajectory_every, 1)
        _require_integer("seed", self.seed, 0)
        if self.seed > MAX_SEED:
            raise CaseError(f"seed: expected at most {MAX_SEED}, got {self.seed}")
        if self.threads is not None:
            _require_integer("threads", self.threads, 1)
        _require_positive("timestep_fs", self.timestep_fs)
        _require_positive("temperature_K", self.temperature_K)

    @property
    def length_ps(self) -> float:
        """Length of one NVE run."""
        return self.steps * self.timestep_fs / 1000


def _require_integer(name: str, value: int, least: int, reason: str = "") -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        because = f" ({reason})" if reason else ""
        raise CaseError(f"{name}: expected an integer of at least {least}{because}, got {value!r}")


def _require_positive(name: str, value: float) -> None:
    if not isinstance(value, (int, float)) or not (math.isfinite(value) and value > 0):
        raise CaseError(f"{name}: expected a positive number, got {value!r}")
