"""Policy -> its row of `compare` and its time on the frames, measured once and stored (measurements.py)."""

import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import ase

from mdplugin.artifact import Artifact, load
from mdplugin.checkpoint import Checkpoint, Evaluation, evaluate_mace
from mdplugin.compare import Comparison, Effort, measure_artifact
from mdplugin.errors import FidelityError, StructureError, Unsupported
from mdplugin.export import build_trial
from mdplugin.machine import choose_clock
from mdplugin.precision import Precision
from mdplugin.structures import spread
from mdplugin.tune.measurements import Measurements
from mdplugin.tune.timing import Runner, Timing, summarize, take_rounds

TIMED_FRAMES = 2


@dataclass
class Workshop:
    """Builds and measures policies of one potential on one set of frames.

    Attributes:
        scratch: directory for artifacts that are only measured.
        threads: torch's, for the choice of the clock. step: called with a text after every measurement.
        calibration: frames on which matrices in fixed point are rounded (calibrate.py); none: to nearest.
    """

    checkpoint: Checkpoint
    frames: Sequence[ase.Atoms]
    measurements: Measurements
    scratch: Path
    threads: int = 1
    step: Callable[[str], object] = lambda _: None
    calibration: Sequence[ase.Atoms] = ()
    _paths: dict[Precision, Path] = field(default_factory=dict)

    @functools.cached_property
    def references(self) -> list[Evaluation]:
        """mace-torch in float64 on the frames, evaluated when they are first needed."""
        self.step("mace-torch float64")
        return evaluate_mace(self.checkpoint, self.frames)

    def calibrate(self, policy: Precision) -> Sequence[ase.Atoms]:
        """The frames that a policy is calibrated on."""
        return self.calibration if policy.can_calibrate else ()

    def build(self, policy: Precision) -> Artifact:
        """The policy's artifact, loaded."""
        if policy not in self._paths:
            path = self.scratch / f"{len(self._paths)}.pt"
            build_trial(self.checkpoint, policy, path, self.calibrate(policy))
            self._paths[policy] = path
        return load(self._paths[policy])

    def measure(self, policy: Precision, effort: Effort) -> dict:
        """The policy's row as `Comparison.as_dict()` gives it, or {"refused": reason} where it gives no sound artifact."""
        key = _key(policy.spell(), effort)
        row = self.measurements.row(key)
        if row is None:
            try:
                found = self.measure_file(self.build(policy), effort)
                row = dataclasses.replace(found, name=str(policy)).as_dict()
            except (FidelityError, StructureError, Unsupported) as error:
                row = {"refused": str(error)}
            self.measurements.keep_row(key, row)
        self.step(str(policy))
        return row

    def measure_file(self, artifact: Artifact, effort: Effort) -> Comparison:
        """The row of an artifact, not stored."""
        return measure_artifact(artifact, self.frames, self.references, effort)

    def time(self, policies: Sequence[Precision], effort: Effort) -> dict[Precision, Timing]:
        """Times of the policies, in turns with each other."""
        names = sorted(policy.spell() for policy in policies)
        key = json.dumps({"frames": TIMED_FRAMES, "seed": effort.seed, "policies": names})
        n_stored = len(self.measurements.rounds(key))

        def keep(ms: dict[str, float]) -> None:
            self.measurements.keep_round(key, ms)
            self.step("timing")

        for _ in range(min(n_stored, effort.rounds)):
            self.step("timing")
        if n_stored < effort.rounds:
            frames, clock = spread(self.frames, TIMED_FRAMES), choose_clock(self.threads)[1]
            runners = {name: Runner(self.build(Precision.parse(name)), frames, clock) for name in names}
            take_rounds(runners, range(n_stored, effort.rounds), effort.seed, keep)
        timings = summarize(self.measurements.rounds(key)[: effort.rounds])
        return {policy: timings[policy.spell()] for policy in policies}


def _key(policy: str, effort: Effort) -> str:
    probes = {name: value for name, value in dataclasses.asdict(effort).items() if name != "rounds"}
    return json.dumps({"policy": policy, **probes})
