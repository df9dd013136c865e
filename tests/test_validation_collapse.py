"""What ends a run is a result where the dynamics did it, and an error that can be mended where the machine did it."""

import pytest
from test_validation_survival import read_case_of, segments_of, write_case
from validation_artifacts import save_morse

from mdplugin.errors import CaseError
from mdplugin.validation import lammps_input
from mdplugin.validation.chain import read_end
from mdplugin.validation.lammps_output import speaks_of_dynamics
from mdplugin.validation.plan import plan_runs
from mdplugin.validation.workspace import execute_one, prepare

# as LAMMPS (22 Jul 2025) and the pair style print them
OF_DYNAMICS = (
    "Fix halt condition for fix-id explosion met on step 17 with value 12345.6",
    "mace/quant: candidate.pt gives an energy or a force that is not finite: look for atoms on top of each other "
    "or positions that are not numbers (first at atom ID 3)",
    "Lost atoms: original 32 current 31",
    "Non-numeric pressure - simulation unstable",
    "Non-numeric atom coords - simulation unstable",
    "Non-numeric box dimensions - simulation unstable",
    "Non-numeric positions - simulation unstable",
    "Variable conserved: Non-numeric variable value in variable formula",
    "Fix npt has tilted box too far in one step - periodic cell is too far from equilibrium state",
    "Domain too large for neighbor bins",
    "Cannot use neighbor bins - box size << cutoff",
    "Neighbor list overflow, boost neigh_modify one",
)
OF_THE_MACHINE = (
    "std::bad_alloc",
    "Failed to allocate 1073741824 bytes for array atom:x",
    "mace/quant: candidate.pt: the network failed: [enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't "
    "allocate memory: you tried to allocate 34359738368 bytes",
    "Error writing dump frames: No space left on device",
    "Cannot open restart file end.restart: No space left on device",
    "Fix halt condition for fix-id wall met on step 17 with value 60",
    "Abort(1) on node 0 (rank 0 in comm 496): application called MPI_Abort(comm=0x84000000, 1) - process 0",
    "LAMMPS ended with status 1 and no message",
)


def test_lammps_errors_are_told_apart():
    assert all(map(speaks_of_dynamics, OF_DYNAMICS))
    assert not any(map(speaks_of_dynamics, OF_THE_MACHINE))


def insert_before_run(line):
    return lambda text: text.replace("\nrun ", f"\n{line}\nrun ")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda text: text.replace("write_restart   end.restart", "write_restart   /dev/null/end.restart"),
            r"LAMMPS broke off after step 100 of a segment .*\(Cannot open restart file /dev/null/end.restart",
        ),
        (
            insert_before_run("fix quota all halt 1 v_step > 5 error hard"),
            r"LAMMPS broke off after step 6 of a segment .*\(Fix halt condition for fix-id quota",
        ),
        (
            lambda text: text + "shell truncate -s -1 end.restart\n",
            r"end.restart: expected a whole restart file from LAMMPS, got a part of it: the disk is full",
        ),
    ],
    ids=["restart", "abort", "disk"],
)
def test_what_the_machine_ends_is_no_result_and_the_run_goes_on(tmp_path, monkeypatch, change, message):
    path = write_case(tmp_path, "lammps")
    output = tmp_path / "report"
    prepare(read_case_of(path), output)
    write_segment = lammps_input.write_segment

    def write_changed(case, atoms, segment, *arguments, **options):
        text = write_segment(case, atoms, segment, *arguments, **options)
        return change(text) if segment.number == 1 else text

    monkeypatch.setattr(lammps_input, "write_segment", write_changed)
    with pytest.raises(CaseError, match=rf"reference-0: {message}.* run the same command again") as caught:
        execute_one(output, "reference-0")
    assert "\n" not in str(caught.value)
    assert list(segments_of(output)) == ["reference-0/segment-0000.npz"]
    monkeypatch.undo()
    execute_one(output, "reference-0")
    assert len(segments_of(output)) == len(plan_runs(read_case_of(path))[0].segments)


def execute_broken_run(directory, engine, explosion_K):
    """The failure of a run whose forces are turned round after 30 evaluations."""
    case = read_case_of(write_case(directory, engine, equilibration_ps=0.0))
    broken = save_morse(directory / "broken.pt", break_at=30, spoiled=-1e4)
    case = case.replace(models=(str(broken),), limits={"explosion_K": explosion_K})
    prepare(case, directory / "report")
    execute_one(directory / "report", "broken-0")
    plan = next(plan for plan in plan_runs(case) if plan.name == "broken-0")
    return read_end(directory / "report" / "runs" / "broken-0", plan.segments[0])[1]


@pytest.mark.parametrize("engine", ["ase", "lammps"])
def test_a_case_s_own_explosion_limit_ends_a_run(tmp_path, engine):
    failure = execute_broken_run(tmp_path, engine, 200.0)
    assert failure.reason.endswith("is above 200 K: the system explodes")


def test_atoms_that_fly_apart_in_lammps_are_a_result_whatever_lammps_calls_it(tmp_path):
    failure = execute_broken_run(tmp_path, "lammps", 1e300)
    assert failure.step >= 30 and speaks_of_dynamics(failure.reason)
