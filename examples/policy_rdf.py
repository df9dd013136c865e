"""g_OO of float64 and of the policies in the NVT runs, beside the DFT frames that the potential was trained on."""

import csv
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from policy_artifacts import SETTINGS, find_reports, name_float64

from mdplugin.bench.table import NOTHING, format_table
from mdplugin.validation.case import REFERENCE
from mdplugin.validation.observables import structure
from mdplugin.validation.observables.structure import Rdf, find_peak, find_shell, measure_shell
from mdplugin.validation.profiles import MIN_G, measure_own_distances
from mdplugin.validation.report import RDFS
from mdplugin.validation.statistics import mean_of_independent
from mdplugin.validation.verdict import format_estimate

DFT = Path(__file__).with_name("water_dft_goo.dat")
N_OXYGENS = 64
PAIR = "O-O"
SKINNER = ("x-rays, 295 K (Skinner et al. 2014)", "2.81", "2.57", "4.84")  # n: within 3.44 Å
NOT_RUN = "*Not run yet.*"


def keep_rdfs(source: Path, target: Path) -> None:
    """Copy the rows of PAIR of a report's table."""
    with (source / RDFS).open() as read, target.open("w", newline="") as write:
        header, *rows = csv.reader(read)
        column = header.index("pair")
        csv.writer(write).writerows([header, *(row for row in rows if row[column] == PAIR)])


def read_rdfs(path: Path) -> dict[str, Rdf]:
    """Potential -> g(r), its runs as blocks."""
    runs: dict[str, dict[str, list]] = {}
    with path.open() as file:
        for row in csv.DictReader(file):
            runs.setdefault(row["potential"], {}).setdefault(row["replica"], []).append(row)
    rdfs = {}
    for potential, replicas in runs.items():
        columns = {
            name: np.array([[float(row[name]) for row in rows] for rows in replicas.values()])
            for name in ("r_A", "g", "pairs", "centres")
        }
        rdfs[potential] = Rdf(
            PAIR, columns["r_A"][0], columns["g"], columns["pairs"], columns["centres"][:, 0]
        )
    return rdfs


def read_kept(kept: Path, potential: str) -> dict[str, Rdf]:
    """What `keep_rdfs` kept of the potential's NVT runs: float64's by `name_float64`, then the policies'; or empty."""
    names = [name for name in SETTINGS[potential].cases if name.endswith("nvt")]
    float64: dict[str, Rdf] = {}
    found: dict[str, Rdf] = {}
    for path in (path for name in names for path in find_reports(kept, name, "-rdf.csv")):
        rdfs = read_rdfs(path)
        own = rdfs.pop(REFERENCE)
        float64[name_float64(potential, rdfs if float64 else ())] = own
        found = {**rdfs, **found}
    order = [f"{potential}-{label}" for label in SETTINGS[potential].policies]
    return float64 | {label: found[label] for label in order if label in found}


def read_band(kept: Path, potential: str, float64: str) -> float | None:
    """Rms distance of one float64 run's g_OO from the mean of the others, or None; the distance of policies has no noise."""
    if (rdf := read_kept(kept, potential).get(float64)) is None:
        return None
    runs = rdf.g[:, rdf.mean > MIN_G]
    return float(np.sqrt(np.mean([each.value**2 for each in measure_own_distances(runs)])))


def read_dft() -> tuple[np.ndarray, np.ndarray]:
    """(n,) r in Å and g_OO over the pairs that there are."""
    r, g = np.loadtxt(DFT).T
    return r, g * N_OXYGENS / (N_OXYGENS - 1)


def write_rdf(kept: Path, potential: str) -> str:
    """First peak and shell of every policy, of DFT and of experiment."""
    if not (rdfs := read_kept(kept, potential)):
        return NOT_RUN
    r, dft = read_dft()
    position, height = find_peak(r, dft, find_shell(r, dft))
    own = rdfs[name_float64(potential)]
    shell = find_shell(own.r, own.mean)
    rows = [
        SKINNER,
        ("DFT, 400 frames of the training set's dynamics", f"{position:.3f}", f"{height:.3f}", NOTHING),
    ]
    for label, rdf in rdfs.items():
        measured = measure_shell(rdf, shell, mean_of_independent)  # its blocks are runs
        names = ("rdf_peak_position", "rdf_peak_height", "coordination")
        cells = [format_estimate(measured[name]) for name in names]
        rows.append((label.removeprefix(f"{potential}-"), *cells))
    return format_table(["g_OO", "first peak, Å", "its height", f"neighbours within {shell.end:.2f} Å"], rows)


def draw_rdf(kept: Path, potential: str) -> None:
    """The picture {potential}-goo.png: DFT as points, float64's runs as a band, policies as lines."""
    if not (rdfs := read_kept(kept, potential)):
        return
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(*read_dft(), "k.", markersize=4, label="DFT frames")
    float64 = [rdf for label, rdf in rdfs.items() if label.startswith(name_float64(potential))]
    own = structure.cut_to_common_range(float64)
    runs = np.concatenate([rdf.g for rdf in own])
    axes.fill_between(own[0].r, runs.min(axis=0), runs.max(axis=0), color="0.7", label="float64, all runs")
    for label, rdf in rdfs.items():
        if label.startswith(potential):
            axes.plot(rdf.r, rdf.mean, linewidth=0.8, label=label.removeprefix(f"{potential}-"))
    axes.set_xlim(2, own[0].r[-1])
    axes.set_xlabel("r, Å")
    axes.set_ylabel("g(O-O)")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", frameon=False)
    figure.savefig(kept / f"{potential}-goo.png", dpi=110)
