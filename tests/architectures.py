"""The matrix of networks on which the native engine is held against mace-torch: name -> settings.

Small channel counts, random weights; together they cover every block and option that `lowering` serves.
`save` writes the .model file of one and `build` reads its checkpoint, once per process.
"""

import functools
import tempfile
from pathlib import Path

import numpy as np
import torch
from networks import save_random_network

from mdplugin.checkpoint import Checkpoint, _mace, read_checkpoint
from mdplugin.lowering import lower
from mdplugin.model import MaceModel

PLAIN, RESIDUAL = "RealAgnosticInteractionBlock", "RealAgnosticResidualInteractionBlock"
DENSITY, DENSITY_RESIDUAL = (
    "RealAgnosticDensityInteractionBlock",
    "RealAgnosticDensityResidualInteractionBlock",
)

NONLINEAR = "RealAgnosticResidualNonLinearInteractionBlock"

# irreps are strings and gates and classes names: they become mace-torch's objects in `build`
ARCHITECTURES: dict[str, dict] = {
    # interaction blocks in every order
    "plain-residual": {},
    "plain-plain": {"later": PLAIN},
    "residual-residual": {"first": RESIDUAL},
    "residual-plain": {"first": RESIDUAL, "later": PLAIN},
    "density-density-residual": {"first": DENSITY, "later": DENSITY_RESIDUAL},
    "density-residual-twice": {"first": DENSITY_RESIDUAL, "later": DENSITY_RESIDUAL, "max_ell": 3},
    "plain-density": {"first": PLAIN, "later": DENSITY},
    "density-residual-residual": {"first": DENSITY_RESIDUAL, "later": RESIDUAL},
    # networks without scale and shift, and numbers of layers
    "mace-no-shift": {"kind": "MACE"},
    "one-layer": {"num_interactions": 1, "max_ell": 3},
    "one-layer-residual-mace": {"num_interactions": 1, "first": DENSITY_RESIDUAL, "kind": "MACE"},
    "three-layers": {"num_interactions": 3, "first": RESIDUAL},
    "four-layers-density": {"num_interactions": 4, "first": DENSITY, "later": DENSITY_RESIDUAL, "correlation": 2},
    # degrees, hidden irreps, channels
    "l-max-1": {"max_ell": 1},
    "l-max-3-one-channel": {"max_ell": 3, "hidden_irreps": "1x0e+1x1o", "MLP_irreps": "1x0e"},
    "l-max-4": {"max_ell": 4, "hidden_irreps": "7x0e", "correlation": 2},
    "l-max-4-vectors": {"max_ell": 4, "hidden_irreps": "3x0e+3x1o", "correlation": [1, 2]},
    "scalars-16": {"max_ell": 3, "hidden_irreps": "16x0e"},
    "hidden-l2": {"hidden_irreps": "7x0e+7x1o+7x2e"},
    "hidden-l3": {"max_ell": 3, "hidden_irreps": "2x0e+2x1o+2x2e+2x3o", "correlation": 2},
    "both-parities": {"hidden_irreps": "3x0e+3x0o+3x1o+3x1e"},
    # correlations
    "correlation-1": {"correlation": 1},
    "correlation-4": {"correlation": 4, "max_ell": 2, "hidden_irreps": "3x0e+3x1o"},
    "correlation-per-layer": {"correlation": [2, 4], "max_ell": 1},
    # radial functions and cutoffs
    "gaussian": {"radial_type": "gaussian", "num_bessel": 10},
    "chebyshev": {"radial_type": "chebyshev", "distance_transform": "Agnesi"},
    "agnesi": {"distance_transform": "Agnesi", "first": DENSITY, "later": DENSITY_RESIDUAL},
    "soft": {"distance_transform": "Soft", "num_polynomial_cutoff": 3},
    "cutoff-order-8-deep-mlp": {"num_polynomial_cutoff": 8, "radial_MLP": [8, 12, 8, 6]},
    "cutoff-order-2-shallow-mlp": {"num_polynomial_cutoff": 2, "radial_MLP": [5]},
    "cutoff-after": {"apply_cutoff": False, "first": DENSITY, "later": DENSITY_RESIDUAL},
    # repulsion, heads, elements
    "zbl": {"pair_repulsion": True},
    "zbl-mace": {"pair_repulsion": True, "kind": "MACE", "distance_transform": "Agnesi"},
    "two-heads": {"heads": ["first", "second"], "head": "second"},
    "three-heads-bias": {"heads": ["a", "b", "c"], "head": "b", "readout_cls": "NonLinearBiasReadoutBlock"},
    "one-element": {"atomic_numbers": (8,)},
    "many-elements": {"atomic_numbers": tuple(range(1, 90)), "hidden_irreps": "4x0e", "first": DENSITY_RESIDUAL},
    # readouts
    "gate-tanh": {"gate": "tanh", "MLP_irreps": "5x0e"},
    "gate-abs": {"gate": "abs", "MLP_irreps": "1x0e"},
    "gate-none": {"gate": "None"},
    "bias-readout": {"readout_cls": "NonLinearBiasReadoutBlock", "gate": "tanh"},
    "last-readout-only": {"use_last_readout_only": True, "first": RESIDUAL},
    "keep-last-irreps": {"keep_last_layer_irreps": True},
    # products and edges
    "agnostic-product": {"use_agnostic_product": True},
    "reduced-couplings": {"use_reduced_cg": True},
    "full-couplings": {"use_reduced_cg": False},
    "edge-irreps": {"edge_irreps": "5x0e+3x1o+2x2e"},
    "edge-irreps-first": {"edge_irreps": "6x0e+6x1o", "use_edge_irreps_first": True},
    "so3": {"use_so3": True, "hidden_irreps": "3x0e+3x1e", "max_ell": 3, "correlation": 2},
    "float32": {"dtype": torch.float32, "first": DENSITY, "later": DENSITY_RESIDUAL, "max_ell": 3},
    # the NonLinear block
    "nonlinear": {"first": NONLINEAR, "later": NONLINEAR, "apply_cutoff": False},
    "nonlinear-edge-irreps": {
        "first": NONLINEAR, "later": NONLINEAR, "apply_cutoff": False, "edge_irreps": "6x0e+6x1o+6x2e", "max_ell": 3,
        "use_edge_irreps_first": True, "readout_cls": "NonLinearBiasReadoutBlock", "keep_last_layer_irreps": True,
        "hidden_irreps": "4x0e+4x1o", "atomic_numbers": (1, 6, 8), "use_agnostic_product": True,
        "heads": ["omol", "omat"], "head": "omat", "distance_transform": "Agnesi",
    },
    "density-nonlinear": {"first": DENSITY, "later": NONLINEAR, "apply_cutoff": False, "num_interactions": 3},
    # as today's foundation models are built
    "foundation-0b": {
        "first": DENSITY, "later": DENSITY_RESIDUAL, "distance_transform": "Agnesi", "pair_repulsion": True,
        "max_ell": 3, "hidden_irreps": "4x0e+4x1o", "num_bessel": 10, "atomic_numbers": (1, 6, 7, 8),
    },
    "foundation-agnostic": {
        "first": DENSITY, "later": DENSITY_RESIDUAL, "use_agnostic_product": True, "use_last_readout_only": True,
        "max_ell": 3, "hidden_irreps": "4x0e+4x1o", "heads": ["pbe", "r2scan"], "head": "r2scan",
    },
}  # fmt: skip


_FILES = tempfile.TemporaryDirectory(
    prefix="mdplugin-architectures-"
)  # of this process; removed when it ends


@functools.cache
def save(name: str) -> Path:
    """The .model file of one architecture, as mace-torch writes it."""
    return save_from(Path(_FILES.name) / f"{name}.model", **_without_head(ARCHITECTURES[name]))


@functools.cache
def build(name: str) -> Checkpoint:
    """The checkpoint of one architecture, read from its file."""
    return read_checkpoint(save(name), ARCHITECTURES[name].get("head"))


@functools.cache
def lowered(name: str) -> MaceModel:
    """The model of one architecture; nobody changes its tensors."""
    return lower(build(name))


def build_from(path: Path, *, head: str | None = None, **settings) -> Checkpoint:
    """A checkpoint with random weights."""
    return read_checkpoint(save_from(path, **settings), head)


def _without_head(settings: dict) -> dict:
    return {key: value for key, value in settings.items() if key != "head"}


def save_from(path: Path, **settings) -> Path:
    """Write a network with random weights."""
    with _mace() as mace:
        from e3nn import o3

        for key in ("hidden_irreps", "MLP_irreps", "edge_irreps"):
            if key in settings:
                settings[key] = o3.Irreps(settings[key])
        if "gate" in settings:
            settings["gate"] = mace.modules.gate_dict[settings["gate"]]
        if "readout_cls" in settings:
            settings["readout_cls"] = mace.modules.readout_classes[settings["readout_cls"]]
        numbers = settings.get("atomic_numbers", (1, 8))
        if len(numbers) > 2 and "heads" not in settings:
            settings["atomic_energies"] = -0.3 * np.array([numbers], dtype=np.float64)
    return save_random_network(path, **settings)
