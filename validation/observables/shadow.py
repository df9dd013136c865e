"""A candidate against the float64 reference on frames of runs, its own or float64's."""

from collections.abc import Sequence
from dataclasses import dataclass

import ase
import numpy as np
from ase import units
from ase.calculators.calculator import Calculator

from mdplugin.validation.observables.conservation import root
from mdplugin.validation.observables.pressure import find_pressure
from mdplugin.validation.observables.structure import Rdf
from mdplugin.validation.statistics import (
    Estimate,
    estimate_mean_of_few,
    estimate_ratio_of_few,
    estimate_variance_of_few,
    fit_slope_to_few,
)


@dataclass(frozen=True)
class Evaluations:
    """What a potential says of frames.

    Attributes:
        energy_eV: (n_frames,). forces: (n_frames, n_atoms, 3) eV/Å. pressure_bar: (n_frames,) of the virial, or NaN.
    """

    energy_eV: np.ndarray
    forces: np.ndarray
    pressure_bar: np.ndarray


@dataclass(frozen=True)
class Sample:
    """Frames of a run.

    Attributes:
        frames: of one run, time_ps: (n_frames,) when. temperature_K: of the runs.
        rdfs: g(r) by pair with a block for each frame, or none.
        reference: what float64 says of them, or None.
    """

    frames: Sequence[ase.Atoms]
    time_ps: np.ndarray
    temperature_K: float
    rdfs: Sequence[Rdf] = ()
    reference: Evaluations | None = None


@dataclass(frozen=True)
class Shadow:
    """Differences frame by frame.

    Attributes:
        n_atoms: of a frame.
        time_ps: (n_frames,).
        energy_meV_per_atom: (n_frames,) candidate less reference.
        force_ms: (n_frames,) mean square of the force differences' components, (meV/Å)^2.
        force_products: (n_frames, 2) sums of candidate times reference, and of the reference's squares, (eV/Å)^2.
        temperature_K: of the runs.
        pressure_bar: (n_frames, 2) of the virials of candidate and reference; NaN if not asked for.
        volume_A3: (n_frames,). mass_amu: of a frame.
        rdfs: pair -> g(r) with a block for each frame (reweighting.py).
    """

    n_atoms: int
    time_ps: np.ndarray
    energy_meV_per_atom: np.ndarray
    force_ms: np.ndarray
    force_products: np.ndarray
    temperature_K: float
    pressure_bar: np.ndarray
    volume_A3: np.ndarray
    mass_amu: float
    rdfs: dict[str, Rdf]

    @property
    def log_weights(self) -> np.ndarray:
        """(n_frames,) energy difference of the whole, candidate less reference, over kT."""
        return self.energy_meV_per_atom * self.n_atoms / (1000 * units.kB * self.temperature_K)

    @property
    def ideal_bar(self) -> np.ndarray:
        """(n_frames,) N kT / V, the momenta's part of the pressure on average; without a volume infinite."""
        with np.errstate(divide="ignore"):
            return self.n_atoms * units.kB * self.temperature_K / (self.volume_A3 * units.bar)


def evaluate(
    frames: Sequence[ase.Atoms], calculator: Calculator, *, with_pressure: bool = False
) -> Evaluations:
    """Energies, forces and, if asked for, pressures of frames."""
    energies, forces, pressures = [], [], []
    for frame in frames:
        atoms = frame.copy()
        atoms.calc = calculator
        # the pressure first: what has a stress computes all at once
        pressures.append(find_pressure(atoms) if with_pressure else np.nan)
        energies.append(atoms.get_potential_energy())
        forces.append(atoms.get_forces())
    return Evaluations(np.array(energies), np.array(forces), np.array(pressures))


def compare_frames(sample: Sample, candidate: Calculator) -> Shadow:
    """Evaluate a candidate on frames that float64 has evaluated."""
    true, frames = sample.reference, sample.frames
    found = evaluate(frames, candidate, with_pressure=bool(np.isfinite(true.pressure_bar).any()))
    n_atoms = len(frames[0])
    products = [(each * true.forces).sum(axis=(1, 2)) for each in (found.forces, true.forces)]
    return Shadow(
        n_atoms=n_atoms,
        time_ps=np.asarray(sample.time_ps),
        energy_meV_per_atom=1000 * (found.energy_eV - true.energy_eV) / n_atoms,
        force_ms=1e6 * np.mean((found.forces - true.forces) ** 2, axis=(1, 2)),
        force_products=np.stack(products, axis=1),
        temperature_K=sample.temperature_K,
        pressure_bar=np.stack([found.pressure_bar, true.pressure_bar], axis=1),
        volume_A3=np.array([frame.cell.volume for frame in frames]),
        mass_amu=float(frames[0].get_masses().sum()),
        rdfs={rdf.pair: rdf for rdf in sample.rdfs},
    )


def measure_shadow(shadow: Shadow) -> dict[str, Estimate]:
    """Force error (rms, meV/Å), its regression slope, scatter and trend (per ps) of the energy difference.

    The scatter is std(dE) / (sqrt(N) kT) of the whole system's dE. To first order in dE an average <A> moves by
    cov(A, dE) / kT (Zwanzig, J. Chem. Phys. 22, 1420 (1954)), that is by at most std(A) std(dE) / kT.
    """
    energy = shadow.energy_meV_per_atom
    per_root_atom = shadow.log_weights / np.sqrt(shadow.n_atoms)
    return {
        "force_rmse": root(estimate_mean_of_few(shadow.force_ms)),
        "force_slope": estimate_ratio_of_few(*shadow.force_products.T),
        "shadow_energy": root(estimate_variance_of_few(per_root_atom)),
        "shadow_trend": fit_slope_to_few(shadow.time_ps, energy),
    }
