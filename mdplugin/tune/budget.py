"""`force-rmse=1meV/A,force-noise=0.1` -> budget; a row of `compare` and a budget -> findings, and how far it is off.

Names and units are those of `mdplugin compare --bounds`. A force noise that central differences do not resolve is judged by
the force roughness, which they cannot blur (smoothness.py): forces here are exact derivatives but for rounding, and
rounding is rough.
"""

import math
from collections.abc import Mapping, Sequence

from mdplugin.bounds import QUANTITIES, Finding, parse_bounds
from mdplugin.errors import BoundError

ROUGHNESS = "force-roughness"


def parse_budget(text: str) -> dict[str, float]:
    """Largest values by name.

    Raises:
        BoundError: an unknown name, one twice, another unit, or no positive number.
    """
    return parse_bounds(text, "budget")


def stand_in(row: Mapping, name: str) -> str:
    """What a quantity is judged by: a force noise that is not resolved by the roughness, all others by themselves."""
    is_unresolved = row["smoothness"] and not row["smoothness"]["is_noise_resolved"]
    return ROUGHNESS if name == "force-noise" and is_unresolved else name


def value_of(row: Mapping, name: str) -> float | None:
    """The row's value of what a quantity is judged by. None: not measured."""
    part, field = QUANTITIES[stand_in(row, name)].field
    return (row[part] or {}).get(field)


def hold(row: Mapping, budget: Mapping[str, float]) -> list[Finding]:
    """The row held against the budget; a finding has the name of what was judged."""
    findings = []
    for name, bound in budget.items():
        value = value_of(row, name)
        outcome = "inconclusive" if value is None else "pass" if value <= bound else "fail"
        findings.append(Finding(stand_in(row, name), value, bound, outcome))
    return findings


def excess(findings: Sequence[Finding]) -> tuple[float, Finding]:
    """The finding farthest beyond its bound, and how many times the bound its value is."""
    return max(
        ((math.inf if each.value is None else each.value / each.bound, each) for each in findings),
        key=lambda pair: pair[0],
    )


def require_measured(row: Mapping, budget: Mapping[str, float]) -> None:
    """Refuse a budget of what the frames cannot show.

    Raises:
        BoundError: names the quantity.
    """
    for name in budget:
        if value_of(row, name) is None:
            raise BoundError(
                f"budget: {name}: the structures do not show it (stress needs three periodic directions)"
            )
