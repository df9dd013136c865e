"""MACE checkpoint -> Checkpoint: the mace-torch network in float64 with the facts an engine asks for.

The only module that imports mace. A checkpoint is a `.model` file of mace-torch, a bundled potential by
name, or the JSON of a potential saved as JSON + safetensors. A `.model` is read as inert data (model_file.py), the
network is built anew from its settings (settings.py) and gets the file's tensors (reconstruction.py).
"""

import contextlib
import copy
import hashlib
import json
import logging
import os
import pickle
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ase
import numpy as np
import torch
from ase.data import chemical_symbols

from mdplugin import potentials
from mdplugin.errors import CheckpointError, StructureError
from mdplugin.model_file import NETWORKS, Part, read_parts
from mdplugin.reconstruction import reconstruct
from mdplugin.settings import constructor_arguments, read_settings
from mdplugin.threads import torch_threads

# what a part of another shape than a MACE's raises when it is read
_MALFORMED = (AttributeError, IndexError, KeyError, RecursionError, RuntimeError, TypeError, ValueError)
# what torch.load raises for text, truncated files and other archives
_UNREADABLE = (
    pickle.UnpicklingError,
    EOFError,
    RuntimeError,
    zipfile.BadZipFile,
    OSError,
    UnicodeDecodeError,
)


@dataclass(frozen=True)
class Checkpoint:
    """A MACE network of mace-torch, in float64, evaluation mode, gradients of weights off.

    Attributes:
        network: the mace-torch module.
        name: file name or bundled name of the source.
        sha256: of the source's bytes.
        trained_dtype: type of the weights in the source, "float32" or "float64".
        atomic_numbers: (n_elements,) in the order of the network's one-hot encoding.
        r_max: cutoff in Å.
        n_layers: number of interaction layers.
        heads: names of all readout heads; `head` the one served.
        e0s: (n_elements,) isolated-atom energies of `head` in eV.
        settings: what the network is built from (settings.py); None for a pickle that was trusted.
    """

    network: torch.nn.Module
    name: str
    sha256: str
    trained_dtype: str
    atomic_numbers: tuple[int, ...]
    r_max: float
    n_layers: int
    heads: tuple[str, ...]
    head: str
    e0s: tuple[float, ...]
    settings: dict | None = None

    @property
    def head_index(self) -> int:
        """Position of the served head among `heads`."""
        return self.heads.index(self.head)


@contextlib.contextmanager
def _mace(constants: torch.dtype = torch.float64):
    """mace-torch's modules inside a scope where its construction defaults are float64, or another type.

    mace-torch builds constants (Clebsch-Gordan coefficients, scales) in torch's default dtype. It is set
    here, at export time, and restored together with the environment variable that `import mace` leaves.
    """
    dtype, variable = torch.get_default_dtype(), "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(variable)
    level = logging.root.level
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(None):
            warnings.simplefilter("ignore")
            logging.root.setLevel(logging.ERROR)  # mace announces missing accelerators at import
            import mace.calculators
            import mace.modules

            torch.set_default_dtype(constants)
            yield mace
    finally:
        torch.set_default_dtype(dtype)
        logging.root.setLevel(level)
        if before is None:
            os.environ.pop(variable, None)
        else:
            os.environ[variable] = before


def read_checkpoint(source: str | os.PathLike, head: str | None = None, trust: bool = False) -> Checkpoint:
    """Read a MACE potential.

    Args:
        source: a `.model` file, a potential's `.json`, or the name of a bundled potential ("water").
        head: which readout head to serve; needed when the model has several.
        trust: unpickle a `.model` as Python does, which runs whatever the file says: for classes that are not on
            the list of `model_file`.

    Raises:
        CheckpointError: not a MACE energy model, or no such file or head; says what it is instead. Or a `.model` that
            holds anything but the parts of a MACE network, and `trust` is False; names it.
    """
    path = Path(source)
    if not path.exists() and str(source) in potentials.names():
        path = potentials.path(str(source))
    if not path.is_file():
        bundled = ", ".join(potentials.names())
        raise CheckpointError(f"{source}: no such file, nor a bundled potential (bundled: {bundled})")
    if path.suffix == ".json":
        network, settings = _read_json(path)
    else:
        _refuse_torchscript(path)
        network, settings = _unpickle(path) if trust else _rebuild(path)
    _require_energy_model(path, network)
    return _describe(path, network, settings, head)


def _rebuild(path: Path) -> tuple[torch.nn.Module, dict]:
    """The network that a `.model` describes, without running anything of the file, and its settings."""
    with path.open("rb") as file:
        parts = read_parts(file, str(path))
    _require_energy_model(path, parts)
    try:
        settings = read_settings(parts)
        return _build(type(parts).__name__, settings, parts), settings
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except _MALFORMED as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path}: expected the parts of a network that mace-torch builds, got something else ({reason[:90]}); if you "
            "trust where it comes from, --trust (in Python trust=True) opens it as it is"
        ) from error


def _build(kind: str, settings: dict, parts: Part | None = None) -> torch.nn.Module:
    """mace-torch's network of these settings, with the tensors of `parts`, and constants in the type of its weights."""
    dtype = torch.float64 if parts is None else parts.node_embedding.linear.weight.dtype
    if dtype not in (torch.float32, torch.float64):
        raise CheckpointError(f"expected weights in float32 or float64, got {dtype}")
    with _mace(dtype) as mace:
        network = getattr(mace.modules, kind)(**constructor_arguments(mace, settings))
        return network if parts is None else reconstruct(network, parts)


def _unpickle(path: Path) -> tuple[object, None]:
    """What the file holds, by Python's own unpickler, which runs whatever the file says."""
    try:
        with _mace():
            return torch.load(path, map_location="cpu", weights_only=False), None
    except _UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path}: expected a MACE checkpoint (.model of mace-torch), got a file that torch cannot read "
            f"({reason[:90]}); is it complete?"
        ) from error
    except (AttributeError, ModuleNotFoundError) as error:
        raise CheckpointError(
            f"{path}: expected a MACE checkpoint, got a pickle of classes that are not installed ({error})"
        ) from error


def _refuse_torchscript(path: Path) -> None:
    """Compiled networks cannot be cast or taken apart: casting one gives NaN (ACEsuit/mace#990)."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        records = archive.namelist()
    if any(record.endswith("extra/mdplugin.json") for record in records):
        raise CheckpointError(
            f"{path}: expected a MACE checkpoint, got an artifact of mdplugin export (done already)"
        )
    if any(record.endswith("constants.pkl") for record in records):
        raise CheckpointError(
            f"{path}: expected a MACE checkpoint, got a compiled TorchScript network (a MACE exported for "
            "LAMMPS?); give the .model file that mace_run_train wrote"
        )


def _read_json(path: Path) -> tuple[torch.nn.Module, dict]:
    from safetensors.torch import load_file

    try:
        description = json.loads(path.read_text())
        settings, weights = description["settings"], load_file(path.parent / description["weights"])
        network = _build(description["class"], settings)
    except (ValueError, KeyError, OSError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: expected a potential's JSON beside its safetensors, got {error!r}"
        ) from error
    missing = set(dict(network.named_parameters())) - set(weights)
    unknown = set(weights) - set(network.state_dict())
    if any(network.get_parameter(name).numel() for name in missing) or unknown:
        raise CheckpointError(f"{path}: weights do not fit the settings: {sorted(missing | unknown)[:3]}")
    network.load_state_dict(weights, strict=False)
    return network, settings


def save_potential(checkpoint: Checkpoint, path: Path) -> None:
    """Write a network as `path` (JSON) and its weights beside it (safetensors), without pickle.

    Only the weights are stored; couplings are rebuilt from the settings by mace-torch in float64.

    Raises:
        CheckpointError: the rebuilt network would have other couplings or constants than this one; names one.
    """
    from safetensors.torch import save_file

    if checkpoint.settings is None:
        raise CheckpointError(f"{checkpoint.name}: its settings are not known: read it without --trust")
    kind = type(checkpoint.network).__name__
    rebuilt = dict(_build(kind, checkpoint.settings).named_buffers())
    for name, value in checkpoint.network.named_buffers():
        again = rebuilt[name].to(value.dtype)
        # of another basis or size; a network trained in float32 has them rounded to it
        if again.shape != value.shape or not torch.allclose(again, value, rtol=1e-6, atol=1e-6):
            raise CheckpointError(f"{checkpoint.name}: {name} is not what mace-torch would build again")
    weights = {
        name: value.detach().clone() for name, value in checkpoint.network.named_parameters() if value.numel()
    }
    target = path.with_suffix(".safetensors")
    save_file(weights, target)
    description = {"class": kind, "settings": checkpoint.settings, "weights": target.name}
    path.write_text(json.dumps(description, indent=1) + "\n")


def _require_energy_model(path: Path, network: object) -> None:
    """Refuse by name what is not a MACE whose energy depends on positions and species alone."""
    kind = type(network).__name__
    if isinstance(network, dict):
        raise CheckpointError(
            f"{path}: expected a MACE checkpoint (.model), got a dictionary with {sorted(map(str, network))[:4]}: "
            "a training checkpoint or state_dict; give the .model file that mace_run_train wrote"
        )
    if not type(network).__module__.startswith("mace.") or kind not in NETWORKS:
        raise CheckpointError(f"{path}: expected a network of class {' or '.join(NETWORKS)}, got {kind}")
    if hasattr(network, "joint_embedding"):
        names = ", ".join(network.embedding_specs)
        raise CheckpointError(
            f"{path}: the model takes extra inputs ({names}), which neither ASE nor LAMMPS hands to a potential here"
        )


def _describe(path: Path, network: torch.nn.Module, settings: dict | None, head: str | None) -> Checkpoint:
    trained = next(network.parameters()).dtype
    heads = tuple(getattr(network, "heads", None) or ["Default"])
    chosen = _choose_head(path, heads, head)
    with _mace():
        network = network.to(torch.float64).eval().requires_grad_(False)
    if type(network.radial_embedding.bessel_fn).__name__ == "ChebychevBasis":
        network.radial_embedding.bessel_fn = ChebychevBasis(network.radial_embedding.bessel_fn)
    e0s = torch.atleast_2d(network.atomic_energies_fn.atomic_energies)[heads.index(chosen)]
    return Checkpoint(
        network=network,
        name=path.name,
        sha256=_sha256(path),
        trained_dtype=str(trained).removeprefix("torch."),
        atomic_numbers=tuple(int(z) for z in network.atomic_numbers),
        r_max=float(network.r_max),
        n_layers=int(network.num_interactions),
        heads=heads,
        head=chosen,
        e0s=tuple(float(e0) for e0 in e0s),
        settings=settings,
    )


class ChebychevBasis(torch.nn.Module):
    """mace-torch's radial basis T_1 ... T_n by recurrence.

    mace-torch calls torch.special.chebyshev_polynomial_t, which has no derivative: its forces silently lack a term
    (0.01 eV/Å on a random network). With this in its place they are the gradient of the same energy.
    """

    def __init__(self, basis: torch.nn.Module):
        super().__init__()
        self.n_basis = int(basis.num_basis)
        self.register_buffer("n", basis.n.detach().clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n_edges, 1) -> (n_edges, n_basis)."""
        polynomials = [torch.ones_like(x), x]
        for _ in range(self.n_basis - 1):
            polynomials.append(2.0 * x * polynomials[-1] - polynomials[-2])
        return torch.cat(polynomials[1:], dim=-1)


def _choose_head(path: Path, heads: tuple[str, ...], head: str | None) -> str:
    if head is None and len(heads) > 1:
        raise CheckpointError(
            f"{path}: the model has several heads ({', '.join(heads)}): choose one with --head"
        )
    if head is not None and head not in heads:
        raise CheckpointError(f"{path}: expected a head among {', '.join(heads)}, got '{head}'")
    return head if head is not None else heads[0]


def _sha256(path: Path) -> str:
    """Of a checkpoint's bytes; of a JSON potential's settings and weights together."""
    digest = hashlib.sha256(path.read_bytes())
    if path.suffix == ".json":
        digest.update(path.with_suffix(".safetensors").read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Evaluation:
    """Energy (eV), per-atom energies (n,) eV, forces (n, 3) eV/Å, stress (6,) Voigt eV/Å³ or None."""

    energy: float
    energies: np.ndarray
    forces: np.ndarray
    stress: np.ndarray | None


def require_elements(checkpoint: Checkpoint, frames: Sequence[ase.Atoms]) -> None:
    """Refuse frames that the checkpoint cannot evaluate.

    Raises:
        StructureError: names the frame, and its unknown elements or the position that is not finite.
    """
    known = " ".join(chemical_symbols[z] for z in checkpoint.atomic_numbers)
    for index, frame in enumerate(frames):
        if unknown := sorted(set(frame.numbers) - set(checkpoint.atomic_numbers)):
            symbols = " ".join(
                chemical_symbols[z] if 0 <= z < len(chemical_symbols) else str(z) for z in unknown
            )
            raise StructureError(
                f"frame {index}: elements {symbols} are not in {checkpoint.name}; it knows {known}"
            )
        if not (np.isfinite(frame.positions).all() and np.isfinite(frame.cell.array).all()):
            raise StructureError(
                f"frame {index}: expected finite positions and cell, got one that is not a number"
            )


def evaluate_mace(checkpoint: Checkpoint, frames: list[ase.Atoms]) -> list[Evaluation]:
    """mace-torch itself in float64, through its own calculator and neighbour list: the oracle of all tests.

    One thread, and TorchScript's profiling executor off: with two threads the first evaluation in a process was now and
    then wrong by 2e-8 eV/Å (torch 2.13, mace-torch 0.3.16, cause unknown), which is more than our tolerance in fp64.
    """
    with _mace() as mace, torch.enable_grad(), torch.jit.optimized_execution(False), torch_threads(1):
        calculator = mace.calculators.MACECalculator(
            models=[copy.deepcopy(checkpoint.network)],
            device="cpu",
            default_dtype="float64",
            head=checkpoint.head,
        )
        return [_evaluate_frame(calculator, frame) for frame in frames]


def _evaluate_frame(calculator, frame: ase.Atoms) -> Evaluation:
    calculator.calculate(frame.copy())
    results = calculator.results
    return Evaluation(
        energy=float(results["energy"]),
        energies=np.array(results["energies"], dtype=np.float64),
        forces=np.array(results["forces"], dtype=np.float64),
        # mace-torch divides a slab's virial by the volume of a cell it has extended (ACEsuit/mace#1509)
        stress=np.array(results["stress"], dtype=np.float64) if frame.pbc.all() else None,
    )
