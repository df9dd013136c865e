"""What was promised of policies, held against the results of examples/policy_tables.py."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mdplugin.bench.table import NOTHING, format_number, format_table


@dataclass(frozen=True)
class Bound:
    """A promise: `measured <= bound`, or what the verdict of runs has to be."""

    what: str
    measured: str
    bound: str
    holds: bool | None

    @property
    def cells(self) -> list[str]:
        """For a table."""
        return [
            self.what,
            self.measured,
            self.bound,
            {True: "holds", False: "missed", None: NOTHING}[self.holds],
        ]


def most(what: str, measured: float, bound: float, unit: str = "") -> Bound:
    """A number that is to be no larger than another."""
    return Bound(
        what, f"{format_number(measured)}{unit}", f"≤ {format_number(bound)}{unit}", measured <= bound
    )


def list_bounds(rows: dict, own: float, outcome: Callable[[str], str]) -> Iterator[Bound]:
    """The promises.

    Args:
        rows: label -> row of `compare`. own: the potential's own force error against DFT, meV/Å.
        outcome: label -> verdict of its NVE runs.
    """

    def force(label):
        return rows[label]["float64"]["force_rmse_meV_per_A"]

    def times_fp32(label, part, name):
        return rows[label][part][name] / rows["fp32"][part][name]

    yield most("fp32: force RMSE", force("fp32"), 0.01, " meV/Å")
    yield most(
        "fp32: equivariance, largest", rows["fp32"]["equivariance"]["force_max_meV_per_A"], 0.01, " meV/Å"
    )
    yield most("w16: force RMSE", force("w16"), 0.1, " meV/Å")
    yield most("w8: force RMSE of the DFT error", 100 * force("w8") / own, 25, " %")
    yield most("w8, calibrated: the same", 100 * force("w8-calibrated") / own, 10, " %")
    for label in ("w16", "w8"):
        roughness = times_fp32(label, "smoothness", "force_roughness_meV_per_A")
        yield most(f"{label}: force roughness over fp32's", roughness, 2)
        equivariance = times_fp32(label, "equivariance", "force_rms_meV_per_A")
        yield most(f"{label}: equivariance error (rms) over fp32's", equivariance, 2)
    for label in ("w16", "w8", "w8-calibrated"):
        found = outcome(label)
        yield Bound(
            f"{label}: NVE against float64", found, "pass", None if found == NOTHING else found == "pass"
        )
    # copies of one artifact differ by 1 % in time, by where they lie in memory
    yield most("w16: time over fp32's", rows["w16"]["ms_per_frame"] / rows["fp32"]["ms_per_frame"], 1.02)
    yield most("w16: file over fp32's", rows["w16"]["file_MB"] / rows["fp32"]["file_MB"], 0.5)
    yield most("w8: file over fp64's", rows["w8"]["file_MB"] / rows["fp64"]["file_MB"], 0.25)
    yield most("w8a8: calibrated force RMSE over uncalibrated", force("w8a8-calibrated") / force("w8a8"), 1)


def write_bounds(rows: dict, own: float, outcome: Callable[[str], str]) -> str:
    """The table."""
    return format_table(
        ["", "measured", "bound", ""], [each.cells for each in list_bounds(rows, own, outcome)]
    )
