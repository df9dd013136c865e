"""Structure file -> frames, and what a record says of the file."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from mdplugin.errors import StructureError


def read_frames(path: str | os.PathLike, index: str = ":") -> list:
    """Frames of a structure file: all, or those of a slice.

    Raises:
        StructureError: no such file, no frame in it, or ASE cannot read it.
    """
    import ase.io

    try:
        frames = ase.io.read(path, index)
    except FileNotFoundError as error:
        raise StructureError(f"{path}: no such file") from error
    except Exception as error:  # ASE's readers raise anything from KeyError to their own classes
        raise StructureError(
            f"{path}: ASE cannot read it as structures ({type(error).__name__}: {error})"
        ) from error
    if not frames:
        raise StructureError(f"{path}: expected at least one frame, got none")
    return frames


def describe_structures(path: str | os.PathLike, frames: Sequence) -> dict:
    """Name and SHA-256 of the file, number of frames, and their formulas in alphabetical order."""
    return {
        "name": Path(path).name,
        "sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest(),
        "n_frames": len(frames),
        "formulas": sorted({frame.get_chemical_formula() for frame in frames}),
    }


def spread(frames: Sequence, number: int) -> list:
    """`number` of the frames, evenly spread from the first to the last; all where there are no more."""
    chosen = sorted({round(i * (len(frames) - 1) / max(number - 1, 1)) for i in range(number)})
    return [frames[i] for i in chosen]
