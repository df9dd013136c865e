"""Files that appear together or not at all, and signals that let Python clean up."""

import contextlib
import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from mdplugin.errors import CaseError


@contextlib.contextmanager
def open_stage(directory: Path, last: str) -> Iterator[Path]:
    """A hidden folder inside `directory`; its files move up when the block ends well, the one called `last` last.

    Raises:
        OSError: it or a file in it cannot be written (full disk, quota).
        CaseError: a directory is in the place of a file; none has moved then.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory, prefix=".report-") as name:
        stage = Path(name)
        yield stage
        for file in stage.iterdir():
            if (target := directory / file.name).is_dir():
                raise CaseError(f"{target}: expected a file or nothing, got a directory: move it away")
        # where the last one is, all that it names is
        for file in sorted(stage.iterdir(), key=lambda file: file.name == last):
            os.replace(file, directory / file.name)


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
