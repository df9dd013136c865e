"""Random mace-torch networks, built as mace-torch builds them and saved as its .model files."""

import shutil
from pathlib import Path

import numpy as np
import once
import torch

from mdplugin.checkpoint import _mace


def save_random_network(
    path: Path,
    atomic_numbers: tuple[int, ...] = (1, 8),
    *,
    kind: str = "ScaleShiftMACE",
    first: str = "RealAgnosticInteractionBlock",
    later: str = "RealAgnosticResidualInteractionBlock",
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    **settings,
) -> Path:
    """Write a small network with weights drawn from `seed`; `settings` override mace-torch's arguments.

    Biases, which mace-torch starts at zero, are random too. The same network is built once per test session.
    """
    facts = [list(atomic_numbers), kind, first, later, str(dtype), seed, settings]

    def write(target):
        _save(target, atomic_numbers, kind, first, later, dtype, seed, settings)

    shutil.copyfile(once.make("random", facts, write, ".model"), path)
    return path


def _save(path, atomic_numbers, kind, first, later, dtype, seed, settings):
    with _mace() as mace:
        from e3nn import o3

        torch.manual_seed(seed)
        heads = settings.get("heads", ["Default"])
        arguments = {
            "r_max": 4.0,
            "num_bessel": 6,
            "num_polynomial_cutoff": 5,
            "max_ell": 2,
            "interaction_cls": mace.modules.interaction_classes[later],
            "interaction_cls_first": mace.modules.interaction_classes[first],
            "num_interactions": 2,
            "num_elements": len(atomic_numbers),
            "hidden_irreps": o3.Irreps("8x0e + 8x1o"),
            "MLP_irreps": o3.Irreps("8x0e"),
            "gate": torch.nn.functional.silu,
            "atomic_energies": np.outer(np.arange(1, len(heads) + 1), -1.5 * np.array(atomic_numbers)),
            "avg_num_neighbors": 12.0,
            "atomic_numbers": list(atomic_numbers),
            "correlation": 3,
            "radial_MLP": [16, 16],
            "radial_type": "bessel",
        }
        if kind == "ScaleShiftMACE":
            arguments["atomic_inter_scale"] = np.linspace(0.8, 1.3, len(heads))
            arguments["atomic_inter_shift"] = np.linspace(0.1, -0.2, len(heads))
        arguments.update(settings)
        network = getattr(mace.modules, kind)(**arguments).to(dtype)
        for parameter in network.parameters():
            if parameter.numel() and not parameter.any() and parameter.dim() == 1:
                torch.nn.init.normal_(parameter, std=0.3)
        torch.save(network, path)
