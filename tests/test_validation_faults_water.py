"""Faults of the size that a verdict on water must see, at default limits: the bundled potential, spoiled, on a hexamer."""

import dataclasses
from collections.abc import Callable

import ase
import numpy as np
import pytest
from ase.calculators.calculator import Calculator
from validation_toys import Faulty, add_noise

import mdplugin
from mdplugin import MACEQuantCalculator
from mdplugin.validation.case import Case
from mdplugin.validation.observables.topology import find_topology
from mdplugin.validation.potential import Potential
from mdplugin.validation.runner_ase import AseEngine
from mdplugin.validation.study import compare_potentials
from mdplugin.validation.systems import find_structure

O_H_eV_PER_A2 = 48.6  # m w^2 of 0.948 amu at 3700 cm^-1
CUTOFF_LESS_A = 0.8


@dataclasses.dataclass(eq=False)
class Made(Potential):
    """A potential whose calculators are made by `make`."""

    make: Callable[[], Calculator] | None = None

    def make_calculator(self):
        return self.make()


def soften_bonds(atoms: ase.Atoms, part):
    """Less `part` of a harmonic O-H stretch about the lengths of the bonds of `atoms`, in energy and forces."""
    pairs = find_topology(atoms).pairs
    lengths = np.linalg.norm(atoms.positions[pairs[:, 0]] - atoms.positions[pairs[:, 1]], axis=1)

    def spoil(results, atoms, call):
        vectors = atoms.positions[pairs[:, 0]] - atoms.positions[pairs[:, 1]]
        distances = np.linalg.norm(vectors, axis=1)
        stretch = distances - lengths
        results["energy"] -= part * 0.5 * O_H_eV_PER_A2 * (stretch**2).sum()
        pulls = (part * O_H_eV_PER_A2 * stretch / distances)[:, None] * vectors
        np.add.at(results["forces"], pairs[:, 0], pulls)
        np.add.at(results["forces"], pairs[:, 1], -pulls)

    return spoil


def scale_forces(results, atoms, call):
    results["forces"] *= 1.001


def shorten_cutoff(artifact):
    """Neighbours beyond a shorter cutoff are dropped where the potential has not faded out: the energy jumps."""
    manifest = artifact.manifest
    return dataclasses.replace(
        artifact, manifest=dataclasses.replace(manifest, r_max=manifest.r_max - CUTOFF_LESS_A)
    )


def judge_water(artifacts, directory, makers, ensemble="nve", **settings):
    """Verdicts by label on calculators of the hexamer, which share the runs of the float64 artifact."""
    structure = find_structure("water-hexamer", "water")
    case = Case(
        ensemble, tuple(f"{label}.pt" for label in makers), "water", "ase", structure="water-hexamer",
        **{"length_ps": 0.13, "equilibration_ps": 0.05, "frame_fs": 3.0, **settings},
    )  # fmt: skip
    potentials = {label: Made(label, make=make) for label, make in makers.items()}
    potentials["reference"] = Potential("reference", path=artifacts["water", "fp64"], threads=1)
    report = compare_potentials(case, structure, potentials, directory)
    return {verdict.label: verdict for verdict in report.verdicts}


def failed(verdict):
    return {test.observable for test in verdict.tests if test.outcome == "fail"}


def test_a_bond_softer_by_1_percent_and_a_truncated_cutoff_are_caught_and_fp32_is_not(artifacts, tmp_path):
    exact = mdplugin.load(artifacts["water", "fp64"])
    hexamer = find_structure("water-hexamer", "water").atoms
    makers = {
        "fp32": lambda: MACEQuantCalculator(mdplugin.load(artifacts["water", "fp32"]), threads=1),
        "softer": lambda: Faulty(MACEQuantCalculator(exact, threads=1), soften_bonds(hexamer, 0.01)),
        "truncated": lambda: MACEQuantCalculator(shorten_cutoff(exact), threads=1),
    }
    # replicas of 18 atoms that vibrate differently scatter: the slope of three has 2 degrees of freedom, too few
    verdicts = judge_water(
        artifacts, tmp_path, makers, replicas=6, observables=("energy_fluctuation", "shadow")
    )
    # the stretches are most of the forces, so that they are 0.991 times what they should be, allowed 0.995
    assert failed(verdicts["softer"]) == {"force_slope"}
    assert "energy_fluctuation" in failed(verdicts["truncated"])
    assert not failed(verdicts["fp32"])
    assert {test.observable for test in verdicts["fp32"].tests if test.outcome == "pass"} >= {
        "force_rmse",
        "force_slope",
        "energy_fluctuation",
    }


def test_forces_times_1_001_are_no_gradient_and_noise_of_1_and_5_mev_is_not_reversible(artifacts, tmp_path):
    exact = mdplugin.load(artifacts["water", "fp64"])
    makers = {
        "scaled": lambda: Faulty(MACEQuantCalculator(exact, threads=1), scale_forces),
        "noise-1": lambda: Faulty(MACEQuantCalculator(exact, threads=1), add_noise(1, seed=1)),
        "noise-5": lambda: Faulty(MACEQuantCalculator(exact, threads=1), add_noise(5, seed=1)),
    }
    verdicts = judge_water(artifacts, tmp_path, makers, observables=("gradient", "reversal"), replicas=4)
    assert failed(verdicts["scaled"]) == {"gradient"}
    # of 1 and 5 meV/Å in each step, which the limit of the force error allows, what is run back is not
    assert failed(verdicts["noise-1"]) == failed(verdicts["noise-5"]) == {"reversal"}


@pytest.mark.slow  # of a spring the fast tests show it (test_validation_faults.py)
def test_a_wrong_timestep_and_a_wrong_mass_shift_the_spectrum(artifacts, tmp_path, monkeypatch):
    """Of one artifact, fp32, whose forces are right; a step longer by 5 % shifts bands by 5 %, deuterium by 27 %."""
    make_dynamics = AseEngine._make_dynamics

    def make_wrong(engine, atoms, segment, barostat):
        if segment.potential == "heavy":
            atoms.set_masses([2.014 if number == 1 else 15.999 for number in atoms.numbers])
        dynamics = make_dynamics(engine, atoms, segment, barostat)
        dynamics.dt *= 1.05 if segment.potential == "slow" else 1
        return dynamics

    monkeypatch.setattr(AseEngine, "_make_dynamics", make_wrong)
    artifact = mdplugin.load(artifacts["water", "fp32"])
    makers = {label: lambda: MACEQuantCalculator(artifact, threads=1) for label in ("slow", "heavy")}
    observables = ("temperature", "vdos", "shadow")
    verdicts = judge_water(
        artifacts, tmp_path, makers, "nvt", length_ps=0.3, replicas=4, observables=observables
    )
    assert failed(verdicts["slow"]) == {"vdos_shift"} <= failed(verdicts["heavy"])
