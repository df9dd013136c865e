"""What a run depended on: versions, processor, threads, hashes, command."""

import sys

import torch

from mdplugin.machine import describe_machine
from mdplugin.validation.case import NveCase
from mdplugin.validation.potential import hash_file
from mdplugin.validation.systems import Structure


def record_provenance(case: NveCase, structure: Structure, command: list[str]) -> dict:
    """The facts as plain values for JSON; `command` is the whole command line."""
    return {
        **describe_machine(),
        "command": command,
        "threads": case.threads or torch.get_num_threads(),
        "seed": case.seed,
        "executable": sys.executable,
        "structure": {
            "path": str(structure.path),
            "sha256": hash_file(structure.path),
            "formula": structure.atoms.get_chemical_formula(),
            "n_atoms": len(structure.atoms),
            "pbc": structure.atoms.pbc.tolist(),
        },
    }
