"""Diffusion coefficients from mean squared displacements; frequencies from spectra."""

import dataclasses
import itertools
from dataclasses import dataclass

import ase
import numpy as np
from ase.data import chemical_symbols
from MDAnalysis.analysis.msd import EinsteinMSD

from mdplugin.validation.observables.trajectory import make_universe
from mdplugin.validation.series import Series
from mdplugin.validation.statistics import (
    UNKNOWN,
    Estimate,
    estimate_mean_of_few,
    mean_of_independent,
    take_one,
)

BLOCK_PS = 5.0  # displacements of blocks so long hardly correlate: what holds an atom of a liquid lives for picoseconds
# where the line is fitted, in runs of any length: D of 0.3 ps is not D of 2 ps. After the ballistic and caged part, and
# where half of a block's frames are still starting points
FIT_FROM_PS, FIT_TO_PS = 1.0, 2.5
MAX_FRAMES = 100  # of a block
A2_PER_PS_IN_1E9_M2_PER_S = 10.0
PEAK_SHARE = 0.2  # of the largest power
MIN_GAIN = 0.1  # see `Band`; that of a line or a box is 0.36 or more


@dataclass(frozen=True)
class Displacement:
    """Mean squared displacement of one element in one run, in the frame of the centre of mass.

    Attributes:
        symbol: of the element.
        lag_ps: (n_lags,).
        square_A2: (n_blocks, n_lags) of consecutive blocks of the run, each averaged over atoms and starting points.
    """

    symbol: str
    lag_ps: np.ndarray
    square_A2: np.ndarray

    def fit_diffusion(self) -> Estimate:
        """D in 1e-9 m^2/s: a sixth of the slope between FIT_FROM_PS and FIT_TO_PS (Einstein); UNKNOWN of shorter blocks.

        Of fewer than three blocks the error is unknown: the scatter of replicas has to do.
        """
        inside = (self.lag_ps > FIT_FROM_PS - _ROUNDING_PS) & (self.lag_ps < FIT_TO_PS - _ROUNDING_PS)
        if inside.sum() < 2 or self.lag_ps[-1] + 2 * self.lag_ps[1] < BLOCK_PS:
            return UNKNOWN
        slopes = np.polyfit(self.lag_ps[inside], self.square_A2[:, inside].T, 1)[0]
        values = slopes / 6 * A2_PER_PS_IN_1E9_M2_PER_S
        return mean_of_independent(values) if len(values) > 2 else take_one(values.mean())


_ROUNDING_PS = 1e-9


def compute_displacements(series: Series, atoms: ase.Atoms) -> list[Displacement]:
    """Mean squared displacements of every element, from blocks of BLOCK_PS or more; of a shorter run, one block."""
    frames = len(series.positions)
    if frames < 2:
        return []
    spacing = float(series.frame_time_ps[1] - series.frame_time_ps[0])
    n_blocks = max(1, int((series.frame_time_ps[-1] - series.frame_time_ps[0] + _ROUNDING_PS) / BLOCK_PS))
    edges = np.linspace(0, frames, n_blocks + 1).astype(int)
    stride = max(1, int(np.diff(edges).min()) // MAX_FRAMES)
    still = _remove_drift(series, atoms.get_masses())
    blocks = [slice(first, last, stride) for first, last in itertools.pairwise(edges)]
    universes = [make_universe(still, atoms, block) for block in blocks]
    found = []
    for symbol in (chemical_symbols[number] for number in np.unique(atoms.numbers)):
        curves = [
            EinsteinMSD(universe, select=f"name {symbol}", msd_type="xyz", fft=False).run().results.timeseries
            for universe in universes
        ]
        n_lags = min(map(len, curves))
        lags = np.arange(n_lags) * stride * spacing
        found.append(Displacement(symbol, lags, np.array([curve[:n_lags] for curve in curves])))
    return found


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
    """The maximum of highest frequency that has PEAK_SHARE of the largest, as far as there is half of it on both sides.

    Not as far as there is anything: in a crystal that is the whole spectrum, whose mean says how the heat is shared.
    """
    inner = spectrum[1:-1]
    is_peak = (inner >= spectrum[:-2]) & (inner > spectrum[2:]) & (inner > PEAK_SHARE * spectrum.max())
    peaks = np.flatnonzero(is_peak) + 1
    top = int(peaks[-1]) if len(peaks) else int(spectrum.argmax())
    weak = np.flatnonzero(spectrum <= spectrum[top] / 2)
    below, above = weak[weak < top], weak[weak > top]
    return slice(int(below[-1]) + 1 if len(below) else 0, int(above[0]) if len(above) else len(spectrum))


@dataclass(frozen=True)
class Band:
    """A range of frequencies in which two potentials are compared.

    Attributes:
        inside: the bins.
        centre_per_cm: mean frequency of both spectra there.
        gain: how far the mean follows a shift of a spectrum. The mean C of S from a to b follows by

            G = 1 - [(b - C) S(b) + (C - a) S(a)] / (integral of S from a to b)

            of it, the derivative of C: a Gaussian's between its half heights by 0.38. What leaves the range on one side
            and enters it on the other takes the rest.
    """

    inside: slice
    centre_per_cm: float
    gain: float


def find_common_band(first: np.ndarray, second: np.ndarray, frequency: np.ndarray) -> Band:
    """From where the lower of the highest bands of two spectra (n_frequencies,) starts to where the upper one ends.

    One range for both: half of the height is crossed a bin earlier or later by chance, which moves the mean of what is
    between by tens of cm^-1. A line that is in one bin is taken with its neighbours, which tell where it goes; of lines
    that the windows do not resolve, shifts come out up to 1.5 times as large as they are.
    """
    bands = [find_highest_band(each) for each in (first, second)]
    start, stop = min(each.start for each in bands), max(each.stop for each in bands)
    if stop - start == 1:
        start, stop = max(start - 1, 0), min(stop + 1, len(frequency))
    inside = slice(start, stop)
    centres, gains = zip(*(_measure_range(each, frequency, inside) for each in (first, second)), strict=True)
    return Band(inside, float(np.mean(centres)), float(np.mean(gains)))


def _measure_range(spectrum: np.ndarray, frequency: np.ndarray, inside: slice) -> tuple[float, float]:
    """Mean frequency and G (`Band`) of a spectrum in a range, whose bins are as wide as they are apart."""
    power, spacing = spectrum[inside], float(frequency[1] - frequency[0])
    total = float(power.sum())
    centre = float(power @ frequency[inside]) / total
    at_start = (spectrum[max(inside.start - 1, 0)] + power[0]) / 2
    at_stop = (spectrum[min(inside.stop, len(spectrum) - 1)] + power[-1]) / 2
    start, stop = frequency[inside][0] - spacing / 2, frequency[inside][-1] + spacing / 2
    lost = float((stop - centre) * at_stop + (centre - start) * at_start) / (total * spacing)
    return centre, 1 - lost


def measure_band(spectra: np.ndarray, frequency: np.ndarray, band: Band) -> Estimate:
    """Frequency of a band, cm^-1, from the spectra (n_windows, n_frequencies) of consecutive windows.

    Their means, stretched about the common one by 1 / G, so that they move as the band does. UNKNOWN if there is no band:
    the mean of what is as high at the ends as between does not follow.
    """
    if band.gain < MIN_GAIN:
        return UNKNOWN
    power = spectra[:, band.inside]
    means = (power * frequency[band.inside]).sum(axis=1) / power.sum(axis=1)
    centres = band.centre_per_cm + (means - band.centre_per_cm) / band.gain
    if len(centres) < 3:  # the scatter between replicas has to do
        return take_one(centres.mean())
    return estimate_mean_of_few(centres) if len(centres) > 3 else mean_of_independent(centres)
