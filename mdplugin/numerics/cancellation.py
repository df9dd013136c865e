"""What cancels: energies of isolated atoms in the total energy, edge contributions in a force."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mdplugin.model import MaceModel
from mdplugin.number_types import TYPES
from mdplugin.numerics.measurement import rms
from mdplugin.numerics.system import Recording, System

ALL_ELECTRON_E0_EV = -2000.0  # of an oxygen atom, all electrons


@dataclass(frozen=True)
class Cancellation:
    """Numbers of the largest frame.

    Attributes:
        energy_eV: total energy with E0. interaction_eV: without.
        fp32_meV: error of the total energy if atoms are stored and summed in float32, one after the other: with the
            potential's E0, without E0, with ALL_ELECTRON_E0_EV on every atom; the spacing of float32 at these totals.
        force_condition: rms over components of Σ|edge terms| over rms of the force. force_rms_eV_per_A.
    """

    energy_eV: float
    interaction_eV: float
    fp32_meV: dict[str, float]
    spacing_meV: dict[str, float]
    force_condition: float
    force_rms_eV_per_A: float


def measure_cancellation(model: MaceModel, system: System, recording: Recording) -> Cancellation:
    """From the float64 values of all atoms and edges."""
    chosen = system.frame == torch.bincount(system.frame).argmax()
    interaction = (recording.energy - model.e0s[system.species])[chosen]
    totals = {
        "E0 of the potential": recording.energy[chosen],
        "no E0": interaction,
        f"E0 {ALL_ELECTRON_E0_EV:g} eV": interaction + ALL_ELECTRON_E0_EV,
    }
    edge_force = recording.values["edge_force"].abs()
    terms = edge_force.new_zeros((system.n_atoms, 3))
    terms.index_add_(0, system.receivers, edge_force).index_add_(0, system.senders, edge_force)
    return Cancellation(
        float(recording.energy[chosen].sum()),
        float(interaction.sum()),
        {name: 1000 * abs(float(_sum_fp32(x)) - float(x.sum())) for name, x in totals.items()},
        {name: 1000 * float(TYPES["fp32"].spacing(x.sum())) for name, x in totals.items()},
        rms(terms) / rms(recording.forces),
        rms(recording.forces),
    )


def _sum_fp32(x: Tensor) -> Tensor:
    total = torch.zeros((), dtype=torch.float32)
    for value in x.to(torch.float32):
        total = total + value
    return total
