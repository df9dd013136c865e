"""Precision policy: a frozen value with a string form that round-trips, one parser, one table of names."""

import difflib
from dataclasses import astuple, dataclass

import torch

from mdplugin.errors import PrecisionError


@dataclass(frozen=True)
class Tolerance:
    """How far an artifact may be from mace-torch in float64 before `export` refuses to write it.

    Errors are max norms, scaled as `mdplugin.export.measure_fidelity` says.
    """

    energy_eV_per_atom: float
    force_eV_per_A: float
    stress_eV_per_A3: float


@dataclass(frozen=True)
class Precision:
    """The number type of each part of the network.

    Attributes:
        compute: name of the type in which the network is evaluated ("float64" or "float32").
            Geometry enters and energies and forces leave in float64 whatever the policy; E0s and the
            sum over atoms are float64 always.
    """

    name: str
    compute: str
    tolerance: Tolerance

    @classmethod
    def parse(cls, text: "str | Precision") -> "Precision":
        """The policy called `text`.

        Raises:
            PrecisionError: no policy has this name; the message lists the legal ones.
        """
        if isinstance(text, Precision):
            return text
        if text not in POLICIES:
            close = difflib.get_close_matches(str(text), POLICIES, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise PrecisionError(f"precision: expected one of {', '.join(POLICIES)}, got '{text}'{hint}")
        return POLICIES[text]

    def __str__(self) -> str:
        return self.name

    def allowed(self, trained_dtype: str) -> Tolerance:
        """The tolerance for a network trained in "float32" or "float64"."""
        if trained_dtype == "float64":
            return self.tolerance
        return Tolerance(*map(max, astuple(self.tolerance), astuple(ROUNDED_COUPLINGS)))

    @property
    def dtype(self) -> torch.dtype:
        """The torch type of `compute`."""
        return getattr(torch, self.compute)


# mace-torch keeps the couplings of a network trained in float32 rounded to it, ours are exact: 6e-8 for each of the
# half dozen couplings in a product. Measured on three such networks: up to 1.3e-8 eV/atom, 2.4e-8 eV/Å.
ROUNDED_COUPLINGS = Tolerance(1e-7, 1e-6, 1e-7)
# fp64: mace-torch and the artifact differ by summation order only. fp32: unit roundoff 6e-8, amplified by
# some hundred additions and the cancellation between edges; measured on water 8e-6 eV/Å, bound 13x that.
POLICIES = {
    "fp64": Precision("fp64", "float64", Tolerance(1e-9, 1e-8, 1e-9)),
    "fp32": Precision("fp32", "float32", Tolerance(1e-5, 1e-4, 1e-5)),
}
