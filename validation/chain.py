"""A run as a chain of segments on disk, which can be broken anywhere and taken up again.

    RUN/segment-0007.npz     what the segment left (series.py); its appearance commits the segment
    RUN/state-0007.*         the state that it ended in, from which the next one starts; kept, so that a run can be
                             made longer: a last segment that was shorter is done again
    RUN/machines.jsonl       the machines that worked on it (provenance.py)
    RUN/failed.log           LAMMPS's log of the last error

A segment is worked on in RUN/scratch, which is emptied first: what a killed process left there is done again. A file
that a power failure tore (or a person removed) counts as not there: its segment is done again.
"""

import contextlib
import fcntl
import shutil
from collections.abc import Iterator
from pathlib import Path

from mdplugin.errors import CaseError
from mdplugin.validation.engine import Engine
from mdplugin.validation.plan import EQUILIBRATION, REVERSAL, RunPlan, Segment
from mdplugin.validation.progress import write_progress
from mdplugin.validation.provenance import note_machine
from mdplugin.validation.runner_lammps import LOG
from mdplugin.validation.series import (
    Failure,
    Series,
    copy_durably,
    join_series,
    load_series,
    read_extent,
    replace_durably,
    save_series,
)

FAILED_LOG = "failed.log"


def execute_run(engine: Engine, plan: RunPlan, directory: Path, reach=None) -> None:
    """Do what is left of a run in `directory`, which is made if it is missing.

    Args:
        reach: is told the steps of the run that are done; None to leave them in a file instead.

    Raises:
        CaseError: another process works on it, the engine could not run, or the disk is full; what was done is kept.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with _lock(directory):
            reach = reach or write_progress(directory)
            missing, done = _find_missing(engine, plan, directory), 0
            if missing:
                note_machine(directory)
            for segment in plan.segments:
                if segment.number in missing and not _copy_equilibration(engine, plan, segment, directory):
                    engine.reach = lambda step, before=done: reach(before + step)
                    _execute_segment(engine, segment, directory)
                done += count_steps(segment)
                reach(done)
                if read_end(directory, segment)[1] is not None:
                    break
    except OSError as error:
        raise CaseError(
            f"cannot write {directory}: {error.strerror or error}; make room and run the same command again, it goes on "
            "from the last checkpoint, or choose a writable directory with -o"
        ) from error


def _find_missing(engine: Engine, plan: RunPlan, directory: Path) -> set[int]:
    """Numbers of the segments to do: those that are not committed, and those whose state one of them needs and lacks."""
    ends = []
    for segment in plan.segments:
        is_committed, failure = read_end(directory, segment)
        ends.append((segment, is_committed))
        if failure is not None:
            break
    missing = set()
    for segment, is_committed in reversed(ends):
        state = _state(directory, segment.number, engine.suffix)
        is_lacking = segment.number + 1 in missing and not engine.is_whole(state)
        if is_lacking or not is_committed:
            missing.add(segment.number)
    return missing


def _copy_equilibration(engine: Engine, plan: RunPlan, segment: Segment, directory: Path) -> bool:
    """Take a segment from a run beside this one that equilibrated from the same seed: bit for bit what would be done."""
    if segment.phase != EQUILIBRATION:
        return False
    for twin in plan.list_twins(directory.parent):
        state = _state(twin, segment.number, engine.suffix)
        if read_end(twin, segment) == (True, None) and engine.is_whole(state):
            copy_durably(state, _state(directory, segment.number, engine.suffix))
            copy_durably(_series(twin, segment.number), _series(directory, segment.number))
            return True
    return False


def _execute_segment(engine: Engine, segment: Segment, directory: Path) -> None:
    scratch = directory / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    if segment.number == 0:
        start = directory / f"start{engine.suffix}"
        engine.write_start(start)
    else:
        start = _state(directory, segment.number - 1, engine.suffix)
    end = scratch / f"state{engine.suffix}"
    try:
        series = engine.advance(segment, start, scratch, end)
    except CaseError as error:
        log = scratch / LOG
        if log.is_file():
            raise CaseError(
                f"{directory.name}: {error}; log: {log.replace(directory / FAILED_LOG)}"
            ) from error
        raise CaseError(f"{directory.name}: {error}") from error
    if series.failure is None:
        replace_durably(end, _state(directory, segment.number, engine.suffix))
    save_series(_series(directory, segment.number), series)
    (directory / FAILED_LOG).unlink(missing_ok=True)
    shutil.rmtree(scratch, ignore_errors=True)


def _series(directory: Path, number: int) -> Path:
    return directory / f"segment-{number:04d}.npz"


def _state(directory: Path, number: int, suffix: str) -> Path:
    return directory / f"state-{number:04d}{suffix}"


def read_end(directory: Path, segment: Segment) -> tuple[bool, Failure | None]:
    """Whether a segment is committed, and where it broke off."""
    if (extent := read_extent(_series(directory, segment.number))) is None:
        return False, None
    steps, failure = extent
    return failure is not None or steps == count_steps(segment), failure


def count_steps(segment: Segment) -> int:
    """Steps of a segment; a reversal goes there and back."""
    return segment.steps * (2 if segment.phase == REVERSAL else 1)


def count_done(directory: Path, plan: RunPlan) -> int:
    """Steps of a run that are committed; all of them if it broke off."""
    done = 0
    for segment in plan.segments:
        is_committed, failure = read_end(directory, segment)
        if failure is not None:
            return plan.steps
        if not is_committed:
            return done
        done += count_steps(segment)
    return done


def load_run(directory: Path, plan: RunPlan) -> tuple[Series | None, Failure | None]:
    """The measured part of a finished run, and where its preparation broke off (then there is no measured part)."""
    measured = []
    for segment in plan.segments:
        if not read_end(directory, segment)[0]:
            break
        series = load_series(_series(directory, segment.number))
        if segment.is_measured:
            measured.append(series)
        elif series.failure is not None:
            return None, series.failure
    return join_series(measured) if measured else None, None


@contextlib.contextmanager
def _lock(directory: Path) -> Iterator[None]:
    with (directory / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CaseError(
                f"{directory}: another process works on this run; wait for it, or end it"
            ) from error
        yield
