"""What a molecular dynamics engine is to the validator: equilibration, constant-energy runs, their frames."""

import abc
from dataclasses import dataclass
from pathlib import Path

import ase

from mdplugin.validation.case import NveCase
from mdplugin.validation.potential import Potential
from mdplugin.validation.progress import Progress
from mdplugin.validation.series import Failure, Run


@dataclass(eq=False)
class Engine(abc.ABC):
    """Runs one case.

    Attributes:
        case: what to run.
        atoms: the initial state, with velocities.
        potentials: what can be run, by label.
        directory: receives the files.
        progress: is told every step.
    """

    case: NveCase
    atoms: ase.Atoms
    potentials: dict[str, Potential]
    directory: Path
    progress: Progress

    @abc.abstractmethod
    def __post_init__(self):
        """Prepare the state from which every run starts until `equilibrate` makes a better one."""

    @abc.abstractmethod
    def equilibrate(self, label: str) -> Failure | None:
        """Langevin dynamics from `atoms`: every run then starts from its end, unless it fails."""

    @abc.abstractmethod
    def run(self, label: str) -> Run:
        """Constant-energy run from the common start, a frame every `trajectory_every` steps."""

    @abc.abstractmethod
    def frames(self, label: str) -> list[ase.Atoms]:
        """The frames of a run that did not fail."""
