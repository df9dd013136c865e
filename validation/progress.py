"""Steps done -> one progress bar on stderr with the time left, at the mean rate so far; none where nobody watches."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path

from tqdm import tqdm

PROGRESS_FILE = "progress"
WRITE_EVERY_S = 0.5

Reach = Callable[[int], None]  # takes the steps that are done


_suite: ContextVar[tqdm | None] = ContextVar(
    "suite", default=None
)  # the bar of several cases, while it is shown


@contextlib.contextmanager
def show_suite(total_steps: int, done: int, quiet: bool) -> Iterator[Callable[[str], None]]:
    """One bar over several cases, in the place of their own: it has the time left of all of them.

    Yields what names the case at work: before the bar, or in a line of its own where there is none.
    """
    with _open_bar(total_steps, done, quiet) as bar:

        def announce(name: str) -> None:
            bar.set_description(name)
            if bar.disable and not quiet:
                print(name, file=sys.stderr, flush=True)

        token = _suite.set(bar)
        try:
            yield announce
        finally:
            _suite.reset(token)


@contextlib.contextmanager
def show_progress(total_steps: int, quiet: bool, done: int = 0) -> Iterator[Reach]:
    """A bar over `total_steps`, of which `done` were done before; disabled when quiet or when stderr is no terminal."""
    suite = _suite.get()
    with contextlib.nullcontext(suite) if suite is not None else _open_bar(total_steps, done, quiet) as bar:
        last = done

        def reach(step: int) -> None:
            nonlocal last
            bar.update(step - last)
            last = step

        yield reach


def track_potentials(labels: Sequence[str], quiet: bool) -> Iterable[str]:
    """The labels one by one under a bar: frames are evaluated when the last step is done, which takes a while."""
    return tqdm(
        labels,
        desc="judging",
        unit="potential",
        leave=False,
        disable=True if quiet else None,
        dynamic_ncols=True,
    )


def _open_bar(total_steps: int, done: int, quiet: bool) -> tqdm:
    return tqdm(
        total=total_steps,
        initial=done,
        unit="step",
        smoothing=0,
        disable=True if quiet else None,
        dynamic_ncols=True,
    )


def write_progress(directory: Path) -> Reach:
    """A `Reach` that leaves its number in a file now and then, for whoever watches from outside."""
    last = -WRITE_EVERY_S

    def reach(step: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= WRITE_EVERY_S:
            last = now
            with contextlib.suppress(OSError):  # a full disk shows elsewhere
                (directory / PROGRESS_FILE).write_text(str(step))

    return reach


def read_progress(directory: Path) -> int:
    """The number that `write_progress` left, 0 if there is none."""
    with contextlib.suppress(OSError, ValueError):
        return int((directory / PROGRESS_FILE).read_text())
    return 0
