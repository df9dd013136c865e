"""A pair potential as an artifact: runs in both engines in microseconds, and can be made to break."""

from pathlib import Path

import ase
import numpy as np
import torch
from ase.build import bulk

import mdplugin
from mdplugin.validation.workspace import execute_one

R_MAX = 5.0


class Morse(torch.nn.Module):
    """Pairs of phi(r) = D ((1 - e^(-a (r - rest)))^2 - 1) (1 - r^2 / r_max^2)^3 in eV and Å.

    From the evaluation `break_at` on the forces are `spoiled` times what they should be; -1 means never.
    """

    def __init__(self, break_at: int, spoiled: float, rest: float):
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.break_at = break_at
        self.spoiled = spoiled
        self.rest = rest

    def forward(
        self,
        edge_vectors: torch.Tensor,
        senders: torch.Tensor,
        receivers: torch.Tensor,
        species: torch.Tensor,
        n_local: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        depth, stiffness, r_max = 0.05, 1.5, 5.0
        r = torch.linalg.vector_norm(edge_vectors, dim=-1)
        decay = torch.exp(-stiffness * (r - self.rest))
        well, well_slope = depth * ((1 - decay) ** 2 - 1), 2 * depth * stiffness * decay * (1 - decay)
        inside = torch.clamp(1 - (r / r_max) ** 2, min=0.0)
        fade, fade_slope = inside**3, -6 * inside**2 * r / r_max**2
        energy = torch.zeros([n_local], dtype=torch.float64).index_add(0, receivers, 0.5 * well * fade)
        slope = 0.5 * (well_slope * fade + well * fade_slope)
        force = -(slope / r).unsqueeze(-1) * edge_vectors
        if self.break_at >= 0 and int(self.calls) >= self.break_at:
            force = force * self.spoiled
        self.calls += 1
        return energy, force


def save_morse(
    path: Path, precision="fp64", break_at=-1, spoiled=1.0, rest=3.0, source="0", head="Default"
) -> Path:
    """Write the potential for Ar and Ne (one species to it) as an artifact."""
    from mdplugin.artifact import save

    manifest = mdplugin.Manifest(
        mdplugin_version="0",
        precision=precision,
        backend="test",
        trained_dtype="float64",
        elements=("Ne", "Ar"),
        atomic_numbers=(10, 18),
        r_max=R_MAX,
        n_layers=1,
        head=head,
        heads=(head,),
        e0s_eV=(0.0, 0.0),
        masses_amu=(20.18, 39.95),
        torch_version=torch.__version__,
        source={"name": "morse", "sha256": source},
    )
    save(torch.jit.script(Morse(break_at, spoiled, rest).eval()), manifest, path)
    return path


def crystal() -> ase.Atoms:
    """32 atoms of two elements on an fcc lattice at the pair distance."""
    atoms = bulk("Ar", "fcc", a=4.3, cubic=True).repeat(2)
    atoms.numbers[::3] = 10
    return atoms


def skewed_slab() -> ase.Atoms:
    """A left-handed, tilted cell in no particular orientation, periodic in its first and third direction."""
    atoms = crystal()
    shear = np.eye(3) + np.array([[0, 0, 0], [0.1, 0, 0], [0.25, -0.1, 0]])
    atoms.set_cell(atoms.cell.array @ shear, scale_atoms=True)
    atoms.rotate(40, (1, 2, 3), rotate_cell=True)
    atoms.set_cell(atoms.cell.array[[2, 1, 0]])
    atoms.pbc = (True, False, True)
    return atoms


def cluster() -> ase.Atoms:
    """13 atoms without a cell."""
    atoms = crystal()
    centre = np.argmin(np.linalg.norm(atoms.positions - atoms.positions.mean(axis=0), axis=1))
    near = np.argsort(np.linalg.norm(atoms.positions - atoms.positions[centre], axis=1))[:13]
    return ase.Atoms(atoms.numbers[near], atoms.positions[near])


def execute_here(plans, directory, jobs, *, quiet, milestone=None):
    """What `pool.execute_runs` does, in this process, which has torch already."""
    for plan in plans:
        execute_one(directory, plan.name)
        if milestone and plan == milestone.plans[-1]:
            milestone.action()
