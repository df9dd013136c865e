"""The potentials and structures that come with the package, by name."""

from pathlib import Path

_DIRECTORY = Path(__file__).resolve().parent
# what a potential has in its own box at 300 K, where that is far from 1 bar (model card): there it is in equilibrium
BOX_PRESSURES_BAR = {"water-64": 9_800.0}


def names() -> tuple[str, ...]:
    """Names of the bundled potentials; each has a model card NAME.md."""
    return tuple(sorted(file.stem for file in _DIRECTORY.glob("*.json")))


def path(name: str) -> Path:
    """The JSON of a bundled potential; its weights lie beside it as safetensors."""
    return _DIRECTORY / f"{name}.json"


def find_structure(text: str) -> Path | None:
    """The bundled structure called `text` ("water-64"), or None."""
    file = _DIRECTORY / f"{text}.xyz"
    return file if file.is_file() else None


def structures(name: str) -> tuple[Path, ...]:
    """The structures that come with a bundled potential, the largest file first."""
    files = _DIRECTORY.glob(f"{name}-*.xyz") if name in names() else ()
    return tuple(sorted(files, key=lambda file: (-file.stat().st_size, file.name)))
