"""The hidden folder in which a report is made: it moves up whole, or only the log of a failed run remains."""

import contextlib
import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from mdplugin.errors import CaseError
from mdplugin.validation.report import REPORT_JSON

FAILED_LOG = "failed.log"


@contextlib.contextmanager
def open_stage(directory: str | os.PathLike) -> Iterator[Path]:
    """A hidden folder inside `directory` that collects files; they move up when the block ends well.

    When it ends by a CaseError, the log of the last LAMMPS run moves up as FAILED_LOG and the error names it.

    Raises:
        CaseError: the directory cannot be made, or it or a file in it cannot be written (full disk, quota).
    """
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory, prefix=".validate-") as name:
            stage = Path(name)
            try:
                yield stage
            except CaseError as error:
                if log := _keep_log(stage, directory):
                    raise CaseError(f"{error}; LAMMPS's log: {log}") from error
                raise
            # the report last: where it is, all that it names is
            for file in sorted(stage.iterdir(), key=lambda file: file.name == REPORT_JSON):
                os.replace(file, directory / file.name)
            (directory / FAILED_LOG).unlink(missing_ok=True)
    except OSError as error:
        raise CaseError(
            f"cannot write {directory}: {error.strerror or error}; make room, or choose a writable directory "
            "with -o"
        ) from error


def _keep_log(stage: Path, directory: Path) -> Path | None:
    """Move the newest log of LAMMPS up, if there is one: by a rename, which a full disk allows."""
    logs = sorted(stage.glob("*.log"), key=lambda log: log.stat().st_mtime_ns)
    return logs[-1].replace(directory / FAILED_LOG) if logs else None


@contextlib.contextmanager
def exit_when_terminated() -> Iterator[None]:
    """SIGTERM (a scheduler) or SIGHUP (a closed terminal) end the block as SystemExit, so that it cleans up.

    The exit status is 128 + signal, as shells have it. A signal that the program handles or ignores (nohup)
    is left to it, and outside of the main thread, where Python installs no handlers, all are.
    """
    taken = []
    if threading.current_thread() is threading.main_thread():
        taken = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is signal.SIG_DFL]

    def leave(number, frame):
        for each in taken:  # a second signal must not interrupt the cleaning up
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for number in taken:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)
