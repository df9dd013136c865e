"""MACE checkpoint -> Checkpoint: the mace-torch network in float64 with the facts an engine asks for.

The only module that imports mace. A checkpoint is a `.model` file of mace-torch, a bundled potential by
name, or the JSON of a potential saved as JSON + safetensors.
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
from ase.calculators.calculator import Calculator
from ase.data import chemical_symbols

from mdplugin import potentials
from mdplugin.errors import CheckpointError, StructureError
from mdplugin.threads import torch_threads

SUPPORTED = ("MACE", "ScaleShiftMACE")
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

    @property
    def head_index(self) -> int:
        """Position of the served head among `heads`."""
        return self.heads.index(self.head)


@contextlib.contextmanager
def _mace():
    """mace-torch's modules inside a scope where its construction defaults are float64.

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

            torch.set_default_dtype(torch.float64)
            yield mace
    finally:
        torch.set_default_dtype(dtype)
        logging.root.setLevel(level)
        if before is None:
            os.environ.pop(variable, None)
        else:
            os.environ[variable] = before


def read_checkpoint(source: str | os.PathLike, head: str | None = None) -> Checkpoint:
    """Read a MACE potential.

    Args:
        source: a `.model` file, a potential's `.json`, or the name of a bundled potential ("water").
        head: which readout head to serve; needed when the model has several.

    Raises:
        CheckpointError: not a MACE energy model, or no such file or head; says what it is instead.
    """
    path = Path(source)
    if not path.exists() and str(source) in potentials.names():
        path = potentials.path(str(source))
    if not path.is_file():
        bundled = ", ".join(potentials.names())
        raise CheckpointError(f"{source}: no such file, nor a bundled potential (bundled: {bundled})")
    network = _read_json(path) if path.suffix == ".json" else _read_pickle(path)
    _require_energy_model(path, network)
    return _describe(path, network, head)


def _read_pickle(path: Path) -> torch.nn.Module:
    _refuse_torchscript(path)
    try:
        with _mace():
            return torch.load(path, map_location="cpu", weights_only=False)
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


def _read_json(path: Path) -> torch.nn.Module:
    from safetensors.torch import load_file

    try:
        description = json.loads(path.read_text())
        settings, weights = description["settings"], load_file(path.parent / description["weights"])
        with _mace() as mace:
            network = getattr(mace.modules, description["class"])(**_settings_from_json(mace, settings))
    except (ValueError, KeyError, OSError, TypeError) as error:
        raise CheckpointError(
            f"{path}: expected a potential's JSON beside its safetensors, got {error!r}"
        ) from error
    missing = set(dict(network.named_parameters())) - set(weights)
    unknown = set(weights) - set(network.state_dict())
    if any(network.get_parameter(name).numel() for name in missing) or unknown:
        raise CheckpointError(f"{path}: weights do not fit the settings: {sorted(missing | unknown)[:3]}")
    network.load_state_dict(weights, strict=False)
    return network


def _settings_from_json(mace, settings: dict) -> dict:
    """Keyword arguments of mace-torch's constructor from the JSON's plain values."""
    from e3nn import o3

    arguments = dict(settings)
    for name in ("interaction_cls", "interaction_cls_first"):
        arguments[name] = mace.modules.interaction_classes[arguments[name]]
    for name in ("hidden_irreps", "MLP_irreps"):
        arguments[name] = o3.Irreps(arguments[name])
    arguments["gate"] = mace.modules.gate_dict[arguments["gate"]]
    arguments["atomic_energies"] = np.array(arguments["atomic_energies"], dtype=np.float64)
    for name in ("atomic_inter_scale", "atomic_inter_shift"):
        if name in arguments:
            arguments[name] = np.array(arguments[name], dtype=np.float64)
    return arguments


def save_random_network(path: Path, settings: dict, seed: int) -> Path:
    """Write a ScaleShiftMACE with weights drawn from `seed` as a `.model` file, as mace_run_train would.

    Args:
        settings: mace-torch's arguments as plain values, like those of a potential's JSON.
    """
    with _mace() as mace, torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        torch.save(mace.modules.ScaleShiftMACE(**_settings_from_json(mace, settings)), path)
    return path


def save_potential(checkpoint: Checkpoint, path: Path) -> None:
    """Write a ScaleShiftMACE as `path` (JSON) and its weights beside it (safetensors), without pickle.

    Only the weights are stored; couplings are rebuilt from the settings by mace-torch in float64.

    Raises:
        CheckpointError: the rebuilt network would not have the same weights.
    """
    from safetensors.torch import save_file

    with _mace() as mace:
        from mace.tools.scripts_utils import extract_config_mace_model

        config = extract_config_mace_model(checkpoint.network)
        if "error" in config:
            raise CheckpointError(f"{checkpoint.name}: {config['error']}")
        gates = {function: name for name, function in mace.modules.gate_dict.items()}
    plain = {name: value for name, value in config.items() if value is not None and name != "readout_cls"}
    plain["gate"] = gates[config["gate"]]
    for name in ("interaction_cls", "interaction_cls_first"):
        plain[name] = config[name].__name__
    for name in ("hidden_irreps", "MLP_irreps"):
        plain[name] = str(config[name])
    for name in ("atomic_energies", "atomic_numbers", "atomic_inter_scale", "atomic_inter_shift"):
        plain[name] = config[name].tolist()
    weights = {
        name: value.detach().clone() for name, value in checkpoint.network.named_parameters() if value.numel()
    }
    target = path.with_suffix(".safetensors")
    save_file(weights, target)
    description = {"class": type(checkpoint.network).__name__, "settings": plain, "weights": target.name}
    path.write_text(json.dumps(description, indent=1) + "\n")


def _require_energy_model(path: Path, network: object) -> None:
    """Refuse by name what is not a MACE whose energy depends on positions and species alone."""
    kind = type(network).__name__
    if isinstance(network, dict):
        raise CheckpointError(
            f"{path}: expected a MACE checkpoint (.model), got a dictionary with {sorted(map(str, network))[:4]}: "
            "a training checkpoint or state_dict; give the .model file that mace_run_train wrote"
        )
    if not type(network).__module__.startswith("mace.") or kind not in SUPPORTED:
        raise CheckpointError(f"{path}: expected a network of class {' or '.join(SUPPORTED)}, got {kind}")
    if hasattr(network, "joint_embedding"):
        names = ", ".join(network.embedding_specs)
        raise CheckpointError(
            f"{path}: the model takes extra inputs ({names}), which neither ASE nor LAMMPS hands to a potential here"
        )


def _describe(path: Path, network: torch.nn.Module, head: str | None) -> Checkpoint:
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
