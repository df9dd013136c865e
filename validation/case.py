"""The statement of a case: what is run, how long, how hot; refused before any work if impossible."""

import dataclasses
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from mdplugin.errors import CaseError
from mdplugin.validation.limits import Limit, set_limits

ENSEMBLES = ("nve", "nvt", "npt", "stability")
ENGINES = ("ase", "lammps")
REFERENCE = "reference"  # the label of the float64 runs
MAX_SEED = 400_000_000  # LAMMPS takes seeds below 9e8; replicas and segments add to it
MIN_STEPS = 256  # 64 coarse means of at least 4 samples (statistics.py)
MIN_SAMPLES = 4  # of a mean with an error (statistics.py)
MAX_REPLICAS = 1000  # each with as many directories as kinds of runs
MAX_CORES = 1024  # of one run, in threads or in ranks
MAX_SEGMENTS = 100_000  # each a file
MAX_STEPS = 2**31  # LAMMPS counts the steps of a run in 32 bits
MIN_VELOCITIES = 8  # of a spectrum
MAX_VELOCITY_FS = 4.17  # Nyquist's frequency is 4,000 cm^-1 then; an O-H stretch has 3,400 to 3,800

# what the reference is judged by, whatever a case asks for (verdict.py)
SOUNDNESS = (
    "energy_drift",
    "drift_ratio",
    "timestep_exponent",
    "temperature",
    "kinetic_distribution",
    "gradient",
    "volume_trend",
    "bonds_share",
)
LATER_SIGNS = ("timestep_exponent", "gradient")  # of these, what takes more than its main runs
ONLY_SOUNDNESS = {"npt": ("volume_trend",), "stability": ("bonds_share",)}  # what nobody else is judged by
# ensemble -> what is measured; a case may name fewer
OBSERVABLES = {
    "nve": (
        "energy_drift", "drift_ratio", "energy_fluctuation", "timestep_exponent", "momentum", "angular_momentum",
        "reversal", "gradient", "shadow",
    ),
    "nvt": (
        "temperature", "kinetic_distribution", "energy_drift", "gradient", "pressure_gradient", "pressure", "rdf",
        "coordination", "diffusion", "vdos", "shadow",
    ),
    "npt": (
        "temperature", "gradient", "pressure_gradient", "density", "pressure", "volume_fluctuation", "rdf", "shadow",
    ),
    "stability": ("peak_temperature", "bonds", "minimum_distance", "shadow"),
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """Artifacts against their float64 reference in one ensemble. A YAML case has these names as keys.

    Attributes:
        ensemble: "nve", "nvt", "npt", or "stability" (nvt, usually hot: does it hold together?).
        models: artifacts to judge.
        reference: `.model` of mace-torch, name of a bundled potential, or an artifact of precision fp64.
        engine: "ase" or "lammps".
        structure: file that ASE reads (its last frame) or bundled structure; none for the reference's own box.
        repeat: copies of the structure along its cell vectors.
        timestep_fs: of the dynamics.
        temperature_K: of the thermostat, and of the velocities that runs start with.
        pressure_bar: of the barostat, in npt alone; of the bundled water in its own box, where none is given, the
            9.8 kbar that it has there.
        length_ps: of each run.
        equilibration_ps: Langevin dynamics with the reference before each run; in nvt and npt as much again, with
            the run's own potential and ensemble, is left out of the averages.
        replicas: independent runs of every potential, two or more; replica i has the seed `seed` + i.
        seed: of the first replica.
        threads: torch threads of one run.
        ranks: MPI ranks of one run (lammps).
        sample_fs: time between stored pressures and volumes.
        frame_fs: time between stored positions.
        velocity_fs: time between velocities, for spectra; at most 4.17.
        checkpoint_ps: length of the segments after which a run can be taken up again.
        observables: names of what is judged; none for all that the ensemble has (OBSERVABLES).
        limits: numbers of your own, by name (validation/limits.py).
    """

    ensemble: str
    models: tuple[str, ...]
    reference: str
    engine: str = "lammps"
    structure: str | None = None
    repeat: tuple[int, int, int] = (1, 1, 1)
    timestep_fs: float = 0.5
    temperature_K: float = 300.0
    pressure_bar: float = 1.0
    length_ps: float = 2.0
    equilibration_ps: float = 0.5
    replicas: int = 3
    seed: int = 0
    threads: int = 1
    ranks: int = 1
    sample_fs: float = 5.0
    frame_fs: float = 20.0
    velocity_fs: float = 2.0
    checkpoint_ps: float = 2.0
    observables: tuple[str, ...] = ()
    limits: dict[str, float] = field(default_factory=dict)

    _POSITIVE: ClassVar[tuple[str, ...]] = (
        "timestep_fs", "temperature_K", "length_ps", "sample_fs", "frame_fs", "velocity_fs", "checkpoint_ps",
    )  # fmt: skip
    _TIMES: ClassVar[tuple[str, ...]] = (
        "length_ps", "equilibration_ps", "checkpoint_ps", "sample_fs", "frame_fs", "velocity_fs",
    )  # fmt: skip
    _COUNTS: ClassVar[dict[str, int]] = {"replicas": 2, "seed": 0, "threads": 1, "ranks": 1}
    _AT_MOST: ClassVar[dict[str, int]] = {
        "replicas": MAX_REPLICAS, "seed": MAX_SEED, "threads": MAX_CORES, "ranks": MAX_CORES,
    }  # fmt: skip

    def __post_init__(self):
        _require_choice("ensemble", self.ensemble, ENSEMBLES)
        _require_choice("engine", self.engine, ENGINES)
        self._require_models()
        for name in self._POSITIVE:
            _require_number(name, getattr(self, name), positive=True)
        _require_number("equilibration_ps", self.equilibration_ps, positive=False)
        _require_number("pressure_bar", self.pressure_bar, positive=None)
        for name, least in self._COUNTS.items():
            require_integer(name, getattr(self, name), least)
        self._require_repeat()
        for name, most in self._AT_MOST.items():
            if getattr(self, name) > most:
                raise CaseError(f"{name}: expected at most {most}, got {getattr(self, name)}")
        if self.ranks > 1 and self.engine != "lammps":
            raise CaseError(
                f"ranks: expected 1 with engine {self.engine}, got {self.ranks}: use engine lammps"
            )
        self._require_steps()
        self._require_spacings()
        for name in self.observables:
            _require_choice("observables", name, OBSERVABLES[self.ensemble])
            if self.observables.count(name) > 1:
                raise CaseError(f"observables: expected each once, got '{name}' again: remove one")
        explosion_K = self.limit_table["explosion_K"].value
        if self.temperature_K >= explosion_K:
            raise CaseError(
                f"temperature_K: expected less than the limit explosion_K, {explosion_K:g} K, at which a run is ended, "
                f"got {self.temperature_K:g}"
            )
        if "vdos" in self.observables:
            self._require_velocities()

    def _require_steps(self) -> None:
        """A number of steps that can be done, and is enough."""
        for name in self._TIMES:
            value, unit = getattr(self, name), name[-2:]
            if not float(value) * (1000 if unit == "ps" else 1) / self.timestep_fs < MAX_STEPS:
                raise CaseError(
                    f"{name}: expected fewer than {MAX_STEPS} steps (LAMMPS counts no further), got {value:g} {unit} in "
                    f"steps of {self.timestep_fs:g} fs"
                )
        if self.steps < MIN_STEPS:
            raise CaseError(
                f"length_ps: expected at least {MIN_STEPS} steps (error bars need them), got {self.length_ps:g} ps, "
                f"{self.steps} steps of {self.timestep_fs:g} fs"
            )

    def _require_spacings(self) -> None:
        """A step or more apart; samples and frames enough for an average, files that can be counted."""
        for name in ("sample_fs", "frame_fs", "checkpoint_ps"):
            value, unit = getattr(self, name), name[-2:]
            least = self.timestep_fs / (1000 if unit == "ps" else 1)
            if value < min(least, getattr(Case, name)):  # the defaults are a step where steps are longer
                raise CaseError(
                    f"{name}: expected at least timestep_fs, {least:g} {unit}, got {value:g} {unit}"
                )
        if (segments := self.length_ps / self.checkpoint_ps) > MAX_SEGMENTS:
            raise CaseError(
                f"checkpoint_ps: expected at most {MAX_SEGMENTS} in length_ps, {self.length_ps:g} ps, got "
                f"{self.checkpoint_ps:g} ps, {segments:.0f}: lengthen it"
            )
        for name in ("sample_fs", "frame_fs"):
            found = self.steps // self.count_steps(getattr(self, name))
            if found < MIN_SAMPLES:
                raise CaseError(
                    f"{name}: expected at least {MIN_SAMPLES} in length_ps, {self.length_ps:g} ps (error bars need them), "
                    f"got {getattr(self, name):g} fs, {found}: shorten it"
                )

    def _require_velocities(self) -> None:
        """Velocities that make a spectrum, up to the highest frequencies of molecules."""
        spacing_fs, otherwise = self._velocity_spacing_fs, "shorten it, or leave vdos out of observables"
        if spacing_fs > MAX_VELOCITY_FS:
            raise CaseError(
                f"velocity_fs: expected at most {MAX_VELOCITY_FS} fs between velocities (an O-H stretch of 3,400 to "
                f"3,800 cm^-1 seems to be of a lower frequency beyond), got {spacing_fs:g} fs in steps of "
                f"{self.timestep_fs:g} fs: {otherwise}"
            )
        found = int(min(self.length_ps, self.checkpoint_ps) * 1000 / spacing_fs)
        if found < MIN_VELOCITIES:
            raise CaseError(
                f"velocity_fs: expected at least {MIN_VELOCITIES} velocities in length_ps and in checkpoint_ps (a "
                f"spectrum needs them), got {found}: {otherwise}"
            )

    def _require_models(self) -> None:
        if not self.models:
            raise CaseError("models: expected at least one artifact, got none")
        for path, label in zip(self.models, self.labels, strict=True):
            if label == REFERENCE or label.startswith(".") or self.labels.count(label) > 1:
                raise CaseError(
                    f"models: expected files with names of their own, got {path} twice, hidden, or 'reference'"
                )

    def _require_repeat(self) -> None:
        if len(self.repeat) != 3:
            raise CaseError(f"repeat: expected three whole numbers, got {self.repeat!r}")
        for number in self.repeat:
            require_integer("repeat", number, 1)

    @property
    def labels(self) -> tuple[str, ...]:
        """The candidates' names: their files' without suffix."""
        return tuple(Path(model).stem for model in self.models)

    @property
    def steps(self) -> int:
        """Steps of one run."""
        return self.count_steps(self.length_ps * 1000)

    @property
    def _velocity_spacing_fs(self) -> float:
        return self.count_steps(self.velocity_fs) * self.timestep_fs

    @property
    def chosen_observables(self) -> tuple[str, ...]:
        """What is measured; of all, without the spectrum where the steps are too long for one."""
        if self.observables:
            return self.observables
        too_long = self._velocity_spacing_fs > MAX_VELOCITY_FS
        return tuple(name for name in OBSERVABLES[self.ensemble] if not (name == "vdos" and too_long))

    @property
    def sound_observables(self) -> tuple[str, ...]:
        """What is measured of the reference: what is chosen, and what it has to be judged by."""
        there = (*OBSERVABLES[self.ensemble], *ONLY_SOUNDNESS.get(self.ensemble, ()))
        needed = [name for name in SOUNDNESS if name in there]
        return tuple(dict.fromkeys([*self.chosen_observables, *needed]))

    @property
    def limit_table(self) -> dict[str, Limit]:
        """The limits of this case."""
        return set_limits(self.limits)

    def count_steps(self, time_fs: float) -> int:
        """Steps nearest to a time, at least one."""
        return max(1, round(time_fs / self.timestep_fs))

    def replace(self, **changes) -> "Case":
        """The case with some fields changed."""
        return dataclasses.replace(self, **changes)


def _require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise CaseError(f"{name}: expected one of {', '.join(choices)}, got '{value}'")


def require_integer(name: str, value: int, least: int) -> None:
    """Raise CaseError unless `value` is a whole number of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise CaseError(f"{name}: expected an integer of at least {least}, got {value!r}")


def _require_number(name: str, value: float, *, positive: bool | None) -> None:
    """`positive`: True for more than zero, False for zero or more, None for any finite number."""
    good = (
        isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    )
    if not good or (positive and not value > 0) or (positive is False and value < 0):
        kind = {True: "a positive number", False: "a number of zero or more", None: "a finite number"}[
            positive
        ]
        raise CaseError(f"{name}: expected {kind}, got {value!r}")
