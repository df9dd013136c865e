"""The JSON file of finished measurements, from which a run that was stopped goes on and a finished one is decided again.

    {"schema": 1, "contexts": {HASH: {"context": {...}, "rows": {KEY: row}, "timings": {KEY: [round, ...]}}}}

The context is all that measurements depend on besides their key: hashes of the potential, of the structures and of the
code of mdplugin, versions, processor, threads. The file may hold several. It is written whole after every measurement.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from mdplugin.archive import write_whole
from mdplugin.errors import CaseError
from mdplugin.machine import cpu_model, hash_code, package_version

SCHEMA = 1
VERSIONS = ("mdplugin", "torch", "mace-torch", "ase", "numpy", "vesin")


def describe_context(checkpoint, structures: Mapping, n_threads: int, clock: str) -> dict:
    """What the measurements of a run have in common."""
    return {
        "source": {"name": checkpoint.name, "sha256": checkpoint.sha256, "head": checkpoint.head},
        "structures": dict(structures),
        "code_sha256": hash_code(),
        "versions": {name: package_version(name) for name in VERSIONS},
        "cpu": cpu_model(),
        "threads": n_threads,
        "clock": clock,
    }


class Measurements:
    """What the file holds for one context."""

    def __init__(self, path: Path, context: Mapping):
        """Read the file, if there is one.

        Raises:
            CaseError: it is not one of ours.
        """
        self.path, self.context, self._all = path, context, _read(path)
        text = json.dumps(context, sort_keys=True)
        mine = self._all["contexts"].setdefault(
            hashlib.sha256(text.encode()).hexdigest(), {"context": context, "rows": {}, "timings": {}}
        )
        self._rows, self._timings = mine["rows"], mine["timings"]

    def row(self, key: str) -> dict | None:
        """A stored row, None where it was not measured."""
        return self._rows.get(key)

    def keep_row(self, key: str, row: dict) -> dict:
        """Store a row; as it will be read again."""
        self._rows[key] = row
        self._write()
        return row

    def rounds(self, key: str) -> Sequence[dict[str, float]]:
        """The stored rounds of a timing."""
        return tuple(self._timings.get(key, ()))

    def keep_round(self, key: str, ms: dict[str, float]) -> None:
        """Add a round to a timing."""
        self._timings.setdefault(key, []).append(ms)
        self._write()

    def _write(self) -> None:
        write_whole(self.path, json.dumps(self._all, indent=1, allow_nan=False).encode())


def _read(path: Path) -> dict:
    if not path.exists():
        return {"schema": SCHEMA, "contexts": {}}
    try:
        content = json.loads(path.read_bytes())
        if content["schema"] != SCHEMA or not isinstance(content["contexts"], dict):
            raise ValueError(f"schema {content['schema']}, this version reads {SCHEMA}")
        return content
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CaseError(
            f"{path}: expected measurements of `mdplugin tune`, got {error!r}: remove it, or choose another --report"
        ) from error
