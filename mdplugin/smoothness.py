"""A potential + frames -> force noise, force roughness and energy roughness, from energies and forces along short paths.

Each path goes straight through a frame in a random direction u of the 3N coordinates, |u| = 1:

    x(s) = x + s u,    s = -L ... L at 21 points,    L = 0.02 Å sqrt(3N)

so that coordinates move by 0.02 Å (rms) to either side and by 0.002 Å from one point to the next, a fraction of what
atoms move in one timestep. Polynomials P of order 11 in s are fitted to E and to every component of F by least squares:
what they leave is not smooth on that scale.

* *energy roughness*: rms of E - P_E, over the 9 degrees of freedom that the fit leaves. It is the error of the reported
  energy and does not add up in dynamics.
* *force roughness*: the same of the 3N components of F. It is noise that does add up: it heats NVE.
* *force noise*: rms of F.u + P_E'(s), the force against the gradient of the artifact's own energy, over the middle half of
  the path. For independent errors of the components the mean over u is their rms. It also finds forces that are smooth
  but not the gradient: a wrong factor, a missing term, a curl.

The derivative of a least-squares polynomial is a central difference of many points. Its error has two parts. Rounding:
P' is a linear function of the energies with weights w, so independent errors of size d (the energy roughness) make an
error of d |w|, 4.8 d / L. Truncation grows as L^11. The path is as long as float32 wants it: on water (192 atoms,
L = 0.48 Å) d = 1e-3 meV makes 0.01 meV/Å by rounding; the polynomial's misfit makes 3e-4 meV/Å (in float64, where there
is nothing else).
Random directions of all coordinates are best for both: for N atoms L grows as sqrt(N), as d does, while the higher
derivatives of E along u fall.

The *resolution* is rms(d |w|) with the d that was found, misfit included; its square is subtracted from the noise's. A
misfit by functions of degree 12 to 16 looks like a noise of 1.6 to 2.5 times the resolution, so a noise is called resolved
above three times. Where rounding makes the energy rough by meV (bfloat16) the resolution is poor: then the force
roughness, which no division amplifies, is the figure to look at.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import ase
import numpy as np
from numpy.polynomial import chebyshev

from mdplugin.equivariance import Evaluate

N_POINTS, ORDER, REACH_A = 21, 11, 0.02
RESOLVED = 3.0

_T = np.linspace(-1, 1, N_POINTS)
_BASIS = chebyshev.chebvander(_T, ORDER)
_SOLVE = np.linalg.pinv(_BASIS)
_LEFT = np.eye(N_POINTS) - _BASIS @ _SOLVE  # values -> what the fit leaves
_SLOPE = chebyshev.chebvander(_T, ORDER - 1) @ chebyshev.chebder(np.eye(ORDER + 1)) @ _SOLVE  # -> dP/dt
_MIDDLE = slice(N_POINTS // 4, -(N_POINTS // 4))
_FREEDOM = N_POINTS - ORDER - 1


@dataclass(frozen=True)
class Smoothness:
    """What is not smooth or not conservative; see the module.

    Attributes:
        force_noise_meV_per_A: rms per component, resolution subtracted. force_noise_error_meV_per_A: its standard
            error, from the scatter between paths; NaN of one path. force_noise_resolution_meV_per_A.
        is_noise_resolved: whether what was seen is more than RESOLVED times that.
        force_roughness_meV_per_A: rms per component. force_roughness_max_meV_per_A: largest.
        energy_roughness_meV: rms, of a frame. energy_roughness_meV_per_atom: rms of that over its number of atoms.
        n_paths: paths that were walked.
    """

    force_noise_meV_per_A: float
    force_noise_error_meV_per_A: float
    force_noise_resolution_meV_per_A: float
    is_noise_resolved: bool
    force_roughness_meV_per_A: float
    force_roughness_max_meV_per_A: float
    energy_roughness_meV: float
    energy_roughness_meV_per_atom: float
    n_paths: int


@dataclass(frozen=True)
class _Path:
    """Mean squares along one path, in eV and Å; `leverage` is what the energy's roughness adds to `mismatch`."""

    n_atoms: int
    energy: float
    force: float
    force_max: float
    mismatch: float
    leverage: float


def measure_smoothness(
    evaluate: Evaluate, frames: Sequence[ase.Atoms], n_directions: int, seed: int
) -> Smoothness:
    """Walk `n_directions` paths through each frame; the same seed walks the same ones."""
    paths = []
    for index, frame in enumerate(frames):
        random = np.random.default_rng([seed, index])
        for _ in range(n_directions):
            direction = random.normal(size=(len(frame), 3))
            paths.append(_walk(evaluate, frame, direction / np.linalg.norm(direction)))
    mismatch = np.array([path.mismatch for path in paths])
    leverage = np.mean([path.leverage for path in paths])
    seen = np.sqrt(mismatch.mean())
    scatter = mismatch.std(ddof=1) / np.sqrt(len(paths)) if len(paths) > 1 else np.nan
    return Smoothness(
        force_noise_meV_per_A=1000 * float(np.sqrt(max(mismatch.mean() - leverage, 0.0))),
        force_noise_error_meV_per_A=1000 * float(scatter / (2 * seen)) if seen > 0 else 0.0,
        force_noise_resolution_meV_per_A=1000 * float(np.sqrt(leverage)),
        is_noise_resolved=bool(seen > RESOLVED * np.sqrt(leverage)),
        force_roughness_meV_per_A=1000 * float(np.sqrt(np.mean([path.force for path in paths]))),
        force_roughness_max_meV_per_A=1000 * max(path.force_max for path in paths),
        energy_roughness_meV=1000 * float(np.sqrt(np.mean([path.energy for path in paths]))),
        energy_roughness_meV_per_atom=1000
        * float(np.sqrt(np.mean([path.energy / path.n_atoms**2 for path in paths]))),
        n_paths=len(paths),
    )


def _walk(evaluate: Evaluate, frame: ase.Atoms, direction: np.ndarray) -> _Path:
    reach = REACH_A * np.sqrt(direction.size)
    energies, forces = [], []
    for t in _T:
        moved = frame.copy()
        moved.positions = frame.positions + t * reach * direction
        energy, force = evaluate(moved)
        energies.append(energy)
        forces.append(np.array(force).ravel())
    E, F = np.array(energies) - energies[N_POINTS // 2], np.array(forces)
    energy_left, force_left = _LEFT @ E, _LEFT @ F
    variance = float((energy_left**2).sum()) / _FREEDOM
    mismatch = (F @ direction.ravel() + _SLOPE @ E / reach)[_MIDDLE]
    weights = (_SLOPE[_MIDDLE] ** 2).sum(axis=1).mean() / reach**2
    return _Path(
        n_atoms=len(frame),
        energy=variance,
        force=float((force_left**2).sum()) / (_FREEDOM * direction.size),
        force_max=float(np.abs(force_left).max() * np.sqrt(N_POINTS / _FREEDOM)),
        mismatch=float(np.mean(mismatch**2)),
        leverage=float(variance * weights),
    )
