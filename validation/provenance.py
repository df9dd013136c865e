"""What a run depended on: versions, processor, threads, hashes, command."""

import sys

from mdplugin.machine import describe_machine
from mdplugin.validation.case import Case
from mdplugin.validation.potential import hash_file
from mdplugin.validation.systems import Structure


def record_provenance(case: Case, structure: Structure, command: list[str]) -> dict:
    """The facts as plain values for JSON; `command` is the whole command line."""
    return {
        **describe_machine(),
        "command": command,
        "threads": case.threads,
        "ranks": case.ranks,
        "seeds": [case.seed + replica for replica in range(case.replicas)],
        "executable": sys.executable,
        "structure": {
            "path": str(structure.path),
            "sha256": hash_file(structure.path),
            "formula": structure.atoms.get_chemical_formula(),
            "n_atoms": len(structure.atoms),
            "pbc": structure.atoms.pbc.tolist(),
        },
    }
