"""Steps done -> one progress bar on stderr with the time left; silent where nobody watches."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tqdm import tqdm

PROGRESS_FILE = "progress"
WRITE_EVERY_S = 0.5

Reach = Callable[[int], None]  # takes the steps that are done


@contextlib.contextmanager
def show_progress(total_steps: int, quiet: bool) -> Iterator[Reach]:
    """A bar over `total_steps`; disabled when quiet or when stderr is not a terminal."""
    with tqdm(total=total_steps, unit="step", disable=True if quiet else None, dynamic_ncols=True) as bar:

        def reach(step: int) -> None:
            bar.update(step - bar.n)

        yield reach


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
