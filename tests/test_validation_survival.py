"""Runs that end before their time: killed, terminated, out of disk. Nothing that was done is lost, nothing is orphaned."""

import os
import resource
import shlex
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import ase.io
import numpy as np
import pytest
from validation_artifacts import crystal, execute_here, save_morse

from mdplugin.cli import main
from mdplugin.errors import CaseError
from mdplugin.validation import lammps_input, pool, runner_lammps, study
from mdplugin.validation.chain import load_run
from mdplugin.validation.plan import plan_runs
from mdplugin.validation.report import read_report
from mdplugin.validation.stage import exit_when_terminated
from mdplugin.validation.workspace import execute_one, prepare, read_prepared

PATIENCE_S = 120  # of a busy machine; nothing is asserted of time


def write_case(directory, engine, **changes):
    """A YAML file of a small case in `directory`: two replicas, segments of 100 steps."""
    artifact = save_morse(directory / "morse.pt")
    ase.io.write(directory / "crystal.xyz", crystal())
    settings = {
        "ensemble": "nvt",
        "models": [str(artifact)],
        "reference": str(artifact),
        "structure": str(directory / "crystal.xyz"),
        "engine": engine,
        "timestep_fs": 4.0,
        "temperature_K": 100.0,
        "length_ps": 1.2,
        "equilibration_ps": 0.4,
        "checkpoint_ps": 0.4,
        "frame_fs": 16.0,
        "sample_fs": 16.0,
        "replicas": 2,
        "observables": ["energy_drift", "temperature"],
        **changes,
    }
    path = directory / "case.yaml"
    path.write_text("".join(f"{name}: {value!r}\n" for name, value in settings.items()))
    return path


@pytest.fixture
def here(monkeypatch):
    """Runs in this process, where processes of their own are not what is tested."""
    monkeypatch.setattr(study, "execute_runs", execute_here)


def start(path, output):
    command = [sys.executable, "-P", "-m", "mdplugin", "validate", str(path), "-o", str(output), "--quiet"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=path.parent)


def wait_for(find):
    """The first true value of `find()`."""
    end = time.monotonic() + PATIENCE_S
    while not (found := find()):
        assert time.monotonic() < end, f"nothing in {PATIENCE_S} s"
        time.sleep(0.02)
    return found


def words_of(process_id):
    """The command line of a process, empty if it is gone."""
    try:
        return Path(f"/proc/{process_id}/cmdline").read_bytes()
    except OSError:
        return b""


def find_workers(directory):
    """Ids of the processes that work on runs below `directory`: the runs' own, and LAMMPS's."""
    workers = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes()
            here = os.readlink(entry / "cwd").startswith(f"{directory}/")
        except OSError:  # gone in the meantime
            continue
        if (b"lammps_process" in words and here) or (b"--run" in words and str(directory).encode() in words):
            workers.append(int(entry.name))
    return workers


def is_running(process_id):
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # dead; in a container nobody may ask for its status


def segments_of(output):
    """Arrays of every committed segment, without wall times."""
    found = {}
    for file in sorted(output.glob("runs/*/segment-*.npz")):
        with np.load(file) as arrays:
            found[f"{file.parent.name}/{file.name}"] = {n: arrays[n] for n in arrays.files if n != "wall_s"}
    return found


def assert_same(first, second):
    """Bit for bit, NaN included."""
    assert first.keys() == second.keys() and first
    for name, arrays in first.items():
        for key, values in arrays.items():
            assert values.tobytes() == second[name][key].tobytes(), (name, key)


@pytest.mark.skipif(
    sys.platform != "linux", reason="reads /proc; only Linux kills children with their parent"
)
@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)], ids=lambda n: n.name
)
def test_a_validation_that_is_killed_leaves_no_orphans_and_goes_on_bit_for_bit(tmp_path, here, number):
    path = write_case(tmp_path, "lammps", length_ps=2.4, checkpoint_ps=1.2)
    interrupted, whole = tmp_path / "interrupted", tmp_path / "whole"
    validation = start(path, interrupted)
    try:
        wait_for(
            lambda: (
                len(list(interrupted.glob("runs/*/segment-0001.npz"))) > 0 or validation.poll() is not None
            )
        )
        workers = find_workers(tmp_path)
        validation.send_signal(number)
        _, stderr = validation.communicate(timeout=PATIENCE_S)
    finally:
        validation.kill()
        validation.wait()
    assert validation.returncode == (-number if number == signal.SIGKILL else 128 + number), stderr
    assert workers
    wait_for(lambda: not any(map(is_running, workers)))
    before = segments_of(interrupted)
    assert not (interrupted / "report.json").exists()
    statuses = [
        main(["validate", str(path), "-o", str(output), "--quiet"]) for output in (interrupted, whole)
    ]
    assert statuses[0] == statuses[1] in (0, 2)
    after = segments_of(interrupted)
    assert 0 < len(before) < len(after)
    assert_same(after, segments_of(whole))
    assert_same(before, {name: after[name] for name in before})
    assert read_report(interrupted / "report.json").findings == read_report(whole / "report.json").findings


@pytest.mark.parametrize(
    ("engine", "changes"),
    [("ase", {}), ("ase", {"threads": 2}), ("lammps", {}), ("lammps", {"ranks": 2, "threads": 2})],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else value,
)
def test_a_segment_that_was_cut_off_is_done_again_bit_for_bit(tmp_path, engine, changes):
    path = write_case(tmp_path, engine, **changes)
    output = tmp_path / "report"
    case = read_case_of(path)
    prepare(case, output)
    execute_one(output, "reference-0")
    done = segments_of(output)
    run = output / "runs" / "reference-0"
    for name in ("segment-0002.npz", "segment-0003.npz"):
        (run / name).unlink()  # as if killed before they were committed
    (run / "scratch").mkdir()
    (run / "scratch" / "energies.txt").write_text("rubbish of the process that was killed")
    execute_one(output, "reference-0")
    assert_same(segments_of(output), done)
    assert not (run / "scratch").exists()


def read_case_of(path):
    from mdplugin.validation.case_file import read_case

    return read_case(str(path))


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


def test_a_full_disk_is_an_error_of_one_line_and_what_was_done_is_kept(tmp_path):
    path = write_case(
        tmp_path, "ase"
    )  # under such a limit MPI does not start; LAMMPS's files are tested next
    output = tmp_path / "report"
    prepare(read_case_of(path), output)
    execute_one(output, "reference-0")
    run = output / "runs" / "reference-0"
    done = segments_of(output)
    for file in sorted(run.glob("segment-*.npz"))[3:]:
        file.unlink()
    with (
        pytest.raises(CaseError, match=r"make room.* and run the same command again") as caught,
        small_files(4_000),
    ):
        execute_one(output, "reference-0")
    assert "\n" not in str(caught.value)
    assert [file.name for file in sorted(run.glob("segment-*.npz"))] == [
        f"segment-000{n}.npz" for n in range(3)
    ]
    execute_one(output, "reference-0")
    assert_same(segments_of(output), done)


@pytest.mark.parametrize(("file", "lines"), [("energies.txt", 102), ("frames.lammpstrj", 1066)])
def test_files_that_lammps_could_not_write_whole_are_no_result(tmp_path, monkeypatch, file, lines):
    write_segment = lammps_input.write_segment

    def write_cut(*arguments, **options):
        # what a full disk does: LAMMPS runs on and ends well
        return write_segment(*arguments, **options) + f"shell truncate -s 3000 {file}\n"

    path = write_case(tmp_path, "lammps")
    prepare(read_case_of(path), tmp_path / "report")
    monkeypatch.setattr(lammps_input, "write_segment", write_cut)
    with pytest.raises(
        CaseError,
        match=rf"reference-0: {file}: expected {lines} lines from LAMMPS, got \d+: the disk is full",
    ):
        execute_one(tmp_path / "report", "reference-0")
    assert segments_of(tmp_path / "report") == {}


def test_a_full_disk_at_the_report_is_an_error_and_the_runs_are_kept(tmp_path, here, monkeypatch, capsys):
    from mdplugin.validation import report

    path = write_case(tmp_path, "ase", length_ps=1.1, equilibration_ps=0.0)

    def fill_disk(*arguments):
        raise OSError("encoder error -2 when writing image file")  # as PIL says it, without errno

    monkeypatch.setattr(report, "draw_figures", fill_disk)
    assert main(["validate", str(path), "-o", str(tmp_path / "report")]) == 3
    error = capsys.readouterr().err
    assert f"cannot write {tmp_path / 'report'}: encoder error -2" in error and "the runs are kept" in error
    assert len(segments_of(tmp_path / "report")) >= 4
    assert (
        not list((tmp_path / "report").glob(".report-*")) and not (tmp_path / "report" / "report.md").exists()
    )
    monkeypatch.undo()
    assert main(["validate", "--collect", "-o", str(tmp_path / "report")]) in (0, 2)


def test_lammps_refusing_the_input_is_an_error_of_one_line_and_its_log_is_kept(tmp_path, monkeypatch):
    path = write_case(tmp_path, "lammps")
    prepare(read_case_of(path), tmp_path / "report")
    monkeypatch.setattr(
        lammps_input, "write_segment", lambda *arguments, **options: "units metal\nunits nonsense\n"
    )
    log = tmp_path / "report" / "runs" / "reference-0" / "failed.log"
    with pytest.raises(CaseError, match=f"reference-0: LAMMPS refuses segment.in: .*; log: {log}"):
        execute_one(tmp_path / "report", "reference-0")
    assert "units nonsense" in log.read_text()
    monkeypatch.undo()
    execute_one(tmp_path / "report", "reference-0")
    assert not log.exists()


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_rank_that_is_killed_is_no_verdict_and_the_run_goes_on(tmp_path, monkeypatch, ranks):
    path = write_case(
        tmp_path, "lammps", ranks=ranks, length_ps=40.0, equilibration_ps=0.0, checkpoint_ps=40.0
    )
    output = tmp_path / "report"
    prepare(read_case_of(path), output)
    last_step = runner_lammps.last_step

    def kill_one(energies):
        step = last_step(energies)
        if step > 10:
            for worker in [pid for pid in find_workers(tmp_path) if b"mpirun" not in words_of(pid)][-1:]:
                os.kill(worker, signal.SIGKILL)
        return step

    monkeypatch.setattr(runner_lammps, "last_step", kill_one)
    with pytest.raises(CaseError, match=r"reference-0: LAMMPS was killed .*goes on from the last checkpoint"):
        execute_one(output, "reference-0")
    wait_for(lambda: not find_workers(tmp_path))
    assert segments_of(output) == {}


@pytest.mark.parametrize("engine", [pytest.param("ase", marks=pytest.mark.slow), "lammps"])
def test_a_planned_case_is_done_by_its_commands_in_any_order_and_collected(tmp_path, here, capsys, engine):
    path = write_case(tmp_path, engine, equilibration_ps=0.0, length_ps=1.1, checkpoint_ps=1.2)
    planned, direct = tmp_path / "planned", tmp_path / "direct"
    assert main(["validate", str(path), "--plan", "-o", str(planned)]) == 0
    commands = (planned / "commands.txt").read_text().splitlines()
    assert len(commands) == len(plan_runs(read_prepared(planned)[0])) == 4
    assert "commands.txt: 4 commands" in capsys.readouterr().out
    assert main(["validate", "--collect", "-o", str(planned)]) == 3
    assert "4 of 4 runs are not done (reference-0, " in capsys.readouterr().err
    for command in reversed(commands):
        subprocess.run(shlex.split(command), check=True, cwd="/", timeout=PATIENCE_S)
    status = main(["validate", "--collect", "-o", str(planned)])
    assert status == main(["validate", str(path), "-o", str(direct)]) in (0, 2)
    assert_same(segments_of(planned), segments_of(direct))
    assert [each["runs"] for each in read_report(planned / "report.json").provenance["made_by"]] == [4]


def test_a_longer_case_goes_on_where_the_shorter_one_ended(tmp_path, here):
    case = read_case_of(write_case(tmp_path, "ase", equilibration_ps=0.4, length_ps=1.2))
    output, whole = tmp_path / "grown", tmp_path / "whole"
    for length in (1.2, 2.0):
        study.validate(case.replace(length_ps=length), output, quiet=True)
    study.validate(case.replace(length_ps=2.0), whole, quiet=True)
    assert_same(segments_of(output), segments_of(whole))
    plan = plan_runs(read_prepared(output)[0])[0]
    assert load_run(output / "runs" / plan.name, plan)[0].steps == 500


def test_two_processes_do_not_work_on_one_run(tmp_path):
    import fcntl

    prepare(read_case_of(write_case(tmp_path, "ase")), tmp_path / "report")
    run = tmp_path / "report" / "runs" / "reference-0"
    run.mkdir(parents=True)
    with (run / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(CaseError, match="another process works on this run"):
            execute_one(tmp_path / "report", "reference-0")


def test_a_run_that_says_much_on_stderr_is_not_stopped_by_it(tmp_path, monkeypatch):
    program = "import sys; sys.stderr.write('a line of a library\\n' * 50_000 + 'mdplugin: the end\\n'); sys.exit(3)"
    case = read_case_of(write_case(tmp_path, "ase"))
    monkeypatch.setattr(pool, "run_command", lambda plan, directory: [sys.executable, "-c", program])

    def give_up(number, frame):
        raise AssertionError("the run hangs")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(PATIENCE_S)
    try:
        with pytest.raises(CaseError, match=r"^run reference-0: the end$"):
            pool.execute_runs(plan_runs(case), tmp_path / "report", 1, quiet=True)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
