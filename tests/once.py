"""What costs seconds and is the same each time is made once per test session, by the process that needs it first.

A network that mace-torch builds (1 to 4 s of generated code that TorchScript compiles), and the artifacts of `conftest`.
What is made lies in a directory that all workers of a session share, under the hash of everything that it was made from.
"""

import fcntl
import functools
import hashlib
import inspect
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from mdplugin import checkpoint
from mdplugin.checkpoint import _mace

_OWN = tempfile.TemporaryDirectory(prefix="mdplugin-once-")  # of this process, where pytest has no session
_directory = Path(_OWN.name)


def share(directory: Path) -> None:
    """Keep what is made in `directory` from now on."""
    global _directory  # noqa: PLW0603 (one a process)
    _directory = directory
    directory.mkdir(exist_ok=True)


def make(kind: str, made_from: object, write: Callable[[Path], object], suffix: str = "") -> Path:
    """The file that `write` makes for these facts, written if no process of the session has; read it, change a copy."""
    facts = json.dumps(made_from, sort_keys=True, default=_describe)
    path = _directory / f"{kind}-{hashlib.sha256(facts.encode()).hexdigest()[:20]}{suffix}"
    if not path.exists():
        with (_directory / f"{path.name}.lock").open("w") as lock:
            fcntl.flock(
                lock, fcntl.LOCK_EX
            )  # the others wait instead of making it too; freed also by a crash
            if not path.exists():
                scratch = path.with_name(f"new-{path.name}")
                write(scratch)
                os.replace(scratch, path)
    return path


def _describe(value: object) -> object:
    """A setting as plain values; what has no name of its own is refused, for two may not be taken for one."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, type) or inspect.isroutine(value):
        return f"{value.__module__}.{value.__qualname__}"
    text = repr(value)
    assert " at 0x" not in text and "..." not in text, f"{text} does not say what it is"
    return text


def read_networks_once(monkeypatch) -> None:
    """`read_checkpoint` builds the network of a file's content once per session; after that it is copied by pickle.

    A copy is what mace-torch's own `deepcopy` of a network makes, and new each time. Refusals are never kept.
    """
    for name in ("_rebuild", "_read_json"):
        monkeypatch.setattr(checkpoint, name, _copied(getattr(checkpoint, name)))


def _copied(read):
    @functools.wraps(read)
    def read_once(path: Path):
        try:
            facts = [read.__name__, *map(_sha256, _files_of(path))]
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return read(path)  # which says what is wrong
        copy = make("network", facts, lambda target: torch.save(read(path), target), ".pickle")
        with _mace():
            return torch.load(copy, weights_only=False)

    read_once.anew = read
    return read_once


def _files_of(path: Path) -> list[Path]:
    """A potential as JSON has its weights in another file."""
    return [path, path.parent / json.loads(path.read_text())["weights"]] if path.suffix == ".json" else [path]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def remember_sources() -> None:
    """Keep the lines of a function's source that `inspect` finds: TorchScript asks for the same ones at every module."""
    find = functools.lru_cache(maxsize=None)(inspect.getsourcelines)

    def getsourcelines(thing):
        try:
            lines, start = find(thing)
        except TypeError:  # not hashable, or no source: inspect says which
            return find.__wrapped__(thing)
        return list(lines), start

    inspect.getsourcelines = getsourcelines


def remember_couplings() -> None:
    """Keep mace-torch's couplings U, a quarter of the time of a network: each network of the same irreps gets a copy."""
    with _mace() as mace:
        module = mace.modules.symmetric_contraction
    find, kept = module.U_matrix_real, {}

    def U_matrix_real(**arguments):  # noqa: N802 (mace-torch's)
        key = repr(sorted(arguments.items()))
        if key not in kept:
            kept[key] = find(**arguments)
        return [*kept[key][:-1], kept[key][-1].clone()]

    module.U_matrix_real = U_matrix_real
