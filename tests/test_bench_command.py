"""`mdplugin bench` as a user runs it: options, errors, children, LAMMPS."""

import os
import pathlib
import sys

import ase.neighborlist
import pytest
from architectures import save_from
from model_files import change

import mdplugin
from mdplugin.bench import benchmark, lammps, process
from mdplugin.bench.contender import make_entrants
from mdplugin.bench.job import ALLOCATORS, MEMORY, TIMING, Job
from mdplugin.bench.lammps import parse_log
from mdplugin.bench.networks import describe_network
from mdplugin.bench.results import read_results
from mdplugin.bench.systems import build_system
from mdplugin.checkpoint import save_random_network
from mdplugin.cli import main
from mdplugin.errors import CaseError


def run(*arguments):
    try:
        return main(["bench", *map(str, arguments)])
    except SystemExit as stop:  # argparse
        return stop.code


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "one of the arguments --size --model is required"),
        (["--size", "huge"], "expected some of tiny, small, medium, large, got 'huge'"),
        (["--size", "tiny,"], "expected names with commas between, got 'tiny,'"),
        (["--size", "tiny", "--model", "water"], "not allowed with argument"),
        (["--size", "tiny", "--atoms", "many"], "--atoms: expected a whole number above zero, got 'many'"),
        (["--size", "tiny", "--atoms", "100"], "multiple of 3, got 100: take 99 or 102"),
        (["--size", "tiny", "--threads", "0"], "--threads: expected a whole number above zero, got '0'"),
        (["--size", "tiny", "--rounds", "-1"], "--rounds"),
        (["--size", "tiny", "--precision", "fp23"], "did you mean fp32?"),
        (["--size", "tiny", "--allocator", "jemalloc"], "expected some of stock, tuned, got 'jemalloc'"),
        (["--size", "tiny", "--against", "symmetrix"], "invalid choice: 'symmetrix'"),
        (["--size", "tiny", "--lammps", "--ranks", "two"], "--ranks: expected a whole number above zero"),
        (["--size", "tiny", "--json", "/nowhere/r.json"], "/nowhere"),
        (["--model", "no.model"], "no.model: no such file"),
    ],
)
def test_a_bad_option_is_one_line_and_status_3(capsys, arguments, message):
    assert run(*arguments) == 3
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_model_without_water_is_refused(tmp_path, capsys):
    settings = {**describe_network("tiny"), "hidden_irreps": "4x0e", "atomic_numbers": [6, 8]}
    path = save_random_network(tmp_path / "carbon.model", settings, seed=0)
    assert run("--model", path) == 3
    assert "elements H are not in carbon.model" in capsys.readouterr().err


def test_an_allocator_replaces_what_the_environment_says(monkeypatch):
    monkeypatch.setenv("MALLOC_TOP_PAD_", "1")
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=3")
    stock = process.make_environment("stock", threads=2)
    assert not any(name.startswith(("MALLOC_", "GLIBC_")) for name in stock)
    assert stock["OMP_NUM_THREADS"] == "2" and stock["PATH"] == os.environ["PATH"]
    tuned = process.make_environment("tuned", threads=1)
    assert {name: tuned[name] for name in tuned if name.startswith("MALLOC_")} == ALLOCATORS["tuned"]


def test_lammps_is_looked_for_before_anything_is_measured(monkeypatch, capsys):
    monkeypatch.setattr(lammps.shutil, "which", lambda name: None)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert run("--size", "tiny", "--lammps", "--ranks", "2") == 3
    assert "mpirun is not installed, which 2 ranks need" in capsys.readouterr().err
    monkeypatch.setattr(lammps.native.Environment, "serves_lammps", False)
    assert run("--size", "tiny", "--lammps") == 3
    assert "LAMMPS is not installed here" in capsys.readouterr().err


def make_job(**changes):
    values = {
        "work": MEMORY, "checkpoint": "water", "head": "Default", "mace_dtypes": (), "artifacts": (), "system": "box",
        "n_atoms": 27, "seed": 0, "threads": 1, "rounds": 1,
    }  # fmt: skip
    return Job(**{**values, **changes})


def test_a_model_is_trusted_by_the_command_and_by_its_children(monkeypatch, tmp_path, capsys):
    plain = save_from(tmp_path / "a.model", max_ell=1, correlation=2)
    path = change(plain, tmp_path / "b.model", lambda network: setattr(network, "note", pathlib.Path("x")))
    entrants = []

    def load(job, *_):
        entrants.extend(make_entrants(job))
        raise CaseError("enough")

    monkeypatch.setattr(benchmark, "run_job", load)
    assert run("--model", path, "--against", "mace-torch") == 3
    assert "--trust" in capsys.readouterr().err and not entrants
    assert run("--model", path, "--against", "mace-torch", "--trust") == 3
    assert "enough" in capsys.readouterr().err
    assert [each.program for each in entrants] == ["mace-torch", "mace-torch", "mdplugin"]


def test_an_error_of_the_child_is_ours(tmp_path):
    job = make_job(artifacts=(("fp32", str(tmp_path / "missing.pt")),))
    with pytest.raises(CaseError, match=r"missing\.pt: no such file"):
        process.run_job(job, "stock", tick=lambda: None)


@pytest.mark.parametrize(
    ("code", "message"),
    [("import os; os.kill(os.getpid(), 9)", "killed, most likely for want of memory"), ("1/0", "status 1")],
)
def test_a_child_that_dies_says_so(monkeypatch, tmp_path, code, message):
    impostor = tmp_path / "python"
    impostor.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}"\n')
    impostor.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(impostor))
    with pytest.raises(CaseError, match=f"27 atoms, 1 threads: .*{message}"):
        process.run_job(make_job(), "stock", tick=lambda: None)


LOG = """\
run             5
Per MPI rank memory allocation (min/avg/max) = 2.9 | 2.9 | 2.9 Mbytes
   Step       c_times[1]     c_times[2]     c_times[3]     c_times[4]
         0  0.5            1.0            0              0.1
         5  1.0            9.0            0              0.2
Loop time of 8 on 2 procs for 5 steps with 192 atoms

Pair    | 7.0        | 7.0        | 7.0        |   0.0 | 99.68
Neigh   | 0.1        | 0.2        | 0.3        |   0.0 |  0.17
Comm    | 0.1        | 0.2        | 0.3        |   0.0 |  0.07
run             10 pre no
   Step       c_times[1]     c_times[2]     c_times[3]     c_times[4]
         5  1.0            9.0            0              0.2
        10  1.5            12.0           1.0            0.3
        15  3.0            19.0           6.0            0.6
Loop time of 20 on 2 procs for 10 steps with 192 atoms

Pair    | 7.0        | 7.0        | 7.0        |   0.0 | 99.68
Neigh   | 0.2        | 0.4        | 0.6        |   0.0 |  0.17
Comm    | 0.1        | 0.8        | 0.9        |   0.0 |  0.07
"""


def test_a_lammps_log_gives_seconds_per_step_and_rank_without_the_warm_up():
    assert parse_log(LOG, ranks=2) == {
        "loop": (2.0,),
        "neighbor": (0.04,),
        "comm": (0.08,),
        "edges": (0.1,),  # (3 - 1) / (2 ranks * 10 steps)
        "network": (0.5,),
        "halo": (0.3,),
        "result": pytest.approx((0.02,)),
    }


def test_bench_measures_what_it_promises(tmp_path, capfd):
    """The whole command on a small box: structure and arithmetic of its results, no time."""
    target = tmp_path / "results.json"
    options = ["--size", "tiny", "--atoms", 27, "--rounds", 1, "--allocator", "tuned", "--seed", 5]
    assert run(*options, "--lammps", "--ranks", "1,2", "--json", target) == 0
    out, err = capfd.readouterr()
    assert err == "" and "mdplugin fp32" in out and "reverse convolve 2" in out and "overhead" in out

    measured = read_results(target)
    assert measured.seed == 5 and measured.machine["cpu"] and measured.machine["versions"]["torch"]
    (case,) = measured.cases
    (ours,) = case.contenders
    box = build_system("box", 27, seed=5)
    assert case.n_edges == len(ase.neighborlist.neighbor_list("i", box, 4.5))
    assert set(case.operations) <= set(ours.split.parts)
    assert set(case.gemm) == {"float64", "float32"} and case.copy > 0
    assert (ours.program, ours.precision, ours.compute) == ("mdplugin", "fp32", "float32")
    assert len(ours.rounds) == 1 and ours.rounds[0] > 0 and 1 <= ours.steps_per_round <= 10
    # torch alone needs more than 50 MB; the features of 27 atoms, less than a GB
    assert 5e7 < ours.memory.loaded < ours.memory.peak < ours.memory.loaded + 1e9

    layers = {
        f"{op} {t}" for op in ("convolve", "contract", "reverse convolve", "reverse contract") for t in (1, 2)
    }
    assert layers | {"neighbour list", "edge geometry", "reverse edge geometry", "readout"} <= set(
        ours.split.parts
    )
    assert all(seconds > 0 for seconds in ours.split.parts.values())
    assert sum(ours.split.parts.values()) == pytest.approx(ours.split.step, rel=1e-9)

    one, two = case.lammps
    assert (one.ranks, two.ranks) == (1, 2)
    assert one.halo == (0.0,) and two.halo[0] > 0  # ghosts on one rank are folded onto their owners
    for run_ in (one, two):
        parts = run_.edges[0] + run_.network[0] + run_.halo[0] + run_.result[0]
        assert 0 < parts <= run_.loop[0] * (1 + 1e-3)  # the loop contains them; the log has six digits


def test_mace_torch_takes_its_turns_in_both_types(artifacts):
    """One child alone: importing mace-torch takes seconds."""
    ticks = []
    job = make_job(
        work=TIMING,
        mace_dtypes=("float64", "float32"),
        artifacts=(("fp32", str(artifacts["water", "fp32"])),),
        system="cluster",
        n_atoms=9,
    )
    timed = process.run_job(job, "stock", tick=lambda: ticks.append(1))
    assert [(c["program"], c["precision"], c["compute"]) for c in timed["contenders"]] == [
        ("mace-torch", "float64", "float64"), ("mace-torch", "float32", "float32"), ("mdplugin", "fp32", "float32"),
    ]  # fmt: skip
    assert [c["split"] is None for c in timed["contenders"]] == [True, True, False]
    assert all(len(c["rounds"]) == 1 and c["rounds"][0] > 0 for c in timed["contenders"])
    assert len(ticks) == 3 * (1 + 1) + 1  # warm-up and round of each, one split
    r_max = mdplugin.read_manifest(artifacts["water", "fp32"]).r_max
    assert timed["n_edges"] == len(ase.neighborlist.neighbor_list("i", build_system("cluster", 9, 0), r_max))
