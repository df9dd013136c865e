"""`force-rmse=1meV/A,force-noise=0.5` -> bounds; a row of `mdplugin compare` and bounds -> pass, fail or inconclusive."""

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from mdplugin.errors import BoundError


@dataclass(frozen=True)
class Quantity:
    """What can be bounded.

    Attributes:
        field: path of the number in `Comparison.as_dict()`.
        unit: the one unit it has. probed: whether the probes measure it.
        default: bound that a certificate takes where none is given, None for none. reason: of the default.
    """

    field: tuple[str, str]
    unit: str
    probed: bool = False
    default: float | None = None
    reason: str = ""


QUANTITIES = {
    "energy-rmse": Quantity(
        ("float64", "energy_rmse_meV_per_atom"), "meV/atom", False, 1.0, "4 % of kT at 300 K"
    ),
    "energy-max": Quantity(("float64", "energy_max_meV_per_atom"), "meV/atom"),
    "force-rmse": Quantity(
        ("float64", "force_rmse_meV_per_A"),
        "meV/Å",
        False,
        10.0,
        "beside 50 meV/Å by which a potential misses DFT it adds 2 % in quadrature",
    ),
    "force-max": Quantity(("float64", "force_max_meV_per_A"), "meV/Å"),
    "stress-max": Quantity(("float64", "stress_max_meV_per_A3"), "meV/Å³"),
    "equivariance": Quantity(
        ("equivariance", "force_max_meV_per_A"), "meV/Å", True, 10.0, "as large as the force error may be"
    ),
    # independent errors s of each step's force heat a degree of freedom by s² dt / 2m
    "force-noise": Quantity(
        ("smoothness", "force_noise_meV_per_A"),
        "meV/Å",
        True,
        1.0,
        "heats hydrogen by 0.007 meV/atom/ps in steps of 0.5 fs; `validate` allows 0.01",
    ),
    "force-roughness": Quantity(
        ("smoothness", "force_roughness_meV_per_A"), "meV/Å", True, 1.0, "as for force-noise"
    ),
    "energy-roughness": Quantity(("smoothness", "energy_roughness_meV_per_atom"), "meV/atom", True),
}
DEFAULTS = {name: each.default for name, each in QUANTITIES.items() if each.default is not None}
_RESOLUTION = "force_noise_resolution_meV_per_A"


def parse_bounds(text: str, option: str = "bounds") -> dict[str, float]:
    """Bounds by name, in the quantity's unit; errors begin with the name of the option.

    Raises:
        BoundError: an unknown name, one twice, another unit, or no positive number.
    """
    bounds: dict[str, float] = {}
    for word in text.split(","):
        name, _, value = word.strip().partition("=")
        if name not in QUANTITIES:
            close = difflib.get_close_matches(name, QUANTITIES, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise BoundError(
                f"{option}: expected NAME=NUMBER of {', '.join(QUANTITIES)}, got '{word.strip()}'{hint}"
            )
        if name in bounds:
            raise BoundError(f"{option}: expected one bound of {name}, got two in '{text}'")
        bounds[name] = _parse_value(name, value, option)
    return bounds


def _parse_value(name: str, text: str, option: str) -> float:
    unit = QUANTITIES[name].unit
    found = re.fullmatch(r"([0-9.]+(?:[eE][-+]?[0-9]+)?)\s*(\S*)", text.strip())
    try:
        number = float(found[1]) if found and found[2].replace("A", "Å") in ("", unit) else math.nan
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise BoundError(
            f"{option}: {name}: expected a positive number in {unit}, as {name}=0.5{unit}, got '{text}'"
        )
    return number


@dataclass(frozen=True)
class Finding:
    """One bounded quantity: its value (None: not measured), the bound, and "pass", "fail" or "inconclusive"."""

    name: str
    value: float | None
    bound: float
    outcome: str

    def describe(self) -> str:
        """`force-rmse 0.003 of at most 10 meV/Å: pass`."""
        value = "not measured" if self.value is None else f"{self.value:.3g}"
        return f"{self.name} {value} of at most {self.bound:g} {QUANTITIES[self.name].unit}: {self.outcome}"


def judge(row: Mapping, bounds: Mapping[str, float]) -> list[Finding]:
    """Hold a row, as `Comparison.as_dict()` gives it, against bounds.

    A quantity that was not measured is inconclusive, and so is a force noise that is not resolved, unless what was seen,
    resolution included, is within the bound.
    """
    return [_judge_one(row, name, bound) for name, bound in bounds.items()]


def _judge_one(row: Mapping, name: str, bound: float) -> Finding:
    part, field = QUANTITIES[name].field
    measured = row[part] or {}
    value = measured.get(field)
    if value is None:
        return Finding(name, None, bound, "inconclusive")
    if name == "force-noise" and not measured["is_noise_resolved"]:
        within = math.hypot(value, measured[_RESOLUTION]) <= bound
        return Finding(name, value, bound, "pass" if within else "inconclusive")
    return Finding(name, value, bound, "pass" if value <= bound else "fail")


def worst(findings: list[Finding]) -> str:
    """The outcome of all together: fail before inconclusive before pass."""
    outcomes = {finding.outcome for finding in findings}
    return next((each for each in ("fail", "inconclusive") if each in outcomes), "pass")
