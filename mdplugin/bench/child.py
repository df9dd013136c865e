"""`python -m mdplugin.bench.child JOB`: a job as JSON -> one line per step of progress, then the result, as JSON.

A process of its own for every job, because the allocator is chosen when a process starts, and memory counts from zero.
"""

import dataclasses
import json
import sys

import ase
import torch

from mdplugin.bench.contender import Entrant, Walk, make_atoms, make_entrants
from mdplugin.bench.job import TIMING, Job
from mdplugin.bench.memory import measure_memory
from mdplugin.bench.probes import measure_copy, measure_gemm
from mdplugin.bench.results import MDPLUGIN
from mdplugin.bench.split import split_step
from mdplugin.bench.timing import time_in_turns
from mdplugin.errors import MDPluginError
from mdplugin.neighbors import Neighbors


def main(arguments: list[str]) -> int:
    """Run the job; errors become a line too."""
    values = json.loads(arguments[0])
    job = Job(**{**values, "artifacts": tuple(tuple(pair) for pair in values["artifacts"])})
    torch.set_num_threads(job.threads)
    try:
        result = measure_times(job) if job.work == TIMING else measure_peak(job)
    except MDPluginError as error:
        _say(error=str(error))
        return 1
    except Exception as error:  # as the command line does: one line
        _say(error=f"bench: {type(error).__name__}: {error}")
        return 1
    _say(result=result)
    return 0


def measure_peak(job: Job) -> dict:
    """Memory of the job's one contender."""
    (entrant,) = make_entrants(job)
    return dataclasses.asdict(measure_memory(Walk(entrant.calculator, make_atoms(job), job.seed)))


def measure_times(job: Job) -> dict:
    """Times of all contenders, splits of the artifacts, and the machine's peaks."""
    atoms, entrants = make_atoms(job), make_entrants(job)
    gemm = {name: measure_gemm(getattr(torch, name)) for name in ("float64", "float32")}
    copy = measure_copy()
    walks = [Walk(entrant.calculator, atoms, job.seed) for entrant in entrants]
    times = time_in_turns(walks, job.rounds, tick=lambda: _say(tick=1))
    contenders = []
    for entrant, (steps_per_round, seconds) in zip(entrants, times, strict=True):
        split = _split(entrant, atoms, job.seed, steps_per_round)
        contenders.append(
            {
                "program": entrant.program,
                "precision": entrant.precision,
                "compute": entrant.compute,
                "rounds": seconds,
                "steps_per_round": steps_per_round,
                "split": split,
            }
        )
    return {"gemm": gemm, "copy": copy, "n_edges": count_edges(entrants, atoms), "contenders": contenders}


def _split(entrant: Entrant, atoms: ase.Atoms, seed: int, n_steps: int) -> dict | None:
    if entrant.program != MDPLUGIN:
        return None
    split = split_step(entrant.calculator.artifact, atoms, seed, n_steps)
    _say(tick=1)
    return dataclasses.asdict(split)


def count_edges(entrants: list[Entrant], atoms: ase.Atoms) -> int:
    """Directed edges of the structure within the artifacts' cutoff."""
    r_max = next(e.calculator.artifact.manifest.r_max for e in entrants if e.program == MDPLUGIN)
    return len(Neighbors(r_max, skin=0).find(atoms).senders)


def _say(**line) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
