"""Radial distribution functions by MDAnalysis, with raw counts; peaks and coordination numbers from them."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import ase
import numpy as np
from ase.data import chemical_symbols
from MDAnalysis.analysis.rdf import InterRDF

from mdplugin.validation.observables.trajectory import make_universe
from mdplugin.validation.series import Series
from mdplugin.validation.statistics import Estimate, estimate_mean_of_few

BIN_A = 0.05
MAX_R_A = 8.0
N_BLOCKS = 5  # of a run, for error bars
# of the parabola of a peak: how far it reaches, and to what its centre is found
PEAK_REACH_A, PEAK_RESOLVED_A, MAX_ROUNDS = 0.15, 1e-4, 20
SMOOTH_BINS = 3
SHELL_NUMBERS = ("rdf_peak_position", "rdf_peak_height", "coordination")


@dataclass(frozen=True)
class Rdf:
    """g(r) of one pair of elements in one run.

    Attributes:
        pair: symbols, "O-H".
        r: (n_bins,) centres, Å.
        g: (n_blocks, n_bins) of consecutive blocks of frames; over the pairs that can be found, those within a molecule
            left out, so that it is 1 where atoms do not know of each other.
        counts: (n_blocks, n_bins) ordered pairs found, summed over the frames of a block.
        centres: (n_blocks,) atoms of the first element, summed over the frames of a block.
    """

    pair: str
    r: np.ndarray
    g: np.ndarray
    counts: np.ndarray
    centres: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """(n_bins,) g(r) of the run."""
        return self.g.mean(axis=0)


def compute_rdfs(series: Series, atoms: ase.Atoms, n_blocks: int = N_BLOCKS) -> list[Rdf]:
    """g(r) of every pair of elements, in blocks of frames; pairs within a molecule of `atoms` do not count.

    Empty without a cell, where no density is defined, and of fewer frames than blocks.
    """
    if not atoms.pbc.all() or len(series.positions) < n_blocks:
        return []
    widths = [np.abs(np.linalg.det(cell)) / np.linalg.norm(_faces(cell), axis=1) for cell in series.cells]
    r_max = min(MAX_R_A, 0.5 * float(np.min(widths)))
    n_bins = int(r_max / BIN_A)
    edges = np.linspace(0, len(series.positions), n_blocks + 1).astype(int)
    universes = [make_universe(series, atoms, slice(*block)) for block in itertools.pairwise(edges)]
    elements = [chemical_symbols[number] for number in np.unique(atoms.numbers)]
    rdfs = []
    for first, second in itertools.combinations_with_replacement(elements, 2):
        if (found := _count_pairs(universes[0], first, second)) == 0:
            continue
        results = [_run_rdf(universe, first, second, n_bins, found) for universe in universes]
        rdfs.append(
            Rdf(
                pair=f"{first}-{second}",
                r=results[0].bins,
                g=np.array([result.rdf for result in results]),
                counts=np.array([result.count for result in results]),
                centres=np.diff(edges) * int((atoms.symbols == first).sum()),
            )
        )
    return rdfs


def _faces(cell: np.ndarray) -> np.ndarray:
    return np.cross(cell[[1, 2, 0]], cell[[2, 0, 1]])


def _is_crystal(universe) -> bool:
    """Whether all atoms hang together: then every pair counts but an atom and itself."""
    return universe.residues.n_residues == 1


def _count_pairs(universe, first: str, second: str) -> int:
    """Ordered pairs that can be found: not those of a molecule, nor of an atom and itself."""
    atoms = universe.atoms
    is_first, is_second = (atoms.names == symbol for symbol in (first, second))
    pairs = int(is_first.sum()) * int(is_second.sum())
    if _is_crystal(universe):
        return pairs - int((is_first & is_second).sum())
    inside = [
        np.bincount(atoms.resindices[each], minlength=universe.residues.n_residues)
        for each in (is_first, is_second)
    ]
    return pairs - int(inside[0] @ inside[1])


def _run_rdf(universe, first: str, second: str, n_bins: int, found: int):
    """MDAnalysis's results, with g over the `found` pairs that can be found."""
    groups = [universe.select_atoms(f"name {symbol}") for symbol in (first, second)]
    options = {"exclude_same": "residue"}
    if _is_crystal(universe):
        options = {"exclusion_block": (1, 1) if first == second else None}
    analysis = InterRDF(*groups, nbins=n_bins, range=(0.0, n_bins * BIN_A), norm="density", **options)
    results = analysis.run().results
    volume = np.mean([frame.volume for frame in universe.trajectory])
    results.rdf = results.rdf * volume / found
    return results


def cut_to_common_range(rdfs: Sequence[Rdf]) -> list[Rdf]:
    """The same functions as far as all of them go: boxes that breathe differ in half their width."""
    n_bins = min((len(rdf.r) for rdf in rdfs), default=0)
    return [
        dataclasses.replace(rdf, r=rdf.r[:n_bins], g=rdf.g[:, :n_bins], counts=rdf.counts[:, :n_bins])
        for rdf in rdfs
    ]


@dataclass(frozen=True)
class Shell:
    """The first shell of a mean g(r): where its peak is looked for, where that is, and where the shell ends."""

    low: float
    high: float
    centre: float
    end: float


def find_shell(r: np.ndarray, g: np.ndarray) -> Shell | None:
    """The first maximum above 1 of the smoothed g, and the minimum after it; None where there is none."""
    smooth = np.convolve(g, np.ones(SMOOTH_BINS) / SMOOTH_BINS, mode="same")
    above = np.flatnonzero(smooth > 1)
    if len(above) == 0:
        return None
    first = above[0]
    below = np.flatnonzero(smooth[first:] < 1)
    after = first + below[0] if len(below) else len(g)
    rising = np.flatnonzero(smooth[after:] > 1)
    last = after + rising[0] if len(rising) else len(g)
    end = r[after + np.argmin(smooth[after:last])] if after < len(g) else r[-1]
    low, high = float(r[first]), float(r[min(after, len(g) - 1)])
    return Shell(low, high, _find_centre(r, g, low, high), float(end))


def _find_centre(r: np.ndarray, g: np.ndarray, low: float, high: float) -> float:
    """Where the vertex of the parabola about it is itself; the bin of the largest value where there is none so near."""
    start = centre = float(r[_find_top(r, g, low, high)])
    for _ in range(MAX_ROUNDS):
        vertex, _ = _fit_parabola(r, g, centre)
        if vertex is None or abs(vertex - start) > PEAK_REACH_A:
            return start
        step = float(np.clip(vertex - centre, -BIN_A, BIN_A))
        centre += step
        if abs(step) < PEAK_RESOLVED_A:
            break
    return centre


def _find_top(r: np.ndarray, g: np.ndarray, low: float, high: float) -> int:
    """Index of the largest value from `low` to `high`."""
    window = np.flatnonzero((r >= low) & (r <= high))
    return int(window[np.argmax(g[window])])


def _fit_parabola(r: np.ndarray, g: np.ndarray, centre: float) -> tuple[float | None, float]:
    """Vertex (position, or None if it opens upwards, and height) of a parabola about a centre.

    Bins weigh less the farther they are (bisquare), so that none comes or goes at once.
    """
    apart = (r - centre) / PEAK_REACH_A
    near = np.abs(apart) < 1
    a, b, c = np.polyfit(r[near] - centre, g[near], 2, w=1 - apart[near] ** 2)
    return (float(centre - b / (2 * a)), float(c - b**2 / (4 * a))) if a < 0 else (None, np.nan)


def measure_shell(
    rdf: Rdf, shell: Shell, estimate: Callable[[np.ndarray], Estimate] = estimate_mean_of_few
) -> dict[str, Estimate]:
    """Height and position of the first peak, and the number of neighbours within the shell.

    `estimate` makes a number of those of the blocks, in the order of time.
    """
    blocks = zip(rdf.g, rdf.counts, rdf.centres, strict=True)
    numbers = np.array([describe_shell(rdf.r, *block, shell) for block in blocks])
    return {name: estimate(column) for name, column in zip(SHELL_NUMBERS, numbers.T, strict=True)}


def describe_shell(
    r: np.ndarray, g: np.ndarray, counts: np.ndarray, centres: float, shell: Shell
) -> np.ndarray:
    """(3,) SHELL_NUMBERS of one g(r) (n_bins,) with its counts (n_bins,) around so many centres."""
    return np.array([*find_peak(r, g, shell), counts[r <= shell.end].sum() / centres])


def find_peak(r: np.ndarray, g: np.ndarray, shell: Shell) -> tuple[float, float]:
    """Position and height of the peak: the vertex of the parabola about the shell's centre.

    That centre is the mean g's, not this one's: about a bin of its own, the vertex of a noisy g jumps from bin to bin, and
    moves by 0.8 to 1.8 times as much as its peak does. A peak that is not within reach of it is the highest bin.
    """
    position, height = _fit_parabola(r, g, shell.centre)
    if position is not None and abs(position - shell.centre) <= PEAK_REACH_A:
        return position, height
    top = _find_top(r, g, shell.low, shell.high)
    return float(r[top]), float(g[top])
