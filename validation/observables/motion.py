"""Diffusion coefficients from mean squared displacements; frequencies from spectra."""

import dataclasses
import itertools

import ase
import numpy as np
from ase.data import chemical_symbols
from MDAnalysis.analysis.msd import EinsteinMSD

from mdplugin.validation.observables.trajectory import make_universe
from mdplugin.validation.series import Series
from mdplugin.validation.statistics import UNKNOWN, Estimate, mean_of_independent

N_BLOCKS = 4
MAX_FRAMES = 100  # of a block
FIT_FROM, FIT_TO = 0.2, 0.5  # of the block's length: after the ballistic part, before the noise
A2_PER_PS_IN_1E9_M2_PER_S = 10.0
BAND_THRESHOLD = 0.02  # of the largest power


def measure_diffusion(series: Series, atoms: ase.Atoms) -> dict[str, Estimate]:
    """D of each element, 1e-9 m^2/s: a sixth of the slope of the mean squared displacement (Einstein).

    From 4 blocks of the run, in the frame of the centre of mass.
    """
    frames = len(series.positions)
    symbols = [chemical_symbols[number] for number in np.unique(atoms.numbers)]
    if frames < 8 * N_BLOCKS:
        return dict.fromkeys(symbols, UNKNOWN)
    edges = np.linspace(0, frames, N_BLOCKS + 1).astype(int)
    values = {symbol: [] for symbol in symbols}
    masses = atoms.get_masses()
    for first, last in itertools.pairwise(edges):
        stride = max(1, (last - first) // MAX_FRAMES)
        universe = make_universe(_remove_drift(series, masses), atoms, slice(first, last, stride))
        for symbol in symbols:
            msd = EinsteinMSD(universe, select=f"name {symbol}", msd_type="xyz", fft=False).run()
            curve = msd.results.timeseries
            lags = np.arange(len(curve)) * stride * float(np.diff(series.frame_time_ps[:2])[0])
            fit = slice(
                round(FIT_FROM * len(curve)),
                max(round(FIT_TO * len(curve)), round(FIT_FROM * len(curve)) + 2),
            )
            slope = np.polyfit(lags[fit], curve[fit], 1)[0]
            values[symbol].append(slope / 6 * A2_PER_PS_IN_1E9_M2_PER_S)
    return {symbol: mean_of_independent(np.array(each)) for symbol, each in values.items()}


def _remove_drift(series: Series, masses: np.ndarray) -> Series:
    centre = (series.positions * masses[:, None]).sum(axis=1, keepdims=True) / masses.sum()
    return dataclasses.replace(series, positions=series.positions - centre)


def density_of_states(series: Series, atoms: ase.Atoms) -> np.ndarray:
    """(n_windows, n_frequencies) mass-weighted spectra, each with integral 1 per cm^-1.

    The atoms of an element, whose spectra are stored as one, weigh alike: by their mean mass.
    """
    masses = np.array([atoms.get_masses()[atoms.numbers == z].mean() for z in np.unique(atoms.numbers)])
    total = (series.spectrum * masses[:, None]).sum(axis=1)
    spacing = series.frequency_per_cm[1] - series.frequency_per_cm[0]
    return total / (total.sum(axis=1, keepdims=True) * spacing)


def find_highest_band(spectrum: np.ndarray) -> slice:
    """The connected range of highest frequency where the power exceeds BAND_THRESHOLD of its largest."""
    strong = np.flatnonzero(spectrum > BAND_THRESHOLD * spectrum.max())
    top = int(strong[-1])
    weak = np.flatnonzero(spectrum[:top] <= BAND_THRESHOLD * spectrum.max())
    return slice(int(weak[-1]) + 1 if len(weak) else 0, top + 1)


def measure_band(spectra: np.ndarray, frequency: np.ndarray, band: slice) -> Estimate:
    """Mean frequency of a band, cm^-1, from the spectra of consecutive windows."""
    weights = spectra[:, band]
    centres = (weights * frequency[band]).sum(axis=1) / weights.sum(axis=1)
    if len(centres) < 3:  # the scatter between replicas has to do
        return Estimate(float(centres.mean()), np.nan, 1.0)
    return mean_of_independent(centres)
