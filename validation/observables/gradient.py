"""Are the forces, and the pressure, those of the energy that is reported?"""

from collections.abc import Callable

import ase
import numpy as np
from ase import units
from ase.calculators.calculator import Calculator

from mdplugin.validation.observables.pressure import find_pressure
from mdplugin.validation.statistics import Estimate, estimate_mean_of_few, estimate_ratio_of_few

# rms per coordinate. Two points 5e-4 Å apart miss an O-H bond's slope by 1e-4 (h^2); four points so far apart by 1e-5
# (h^4), and see three times less of the rounding of energies
STEP_A = 2e-3
VOLUME_STRAIN = 2e-3  # of lengths: an O-H bond by as much as STEP_A
STENCIL = {2: -1 / 12, 1: 8 / 12, -1: -8 / 12, -2: 1 / 12}  # of the first derivative
NEARBY_A = 0.01  # rms per coordinate: rounding is another one there, what is wrong with the forces is not


def measure_gradient(
    frames: list[ase.Atoms], calculator: Calculator, reference: Calculator | None = None
) -> Estimate:
    """-dE/du by central differences over the forces along u: 1 where forces are the gradient of the energy.

    u is the direction of the forces, to which a part of them that has no energy and is at right angles, of the share eps,
    adds eps^2 alone. So where there is a `reference` u turns by 45 degrees towards what the forces differ by from its own:
    there such a part counts as eps. That difference is taken at a place nearby, so that rounding, which averages out, is
    not what u follows. The ratio is one of sums over the frames, each weighed by the square of its forces.
    """
    slopes, sizes = [], []
    generator = np.random.default_rng(0)
    for frame in frames:
        atoms = frame.copy()
        atoms.calc = calculator
        forces = atoms.get_forces()
        size = float(np.linalg.norm(forces))
        direction = _normalise(forces)
        if reference is not None:
            nearby = frame.positions + generator.normal(scale=NEARBY_A, size=forces.shape)
            error = _find_forces(frame, nearby, calculator) - _find_forces(frame, nearby, reference)
            across = _normalise(error)
            # the ratio is 1 - eps whatever the angle, and 1 + eps of forces that are too small, against which u is nothing
            is_against = (across * direction).sum() < -0.5
            direction = _normalise(direction + (-across if is_against else across))
        start, length = atoms.positions.copy(), STEP_A * np.sqrt(forces.size)

        def move(distance: float, atoms=atoms, start=start, direction=direction) -> float:
            atoms.positions = start + distance * direction
            return atoms.get_potential_energy()

        slopes.append(-size * _differentiate(move, length))
        sizes.append(size * float((forces * direction).sum()))
    return estimate_ratio_of_few(np.array(slopes), np.array(sizes))


def _find_forces(frame: ase.Atoms, positions: np.ndarray, calculator: Calculator) -> np.ndarray:
    atoms = frame.copy()
    atoms.positions = positions
    atoms.calc = calculator
    return atoms.get_forces()


def _normalise(vectors: np.ndarray) -> np.ndarray:
    """The vectors over their common norm; zero stays."""
    size = np.linalg.norm(vectors)
    return vectors / size if size > 0 else vectors


def measure_pressure_gradient(frames: list[ase.Atoms], calculator: Calculator) -> Estimate:
    """Pressure of the stress less -dE/dV by central differences, bar: 0 where the stress is that of the energy."""
    apart = []
    for frame in frames:
        atoms = frame.copy()
        atoms.calc = calculator
        pressure = find_pressure(atoms)

        def swell(strain: float, atoms=atoms, frame=frame) -> float:
            atoms.set_cell((1 + strain) * frame.cell.array)
            atoms.positions = (1 + strain) * frame.positions
            return atoms.get_potential_energy()

        slope = _differentiate(swell, VOLUME_STRAIN)
        apart.append(pressure + slope / (3 * frame.get_volume()) / units.bar)
    return estimate_mean_of_few(np.array(apart))


def _differentiate(energy: Callable[[float], float], length: float) -> float:
    """The derivative of an energy at zero by central differences of so long steps."""
    return sum(weight * energy(step * length) / length for step, weight in STENCIL.items())
