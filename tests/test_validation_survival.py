"""Runs that end before their time: killed, terminated, out of disk. No orphans, no rubbish, one clear line."""

import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import ase.io
import pytest
from validation_artifacts import crystal, save_morse

from mdplugin.cli import main
from mdplugin.errors import CaseError
from mdplugin.validation import lammps_input, runner_lammps
from mdplugin.validation.nve import NveCase, validate_nve
from mdplugin.validation.stage import exit_when_terminated

ENDLESS = 10**7
PATIENCE_S = 60  # of a busy machine; nothing is asserted of time


def write_command(directory, engine, **changes):
    """Arguments of `mdplugin` for a small case in `directory`."""
    artifact = save_morse(directory / "morse.pt")
    ase.io.write(directory / "crystal.xyz", crystal())
    options = {
        "model": artifact,
        "reference": artifact,
        "engine": engine,
        "steps": 256,
        "timestep-fs": 4,
        "temperature-K": 100,
        "equilibration-steps": 0,
        "trajectory-every": 4,
        "threads": 1,
        "structure": directory / "crystal.xyz",
        "output": directory / "report",
    }
    words = [word for name, value in {**options, **changes}.items() for word in (f"--{name}", value)]
    return [str(word) for word in ("validate", "nve", *words)]


def wait_for(find):
    """The first true value of `find()`."""
    end = time.monotonic() + PATIENCE_S
    while not (found := find()):
        assert time.monotonic() < end, f"nothing in {PATIENCE_S} s"
        time.sleep(0.05)
    return found


def has_started(validation, report):
    """Whether LAMMPS has done some steps for a validation, which must be running."""
    assert validation.poll() is None, validation.stderr.read()
    return any(file.stat().st_size > 1000 for file in report.glob(".validate-*/*.energies"))


def find_workers(directory):
    """Ids of the processes that run LAMMPS in a stage below `directory`."""
    workers = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            here = os.readlink(entry / "cwd").startswith(f"{directory}/")
            if here and b"lammps_process" in (entry / "cmdline").read_bytes():
                workers.append(int(entry.name))
        except OSError:  # gone in the meantime
            continue
    return workers


def is_running(process_id):
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # dead; in a container nobody may ask for its status


@pytest.mark.skipif(
    sys.platform != "linux", reason="reads /proc; only Linux kills children with their parent"
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=lambda n: n.name)
def test_lammps_ends_with_a_validation_that_is_killed(tmp_path, number):
    command = write_command(tmp_path, "lammps", **{"equilibration-steps": ENDLESS})
    validation = subprocess.Popen(
        [sys.executable, "-m", "mdplugin", *command], stderr=subprocess.PIPE, cwd=tmp_path
    )
    report = tmp_path / "report"
    try:
        wait_for(lambda: has_started(validation, report))
        (worker,) = find_workers(tmp_path)
        validation.send_signal(number)
        _, stderr = validation.communicate(timeout=PATIENCE_S)
    finally:
        validation.kill()
        validation.wait()
    wait_for(lambda: not is_running(worker))
    if number == signal.SIGKILL:
        assert validation.returncode == -signal.SIGKILL
    else:
        assert validation.returncode == 128 + number
        assert list(report.iterdir()) == [] and stderr == b""


def test_a_signal_that_the_program_handles_is_left_to_it_and_others_are_given_back():
    def mine(number, frame):
        raise AssertionError("not sent")

    before = signal.signal(signal.SIGTERM, mine)
    try:
        with exit_when_terminated():
            assert signal.getsignal(signal.SIGTERM) is mine
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with pytest.raises(SystemExit) as caught, exit_when_terminated():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(PATIENCE_S)
        assert caught.value.code == 128 + signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def small_files(size):
    """Forbids this process and its children files above `size` bytes: writes fail with EFBIG.

    Not as a fixture: pytest writes its own output, which may be such a file, before it tears fixtures down.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("engine", ["ase", "lammps"])
def test_a_full_disk_is_an_error_of_one_line_and_no_verdict(tmp_path, capsys, engine):
    command = write_command(tmp_path, engine)
    with small_files(2_000):  # less than the data file of LAMMPS and the trajectory of ASE
        status = main(command)
    assert status == 3
    output = capsys.readouterr()
    assert f"cannot write {tmp_path / 'report'}: File too large; make room" in output.err
    assert output.err.count("\n") == 1 and output.out == ""
    assert list((tmp_path / "report").iterdir()) == []


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("reference.energies", "reference.energies: expected 258 lines from LAMMPS, got "),
        ("candidate.lammpstrj", "candidate.lammpstrj: expected 2665 lines from LAMMPS, got "),  # 65 (9 + 32)
    ],
)
def test_files_that_lammps_could_not_write_whole_are_no_verdict(tmp_path, capsys, monkeypatch, file, message):
    write_nve = lammps_input.write_nve

    def write_cut(case, atoms, label, *others):
        script = write_nve(case, atoms, label, *others)
        # what a full disk does: LAMMPS runs on and ends well
        return script + f"shell truncate -s 3000 {file}\n" if file.startswith(label) else script

    monkeypatch.setattr(lammps_input, "write_nve", write_cut)
    assert main(write_command(tmp_path, "lammps")) == 3
    output = capsys.readouterr()
    assert message in output.err and output.err.count("\n") == 1
    assert output.out == ""
    assert [file.name for file in (tmp_path / "report").iterdir()] == ["failed.log"]


def test_a_full_disk_at_the_report_is_an_error_too(tmp_path, monkeypatch, capsys):
    from mdplugin.validation import nve

    def fill_disk(*arguments):
        raise OSError("encoder error -2 when writing image file")  # as PIL says it, without errno

    monkeypatch.setattr(nve, "plot_energies", fill_disk)
    assert main(write_command(tmp_path, "ase")) == 3
    assert f"cannot write {tmp_path / 'report'}: encoder error -2" in capsys.readouterr().err
    assert list((tmp_path / "report").iterdir()) == []


def test_lammps_refusing_the_input_is_an_error_of_one_line_and_its_log_is_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lammps_input, "write_nve", lambda *arguments: "units metal\nunits nonsense\n")
    assert main(write_command(tmp_path, "lammps")) == 3
    error = capsys.readouterr().err
    assert "LAMMPS refuses reference.in: " in error and error.count("\n") == 1
    log = tmp_path / "report" / "failed.log"
    assert f"LAMMPS's log: {log}" in error
    assert list((tmp_path / "report").iterdir()) == [log]
    assert "units nonsense" in log.read_text()


def test_the_log_of_a_failure_goes_when_the_case_is_run_again_and_ends_well(tmp_path):
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "failed.log").write_text("old")
    assert main(write_command(tmp_path, "lammps")) == 0
    assert not (tmp_path / "report" / "failed.log").exists()


def test_a_killed_lammps_is_no_verdict(tmp_path, monkeypatch):
    ase.io.write(tmp_path / "crystal.xyz", crystal())
    artifact = save_morse(tmp_path / "morse.pt")
    structure = tmp_path / "crystal.xyz"
    case = NveCase(artifact, artifact, "lammps", steps=256, equilibration_steps=ENDLESS, structure=structure)
    started = []

    class Watched(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            started.append(self)

        def communicate(self, *arguments, **options):
            if list((tmp_path / "report").glob(".validate-*/*.energies")):
                self.kill()
            return super().communicate(*arguments, **options)

    monkeypatch.setattr(runner_lammps.subprocess, "Popen", Watched)
    with pytest.raises(
        CaseError, match=r"LAMMPS was killed by signal 9 in equilibrate.in after step .*failed.log"
    ):
        validate_nve(case, tmp_path / "report", quiet=True)
    assert all(process.poll() is not None for process in started)
    assert [file.name for file in (tmp_path / "report").iterdir()] == ["failed.log"]
