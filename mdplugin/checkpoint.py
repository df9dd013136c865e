"""MACE checkpoint -> Checkpoint: the mace-torch network in float64 with the facts an engine asks for.

A checkpoint is a `.model` file of mace-torch, a bundled potential by name, or the JSON of a potential saved as JSON +
safetensors. A `.model` is read as inert data (model_file.py), the network is built anew from its settings (settings.py,
network_mace.py) and gets the file's tensors (reconstruction.py). Also the oracle: mace-torch's own calculator.
"""

import copy
import hashlib
import json
import os
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import ase
import numpy as np
import torch
from ase.calculators.calculator import Calculator
from ase.data import chemical_symbols

from mdplugin import potentials
from mdplugin.errors import CheckpointError, StructureError
from mdplugin.model_file import NETWORKS, TRUST, read_parts
from mdplugin.network_mace import ChebychevBasis, _mace, build_network, unpickle
from mdplugin.settings import constructor_arguments, read_settings
from mdplugin.threads import torch_threads

# what a part of another shape than a MACE's raises when it is read
_MALFORMED = (AttributeError, IndexError, KeyError, RecursionError, RuntimeError, TypeError, ValueError)


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
    if not path.is_file() and str(source) in potentials.names():
        path = potentials.path(str(source))
    if not path.is_file():
        bundled = ", ".join(potentials.names())
        raise CheckpointError(f"{source}: no such file, nor a bundled potential (bundled: {bundled})")
    if path.suffix == ".json":
        network, settings = _read_json(path)
    else:
        _refuse_torchscript(path)
        network, settings = (unpickle(path), None) if trust else _rebuild(path)
    _require_energy_model(path, network)
    return _describe(path, network, settings, head)


def _rebuild(path: Path) -> tuple[torch.nn.Module, dict]:
    """The network that a `.model` describes, without running anything of the file, and its settings."""
    with path.open("rb") as file:
        parts = read_parts(file, str(path))
    try:
        _require_energy_model(path, parts)
        settings = read_settings(parts)
        return build_network(path, type(parts).__name__, settings, parts), settings
    except _MALFORMED as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path}: expected the parts of a network that mace-torch builds, got something else ({reason[:90]}); "
            f"{TRUST}"
        ) from error


def _refuse_torchscript(path: Path) -> None:
    """Compiled networks cannot be cast or taken apart: casting one gives NaN (ACEsuit/mace#990)."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.namelist()
    except zipfile.BadZipFile:
        return  # the reader says so
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
        network = build_network(path, description["class"], settings)
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


def save_random_network(path: Path, settings: dict, seed: int) -> Path:
    """Write a ScaleShiftMACE with weights drawn from `seed` as a `.model` file, as mace_run_train would.

    Args:
        settings: mace-torch's arguments as plain values, like those of a potential's JSON.
    """
    with _mace() as mace, torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        torch.save(mace.modules.ScaleShiftMACE(**constructor_arguments(mace, settings)), path)
    return path


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
    rebuilt = dict(build_network(checkpoint.name, kind, checkpoint.settings).named_buffers())
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
    if isinstance(network, torch.nn.Module) and not len(network.readouts):
        raise CheckpointError(
            f"{path}: the network has no readouts (use_last_readout_only with one interaction), so that its energy does "
            "not depend on positions"
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


def require_elements(
    checkpoint: Checkpoint, frames: Sequence[ase.Atoms], kept: Sequence[int] | None = None
) -> None:
    """Refuse frames that the checkpoint, or an artifact with the elements `kept` of it, cannot evaluate.

    Raises:
        StructureError: names the frame, and its unknown elements or the position that is not finite.
    """
    numbers = checkpoint.atomic_numbers if kept is None else kept
    known = " ".join(chemical_symbols[z] for z in numbers)
    known = (
        f"in {checkpoint.name}; it knows {known}"
        if len(numbers) == len(checkpoint.atomic_numbers)
        else f"among those kept of {checkpoint.name}: {known}"
    )
    for index, frame in enumerate(frames):
        if unknown := sorted(set(frame.numbers) - set(numbers)):
            symbols = " ".join(
                chemical_symbols[z] if 0 <= z < len(chemical_symbols) else str(z) for z in unknown
            )
            raise StructureError(f"frame {index}: elements {symbols} are not {known}")
        if not (np.isfinite(frame.positions).all() and np.isfinite(frame.cell.array).all()):
            raise StructureError(
                f"frame {index}: expected finite positions and cell, got one that is not a number"
            )


def evaluate_mace(checkpoint: Checkpoint, frames: Iterable[ase.Atoms]) -> list[Evaluation]:
    """mace-torch itself in float64, through its own calculator and neighbour list: the oracle of all tests.

    One thread, and TorchScript's profiling executor off: with two threads the first evaluation in a process was now and
    then wrong by 2e-8 eV/Å (torch 2.13, mace-torch 0.3.16, cause unknown), which is more than our tolerance in fp64.
    """
    calculator = mace_calculator(checkpoint, "float64")
    with _mace(), torch.enable_grad(), torch.jit.optimized_execution(False), torch_threads(1):
        return [_evaluate_frame(calculator, frame) for frame in frames]


def mace_calculator(checkpoint: Checkpoint, dtype: str) -> Calculator:
    """mace-torch's own ASE calculator, as its users run it, with a copy of the network in `dtype`."""
    with _mace() as mace:
        return mace.calculators.MACECalculator(
            models=[copy.deepcopy(checkpoint.network)],
            device="cpu",
            default_dtype=dtype,
            head=checkpoint.head,
        )


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
