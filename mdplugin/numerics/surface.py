"""What rounding does to the energy surface: parameters give another smooth one, state gives noise, couplings break symmetry.

Three ways to round a whole network to one type, in float64 arithmetic: its parameters (radial knots, matrices, weights of
the contraction), its state (messages, node features and their gradients, as stored between stages), its couplings
(Clebsch-Gordan coefficients and the contraction's U). Then, on one frame:

    equivariance   largest |F(Q x) - Q F(x)| over random rotations Q
    gradient       F + dE/dx along a random direction of all atoms (unit length), E by central differences of 4th order of
                   the same rounded network: 0 if the forces are the gradient of a smooth energy
    noise          of F_rounded - F_exact along a short path of steps as in dynamics: rms second difference / sqrt(6), which
                   for white noise is its deviation, and small for what is smooth on the scale of a step
    heating        what this noise would feed into NVE, `heating_meV_per_atom_per_ps`; None where forces are a gradient
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mdplugin.model import MaceModel
from mdplugin.number_types import NumberType
from mdplugin.numerics.block import convert
from mdplugin.numerics.error_model import axes_of
from mdplugin.numerics.measurement import rms
from mdplugin.numerics.system import System, evaluate_system
from mdplugin.reference import Tap, untouched
from mdplugin.tables import RadialTable

WAYS = ("parameters", "state", "couplings")
# stages whose outputs an engine keeps as state between kernels
STATE = ("u", "A", "m", "B", "gA", "gm", "gu", "gB")
EV_PER_AMU_A2_FS2 = 103.642697  # 1 amu Å²/fs² in eV
STEP_FS, TEMPERATURE_K, N_STEPS = 0.5, 300.0, 12
BOLTZMANN_EV_PER_K = 8.617333e-5
DIFFERENCE_A = 2e-3  # well below a knot interval


@dataclass(frozen=True)
class Surface:
    """One way of rounding in one type.

    Attributes:
        way, type: which. force_rmse_meV_per_A: against float64. equivariance, gradient, noise: as above.
        heating_meV_per_atom_per_ps: of an NVE run with a step of 0.5 fs if the noise were white; None if conservative.
    """

    way: str
    type: str
    force_rmse_meV_per_A: float
    equivariance_meV_per_A: float
    gradient_meV_per_A: float
    noise_meV_per_A: float
    heating_meV_per_atom_per_ps: float | None


def heating_meV_per_atom_per_ps(sigma_eV_per_A: Tensor, masses: Tensor, timestep_fs: float) -> float:  # noqa: N802
    """Energy gained in NVE from white force noise.

    A step changes the momentum by (F + f) dt, f white with variance sigma² per component. The mean of p·f vanishes, so
    the kinetic energy gains sigma² dt² / (2 m) per component and step: dE/dt = Σ_atoms 3 sigma² dt / (2 m). Noise that
    lasts n steps counts n times.

    Args:
        sigma_eV_per_A: (n_atoms,) or one value, deviation per component. masses: (n_atoms,) amu.
        timestep_fs: of velocity Verlet.
    """
    eV_per_fs = (1.5 * sigma_eV_per_A**2 * timestep_fs / masses).mean() / EV_PER_AMU_A2_FS2
    return float(eV_per_fs) * 1e6


def round_parameters(
    model: MaceModel, tables: Sequence[RadialTable], type_: NumberType
) -> tuple[MaceModel, list[RadialTable]]:
    """The network with all parameters rounded; couplings, E0s, scale and shift are kept."""

    def f(kind: str, x: Tensor) -> Tensor:
        return type_.store(x, axes_of(kind, x)) if kind == "parameter" else x

    return _with_numbers(model, f), [
        dataclasses.replace(table, coefficients=f("parameter", table.coefficients)) for table in tables
    ]


def round_couplings(model: MaceModel, type_: NumberType) -> MaceModel:
    """The network with its Clebsch-Gordan coefficients and the contraction's U rounded, nothing else."""
    return _with_numbers(model, lambda kind, x: type_.store(x) if kind == "coupling" else x)


def _with_numbers(model: MaceModel, f) -> MaceModel:
    kept = {
        name: None if getattr(model, name) is None else convert(getattr(model, name), f)
        for name in ("linear", "perceptron")
    }
    return dataclasses.replace(model, layers=tuple(convert(layer, f) for layer in model.layers), **kept)


def state_tap(type_: NumberType) -> Tap:
    """Rounds what is kept between stages."""

    def tap(name: str, x: Tensor) -> Tensor:
        return type_.store(x) if name.partition(".")[0] in STATE and x.dim() > 0 else x

    return tap


SCALES = ("largest component", "norm over m", "norm alone")


def int8_tap(model: MaceModel, scale: str) -> Tap:
    """Rounds u of later layers to int8 with one step per node and irrep, 1/127 of the largest over channels.

    "largest component": of any component, which a rotation changes. "norm over m": of an invariant, so that the step is
    one. "norm alone": the norms over m are rounded, and the directions left exact.
    """

    def tap(name: str, x: Tensor) -> Tensor:
        kind, _, layer = name.partition(".")
        if kind != "u" or layer == "1":
            return x
        y, offsets = x.clone(), model.layers[int(layer) - 1].up.target.offsets
        for first, end in itertools.pairwise(offsets):
            block = x[:, first:end]
            norms = torch.clamp(block.norm(dim=1, keepdim=True), min=1e-300)
            size = block.abs() if scale == SCALES[0] else norms
            step = torch.clamp(size.amax((1, 2), keepdim=True), min=1e-300) / 127
            if scale == SCALES[2]:
                y[:, first:end] = block / norms * torch.round(norms / step) * step
            else:
                y[:, first:end] = torch.round(block / step) * step
        return y

    return tap


def measure_surfaces(
    model: MaceModel,
    system: System,
    tables: Sequence[RadialTable],
    types: Sequence[NumberType],
    seed: int,
) -> list[Surface]:
    """Every way in every type, on one small system."""
    paths = _path(system, seed)
    rotations = [_rotation(seed + k) for k in range(3)]
    exact = [evaluate_system(model, s, tables)[1] for s in paths]
    rows = []
    for type_ in types:
        for way in WAYS:
            changed = (model, tables, untouched)
            if way == "parameters":
                changed = (*round_parameters(model, tables, type_), untouched)
            elif way == "couplings":
                changed = (round_couplings(model, type_), tables, untouched)
            else:
                changed = (model, tables, state_tap(type_))
            rows.append(_measure(way, type_.name, changed, paths, exact, rotations))
    return rows


def _measure(way, type_name, changed, paths, exact, rotations) -> Surface:
    model, tables, tap = changed
    found = [evaluate_system(model, s, tables, tap)[1] for s in paths]
    errors = torch.stack([a - b for a, b in zip(found, exact, strict=True)])
    second = errors[2:] - 2 * errors[1:-1] + errors[:-2]
    sigma = torch.sqrt((second**2).mean(dim=(0, 2)) / 6)
    turned = [evaluate_system(model, paths[0].rotate(Q), tables, tap)[1] - found[0] @ Q.T for Q in rotations]
    heating = heating_meV_per_atom_per_ps(sigma, paths[0].masses, STEP_FS) if way == "state" else None
    return Surface(
        way,
        type_name,
        1000 * rms(errors),
        1000 * max(float(e.abs().max()) for e in turned),
        1000 * _gradient_error(changed, paths[0], found[0]),
        1000 * rms(sigma),
        heating,
    )


def _gradient_error(changed, system: System, forces: Tensor) -> float:
    """|F·d + dE/dd| in eV/Å, root mean square over random unit directions d of all atoms."""
    model, tables, tap = changed
    generator = torch.Generator().manual_seed(0)
    errors = []
    for _ in range(3):
        d = torch.randn(forces.shape, generator=generator, dtype=torch.float64)
        d = d / d.norm()
        E = [
            float(evaluate_system(model, system.move(k * DIFFERENCE_A * d), tables, tap)[0].sum())
            for k in (-2, -1, 1, 2)
        ]
        slope = (E[0] - 8 * E[1] + 8 * E[2] - E[3]) / (12 * DIFFERENCE_A)
        errors.append(float((forces * d).sum()) + slope)
    return rms(torch.tensor(errors, dtype=torch.float64))


@dataclass(frozen=True)
class Int8Scale:
    """int8 messages by what sets the step: rms errors against float64, and of equivariance over ten rotations."""

    scale: str
    force_rmse_meV_per_A: float
    equivariance_rmse_meV_per_A: float


def measure_scales(
    model: MaceModel, system: System, tables: Sequence[RadialTable], seed: int
) -> list[Int8Scale]:
    """The three scales of `int8_tap`."""
    exact = evaluate_system(model, system, tables)[1]
    rows = []
    for scale in SCALES:
        tap = int8_tap(model, scale)
        forces = evaluate_system(model, system, tables, tap)[1]
        turned = [
            evaluate_system(model, system.rotate(Q), tables, tap)[1] - forces @ Q.T
            for Q in (_rotation(seed + k) for k in range(10))
        ]
        rows.append(Int8Scale(scale, 1000 * rms(forces - exact), 1000 * rms(torch.stack(turned))))
    return rows


def _path(system: System, seed: int) -> list[System]:
    """Atoms that move on with thermal velocities, one step after the other."""
    generator = torch.Generator().manual_seed(seed)
    speed = torch.sqrt(BOLTZMANN_EV_PER_K * TEMPERATURE_K / system.masses / EV_PER_AMU_A2_FS2)[:, None]
    step = STEP_FS * speed * torch.randn((system.n_atoms, 3), generator=generator, dtype=torch.float64)
    return [system.move(k * step) for k in range(N_STEPS)]


def _rotation(seed: int) -> Tensor:
    """A random proper rotation."""
    generator = torch.Generator().manual_seed(seed)
    Q, R = torch.linalg.qr(torch.randn((3, 3), generator=generator, dtype=torch.float64))
    Q = Q * torch.sign(torch.diagonal(R))
    return Q * math.copysign(1.0, float(torch.linalg.det(Q)))
