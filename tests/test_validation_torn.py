"""A power failure: what a run commits is on the disk, and a file that it tore is made again."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from test_validation_survival import assert_same, read_case_of, segments_of, write_case

from mdplugin.cli import main
from mdplugin.validation import chain
from mdplugin.validation.plan import EQUILIBRATION
from mdplugin.validation.workspace import execute_one, prepare


def make_empty(path):
    path.write_bytes(b"")


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-100])


def blank(path):
    """Of the right size, but a page that the disk never saw."""
    data = path.read_bytes()
    path.write_bytes(data[:200] + bytes(200) + data[400:])


def replace(path):
    """A whole archive, but another one."""
    with path.open("wb") as file:
        np.savez(file, positions=np.zeros(3))


@pytest.mark.parametrize(
    ("tear", "engine"),
    [
        pytest.param(make_empty, "ase", id="empty-ase"),
        pytest.param(Path.unlink, "ase", id="gone-ase"),
        pytest.param(cut_short, "lammps", id="cut-lammps"),
        pytest.param(cut_short, "ase", id="cut-ase", marks=pytest.mark.slow),
        pytest.param(make_empty, "lammps", id="empty-lammps", marks=pytest.mark.slow),
        pytest.param(Path.unlink, "lammps", id="gone-lammps", marks=pytest.mark.slow),
    ],
)
def test_files_that_a_power_failure_tore_are_made_again_bit_for_bit(tmp_path, engine, tear):
    path = write_case(tmp_path, engine)
    output = tmp_path / "report"
    prepare(read_case_of(path), output)
    execute_one(output, "reference-0")
    done, run = segments_of(output), output / "runs" / "reference-0"
    for file in [*run.glob("state-000[12].*"), run / "segment-0003.npz"]:
        tear(file)
    if engine == "ase":
        blank(run / "segment-0000.npz")
        replace(run / "segment-0002.npz")
    assert main(["validate", "--collect", "-o", str(output)]) == 3  # says that it is not done
    execute_one(output, "reference-0")
    assert_same(segments_of(output), done)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_state_is_on_the_disk_before_the_series_that_commits_it(tmp_path, monkeypatch):
    case = read_case_of(write_case(tmp_path, "ase"))
    prepare(case, tmp_path / "report")
    done, fsync, replace = [], os.fsync, os.replace

    def name(descriptor):
        return Path(os.readlink(f"/proc/self/fd/{descriptor}")).name

    monkeypatch.setattr(os, "fsync", lambda number: (done.append(name(number)), fsync(number)))
    monkeypatch.setattr(
        os, "replace", lambda source, target: (done.append(f"-> {target.name}"), replace(source, target))
    )
    execute_one(tmp_path / "report", "reference-0")
    assert done[:6] == [
        "state.npz", "-> state-0000.npz", "reference-0",
        "segment-0000.part", "-> segment-0000.npz", "reference-0",
    ]  # fmt: skip


@pytest.mark.parametrize("engine", ["ase", "lammps"])
def test_the_equilibration_of_a_run_beside_is_copied_bit_for_bit_unless_it_is_torn(
    tmp_path, engine, monkeypatch
):
    case = read_case_of(write_case(tmp_path, engine))
    alone, beside = tmp_path / "alone", tmp_path / "beside"
    for output in (alone, beside):
        prepare(case, output)
    execute_one(alone, "morse-0")
    execute_one(beside, "reference-0")
    execute_one(beside, "reference-1")  # of another seed
    phases, work = [], chain._execute_segment
    monkeypatch.setattr(
        chain,
        "_execute_segment",
        lambda engine, segment, run: (phases.append(segment.phase), work(engine, segment, run)),
    )
    execute_one(beside, "morse-0")
    assert EQUILIBRATION not in phases and len(phases) == 4
    assert_same({k: v for k, v in segments_of(beside).items() if "morse-0" in str(k)}, segments_of(alone))

    for twin in ("reference-0", "morse-0"):
        cut_short(next((beside / "runs" / twin).glob("state-0000.*")))
    cut_short(beside / "runs" / "morse-0" / "segment-0000.npz")
    execute_one(beside, "morse-0")
    assert phases.count(EQUILIBRATION) == 1
    assert_same({k: v for k, v in segments_of(beside).items() if "morse-0" in str(k)}, segments_of(alone))
