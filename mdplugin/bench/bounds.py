"""Results -> the bounds of speed and memory that the engine is held to, with what was measured."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mdplugin.bench.report import rank_scaling, speed_up, thread_scaling, us_per_atom
from mdplugin.bench.results import MDPLUGIN, Case
from mdplugin.bench.table import NOTHING, format_number, format_table

LARGE_BOX, FEWEST_OF_MEMORY, FEWEST_OF_SCALE = 100_000, 9_000, 1_000  # atoms


@dataclass(frozen=True)
class Bound:
    """A claim in words, its limit, and the number that must be at least ("≥") or at most ("≤") that limit.

    `measure` takes the cases and returns the number, or None where no case tells.
    """

    claim: str
    sense: str
    limit: float
    unit: str
    measure: Callable[[Sequence[Case]], float | None]

    def verdict(self, value: float | None) -> str:
        """Whether the bound holds, in a word."""
        if value is None:
            return "not measured"
        return "holds" if (value >= self.limit if self.sense == "≥" else value <= self.limit) else "fails"


def pick(cases: Sequence[Case], **facts) -> list[Case]:
    """The cases whose fields have these values; one thread and the tuned allocator unless said otherwise."""
    wanted = {"threads": 1, "allocator": "tuned", "system": "box", **facts}
    return [case for case in cases if all(getattr(case, name) == value for name, value in wanted.items())]


def _measure_speed_up(precision: str, compute: str, **facts) -> Callable:
    def measure(cases: Sequence[Case]) -> float | None:
        ratios = [
            speed_up(case, ours, compute)
            for case in pick(cases, **facts)
            if (ours := case.find(MDPLUGIN, precision=precision)) is not None
        ]
        return next((ratio for ratio in ratios if ratio is not None), None)

    return measure


def _measure_threads(cases: Sequence[Case]) -> float | None:
    for case in pick(cases, network="medium", n_atoms=648, threads=2):
        if ours := case.find(MDPLUGIN, precision="fp32"):
            return thread_scaling(case, ours, cases)
    return None


def _scale_cases(cases: Sequence[Case], allocator: str = "tuned") -> list[Case]:
    """Medium networks in fp32 on boxes of a thousand atoms and more, by size."""
    chosen = pick(cases, network="medium", allocator=allocator)
    found = [c for c in chosen if c.find(MDPLUGIN, precision="fp32")]
    return sorted((c for c in found if c.n_atoms >= FEWEST_OF_SCALE), key=lambda c: c.n_atoms)


def _measure_memory(cases: Sequence[Case]) -> float | None:
    """kB per atom of the largest box, of 10,000 atoms or so, where what does not grow with atoms does not count.

    With the stock allocator: the tuned one keeps what was freed, so that it measures the allocator.
    """
    found = [c for c in _scale_cases(cases, "stock") if c.n_atoms >= FEWEST_OF_MEMORY]
    return (
        None
        if not found
        else found[-1].find(MDPLUGIN, precision="fp32").memory.used / found[-1].n_atoms / 1e3
    )


def _measure_large_box(cases: Sequence[Case]) -> float | None:
    found = [c for c in _scale_cases(cases) if c.n_atoms >= LARGE_BOX]
    return found[0].find(MDPLUGIN, precision="fp32").memory.peak / 1e9 if found else None


def _measure_scale(cases: Sequence[Case]) -> float | None:
    """Largest over smallest cost per atom, less one, in per cent; None unless the large box is among them."""
    found = _scale_cases(cases)
    if not found or found[-1].n_atoms < LARGE_BOX:
        return None
    costs = [us_per_atom(case, case.find(MDPLUGIN, precision="fp32")) for case in found]
    return 100 * (max(costs) / min(costs) - 1)


def _measure_overhead(cases: Sequence[Case]) -> float | None:
    runs = [run for case in pick(cases, network="medium") for run in case.lammps if run.ranks == 1]
    return 100 * max(run.overhead for run in runs) if runs else None


def _measure_ranks(cases: Sequence[Case]) -> float | None:
    ratios = [
        rank_scaling(case, run)
        for case in pick(cases, network="medium", n_atoms=1536)
        for run in case.lammps
        if run.ranks == 2
    ]
    return ratios[0] if ratios else None


_BOX = {"n_atoms": 192}
BOUNDS = (
    Bound("medium, 192 atoms, 1 thread, fp32: mace-torch fp32 / ours", "≥", 14, "",
          _measure_speed_up("fp32", "float32", network="medium", **_BOX)),
    Bound("small, 192 atoms, 1 thread, fp32: mace-torch fp32 / ours", "≥", 15, "",
          _measure_speed_up("fp32", "float32", network="small", **_BOX)),
    Bound("medium, 192 atoms, 1 thread, fp64: mace-torch fp64 / ours", "≥", 14, "",
          _measure_speed_up("fp64", "float64", network="medium", **_BOX)),
    Bound("medium, 648 atoms, fp32: 1 thread / 2 threads", "≥", 1.7, "", _measure_threads),
    Bound("molecule of 27 atoms in ASE, small, fp32: mace-torch fp32 / ours", "≥", 10, "",
          _measure_speed_up("fp32", "float32", network="small", system="cluster", n_atoms=27)),
    Bound("medium, fp32, largest box, stock allocator: resident memory above the loaded model", "≤", 64, " kB/atom",
          _measure_memory),
    Bound("medium, fp32, 100,000 atoms: resident memory of the whole process", "≤", 12, " GB", _measure_large_box),
    Bound("medium, fp32, from 1,000 to 100,000 atoms: spread of the cost per atom", "≤", 15, " %", _measure_scale),
    Bound("LAMMPS on 1 rank, medium: overhead over the artifact", "≤", 10, " %", _measure_overhead),
    Bound("LAMMPS, medium, 1,536 atoms: 1 rank / 2 ranks, 1 thread each", "≥", 1.7, "", _measure_ranks),
)  # fmt: skip


def format_bounds(cases: Sequence[Case]) -> str:
    """One row per bound."""
    rows = []
    for bound in BOUNDS:
        value = bound.measure(cases)
        shown = NOTHING if value is None else f"{format_number(value)}{bound.unit}"
        rows.append((bound.claim, f"{bound.sense} {bound.limit:g}{bound.unit}", shown, bound.verdict(value)))
    return format_table(("what", "bound", "measured", "verdict"), rows)
