"""Displacements and spectra of motions whose diffusion and frequency are known."""

import math

import ase
import numpy as np
import pytest
from scipy import stats
from scipy.signal import lfilter
from test_validation_observables import make_series

from mdplugin.validation.comparison import compare_observable
from mdplugin.validation.limits import LIMITS
from mdplugin.validation.measurement import Measurement
from mdplugin.validation.observables import motion
from mdplugin.validation.profiles import add_profiles
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
    band = motion.find_common_band(oxygen, oxygen, frequency)
    centre = motion.measure_band(np.repeat(oxygen[None], 3, axis=0), frequency, band)
    assert abs(centre.value - wavenumber) <= 0.05 * frequency[1]


def compare_bands(first, second, frequency):
    """The frequencies of the highest band of two spectra, cm^-1."""
    band = motion.find_common_band(first, second, frequency)
    return [
        motion.measure_band(np.repeat(each[None], 3, axis=0), frequency, band).value
        for each in (first, second)
    ]


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
    first, second = compare_bands(spectrum, colder, frequency)
    assert abs(first - 460) <= 2 and abs(second - first) <= 1


FREQUENCY = np.arange(0, 4001, 1000 / 30)  # windows of 1 ps


def broad_band(centre):
    """Like water's stretch: lopsided, 350 cm^-1 wide at half its height."""
    x = (FREQUENCY - centre) / 150
    return np.exp(-(x**2) / 2) * (1 + 0.3 * np.tanh(x))


@pytest.mark.parametrize("shift", [-60, -15, 5, 15, 60])
def test_a_broad_band_is_followed_where_it_goes(shift):
    first, second = compare_bands(broad_band(3500), broad_band(3500 + shift), FREQUENCY)
    assert abs(second - first - shift) <= 0.1 * abs(shift)


@pytest.mark.parametrize("shift", [1, 5, 15, 40, 200])
def test_a_line_that_is_not_resolved_is_not_taken_for_one_that_stays(shift):
    found = []
    for wavenumber in np.linspace(1500, 1533, 8):
        lines = []
        for each in (wavenumber, wavenumber + shift):
            velocities = np.zeros((500, 1, 3))
            velocities[:, 0, 0] = np.cos(2 * np.pi * each * 2.99792458e-5 * 2.0 * np.arange(500) + each)
            frequency, spectra = power_spectra(velocities, np.array([8]), 2.0)
            lines.append(spectra[0, 0])
        first, second = compare_bands(*lines, frequency)
        found.append((second - first) / shift)
    assert min(found) >= 0.9 and max(found) <= 1.5


def test_what_is_no_band_has_no_frequency():
    assert np.isnan(compare_bands(np.ones(50), np.ones(50), FREQUENCY[:50])).all()


def judge_shift(rng, shift, n_runs=3, n_windows=20, n_modes=128):
    """The test on runs whose powers scatter as those of so many oscillators with random amplitudes and phases."""
    sides = []
    for centre in (3500 + shift, 3500):
        mean = broad_band(centre) + 0.02
        modes = np.maximum(n_modes * mean / mean.sum(), 0.5)
        sides.append([mean * rng.gamma(modes, 1 / modes, (n_windows, len(mean))) for _ in range(n_runs)])
    values = add_profiles(*(Measurement({}, spectra=each, frequency_per_cm=FREQUENCY) for each in sides))
    return compare_observable("vdos_shift", *(each["vdos_shift"] for each in values), LIMITS)


def test_a_broad_noisy_band_is_judged_as_often_wrong_as_is_stated():
    rng, n_trials = np.random.default_rng(1), 400
    limit = 0.0043 * 3500
    at_limit = [judge_shift(rng, limit) for _ in range(n_trials)]
    level = lambda p: stats.binom.isf(1e-3, n_trials, p)  # noqa: E731
    assert sum(test.p_pass < 0.05 for test in at_limit) <= level(0.05)
    assert sum(test.p_fail < 0.01 for test in at_limit) <= level(0.01)
    equal = [judge_shift(rng, 0.0) for _ in range(n_trials)]
    assert sum(test.p_fail < 0.01 for test in equal) <= level(0.01)
    # what one window is off by at random
    assert np.std([test.difference.value for test in equal]) <= 1.2 * np.mean(
        [test.difference.error for test in equal]
    )
    assert all(judge_shift(rng, 8 * limit).p_fail < 0.01 for _ in range(5))
