"""Velocities -> vibrational density of states, by element.

The power spectrum of the velocities is the Fourier transform of their autocorrelation function (Wiener and Khinchin);
it is estimated by Welch's averaged periodograms. Mass-weighted and normalised it is the density of states of the
harmonic oscillators that would move alike.
"""

import numpy as np

from mdplugin.validation.case import MIN_VELOCITIES

WINDOW_FS = 1000.0  # resolution 33 cm^-1, with Hann's window about 50
PER_FS_TO_PER_CM = 1e15 / 2.99792458e10


def power_spectra(
    velocities: np.ndarray, numbers: np.ndarray, spacing_fs: float
) -> tuple[np.ndarray, np.ndarray]:
    """Average spectrum of each element.

    Args:
        velocities: (n_frames, n_atoms, 3), any unit.
        numbers: (n_atoms,) atomic numbers.
        spacing_fs: time between frames.

    Returns:
        (n_frequencies,) cm^-1, and (1, n_elements, n_frequencies) sums over the atoms of an element, ascending atomic
        number; empty of fewer than MIN_VELOCITIES frames.
    """
    elements = np.unique(numbers)
    if len(velocities) < MIN_VELOCITIES:
        return np.zeros(0), np.zeros((0, len(elements), 0))
    from scipy import signal  # takes a second to import, which runs without a spectrum do not pay

    window = min(len(velocities), max(MIN_VELOCITIES, round(WINDOW_FS / spacing_fs)))
    frequency, power = signal.welch(
        velocities, fs=1 / spacing_fs, window="hann", nperseg=window, detrend=False, axis=0
    )
    summed = power.sum(axis=2)
    spectra = np.stack([summed[:, numbers == number].sum(axis=1) for number in elements])
    return frequency * PER_FS_TO_PER_CM, spectra[None]
