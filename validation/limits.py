"""Every limit of a verdict, with its unit, reason and source: the one place to look them up or argue."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Limit:
    """A number that decides a verdict, and why it is this number."""

    name: str
    value: float
    unit: str
    reason: str


_TABLE = (
    Limit(
        "explosion_K",
        10_000.0,
        "K",
        "no system held together by bonds is this hot: it flies apart (mlipaudit, stability)",
    ),
    Limit(
        "drift_ratio",
        1.0,
        "",
        "|drift| x length / std(E_kin): over the run the total energy moves less than the kinetic energy "
        "fluctuates (mlipaudit, NVE)",
    ),
    Limit(
        "drift_sigma",
        3.0,
        "sigma",
        "drifts of candidate and reference agree within their error bars; two-sided false alarm 0.27 %",
    ),
    Limit(
        "drift_floor_meV_per_atom_per_ps",
        0.01,
        "meV/atom/ps",
        "heats by 0.04 K/ps at 3 kB per atom, 4 K in 100 ps: a fifth of what GROMACS accepts from its "
        "neighbour list by default (verlet-buffer-tolerance 0.005 kJ/mol/ps per atom); smaller differences "
        "are harmless however significant",
    ),
    Limit(
        "rms_factor",
        math.sqrt(2),
        "",
        "the fluctuation of E is the integrator's own error on a given surface; noise of the same size, "
        "added in quadrature, makes it sqrt(2) times larger",
    ),
    Limit(
        "rms_floor_meV_per_atom",
        0.01,
        "meV/atom",
        "0.0004 kT at 300 K: below it a fluctuation of E changes no observable",
    ),
    Limit(
        "force_rmse_meV_per_A",
        10.0,
        "meV/Å",
        "precision must not be the largest error: beside the 50 meV/Å that the bundled water potential "
        "misses DFT by, 10 meV/Å add 2 % in quadrature",
    ),
)
LIMITS = {limit.name: limit for limit in _TABLE}
