"""Forces and pressure against the gradient of the energy that is reported: closed forms and planted errors."""

import numpy as np
import pytest
from validation_artifacts import crystal, save_morse
from validation_toys import Argon, Faulty, add_curl, argon_box

import mdplugin
from mdplugin.validation.observables import gradient
from mdplugin.validation.observables.gradient import measure_gradient
from mdplugin.validation.observables.pressure import find_pressure
from mdplugin.validation.observables.shadow import Sample, compare_frames, evaluate, measure_shadow


def test_forces_are_compared_with_the_gradient_of_their_own_energy():
    frames = [argon_box() for _ in range(4)]
    for seed, frame in enumerate(frames):
        frame.rattle(0.1, seed=seed)
    sound = measure_gradient(frames, Argon())
    # truncation h^2 / 6 E''' / |F| with h = 0.005 in 96 dimensions, and pairs at the cutoff
    assert abs(sound.value - 1) <= 2e-4
    scaled = measure_gradient(frames, Faulty(Argon(), lambda results, *_: results["forces"].__imul__(1.01)))
    assert abs(scaled.value - sound.value / 1.01) <= 1e-6
    curled = measure_gradient(frames, Faulty(Argon(), add_curl(3)))
    assert abs(curled.value - 1) > 1e-3


def turn_forces(share):
    """A part of the forces at right angles to them, in each pair of atoms, which has no energy."""

    def spoil(results, atoms, call):
        forces = results["forces"]
        turned = np.stack([-forces[1::2], forces[::2]], axis=1).reshape(forces.shape)
        results["forces"] = forces + share * turned

    return spoil


@pytest.mark.parametrize("share", [0.002, 0.02])
def test_forces_without_an_energy_at_right_angles_to_the_others_count_in_full(share):
    """Along the forces alone they would by the square of their share: 4e-4 of 2 %, below the limit of 5e-4."""
    frames = [argon_box() for _ in range(6)]
    for seed, frame in enumerate(frames):
        frame.rattle(0.1, seed=seed)
    turned = Faulty(Argon(), turn_forces(share))
    sound = measure_gradient(frames, Argon(), Argon())
    assert abs(measure_gradient(frames, turned).value - sound.value) <= 1.1 * share**2
    across = measure_gradient(frames, turned, Argon())
    # u is at 45 degrees to forces and error: F.u is size (1 + share) / sqrt(2), and -dE/du size / sqrt(2); what the place
    # nearby differs by leaves a few per cent of that
    assert 1 - sound.value + 0.9 * share <= 1 - across.value <= 1 - sound.value + 1.1 * share


def test_a_lattice_without_forces_does_not_speak_for_other_frames():
    """Ratios of its forces, which are rounding, would be any number."""
    frames = [argon_box() for _ in range(6)]
    for seed, frame in enumerate(frames[1:]):
        frame.rattle(0.1, seed=seed)
    rng = np.random.default_rng(0)

    def round_off(results, atoms, call):
        results["forces"] += rng.normal(scale=1e-9, size=results["forces"].shape)

    rounded = Faulty(Argon(), round_off)
    assert abs(measure_gradient(frames, rounded, Argon()).value - 1) <= 3e-4
    sample = Sample(frames, np.arange(6.0), 300.0, reference=evaluate(frames, Argon()))
    slope = measure_shadow(compare_frames(sample, rounded))["force_slope"]
    assert abs(slope.value - 1) <= 1e-7 and slope.error <= 1e-7


def test_a_pressure_is_compared_with_the_energy_s_change_with_volume(tmp_path):
    rng, frames = np.random.default_rng(1), []
    for _ in range(8):
        frames.append(crystal())
        frames[-1].rattle(0.1, rng=rng)
    calculator = mdplugin.MACEQuantCalculator(save_morse(tmp_path / "morse.pt"))
    sound = gradient.measure_pressure_gradient(frames, calculator)
    assert abs(sound.value) <= 0.5 and sound.error <= 0.5

    halved = gradient.measure_pressure_gradient(frames, Halved(tmp_path / "morse.pt"))
    pressures = [find_pressure(with_calculator(frame, calculator)) for frame in frames]
    assert halved.value == pytest.approx(sound.value - np.mean(pressures) / 2)
    assert abs(np.mean(pressures)) / 2 > 27
    assert not gradient.measure_pressure_gradient(frames, Argon()).is_known  # it has no stress


def with_calculator(frame, calculator):
    atoms = frame.copy()
    atoms.calc = calculator
    return atoms


class Halved(mdplugin.MACEQuantCalculator):
    """Its stress, not its energy."""

    def calculate(self, *arguments):
        super().calculate(*arguments)
        self.results["stress"] = self.results["stress"] / 2
