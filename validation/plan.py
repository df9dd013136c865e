"""Case -> the runs that it needs, and each run -> its segments: what is done, in what order, from which seeds.

Runs do not depend on each other: each equilibrates for itself, from the same seed and with the reference potential, so
that runs of one replica start from the same state, bit for bit, wherever they are executed.

A segment starts from the file that the one before left, also when nothing interrupts the run. So a run that was
killed and taken up again is bit for bit the run that was not.
"""

import math
from dataclasses import dataclass

from mdplugin.validation.case import MIN_STEPS, REFERENCE, Case

EQUILIBRATION, SETTLING, REVERSAL = "equilibration", "settling", "reversal"
COARSE_FACTOR = 2  # of the timestep, for its exponent
# runs from one state stay together so long: 1 ps of vibrations of 10 fs and more in steps of 0.5 fs
COMMON_STEPS = 2000
REVERSAL_FS = 100.0
SEED_STRIDE = 1000  # replicas' seeds are consecutive; segments' and potentials' lie between


@dataclass(frozen=True)
class Segment:
    """A piece of a run between two checkpoints.

    Attributes:
        number: position in the run.
        phase: "equilibration", "settling", "reversal", or the ensemble "nve", "nvt", "npt".
        potential: label.
        steps: to do. offset: steps of the same phase done before.
        timestep_fs: of the dynamics.
        seed: of the thermostat.
        velocity_every: steps between velocities for the spectrum, 0 for none.
    """

    number: int
    phase: str
    potential: str
    steps: int
    offset: int
    timestep_fs: float
    seed: int
    velocity_every: int = 0

    @property
    def is_measured(self) -> bool:
        """Whether it counts: what comes before is preparation."""
        return self.phase not in (EQUILIBRATION, SETTLING)


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

    @property
    def steps(self) -> int:
        """All steps, preparation included."""
        return sum(segment.steps * (2 if segment.phase == REVERSAL else 1) for segment in self.segments)


def plan_runs(case: Case) -> tuple[RunPlan, ...]:
    """All runs of a case, the reference's first: a case that is at fault shows early."""
    return tuple(
        _plan_run(case, label, index, replica, kind)
        for kind in _kinds(case)
        for index, label in enumerate((REFERENCE, *case.labels))
        for replica in range(case.replicas)
    )


def _kinds(case: Case) -> tuple[str, ...]:
    if case.ensemble != "nve":
        return ("main",)
    extra = {"timestep_exponent": "coarse", "reversal": "reversal"}
    return ("main", *(kind for name, kind in extra.items() if name in case.chosen_observables))


def _plan_run(case: Case, label: str, index: int, replica: int, kind: str) -> RunPlan:
    seed = case.seed + replica
    phases = [
        (EQUILIBRATION, REFERENCE, round(case.equilibration_ps * 1000 / case.timestep_fs), case.timestep_fs)
    ]
    if kind == "coarse":
        steps = max(MIN_STEPS, min(COMMON_STEPS, case.steps) // COARSE_FACTOR)
        phases.append(("nve", label, steps, COARSE_FACTOR * case.timestep_fs))
    elif kind == "reversal":
        phases.append((REVERSAL, label, case.count_steps(REVERSAL_FS), case.timestep_fs))
    else:
        ensemble = "nvt" if case.ensemble == "stability" else case.ensemble
        if ensemble == "npt":
            phases.append((SETTLING, label, phases[0][2], case.timestep_fs))
        phases.append((ensemble, label, case.steps, case.timestep_fs))
    segments: list[Segment] = []
    for phase in phases:
        # the equilibration's seeds are the replica's alone, those of what follows the potential's too
        base = (seed + 1) * SEED_STRIDE % 800_000_000 + 100 * (9 if phase[0] == EQUILIBRATION else index % 9)
        segments += _cut(case, phase, len(segments), base)
    return RunPlan(label, replica, kind, seed, tuple(segments))


def sampling_steps(case: Case, timestep_fs: float) -> tuple[int, int]:
    """Steps between samples and between frames."""
    return tuple(max(1, round(time_fs / timestep_fs)) for time_fs in (case.sample_fs, case.frame_fs))


def _cut(case: Case, phase: tuple[str, str, int, float], first: int, base_seed: int) -> list[Segment]:
    """A phase in segments of `checkpoint_ps`; a reversal is one."""
    name, potential, steps, timestep_fs = phase
    velocity_every = 0
    if name == "nvt" and "vdos" in case.chosen_observables:
        velocity_every = max(1, round(case.velocity_fs / timestep_fs))
    longest = steps
    if name != REVERSAL:
        # whole numbers of sampling intervals, so that samples are evenly spaced over segments too
        cadence = math.lcm(velocity_every or 1, *sampling_steps(case, timestep_fs))
        longest = cadence * max(1, round(case.checkpoint_ps * 1000 / timestep_fs / cadence))
    segments = []
    for offset in range(0, steps, longest):
        number = first + len(segments)
        segments.append(
            Segment(
                number=number,
                phase=name,
                potential=potential,
                steps=min(longest, steps - offset),
                offset=offset,
                timestep_fs=timestep_fs,
                seed=base_seed + number % 100,
                velocity_every=velocity_every,
            )
        )
    return segments
