"""Job -> the calculators that are timed, each with water of its own that moves at every step."""

from dataclasses import dataclass

import ase
from ase.calculators.calculator import Calculator

from mdplugin.artifact import load
from mdplugin.bench.job import Job
from mdplugin.bench.results import MACE_TORCH, MDPLUGIN
from mdplugin.bench.systems import Vibration, build_system
from mdplugin.calculator import MACEQuantCalculator
from mdplugin.precision import Precision


@dataclass(frozen=True)
class Entrant:
    """A calculator with its name in the results (results.Contender)."""

    program: str
    precision: str
    compute: str
    calculator: Calculator


class Walk:
    """Steps of one calculator: move the atoms, ask for their forces, as ASE's integrators do."""

    def __init__(self, calculator: Calculator, atoms: ase.Atoms, seed: int):
        self.atoms = atoms.copy()
        self.atoms.calc = calculator
        self._motion = Vibration(atoms, seed)
        self._step = 0

    def take_step(self) -> None:
        """Go to the next positions and evaluate their forces."""
        self._step += 1
        self.atoms.positions = self._motion.positions(self._step)
        self.atoms.get_forces()


def make_entrants(job: Job) -> list[Entrant]:
    """Load everything that takes part: mace-torch first, then the artifacts."""
    entrants = []
    if job.mace_dtypes:
        from mdplugin.checkpoint import mace_calculator, read_checkpoint

        checkpoint = read_checkpoint(job.checkpoint, job.head, job.trust)
        for dtype in job.mace_dtypes:
            entrants.append(Entrant(MACE_TORCH, dtype, dtype, mace_calculator(checkpoint, dtype)))
    for precision, path in job.artifacts:
        compute = Precision.parse(precision).compute
        entrants.append(Entrant(MDPLUGIN, precision, compute, MACEQuantCalculator(load(path))))
    return entrants


def make_atoms(job: Job) -> ase.Atoms:
    """The water of a job."""
    return build_system(job.system, job.n_atoms, job.seed)
