"""Displacements and spectra of motions whose diffusion and frequency are known."""

import math

import ase
import numpy as np
from scipy.signal import lfilter
from test_validation_observables import make_series

from mdplugin.validation.observables import motion
from mdplugin.validation.spectrum import power_spectra


def test_the_diffusion_coefficient_of_a_random_walk():
    n_frames, n_atoms, spacing_ps, diffusion = 2000, 40, 0.02, 3.0
    step = np.sqrt(2 * diffusion / motion.A2_PER_PS_IN_1E9_M2_PER_S * spacing_ps)
    rng = np.random.default_rng(4)
    walk = np.cumsum(rng.normal(scale=step, size=(n_frames, n_atoms, 3)), axis=0)
    atoms = ase.Atoms("Ar" * n_atoms, positions=walk[0], cell=np.eye(3) * 50, pbc=True)
    (found,) = motion.compute_displacements(make_series(walk, atoms.cell.array, spacing_ps), atoms)
    measured = found.fit_diffusion()
    # in the frame of the centre of mass, which walks too
    assert abs(measured.value - diffusion * (1 - 1 / n_atoms)) <= 5 * measured.error
    assert 0 < measured.error <= 0.2 * diffusion


def test_the_diffusion_coefficient_is_of_the_same_lags_in_runs_of_any_length():
    """An atom in a cage: its displacement grows as 1 - exp(-t / 0.5 ps), of which early lags make a diffusion."""
    rng, spacing_ps, n_atoms = np.random.default_rng(5), 0.02, 20
    decay = np.exp(-spacing_ps / 0.5)
    kicks = rng.normal(scale=np.sqrt(1 - decay**2), size=(1001, n_atoms, 3))
    caged = lfilter([1], [1, -decay], kicks, axis=0)
    atoms = ase.Atoms("Ar" * n_atoms, positions=caged[0], cell=np.eye(3) * 50, pbc=True)
    found = {}
    for length_ps in (3, 5, 10, 20):
        frames = round(length_ps / spacing_ps) + 1
        (run,) = motion.compute_displacements(make_series(caged[:frames], np.eye(3) * 50, spacing_ps), atoms)
        found[length_ps] = run.fit_diffusion()
        assert len(run.square_A2) == max(1, length_ps // 5) and run.square_A2[0, 0] == 0
    assert math.isnan(found[3].value)  # no lag of 2.5 ps with starts enough
    # slope of 2 (1 - exp(-t / 0.5)) per direction from 1 to 2.5 ps
    lags = np.arange(1.0, 2.5, 2 * spacing_ps)
    slope = np.polyfit(lags, 6 * (1 - np.exp(-lags / 0.5)), 1)[0] / 6 * motion.A2_PER_PS_IN_1E9_M2_PER_S
    for length_ps in (5, 10, 20):
        assert abs(found[length_ps].value - slope) <= 5 * found[20].error * np.sqrt(20 / length_ps)
    assert math.isnan(found[10].error) and found[20].dof == 3


def test_the_spectrum_of_an_oscillator_has_its_frequency():
    spacing_fs, wavenumber = 2.0, 1500.0
    time_fs = np.arange(4000) * spacing_fs
    velocity = np.cos(2 * np.pi * wavenumber * 2.99792458e-5 * time_fs)
    velocities = np.zeros((4000, 3, 3))
    velocities[:, 2, 1] = velocity
    frequency, spectra = power_spectra(velocities, np.array([1, 1, 8]), spacing_fs)
    assert spectra.shape == (1, 2, len(frequency))
    assert spectra[0, 0].max() == 0  # the hydrogens rest
    oxygen = spectra[0, 1]
    assert abs(frequency[np.argmax(oxygen)] - wavenumber) <= frequency[1]
    band = motion.find_highest_band(oxygen)
    centre = motion.measure_band(np.repeat(oxygen[None], 3, axis=0), frequency, band)
    assert abs(centre.value - wavenumber) <= 0.05 * frequency[1]


def test_the_highest_band_of_a_crystal_is_its_topmost_peak():
    """Acoustic and optical vibrations without a gap between them, and a ripple of noise above."""
    frequency = np.arange(0, 800, 10.0)
    acoustic, optical = (
        height * np.exp(-(((frequency - centre) / width) ** 2) / 2)
        for height, centre, width in ((1.0, 150, 80), (0.6, 460, 25))
    )
    ripple = np.where(frequency > 600, 0.01 * (1 + np.cos(frequency)), 0)
    spectrum = acoustic + optical + 0.05 * (frequency < 560) + ripple
    found = frequency[motion.find_highest_band(spectrum)]
    assert 420 < found[0] < 440 and 480 < found[-1] < 500
    # what is shared between the two parts does not move it
    colder = 1.2 * acoustic + 0.8 * optical + 0.05 * (frequency < 560) + ripple
    centres = [
        motion.measure_band(np.repeat(each[None], 3, axis=0), frequency, motion.find_highest_band(each)).value
        for each in (spectrum, colder)
    ]
    assert abs(centres[0] - 460) <= 1 and abs(centres[1] - centres[0]) <= 1
