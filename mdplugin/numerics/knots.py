"""Number of knots of a radial table -> what rounding its coefficients does to R and to dR/dr."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mdplugin.model import MaceModel
from mdplugin.number_types import TYPES
from mdplugin.numerics.error_model import axes_of
from mdplugin.numerics.measurement import rms
from mdplugin.numerics.system import System
from mdplugin.tables import RadialTable, tabulate

INTERVALS = (32, 64, 128, 256, 512)
ROUNDED = ("fp16", "bf16", "int16", "int8")
TABLE_KIND = "spline5"


@dataclass(frozen=True)
class KnotError:
    """Relative errors (rms over edges and functions) of the last layer's table against the finest one in float64.

    Attributes:
        intervals: of the table. type: of the coefficients, "fp64" for the table's own error.
        value, slope: of R and dR/dr.
    """

    intervals: int
    type: str
    value: float
    slope: float


def wasted_range(tables: Sequence[RadialTable], system: System) -> list[float]:
    """Per layer, median over columns: largest coefficient of all over the largest that any edge of the system reads.

    What fixed point with one scale per column loses to knots at distances that never occur.
    """
    r = torch.linalg.vector_norm(system.vectors, dim=-1)
    ratios = []
    for table in tables:
        c = table.coefficients.abs().amax(0)
        read = c[torch.unique(table.taps(r)[0])]
        ratios.append(float((c.amax(0) / torch.clamp(read.amax(0), min=1e-300)).median()))
    return ratios


def measure_knots(model: MaceModel, system: System) -> list[KnotError]:
    """At the distances of the system's edges."""
    conv = model.layers[-1].convolution
    r = torch.linalg.vector_norm(system.vectors, dim=-1)
    pair = model.basis.pairs[system.species[system.senders], system.species[system.receivers]]
    rows = []
    exact = None
    for n in reversed(INTERVALS):
        table = tabulate(model.basis, conv, n, TABLE_KIND)
        rows_, weights = table.taps(r)
        for name in ("fp64", *ROUNDED):
            c = table.coefficients
            if name != "fp64":
                c = TYPES[name].store(c, axes_of("parameter", c))
            R, dR = (torch.einsum("nj,njf->nf", w, c[pair[:, None], rows_]) for w in weights[:2])
            exact = (R, dR) if exact is None else exact  # the finest table
            errors = [rms(a - b) / rms(b) for a, b in zip((R, dR), exact, strict=True)]
            rows.append(KnotError(n, name, *errors))
    return rows
