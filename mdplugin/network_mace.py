"""Settings, or a trusted pickle -> mace-torch's network. The only module that imports mace."""

import contextlib
import logging
import os
import pickle
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch

from mdplugin.errors import CheckpointError
from mdplugin.model_file import NETWORKS, Part
from mdplugin.reconstruction import reconstruct
from mdplugin.settings import constructor_arguments

# what torch.load raises for text, truncated files and other archives
_UNREADABLE = (
    pickle.UnpicklingError,
    EOFError,
    RuntimeError,
    zipfile.BadZipFile,
    OSError,
    UnicodeDecodeError,
)


@contextlib.contextmanager
def _mace(constants: torch.dtype = torch.float64) -> Iterator:
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


def build_network(path: Path | str, kind: str, settings: dict, parts: Part | None = None) -> torch.nn.Module:
    """mace-torch's network.

    Args:
        path: of its source, for errors.
        kind: "MACE" or "ScaleShiftMACE".
        settings: see settings.py.
        parts: of a `.model` file, whose tensors the network gets; its constants are in the type of these weights, as in the
            file. None: random weights, float64.

    Raises:
        CheckpointError: another class or type, or the parts are not those of the network built.
        TypeError, ValueError, RuntimeError: settings that mace-torch cannot build.
    """
    if kind not in NETWORKS:
        raise CheckpointError(f"{path}: expected a network of class {' or '.join(NETWORKS)}, got {kind}")
    dtype = torch.float64 if parts is None else parts.node_embedding.linear.weight.dtype
    if dtype not in (torch.float32, torch.float64):
        raise CheckpointError(f"{path}: expected weights in float32 or float64, got {dtype}")
    with (
        _mace(dtype) as mace,
        torch.random.fork_rng(devices=()),
    ):  # the weights drawn here are not the caller's
        network = getattr(mace.modules, kind)(**constructor_arguments(mace, settings))
        return network if parts is None else reconstruct(network, parts, str(path))


def unpickle(path: Path) -> object:
    """What the file holds, by Python's own unpickler, which runs whatever the file says."""
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
