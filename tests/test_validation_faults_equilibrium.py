"""Faults that a thermostat or a barostat brings to equilibrium: each fails by the observable that is meant for it."""

import ase.io
import numpy as np
import pytest
from ase import units
from ase.md.nvtberendsen import NVTBerendsen
from test_validation_faults import failed, judge_argon, outcomes
from validation_artifacts import crystal, save_morse
from validation_toys import (
    Argon,
    Faulty,
    MorseMolecules,
    add_friction,
    kick_every,
    row_of_hydrogen,
)

from mdplugin.errors import CaseError
from mdplugin.validation.case import Case
from mdplugin.validation.potential import Potential
from mdplugin.validation.runner_ase import AseEngine
from mdplugin.validation.study import compare_potentials, validate
from mdplugin.validation.systems import Structure


class Shallow(Argon):
    epsilon = 0.3 * Argon.epsilon


class SoftCore(Argon):
    sigma = 2.8


def test_a_larger_atom_fails_by_the_density(tmp_path):
    """Of atoms 2 % larger the crystal is 6 % less dense, allowed 1.2 %."""
    ase.io.write(tmp_path / "crystal.xyz", crystal())
    case = Case(
        "npt", (str(save_morse(tmp_path / "larger.pt", rest=3.06)),), str(save_morse(tmp_path / "morse.pt")), "lammps",
        structure=str(tmp_path / "crystal.xyz"), timestep_fs=4.0, temperature_K=50, length_ps=4.0,
        equilibration_ps=2.0, checkpoint_ps=40.0, replicas=2, observables=("temperature", "density"),
    )  # fmt: skip
    report = validate(case, tmp_path / "report", jobs=1, quiet=True)
    assert failed(report) == {"density"}


def test_shallower_wells_fail_by_the_diffusion(box, tmp_path):
    report = judge_argon(
        box, tmp_path, Shallow(), ensemble="nvt", temperature_K=250, length_ps=16.0, equilibration_ps=2.0,
        replicas=6, observables=["temperature", "diffusion"],  # 3 scatter too badly known on some processors
    )  # fmt: skip
    assert failed(report) == {"diffusion Ar"}


def test_a_friction_that_the_thermostat_cannot_hide_fails_by_the_temperature(box, tmp_path):
    # the thermostat relaxes in tau = 0.1 ps: a friction gamma leaves T0 / (1 + 2 gamma tau), 29 % less
    cooled = Faulty(Argon(), add_friction(2.0))
    report = judge_argon(
        box,
        tmp_path,
        cooled,
        ensemble="nvt",
        observables=["temperature", "shadow"],
        length_ps=9.6,
        replicas=4,
    )
    # frames at rest show no friction
    assert failed(report) == {"temperature"}


def test_a_weak_coupling_thermostat_fails_by_the_distribution_of_the_kinetic_energy(
    box, tmp_path, monkeypatch
):
    make_dynamics = AseEngine._make_dynamics

    def make_weakly_coupled(engine, atoms, segment, barostat):
        if segment.potential != "candidate" or segment.phase != "nvt":
            return make_dynamics(engine, atoms, segment, barostat)
        step = segment.timestep_fs * units.fs
        # ASE's counts 3 N degrees of freedom, of which the motion of the whole has none
        temperature = engine.case.temperature_K * (1 - 1 / len(atoms))
        return NVTBerendsen(atoms, step, temperature_K=temperature, taut=2 * step)

    monkeypatch.setattr(AseEngine, "_make_dynamics", make_weakly_coupled)
    report = judge_argon(
        box,
        tmp_path,
        Argon(),
        ensemble="nvt",
        observables=["temperature", "kinetic_distribution", "shadow"],
        length_ps=9.6,
    )
    assert failed(report) == {"kinetic_distribution", "kinetic_p_value"}
    assert outcomes(report)["temperature"] == "pass"


def test_wells_of_a_tenth_of_the_depth_fail_by_broken_bonds(tmp_path):
    # a bond counts as broken at 0.93 Å, to which float64 stretches it for 0.4 eV, 3 kT, the candidate for 0.3 kT
    atoms = row_of_hydrogen()
    ase.io.write(tmp_path / "hydrogen.xyz", atoms)
    case = Case(
        "stability", ("candidate.pt",), "x", "ase", temperature_K=1500, length_ps=1.0, equilibration_ps=0.1,
        observables=("bonds", "minimum_distance"),
    )  # fmt: skip
    potentials = {
        "candidate": Potential("candidate", MorseMolecules(depth=0.45)),
        "reference": Potential("reference", MorseMolecules()),
    }
    report = compare_potentials(case, Structure(tmp_path / "hydrogen.xyz", atoms), potentials, tmp_path)
    assert failed(report) == {"bonds"}
    assert "the first bond breaks or forms in replica" in report.verdicts[0].sentence


def test_a_reference_that_falls_apart_is_the_cases_fault(tmp_path):
    atoms = row_of_hydrogen()
    ase.io.write(tmp_path / "hydrogen.xyz", atoms)
    case = Case(
        "stability", ("candidate.pt",), "x", "ase", temperature_K=1500, length_ps=1.0, equilibration_ps=0.1,
        observables=("minimum_distance",),
    )  # fmt: skip
    potentials = {name: Potential(name, MorseMolecules(depth=0.1)) for name in ("candidate", "reference")}
    with pytest.raises(CaseError, match=r"reference itself does not hold together: .* % of the bonds"):
        compare_potentials(case, Structure(tmp_path / "hydrogen.xyz", atoms), potentials, tmp_path)


def test_a_burst_of_heat_that_the_thermostat_takes_up_fails_by_the_highest_temperature(box, tmp_path):
    # a force f during one step of dt adds (f dt)^2 / 2m to each component of a momentum, here k 200 K / 2: 2.5 kT per atom
    kick = np.sqrt(units.kB * 200 * 39.948) / (8.0 * units.fs)
    report = judge_argon(
        box, tmp_path, Faulty(Argon(), kick_every(500, kick)), ensemble="stability",
        observables=["peak_temperature", "bonds"], replicas=6,
    )  # fmt: skip
    assert failed(report) == {"peak_temperature"}


def test_a_softer_core_fails_by_the_smallest_distance(box, tmp_path):
    report = judge_argon(
        box, tmp_path, SoftCore(), ensemble="stability", observables=["bonds", "minimum_distance"]
    )
    assert failed(report) == {"minimum_distance"}
    assert outcomes(report)["bonds"] == "pass"
