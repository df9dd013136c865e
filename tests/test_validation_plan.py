"""Runs of a case: seeds that nothing else changes, settling before averages, segments of any length."""

import numpy as np
import pytest
from validation_artifacts import crystal, execute_here, save_morse

from mdplugin.validation import study
from mdplugin.validation.case import REFERENCE, Case
from mdplugin.validation.plan import EQUILIBRATION, plan_runs
from mdplugin.validation.series import join_series, load_series
from mdplugin.validation.study import validate


def make_case(ensemble="nvt", models=("a.pt",), **changes):
    return Case(ensemble, models, "water", **changes)


def seeds(case):
    """(run, number of the segment) -> the thermostat's seed, of what the potentials do themselves."""
    return {
        (plan.name, segment.number): segment.seed
        for plan in plan_runs(case)
        for segment in plan.segments
        if segment.phase != EQUILIBRATION
    }


def test_every_segment_has_a_seed_of_its_own_whatever_else_is_run():
    few = seeds(make_case(models=("b.pt",), length_ps=300))
    many = seeds(make_case(models=tuple(f"{name}.pt" for name in "abcdefghijkl"), length_ps=300, replicas=4))
    assert few.items() <= many.items()
    assert len(set(many.values())) == len(many) > 13 * 4 * 150


def test_the_reference_runs_with_another_timestep_though_nobody_asks_if_that_is_short_beside_the_run():
    few = {"observables": ("energy_drift",)}
    names = {plan.name for plan in plan_runs(make_case("nve", length_ps=2.0, replicas=2, **few))}
    assert names == {"reference-0", "reference-1", "a-0", "a-1", "reference-0-coarse", "reference-1-coarse"}
    assert len(plan_runs(make_case("nve", length_ps=0.9, replicas=2, **few))) == 4
    assert len(plan_runs(make_case("nve", length_ps=0.9, replicas=2))) == 12


def test_replicas_of_all_potentials_equilibrate_alike():
    plans = plan_runs(make_case(models=("a.pt", "b.pt")))
    starts = {}
    for plan in plans:
        first = [segment for segment in plan.segments if segment.phase == EQUILIBRATION]
        assert all(segment.potential == REFERENCE for segment in first)
        starts.setdefault(plan.replica, set()).add((plan.seed, tuple(first)))
    assert [len(each) for each in starts.values()] == [1, 1, 1]
    assert len({start for each in starts.values() for start in each}) == 3


@pytest.mark.parametrize("ensemble", ["nvt", "npt"])
def test_averages_leave_out_the_way_to_the_potential_s_own_equilibrium(ensemble):
    for plan in plan_runs(make_case(ensemble, equilibration_ps=0.5)):
        settling = [s for s in plan.segments if not s.is_measured and s.phase != EQUILIBRATION]
        assert [(s.phase, s.potential, s.steps) for s in settling] == [(ensemble, plan.label, 1000)]
        assert sum(s.steps for s in plan.segments if s.is_measured) == 4000


def test_trajectories_are_measured_from_the_common_start():
    for ensemble in ("nve", "stability"):
        for plan in plan_runs(make_case(ensemble)):
            assert all(s.is_measured for s in plan.segments if s.phase != EQUILIBRATION)


def test_a_last_segment_too_short_for_the_resolution_adds_no_spectrum(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "execute_runs", execute_here)
    case = Case(
        "nvt", (str(save_morse(tmp_path / "a.pt")),), str(save_morse(tmp_path / "b.pt")), engine="ase",
        structure=str(tmp_path / "crystal.xyz"), timestep_fs=4.0, temperature_K=100, length_ps=2.4,
        equilibration_ps=0.0, checkpoint_ps=1.0, sample_fs=16.0, frame_fs=16.0, velocity_fs=4.0, replicas=2,
        observables=("vdos", "temperature"),
    )  # fmt: skip
    crystal().write(tmp_path / "crystal.xyz")
    plan = plan_runs(case)[0]
    assert len({segment.steps for segment in plan.segments}) == 2  # the last is shorter
    report = validate(case, tmp_path / "made", quiet=True)
    assert "vdos_shift" in {test.observable for test in report.verdicts[0].tests}
    run = tmp_path / "made" / "runs" / plan.name
    parts = [load_series(run / f"segment-{number:04d}.npz") for number in range(len(plan.segments))]
    whole = join_series(parts)
    assert len(whole.spectrum) == len(parts) - 1
    assert np.array_equal(whole.spectrum[0], parts[0].spectrum[0])
