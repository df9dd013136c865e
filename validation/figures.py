"""Evidence -> PNGs: energy against time, radial distributions, temperature, spectra, shadow error, speed and fidelity."""

import math
import warnings
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from mdplugin.validation.case import REFERENCE
from mdplugin.validation.observables.motion import FIT_FROM_PS, FIT_TO_PS
from mdplugin.validation.observables.structure import cut_to_common_range
from mdplugin.validation.statistics import block_means, combine_replicas

LINES, MARKERS = ("-", "--", "-."), "osD^v"
N_MEANS = 250  # of a run's energies: what is left is what does not average out
WIDE = 10  # energies that go so far beyond float64's are drawn on a logarithmic axis


def draw_figures(report, evidence: dict, directory: Path) -> list[str]:
    """Write the figures for which there is something to show; their file names."""
    written = []
    for name, draw in _FIGURES.items():
        figure = draw(report, evidence)
        if figure is None:
            continue
        with warnings.catch_warnings():
            # a name in a script that the font does not have is drawn as boxes, which harms nobody
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            figure.savefig(directory / f"{name}.png", format="png", dpi=110)
        written.append(f"{name}.png")
    return written


def _style(report, label: str) -> dict:
    """Color and line of a potential; neighbours in the legend differ in both, for who sees no colors."""
    if label == REFERENCE:
        return {"color": "black", "linestyle": "-"}
    index = report.case.labels.index(label)
    return {"color": f"C{index % 10}", "linestyle": LINES[index % len(LINES)]}


def _name(label: str) -> str:
    return "float64" if label == REFERENCE else label


def _candidates(report, evidence) -> list[str]:
    """Those of which something is known: none where float64 itself is blamed."""
    return [label for label in report.case.labels if label in evidence]


def _series(evidence, label):
    return [
        replica.main
        for replica in evidence[label].replicas
        if replica.main is not None and replica.main.steps
    ]


def _plot_runs(axes, report, label: str, curves, linewidth: float = 0.8, **style) -> None:
    """A line (x, y) for each run, in the color of its potential, which the legend names once."""
    for number, curve in enumerate(curves):
        name = _name(label) if number == 0 else None
        axes.plot(*curve, **_style(report, label), linewidth=linewidth, label=name, **style)


def _draw_energy(report, evidence):
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    reference = [np.abs(run.conserved_meV_per_atom).max() for run in _series(evidence, REFERENCE)]
    if not reference or not math.isfinite(max(reference)):
        return None
    for label in evidence:
        curves = []
        for run in _series(evidence, label):
            n = min(N_MEANS, len(run.time_ps))
            curves.append((block_means(run.time_ps, n), block_means(run.conserved_meV_per_atom, n)))
            if run.failure is not None:
                axes.axvline(run.length_ps, color="tab:red", linewidth=1)
        _plot_runs(axes, report, label, curves)
    runs = [
        run.conserved_meV_per_atom
        for label in evidence
        for run in _series(evidence, label)
        if run.failure is None
    ]
    if not runs:
        return None
    largest = max(np.abs(values).max() for values in runs)
    if largest > WIDE * max(reference):  # what heats would squeeze the rest to a line
        axes.set_yscale("symlog", linthresh=max(2 * max(reference), 1e-9), linscale=2)
    # what explodes would squeeze all others
    axes.set_ylim(-1.05 * largest - 1e-9, 1.05 * largest + 1e-9)
    axes.set_ylabel("conserved energy − its start, meV/atom (means)")
    axes.set_xlabel("time, ps")
    _legend(axes)
    return figure


def _legend(axes) -> None:
    """Beside the plot, where it hides nothing."""
    handles, labels = axes.get_legend_handles_labels()
    legend = axes.figure.legend(handles, labels, loc="outside right upper", frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)  # it holds a file's name, which is no TeX


def _draw_rdfs(report, evidence):
    pairs = list(evidence[REFERENCE].measurement.rdfs)
    if not pairs:
        return None
    figure = Figure(figsize=(9, 3.2 * len(pairs)), layout="constrained")
    for axes, pair in zip(np.atleast_1d(figure.subplots(len(pairs), 1)), pairs, strict=True):
        rdfs = cut_to_common_range(evidence[REFERENCE].measurement.rdfs[pair])
        own = np.array([rdf.mean for rdf in rdfs])
        axes.fill_between(
            rdfs[0].r, own.min(axis=0), own.max(axis=0), color="0.75", label="float64, all replicas"
        )
        for label in _candidates(report, evidence):
            rdfs = cut_to_common_range(evidence[label].measurement.rdfs.get(pair, []))
            if rdfs:
                mean = np.mean([rdf.mean for rdf in rdfs], axis=0)
                axes.plot(rdfs[0].r, mean, **_style(report, label), linewidth=1, label=label)
        axes.set_ylabel(f"g({pair})")
    axes.set_xlabel("r, Å")
    _legend(axes)
    return figure


def _draw_displacements(report, evidence):
    symbols = list(evidence[REFERENCE].measurement.displacements)
    if not symbols:
        return None
    figure = Figure(figsize=(9, 3.2 * len(symbols)), layout="constrained")
    for axes, symbol in zip(np.atleast_1d(figure.subplots(len(symbols), 1)), symbols, strict=True):
        axes.axvspan(FIT_FROM_PS, FIT_TO_PS, color="0.93")
        for label in evidence:
            runs = evidence[label].measurement.displacements.get(symbol, [])
            _plot_runs(axes, report, label, [(run.lag_ps, run.square_A2.mean(axis=0)) for run in runs])
        axes.set_ylabel(f"displacement² of {symbol}, Å²")
    axes.set_xlabel("lag, ps; D is fitted in the shaded range")
    _legend(axes)
    return figure


def _draw_temperature(report, evidence):
    if report.case.ensemble == "nve":
        return None
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots()
    case = report.case
    values = {
        label: [run.temperature_K for run in _series(evidence, label) if run.failure is None]
        for label in evidence
    }
    known = [np.concatenate(each) for each in values.values() if each]
    if not known:
        return None
    edges = np.linspace(min(map(np.min, known)), max(map(np.max, known)), 50)
    for label, each in values.items():
        if each:
            axes.hist(
                np.concatenate(each),
                edges,
                density=True,
                histtype="step",
                **_style(report, label),
                label=_name(label),
            )
    half = _series(evidence, REFERENCE)[0].degrees_of_freedom / 2
    axes.plot(
        edges, stats.gamma.pdf(edges / case.temperature_K * half, half) * half / case.temperature_K, "k--",
        linewidth=0.8, label="canonical",
    )  # fmt: skip
    axes.set_xlabel("temperature, K")
    axes.set_yticks([])
    _legend(axes)
    return figure


def _draw_spectrum(report, evidence):
    if not evidence[REFERENCE].measurement.spectra:
        return None
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots()
    for label, each in evidence.items():
        if each.measurement.spectra:
            mean = np.mean([spectra.mean(axis=0) for spectra in each.measurement.spectra], axis=0)
            axes.plot(
                each.measurement.frequency_per_cm,
                mean,
                **_style(report, label),
                linewidth=1,
                label=_name(label),
            )
    axes.set_xlim(0, 4500)
    axes.set_xlabel("wavenumber, cm⁻¹")
    axes.set_ylabel("density of states, cm")
    _legend(axes)
    return figure


def _draw_shadow(report, evidence):
    labels = [label for label in _candidates(report, evidence) if evidence[label].shadows]
    if not labels:
        return None
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots()
    for label in labels:
        curves = [(shadow.time_ps, shadow.energy_meV_per_atom) for shadow in evidence[label].shadows]
        _plot_runs(axes, report, label, curves, marker=".", linewidth=0.7)
    axes.set_xlabel("time, ps")
    axes.set_ylabel("E − E(float64), meV/atom")
    _legend(axes)
    return figure


def _draw_plane(report, evidence):
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    shown = 0
    for label in _candidates(report, evidence):
        errors = evidence[label].measurement.values.get("force_rmse")
        speed = report.speeds[label]
        if not errors or not math.isfinite(speed):
            continue
        error = combine_replicas(errors).value
        if not error > 0:
            continue
        marker = MARKERS[report.case.labels.index(label) % len(MARKERS)]
        axes.plot(speed, error, marker, color=_style(report, label)["color"], label=label)
        shown += 1
    if not shown:
        return None
    if math.isfinite(report.speeds[REFERENCE]):
        axes.axvline(report.speeds[REFERENCE], color="black", linewidth=1, label="float64")
    axes.set_yscale("log")
    axes.set_xlim(left=0)
    axes.set_xlabel("ms per step")
    axes.set_ylabel("force error (rms), meV/Å")
    _legend(axes)
    return figure


_FIGURES = {
    "energy": _draw_energy,
    "radial-distribution": _draw_rdfs,
    "mean-squared-displacement": _draw_displacements,
    "temperature": _draw_temperature,
    "vibrational-spectrum": _draw_spectrum,
    "shadow-energy": _draw_shadow,
    "speed-and-fidelity": _draw_plane,
}


DESCRIPTIONS = {
    "energy": "The conserved energy of every run against time, less its start: what drifts leaves zero",
    "radial-distribution": "g(r) of every pair of elements: the potentials as lines, float64's runs as a band",
    "mean-squared-displacement": "Mean squared displacement of every element against the lag, of every run",
    "temperature": "Distribution of the kinetic temperature of each potential beside the canonical one",
    "vibrational-spectrum": "Vibrational density of states of each potential against the wavenumber",
    "shadow-energy": "Energy of the candidates less float64's on frames of their own runs, against time",
    "speed-and-fidelity": "Force error of each candidate against the time of a step; a line where float64 is",
}


def find_figures(directory: Path) -> list[Path]:
    """The figures that a report left in its directory, in their order."""
    return [path for name in _FIGURES if (path := directory / f"{name}.png").is_file()]
