"""File or name -> a potential that both engines can run: the artifact to judge, or its float64 reference."""

import copy
import functools
import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import ase
from ase.calculators.calculator import Calculator
from ase.data import chemical_symbols

import mdplugin
from mdplugin import potentials
from mdplugin.archive import content_sha256
from mdplugin.errors import CaseError, StructureError

REFERENCE_PRECISION = "fp64"


@dataclass(eq=False)
class Potential:
    """What is run, and what the report says of it.

    Attributes:
        name: for people.
        calculator: ASE calculator with energy and forces, where it is no artifact.
        path: the artifact; None for a calculator that is none.
        threads: torch threads of the artifact's calculator.
        precision: policy of the artifact.
        sha256: of the artifact's content, which certificates do not change.
        source: name and hash of the checkpoint it was exported from.
    """

    name: str
    calculator: Calculator | None = None
    path: Path | None = None
    threads: int | None = None
    precision: str | None = None
    sha256: str | None = None
    source: dict | None = None

    def make_calculator(self) -> Calculator:
        """A calculator without history: of an artifact one with a neighbour list of its own."""
        if self.path is None:
            return copy.deepcopy(self.calculator)
        return mdplugin.MACEQuantCalculator(self._artifact, threads=self.threads)

    @functools.cached_property
    def _artifact(self):
        return mdplugin.load(self.path)

    def describe(self) -> dict:
        """The facts that go into the report."""
        return {name: getattr(self, name) for name in ("name", "precision", "sha256", "source")}


def load_potential(path: str | os.PathLike, threads: int | None) -> Potential:
    """An artifact for both engines, with what its manifest says.

    Raises:
        ArtifactError: not an artifact.
    """
    path = Path(path)
    manifest = mdplugin.read_manifest(path)
    return Potential(
        name=path.name,
        path=path.resolve(),
        threads=threads,
        precision=manifest.precision,
        sha256=content_sha256(path),
        source=manifest.source,
    )


def is_artifact(path: str | os.PathLike) -> bool:
    """Whether the file is an artifact, of whatever precision."""
    from mdplugin import artifact  # torch; LAMMPS runs do without

    return artifact.is_artifact(path)


def export_reference(source: str | os.PathLike, target: Path, head: str, trust: bool) -> None:
    """Make the float64 reference appear as `target`: an fp64 artifact as it is, a checkpoint exported.

    The export compares the artifact with mace-torch and refuses to write it unless they agree.

    Raises:
        CaseError: an artifact of another precision.
        CheckpointError, FidelityError: the checkpoint cannot be exported.
    """
    if is_artifact(source):
        require_reference_precision(source)
        shutil.copyfile(source, target)
    else:
        mdplugin.export_model(source, target, REFERENCE_PRECISION, head=head, trust=trust)


def require_reference_precision(source: str | os.PathLike) -> None:
    """Raise CaseError if `source` is an artifact that is not fp64."""
    if not is_artifact(source):
        return
    precision = mdplugin.read_manifest(source).precision
    if precision != REFERENCE_PRECISION:
        raise CaseError(
            f"reference {source}: expected a checkpoint or an artifact of precision {REFERENCE_PRECISION}, "
            f"got an artifact of precision {precision}"
        )


def hash_checkpoint(source: str | os.PathLike) -> str | None:
    """SHA-256 of the checkpoint that a reference is, of a bundled one by its name; None for an artifact or no file.

    A JSON potential's weights, which lie beside it, count too.
    """
    path = Path(source)
    if not path.is_file() and str(source) in potentials.names():
        path = potentials.path(str(source))
    if not path.is_file() or is_artifact(path):
        return None
    digest = hashlib.sha256(path.read_bytes())
    weights = path.with_suffix(".safetensors")
    if path.suffix == ".json" and weights.is_file():
        digest.update(weights.read_bytes())
    return digest.hexdigest()


def find_bundled_box(reference: str | os.PathLike) -> Path | None:
    """The bundled box of the bundled potential that `reference` is, or None."""
    name = str(reference)
    if is_artifact(reference):
        name = Path(mdplugin.read_manifest(reference).source["name"]).stem
    if name not in potentials.names():
        return None
    return potentials.find_structure(f"{name}-64")


def find_own_pressure(reference: str | os.PathLike, structure: str | None) -> float | None:
    """Bar; what a bundled `reference` has in its own box, if that is the structure and far from 1 bar, else None."""
    box = find_bundled_box(reference)
    if box is None or structure not in (None, box.stem):
        return None
    if is_artifact(reference):  # another potential of the same name has another pressure
        source = mdplugin.read_manifest(reference).source
        if source["sha256"] != hash_checkpoint(Path(source["name"]).stem):
            return None
    return potentials.BOX_PRESSURES_BAR.get(box.stem)


def require_elements(atoms: ase.Atoms, path: str | os.PathLike) -> None:
    """Raise StructureError if the artifact at `path` does not know an element of `atoms`."""
    manifest = mdplugin.read_manifest(path)
    if unknown := sorted(set(atoms.numbers) - set(manifest.atomic_numbers)):
        symbols = " ".join(chemical_symbols[number] for number in unknown)
        raise StructureError(
            f"structure: elements {symbols} are not in {Path(path).name}; it knows "
            f"{' '.join(manifest.elements)}"
        )


def hash_file(path: str | os.PathLike) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
