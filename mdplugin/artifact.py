"""The artifact: one TorchScript file with the network, its manifest, and nothing else. Write, load, evaluate.

The manifest is JSON in the archive's extra files, so that an engine reads it before it runs any code.
"""

import dataclasses
import io
import json
import os
import tempfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import torch

from mdplugin.archive import strip_origins, write_whole
from mdplugin.certificate import Certificates, read_certificates
from mdplugin.errors import ArtifactError
from mdplugin.precision import Precision

SCHEMA = 2  # 2: matrices are kept in their storage type
RECORD = "mdplugin.json"

UNITS = {"length": "angstrom", "energy": "eV", "force": "eV/angstrom"}
CONVENTIONS = {
    "edge_vectors": "r_receiver - r_sender + shift, float64",
    "receivers": "ascending, < n_local",
    "edge_force": "-dE/d(edge_vectors); F[receiver] += edge_force, F[sender] -= edge_force",
    "virial": "sum over edges of outer(edge_vector, edge_force)",
}


# how the fields' types look in JSON, for those that are not plain
_PLAIN_TYPES = {
    tuple[str, ...]: tuple,
    tuple[int, ...]: tuple,
    tuple[float, ...]: tuple,
    tuple[dict, ...]: tuple,
}


@dataclass(frozen=True)
class Manifest:
    """All that an engine or a reader asks about an artifact.

    Attributes:
        precision: policy string, round-trips through `Precision.parse`.
        trained_dtype: type of the weights in the source checkpoint.
        atomic_numbers: (n_elements,); `species` indexes it.
        r_max: cutoff in Å.
        n_layers: interaction layers; the graph calls `mdplugin::halo` n_layers - 1 times.
        e0s_eV: (n_elements,) isolated-atom energies. masses_amu: (n_elements,) standard atomic masses.
        source: name and SHA-256 of the checkpoint.
        radial_tables: per layer of the native backend: kind, intervals, relative errors; empty for e3nn.
        calibration: frames on which matrices were rounded: how many, atoms, SHA-256; None: rounded to nearest.
        fidelity: measured at export against mace-torch in float64: frames, largest errors, tolerances.
    """

    mdplugin_version: str
    precision: str
    backend: str
    trained_dtype: str
    elements: tuple[str, ...]
    atomic_numbers: tuple[int, ...]
    r_max: float
    n_layers: int
    head: str
    heads: tuple[str, ...]
    e0s_eV: tuple[float, ...]
    masses_amu: tuple[float, ...]
    torch_version: str
    source: dict
    radial_tables: tuple[dict, ...] = ()
    calibration: dict | None = None
    fidelity: dict = field(default_factory=dict)
    units: dict = field(default_factory=lambda: dict(UNITS))
    conventions: dict = field(default_factory=lambda: dict(CONVENTIONS))
    schema: int = SCHEMA

    def to_json(self) -> str:
        """The manifest as it is stored."""
        return json.dumps(dataclasses.asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str, where: str) -> "Manifest":
        """Parse a stored manifest.

        Raises:
            ArtifactError: another schema than this version knows, or a field is missing.
        """
        try:
            values = json.loads(text)
            schema = values["schema"]
            if not isinstance(schema, int):
                raise TypeError(f"schema: expected a whole number, got {schema!r}")
        except (ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{where}: damaged manifest ({error}): export the model again") from error
        if schema != SCHEMA:
            raise ArtifactError(
                f"{where}: artifact schema {schema}, this mdplugin reads {SCHEMA}: export the model again with this "
                "version, or take the one that wrote it"
            )
        fields = {f.name: f for f in dataclasses.fields(cls)}
        known = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items() if name in fields}
        for name, value in known.items():
            kind = _PLAIN_TYPES.get(fields[name].type, fields[name].type)
            if isinstance(kind, type) and not isinstance(value, kind):
                raise ArtifactError(
                    f"{where}: damaged manifest ({name}: expected {kind.__name__}, got {value!r}): export the model again"
                )
        try:
            return cls(**known)
        except TypeError as error:
            raise ArtifactError(f"{where}: incomplete manifest ({error}): export the model again") from error

    def describe(self) -> str:
        """One line for logs: precision, elements, trained type."""
        elements = " ".join(self.elements)
        calibrated = " calibrated" if self.calibration else ""
        return f"precision {self.precision}{calibrated}, elements {elements}, trained {self.trained_dtype}"


@dataclass(frozen=True)
class Artifact:
    """A loaded artifact: call `evaluate` with edges, or hand it to an engine."""

    path: Path
    manifest: Manifest
    network: torch.jit.ScriptModule
    certificates: Certificates = field(default_factory=Certificates)

    def describe(self) -> str:
        """One line for logs: what the manifest says, and what is certified of this very file."""
        return f"{self.manifest.describe()}, {self.certificates.line}"

    def evaluate(
        self,
        edge_vectors: torch.Tensor,
        senders: torch.Tensor,
        receivers: torch.Tensor,
        species: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the network on local nodes.

        Args:
            edge_vectors: (n_edges, 3) float64 Å, r_receiver - r_sender + shift.
            senders, receivers: (n_edges,) int64, receivers ascending.
            species: (n_nodes,) int64, index into `manifest.atomic_numbers`.

        Returns:
            Per-atom energies (n_nodes,) float64 eV and -dE/d(edge_vectors) (n_edges, 3) float64 eV/Å.
        """
        # The profiling executor compiles variants in the first calls: slow, and not bitwise the same later.
        with torch.enable_grad(), torch.jit.optimized_execution(False):
            return self.network(edge_vectors, senders, receivers, species, species.size(0))


def is_artifact(path: str | os.PathLike) -> bool:
    """Whether the file is an archive that carries an artifact's manifest."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(record.endswith(f"extra/{RECORD}") for record in archive.namelist())


def read_manifest(path: str | os.PathLike) -> Manifest:
    """The manifest of an artifact, without loading the network.

    Raises:
        ArtifactError: not an artifact (says what it is), truncated, or of another schema.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.namelist()
            name = next((record for record in records if record.endswith(f"extra/{RECORD}")), None)
            if name is not None:
                return Manifest.from_json(archive.read(name).decode(), str(path))
    except FileNotFoundError as error:
        raise ArtifactError(
            f"{path}: no such file; make one with `mdplugin export MODEL -o {path}`"
        ) from error
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise ArtifactError(
            f"{path}: expected an artifact of `mdplugin export`, got a file that is none ({error})"
        ) from error
    if any(record.endswith("constants.pkl") for record in records):
        raise ArtifactError(
            f"{path}: a TorchScript network, but not made by `mdplugin export`: export the .model file"
        )
    raise ArtifactError(
        f"{path}: a checkpoint, not an artifact: run `mdplugin export {path} -o {path.stem}-fp32.pt`"
    )


def load(path: str | os.PathLike, device: str = "cpu") -> Artifact:
    """Load an artifact.

    Args:
        path: file written by `export_model`.
        device: "cpu".

    Raises:
        ArtifactError: see `read_manifest`; or the device is not served.
    """
    from mdplugin import ops  # noqa: F401  (the graph calls mdplugin::halo)

    if device != "cpu":
        raise ArtifactError(f"device: expected 'cpu', got '{device}' (this version has no GPU kernels)")
    path = Path(path)
    manifest = read_manifest(path)
    Precision.parse(manifest.precision)
    try:
        network = torch.jit.load(str(path), map_location=device).eval()
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ArtifactError(
            f"{path}: the network cannot be loaded ({reason}): export the model again"
        ) from error
    return Artifact(path, manifest, network, read_certificates(path))


def save(network: torch.jit.ScriptModule, manifest: Manifest, path: Path) -> None:
    """Write network and manifest atomically: the file appears whole or not at all.

    A link is followed; what exists and is no regular file is refused.

    Raises:
        ArtifactError: the file cannot be written (directory, device, permission, full disk).
    """
    path = writable_path(path)
    content = io.BytesIO()  # torch's own file writer ends the process when the disk is full
    torch.jit.save(network, content, _extra_files={RECORD: manifest.to_json()})
    write_whole(path, strip_origins(content.getvalue()))


def writable_path(path: str | os.PathLike) -> Path:
    """The file that `path` leads to, which need not exist yet but can be written.

    Raises:
        ArtifactError: it is a directory or a device, or its directory is missing or not writable.
    """
    path = Path(path).resolve()
    if path.exists() and not path.is_file():
        kind = "a directory" if path.is_dir() else "not a regular file"
        raise ArtifactError(f"cannot write {path}: it is {kind}; choose another file with -o")
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}."):
            pass
    except OSError as error:
        raise ArtifactError(
            f"cannot write {path}: {path.parent}: {error.strerror}; choose a writable directory with -o"
        ) from error
    return path
