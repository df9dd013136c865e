"""LAMMPS's text files -> arrays."""

import re
from pathlib import Path

import numpy as np

from mdplugin.validation.lammps_input import DUMP_HEADER_LINES

RESTART_MAGIC = b"LammpS RestartT\0"  # LAMMPS writes it first and last
# what LAMMPS and the pair style say when the dynamics went wrong; anything else is the machine's or the input's fault
_COLLAPSE = re.compile(
    r"Fix halt condition for fix-id explosion met"
    r"|mace/quant: .* gives an energy or a force that is not finite"
    r"|Lost atoms: "
    r"|Non-numeric (pressure|atom coords|box dimensions|positions|variable value)"
    r"|Atoms have moved too far apart"
    r"|tilted box too far in one step"
    # a box that runs away or shrinks to nothing, atoms that fall into each other
    r"|Domain too large for neighbor bins|box size << cutoff|Too many (neighbor|atom sorting) bins"
    r"|eighbor list overflow"
)


def read_table(path: Path, n_columns: int) -> np.ndarray:
    """(n_rows, n_columns) of a file of fix print; incomplete lines and comments are left out."""
    lines = path.read_text().splitlines() if path.is_file() else []
    rows = [words for line in lines if len(words := line.split()) == n_columns and words[0] != "#"]
    return np.array(rows, dtype=np.float64).reshape(-1, n_columns)


def read_dump(path: Path, n_atoms: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Complete frames of a dump of `id a b c`, sorted by id, up to the first that has lost atoms.

    Returns:
        (n_frames,) timesteps, (n_frames, n_atoms, 3) values, (n_frames, 3, 3) cell vectors.
    """
    lines = path.read_text().splitlines() if path.is_file() else []
    length = DUMP_HEADER_LINES + n_atoms
    n_frames = len(lines) // length
    steps, cells, values = (
        np.zeros(n_frames, dtype=int),
        np.zeros((n_frames, 3, 3)),
        np.zeros((n_frames, n_atoms, 3)),
    )
    for index in range(n_frames):
        frame = lines[index * length : (index + 1) * length]
        if int(frame[3]) != n_atoms:
            return steps[:index], values[:index], cells[:index]
        steps[index] = int(frame[1])
        cells[index] = _read_cell(frame[5:8])
        values[index] = np.array(" ".join(frame[9:]).split(), dtype=np.float64).reshape(n_atoms, 4)[:, 1:]
    return steps, values, cells


def _read_cell(lines: list[str]) -> np.ndarray:
    """Cell vectors from a dump's bounds, which hold the tilted box's bounding box (LAMMPS manual, Howto triclinic)."""
    rows = [np.array(line.split(), dtype=np.float64) for line in lines]
    xy, xz, yz = (row[2] if len(row) == 3 else 0.0 for row in rows)
    low, high = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    low[0] -= min(0.0, xy, xz, xy + xz)
    high[0] -= max(0.0, xy, xz, xy + xz)
    low[1] -= min(0.0, yz)
    high[1] -= max(0.0, yz)
    x, y, z = high - low
    return np.array([[x, 0, 0], [xy, y, 0], [xz, yz, z]])


def speaks_of_dynamics(message: str) -> bool:
    """Whether LAMMPS's error says that the dynamics went wrong, which is a result, and no fault of the machine."""
    return _COLLAPSE.search(message) is not None


def is_whole_restart(path: Path) -> bool:
    """Whether a restart file is there and ends as LAMMPS ends it: LAMMPS ignores a full disk."""
    if not path.is_file() or path.stat().st_size < 2 * len(RESTART_MAGIC):
        return False
    with path.open("rb") as file:
        first = file.read(len(RESTART_MAGIC))
        file.seek(-len(RESTART_MAGIC), 2)
        return first == file.read() == RESTART_MAGIC


def count_lines(path: Path) -> int:
    """Complete lines of a file, 0 where there is none."""
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def last_step(energies: Path) -> int:
    """The step of the last complete line, 0 where there is none."""
    if not energies.is_file():
        return 0
    with energies.open("rb") as file:
        file.seek(max(0, energies.stat().st_size - 400))
        lines = file.read().split(b"\n")[:-1]
    word = lines[-1].split()[0] if lines else b"#"
    return int(word) if word.isdigit() else 0
