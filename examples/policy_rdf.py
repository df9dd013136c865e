"""g(r) of float64 and of the policies in the NVT runs, beside the DFT frames that the potential was trained on."""

import csv
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from policy_artifacts import SETTINGS, find_reports, name_float64

from mdplugin.bench.table import NOTHING, format_table
from mdplugin.validation.case import REFERENCE
from mdplugin.validation.observables import structure
from mdplugin.validation.observables.structure import BIN_A, Rdf, find_peak, find_shell, measure_shell
from mdplugin.validation.profiles import MIN_G, measure_own_distances
from mdplugin.validation.statistics import Estimate, mean_of_independent
from mdplugin.validation.verdict import format_estimate

DFT = Path(__file__).with_name("water_dft_rdf.dat")
OXYGENS, HYDROGENS = "O-O", "H-H"
PAIRS = (OXYGENS, "H-O", HYDROGENS)  # DFT's columns after r; then those of their errors
SKINNER = {OXYGENS: ("2.81", "2.57")}  # peak and height
SKINNER_NEIGHBOURS = "4.84"  # within 3.44 Å
NOT_RUN = "*Not run yet.*"


def read_rdfs(path: Path) -> dict[str, dict[str, Rdf]]:
    """Potential -> pair -> g(r), its runs as blocks."""
    runs: dict[str, dict[str, dict[str, list]]] = {}
    with path.open() as file:
        for row in csv.DictReader(file):
            replicas = runs.setdefault(row["potential"], {}).setdefault(row["pair"], {})
            replicas.setdefault(row["replica"], []).append(row)
    return {
        potential: {pair: _collect(pair, replicas) for pair, replicas in pairs.items()}
        for potential, pairs in runs.items()
    }


def _collect(pair: str, replicas: dict[str, list]) -> Rdf:
    columns = {
        name: np.array([[float(row[name]) for row in rows] for rows in replicas.values()])
        for name in ("r_A", "g", "pairs", "centres")
    }
    return Rdf(pair, columns["r_A"][0], columns["g"], columns["pairs"], columns["centres"][:, 0])


def read_kept(kept: Path, potential: str) -> dict[str, dict[str, Rdf]]:
    """What is kept of the potential's NVT runs: float64's by `name_float64`, then the policies'; or empty."""
    names = [name for name in SETTINGS[potential].cases if name.endswith("nvt")]
    float64: dict[str, dict[str, Rdf]] = {}
    found: dict[str, dict[str, Rdf]] = {}
    for path in (path for name in names for path in find_reports(kept, name, "-rdf.csv")):
        rdfs = read_rdfs(path)
        own = rdfs.pop(REFERENCE)
        float64[name_float64(potential, rdfs if float64 else ())] = own
        found = {**rdfs, **found}
    order = [f"{potential}-{label}" for label in SETTINGS[potential].policies]
    return float64 | {label: found[label] for label in order if label in found}


def read_band(kept: Path, potential: str, float64: str) -> float | None:
    """Rms distance of one float64 run's g_OO from the mean of the others, or None; the distance of policies has no noise."""
    if (rdfs := read_kept(kept, potential).get(float64)) is None:
        return None
    rdf = rdfs[OXYGENS]
    runs = rdf.g[:, rdf.mean > MIN_G]
    return float(np.sqrt(np.mean([each.value**2 for each in measure_own_distances(runs)])))


def read_dft() -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(n,) r in Å, and pair -> (n,) g over the pairs of two molecules, and its standard error if frames were independent."""
    r, *columns = np.loadtxt(DFT).T
    n = len(PAIRS)
    return r, *(dict(zip(PAIRS, each, strict=True)) for each in (columns[:n], columns[n:]))


def write_rdf(kept: Path, potential: str) -> str:
    """First peaks, oxygen's first shell and the nearest hydrogens, of every policy, of DFT and of experiment."""
    if not (rdfs := read_kept(kept, potential)):
        return NOT_RUN
    own = rdfs[name_float64(potential)]
    shells = {pair: find_shell(rdf.r, rdf.mean) for pair, rdf in own.items()}
    rows = [_write_skinner(), _write_dft()]
    for label, of_pairs in rdfs.items():
        measured = {
            pair: measure_shell(rdf, shells[pair], mean_of_independent) for pair, rdf in of_pairs.items()
        }
        cells = [
            format_estimate(measured[pair][name]) if pair in measured else NOTHING
            for pair in PAIRS
            for name in ("rdf_peak_position", "rdf_peak_height")
        ]
        cells.append(format_estimate(measured[OXYGENS]["coordination"]))
        hydrogens = of_pairs.get(HYDROGENS)
        cells.append(
            NOTHING if hydrogens is None else _find_nearest(hydrogens.r, hydrogens.counts.sum(axis=0))
        )
        rows.append([label.removeprefix(f"{potential}-"), *cells])
    header = [""]
    for pair in PAIRS:
        header += [f"g({pair}): peak, Å", "height"]
    header += [f"O within {shells[OXYGENS].end:.2f} Å", "nearest H-H, Å"]
    return format_table(header, rows)


def _write_skinner() -> list[str]:
    peaks = [cell for pair in PAIRS for cell in SKINNER.get(pair, (NOTHING, NOTHING))]
    return ["x-rays, 295 K (Skinner et al. 2014)", *peaks, SKINNER_NEIGHBOURS, NOTHING]


def _write_dft() -> list[str]:
    r, dft, errors = read_dft()
    peaks = []
    for pair in PAIRS:
        position, height = find_peak(r, dft[pair], find_shell(r, dft[pair]))
        error = errors[pair][np.abs(r - position).argmin()]
        peaks += [f"{position:.3f}", format_estimate(Estimate(height, float(error)))]
    nearest = _find_nearest(r, dft[HYDROGENS])
    return ["DFT, 400 frames of the training set's dynamics", *peaks, NOTHING, nearest]


def _find_nearest(r: np.ndarray, counts: np.ndarray) -> str:
    """The start of the first bin that is not empty."""
    return f"{r[np.flatnonzero(counts)[0]] - BIN_A / 2:.2f}"


def draw_rdf(kept: Path, potential: str) -> None:
    """The picture {potential}-rdf.png, a panel for each pair: DFT as points, float64's runs as a band, policies as lines."""
    if not (rdfs := read_kept(kept, potential)):
        return
    figure = Figure(figsize=(8, 9), layout="constrained")
    r, dft, _ = read_dft()
    for axes, pair in zip(figure.subplots(len(PAIRS), sharex=True), PAIRS, strict=True):
        axes.plot(r, dft[pair], "k.", markersize=4, label="DFT frames")
        names = [label for label in rdfs if pair in rdfs[label]]
        float64 = [rdfs[label][pair] for label in names if label.startswith(name_float64(potential))]
        if float64:
            own = structure.cut_to_common_range(float64)
            runs = np.concatenate([rdf.g for rdf in own])
            axes.fill_between(
                own[0].r, runs.min(axis=0), runs.max(axis=0), color="0.7", label="float64, all runs"
            )
        for label in names:
            if label.startswith(potential):
                rdf = rdfs[label][pair]
                axes.plot(rdf.r, rdf.mean, linewidth=0.8, label=label.removeprefix(f"{potential}-"))
        axes.set_ylabel(f"g({pair})")
    axes.set_xlim(0.9, r[-1])
    axes.set_xlabel("r, Å")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    figure.savefig(kept / f"{potential}-rdf.png", dpi=110)
