"""What a molecular dynamics engine is to the validator: it makes a first state, and advances a state by a segment."""

import abc
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import ase

from mdplugin.validation.case import Case
from mdplugin.validation.plan import Segment
from mdplugin.validation.potential import Potential
from mdplugin.validation.progress import Reach
from mdplugin.validation.series import Series

FRICTION_PER_FS = 0.02  # Langevin equilibration relaxes in 50 fs: preparation, not dynamics
THERMOSTAT_FS = 100.0  # stochastic velocity rescaling (Bussi, Donadio, Parrinello 2007): spares the dynamics
BAROSTAT_FS = 1000.0
MAX_BOX_STRAIN = 0.5  # of a volume that has run away


@dataclass(eq=False)
class Engine(abc.ABC):
    """Runs segments of one case.

    Attributes:
        case: what to run.
        atoms: the initial structure, with velocities.
        potentials: what can be run, by label.
        reach: is told how many steps of the segment are done.
    """

    case: Case
    atoms: ase.Atoms
    potentials: dict[str, Potential]
    reach: Reach

    suffix: ClassVar[str]  # of the files that hold a state

    @abc.abstractmethod
    def write_start(self, state: Path) -> None:
        """Write the state of `atoms` with its velocities."""

    @abc.abstractmethod
    def is_whole(self, state: Path) -> bool:
        """Whether a state that a segment left is there and not torn, as by a power failure."""

    @abc.abstractmethod
    def advance(self, segment: Segment, start: Path, scratch: Path, end: Path) -> Series:
        """Run a segment from the state `start` in the directory `scratch` and write its last state to `end`.

        The series starts with the state itself. It carries a failure, and there is no `end`, where the dynamics broke.

        Raises:
            CaseError: the engine itself could not run (refused the input, was killed).
            OSError: the disk is full.
        """

    @property
    def explosion_K(self) -> float:  # noqa: N802
        """The temperature above which a state is not worth another step."""
        return self.case.limit_table["explosion_K"].value
