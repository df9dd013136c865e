"""Runs -> a figure: total energy and temperature against time, candidate over reference."""

import warnings
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mdplugin.validation.drift import Slope
from mdplugin.validation.series import Run

_STYLE = {"reference": ("tab:gray", 1.6), "candidate": ("tab:blue", 0.9)}


def plot_energies(path: Path, runs: dict[str, Run], drifts: dict[str, Slope], title: str) -> None:
    """Write a PNG. `runs` and `drifts` by label, "reference" and "candidate"."""
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    energy, temperature = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    for label, (color, width) in _STYLE.items():
        run, drift = runs[label], drifts[label]
        if len(run.time_ps) == 0:
            continue
        values = run.total_meV_per_atom
        text = f"{label}: {drift.value:.2g} ± {drift.error:.1g} meV/atom/ps" if run.failure is None else label
        energy.plot(run.time_ps, values, color=color, linewidth=width, label=text)
        if run.failure is None:
            line = values.mean() + drift.value * (run.time_ps - run.time_ps.mean())
            energy.plot(run.time_ps, line, color=color, linewidth=1.2, linestyle="--")
        else:
            _mark_failure(energy, run, label)
        temperature.plot(run.time_ps, run.temperature_K, color=color, linewidth=width)
    energy.set_title(title, parse_math=False)  # it holds a file's name, which is no TeX
    energy.set_ylabel("E(t) − E(0), meV/atom")
    energy.legend(loc="best", frameon=False)
    temperature.set_ylabel("T, K")
    temperature.set_xlabel("time, ps")
    reference = runs["reference"]
    if runs["candidate"].failure is not None:  # an explosion would squeeze the reference to a line
        _focus(energy, reference.total_meV_per_atom)
        _focus(temperature, reference.temperature_K)
    with warnings.catch_warnings():
        # a name in a script that the font does not have is drawn as boxes, which harms nobody
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(path, format="png", dpi=150)


def _mark_failure(axes, run: Run, label: str) -> None:
    axes.axvline(
        run.time_ps[-1], color="tab:red", linewidth=1, label=f"{label} fails at step {run.failure.step}"
    )


def _focus(axes, values: np.ndarray) -> None:
    span = max(float(np.ptp(values)), 1e-12)
    axes.set_ylim(values.min() - 2 * span, values.max() + 2 * span)
