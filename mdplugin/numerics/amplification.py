"""Errors of a block's output -> errors of forces: measured by injection, and to first order by one vector-Jacobian product.

    δF = J δy,   δy independent with deviations s:   E |δF|² = Σ_k s_k² Σ_F J_Fk²,   Σ_F J_Fk² = E_v (Jᵀ v)_k²

for random signs v on the forces. So a single reverse pass of autograd through the float64 reference (whose own reverse
it differentiates) gives the sensitivity of the forces to every number of every stage, forward and reverse, at once. The
measurement adds errors to that stage alone and evaluates everything after it in float64.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mdplugin.model import MaceModel
from mdplugin.numerics.measurement import rms
from mdplugin.numerics.system import Recording, System, evaluate_system
from mdplugin.tables import RadialTable

NOISE = 1e-6  # relative; small enough to be linear, large beside float64
PROBES = 3

# stages whose outputs are not forces' inputs, or are copies of another's
NOT_PERTURBED = ("E", "m", "gy", "gu_all")


@dataclass(frozen=True)
class Amplification:
    """Relative error of the forces over relative error of a stage's output, both as root mean squares.

    Attributes:
        tap: name of the stage's output. measured, model: the two ways.
    """

    tap: str
    measured: float
    model: float


def sensitivities(
    model: MaceModel, system: System, tables: Sequence[RadialTable], recording: Recording, seed: int
) -> dict[str, Tensor]:
    """Σ_F J_Fk² for every element k of every stage's output, (eV/Å per its unit)²."""
    leaves = {
        name: torch.zeros_like(x, requires_grad=True)
        for name, x in recording.values.items()
        if name.partition(".")[0] not in NOT_PERTURBED and x.dim() > 0
    }
    _, forces = evaluate_system(
        model, system, tables, lambda name, x: x + leaves[name] if name in leaves else x
    )
    generator = torch.Generator().manual_seed(seed)
    squares = {name: torch.zeros_like(x) for name, x in recording.values.items() if name in leaves}
    for probe in range(PROBES):
        v = 2.0 * torch.randint(2, forces.shape, generator=generator).double() - 1
        gradients = torch.autograd.grad(
            forces, list(leaves.values()), v, retain_graph=probe + 1 < PROBES, allow_unused=True
        )
        for name, g in zip(leaves, gradients, strict=True):
            if g is not None:
                squares[name] += g.detach() ** 2 / PROBES
    return squares


def predict_force_error(deviations: dict[str, Tensor], squares: dict[str, Tensor], n_atoms: int) -> float:
    """Root mean square force error per component, eV/Å, of independent errors at some stages."""
    total = sum(
        float((deviations[name] ** 2 * squares[name]).sum()) for name in deviations if name in squares
    )
    if "forces" in deviations:
        total += float((deviations["forces"] ** 2).sum())
    return math.sqrt(total / (3 * n_atoms))


def inject(
    model: MaceModel, system: System, tables: Sequence[RadialTable], errors: dict[str, Tensor]
) -> Tensor:
    """Forces with `errors` added to the outputs of the stages they name, all else float64."""
    _, forces = evaluate_system(
        model, system, tables, lambda name, x: x + errors[name] if name in errors else x
    )
    return forces + errors["forces"] if "forces" in errors else forces


def measure_amplifications(
    model: MaceModel,
    system: System,
    tables: Sequence[RadialTable],
    recording: Recording,
    squares: dict[str, Tensor],
    seed: int,
) -> list[Amplification]:
    """Relative noise on one stage after the other."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for name, square in squares.items():
        value = recording.values[name]
        if not square.any():  # nothing depends on it: u of the first layer's reverse
            continue
        noise = NOISE * value * torch.randn(value.shape, generator=generator, dtype=torch.float64)
        error = rms(inject(model, system, tables, {name: noise}) - recording.forces)
        predicted = predict_force_error({name: value}, {name: square}, system.n_atoms)
        scale = rms(recording.forces)
        rows.append(Amplification(name, error / scale * rms(value) / rms(noise), predicted / scale))
    return rows
