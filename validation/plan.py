"""Case -> the runs that it needs, and each run -> its segments: what is done, in what order, from which seeds.

Runs do not depend on each other: each equilibrates for itself, from the same seed and with the reference potential, so
that runs of one replica start from the same state, bit for bit, wherever they are executed. Where another run of the
replica is at hand, its equilibration is copied.

A segment starts from the file that the one before left, also when nothing interrupts the run. So a run that was
killed and taken up again is bit for bit the run that was not.
"""

import hashlib
import math
import re
from dataclasses import dataclass
from pathlib import Path

from mdplugin.validation.case import MIN_STEPS, REFERENCE, Case

EQUILIBRATION, REVERSAL = "equilibration", "reversal"
COARSE_FACTOR = 2  # of the timestep, for its exponent
# runs from one state stay together so long: 1 ps of vibrations of 10 fs and more in steps of 0.5 fs
COMMON_STEPS = 2000
REVERSAL_FS = 100.0
SEEDS = 800_000_000  # LAMMPS takes seeds below 9e8


@dataclass(frozen=True)
class Segment:
    """A piece of a run between two checkpoints.

    Attributes:
        number: position in the run.
        phase: "equilibration", "reversal", or the ensemble "nve", "nvt", "npt".
        potential: label.
        steps: to do. offset: steps of the same phase done before.
        timestep_fs: of the dynamics.
        seed: of the thermostat.
        velocity_every: steps between velocities for the spectrum, 0 for none.
        is_measured: whether it counts; what comes before is preparation.
    """

    number: int
    phase: str
    potential: str
    steps: int
    offset: int
    timestep_fs: float
    seed: int
    velocity_every: int = 0
    is_measured: bool = True


@dataclass(frozen=True)
class RunPlan:
    """One run of one potential.

    Attributes:
        label: of the potential.
        replica: from 0 on.
        kind: "main", "coarse" (larger timestep), or "reversal".
        seed: of the replica: velocities and equilibration.
        segments: in order.
    """

    label: str
    replica: int
    kind: str
    seed: int
    segments: tuple[Segment, ...]

    @property
    def name(self) -> str:
        """Its directory's name."""
        return f"{self.label}-{self.replica}" + ("" if self.kind == "main" else f"-{self.kind}")

    def list_twins(self, runs: Path) -> list[Path]:
        """Directories in `runs` of the other runs of this replica, of all potentials and kinds: they equilibrate alike."""
        name = re.compile(rf".*-{self.replica}(-coarse|-reversal)?")
        return sorted(path for path in runs.iterdir() if name.fullmatch(path.name) and path.name != self.name)

    @property
    def steps(self) -> int:
        """All steps, preparation included."""
        return sum(segment.steps * (2 if segment.phase == REVERSAL else 1) for segment in self.segments)


def plan_runs(case: Case) -> tuple[RunPlan, ...]:
    """All runs of a case, the reference's first: it is judged as soon as they are done (study.py)."""
    return tuple(
        _plan_run(case, label, replica, kind)
        for kind in ("main", "coarse", "reversal")
        for label in (REFERENCE, *case.labels)
        if kind in _kinds(case, label)
        for replica in range(case.replicas)
    )


def _kinds(case: Case, label: str) -> tuple[str, ...]:
    """The reference also runs for what it is judged by though the case does not ask for it, if that is not the longest."""
    if case.ensemble != "nve":
        return ("main",)
    is_judged = label == REFERENCE and case.steps >= COMMON_STEPS
    measured = case.sound_observables if is_judged else case.chosen_observables
    extra = {"timestep_exponent": "coarse", "reversal": "reversal"}
    return ("main", *(kind for name, kind in extra.items() if name in measured))


def _plan_run(case: Case, label: str, replica: int, kind: str) -> RunPlan:
    seed = case.seed + replica
    fine, preparation = case.timestep_fs, round(case.equilibration_ps * 1000 / case.timestep_fs)
    segments = _cut(case, EQUILIBRATION, REFERENCE, preparation, fine, seed, is_measured=False)
    if kind == "coarse":
        steps = max(MIN_STEPS, min(COMMON_STEPS, case.steps) // COARSE_FACTOR)
        segments += _cut(case, "nve", label, steps, COARSE_FACTOR * fine, seed, len(segments))
    elif kind == "reversal":
        segments += _cut(case, REVERSAL, label, case.count_steps(REVERSAL_FS), fine, seed, len(segments))
    elif case.ensemble == "stability":
        segments += _cut(case, "nvt", label, case.steps, fine, seed, len(segments))
    else:
        if (
            case.ensemble != "nve"
        ):  # averages are of the potential's own equilibrium; trajectories start as one
            segments += _cut(
                case, case.ensemble, label, preparation, fine, seed, len(segments), is_measured=False
            )
        segments += _cut(case, case.ensemble, label, case.steps, fine, seed, len(segments))
    return RunPlan(label, replica, kind, seed, tuple(segments))


def sampling_steps(case: Case, timestep_fs: float) -> tuple[int, int]:
    """Steps between samples and between frames."""
    return tuple(max(1, round(time_fs / timestep_fs)) for time_fs in (case.sample_fs, case.frame_fs))


def _cut(
    case: Case,
    phase: str,
    potential: str,
    steps: int,
    timestep_fs: float,
    seed: int,
    first: int = 0,
    is_measured: bool = True,
) -> list[Segment]:
    """A phase in segments of `checkpoint_ps`, numbered from `first` on; a reversal is one."""
    velocity_every = 0
    if phase == "nvt" and is_measured and "vdos" in case.chosen_observables:
        velocity_every = max(1, round(case.velocity_fs / timestep_fs))
    longest = steps
    if phase != REVERSAL:
        # whole numbers of sampling intervals, so that samples are evenly spaced over segments too
        cadence = math.lcm(velocity_every or 1, *sampling_steps(case, timestep_fs))
        longest = cadence * max(1, round(case.checkpoint_ps * 1000 / timestep_fs / cadence))
    return [
        Segment(
            number=number,
            phase=phase,
            potential=potential,
            steps=min(longest, steps - offset),
            offset=offset,
            timestep_fs=timestep_fs,
            seed=_draw_seed(seed, potential, phase, number),
            velocity_every=velocity_every,
            is_measured=is_measured,
        )
        for number, offset in enumerate(range(0, steps, longest), first)
    ]


def _draw_seed(seed: int, potential: str, phase: str, number: int) -> int:
    """Of a segment's thermostat: its own, whatever other potentials a case has.

    The equilibration's is the replica's alone, since it is always done with the reference.
    """
    name = f"{seed} {potential} {phase} {number}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little") % SEEDS
