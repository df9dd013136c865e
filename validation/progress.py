"""One progress bar on stderr for all phases of a case, with the time left; silent where nobody watches."""

import contextlib
from collections.abc import Iterator

from tqdm import tqdm


class Progress:
    """Counts steps of consecutive phases on one bar."""

    def __init__(self, bar: tqdm):
        self._bar = bar
        self._phase_start = 0

    def begin(self, phase: str) -> None:
        """Name the phase that starts now."""
        self._bar.set_description(phase)
        self._phase_start = self._bar.n

    def reach(self, step: int) -> None:
        """The phase has done `step` steps."""
        self._bar.update(self._phase_start + step - self._bar.n)


@contextlib.contextmanager
def show_progress(total_steps: int, quiet: bool) -> Iterator[Progress]:
    """A bar over `total_steps`; disabled when quiet or when stderr is not a terminal."""
    with tqdm(total=total_steps, unit="step", disable=True if quiet else None, dynamic_ncols=True) as bar:
        yield Progress(bar)
