"""What a run depended on: versions, processor, threads, hashes, command."""

import json
import sys
from collections import Counter
from pathlib import Path

from mdplugin.machine import describe_machine
from mdplugin.validation.case import Case
from mdplugin.validation.potential import hash_file
from mdplugin.validation.systems import Structure

MACHINES = "machines.jsonl"  # in a run's directory: a line for each process that worked on it


def note_machine(run: Path) -> None:
    """Write down in a run's directory the machine and the versions that are at work on it now."""
    facts = describe_machine()
    del facts["finished"]
    with (run / MACHINES).open("a") as file:
        file.write(json.dumps(facts) + "\n")


def _read_machines(runs: Path) -> list[dict]:
    """What the runs below `runs` were made with, and how many of them; a run moved in its middle counts for each."""
    count = Counter()
    for file in runs.glob(f"*/{MACHINES}"):
        count.update({line for line in file.read_text().splitlines() if _is_whole(line)})
    return [{"runs": number, **json.loads(line)} for line, number in count.most_common()]


def _is_whole(line: str) -> bool:
    """Whether a line is what was written, not torn or damaged: it says no more than which machine a run had."""
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def record_provenance(case: Case, structure: Structure, command: list[str], runs: Path) -> dict:
    """The facts as plain values for JSON: of the judgement, and of the runs in the directory `runs`.

    `command` is the whole command line.
    """
    return {
        **describe_machine(),
        "made_by": _read_machines(runs),
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
