"""Plan -> Results: export the networks, then time every case in children, its memory in others, and LAMMPS."""

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from mdplugin.bench.job import MEMORY, TIMING, Job
from mdplugin.bench.lammps import find_launcher, run_lammps
from mdplugin.bench.load import OtherLoad
from mdplugin.bench.networks import describe_network
from mdplugin.bench.operations import count_operations
from mdplugin.bench.process import run_job
from mdplugin.bench.results import Case, Contender, LammpsRun, Memory, Results, Split
from mdplugin.bench.systems import build_system
from mdplugin.checkpoint import Checkpoint, read_checkpoint, require_elements, save_random_network
from mdplugin.errors import Unsupported
from mdplugin.export import export_model
from mdplugin.lowering import lower
from mdplugin.machine import describe_machine

LAMMPS_ROUND_S, FEWEST_STEPS, MOST_STEPS = 3.0, 2, 20  # of a round in LAMMPS
MACE_DTYPES = ("float64", "float32")


@dataclass(frozen=True)
class Plan:
    """What to measure; every list is crossed with the others.

    Attributes:
        sizes: names of networks.SIZES; or empty, and then `model` (a .model file or bundled name) with its `head`.
        precisions: policies of the artifacts. against_mace: time mace-torch float64 and float32 too.
        ranks: of LAMMPS; empty without LAMMPS.
        trust: open `model` by running its pickle, see `read_checkpoint`.
    """

    sizes: tuple[str, ...]
    model: str | None
    head: str | None
    system: str
    atoms: tuple[int, ...]
    threads: tuple[int, ...]
    precisions: tuple[str, ...]
    allocators: tuple[str, ...]
    against_mace: bool
    ranks: tuple[int, ...]
    rounds: int
    seed: int
    trust: bool = False

    @property
    def n_steps(self) -> int:
        """Ticks of the progress bar."""
        n_networks = max(1, len(self.sizes))
        n_precisions = len(self.precisions)
        n_contenders = n_precisions + len(self.mace_dtypes)
        per_case = n_contenders * (self.rounds + 2) + n_precisions * (1 + len(self.ranks))
        n_cases = len(self.atoms) * len(self.threads) * len(self.allocators)
        return n_networks * (n_precisions + n_cases * per_case)

    @property
    def mace_dtypes(self) -> tuple[str, ...]:
        """Types in which mace-torch takes part."""
        return MACE_DTYPES if self.against_mace else ()


@dataclass(frozen=True)
class Network:
    """A network ready to be timed: its checkpoint, and the artifact of every precision."""

    name: str
    path: str
    checkpoint: Checkpoint
    artifacts: tuple[tuple[str, str], ...]


def run_plan(plan: Plan, command: list[str], quiet: bool = False) -> Results:
    """Measure everything; progress goes to stderr.

    Raises:
        MDPluginError: an atom count, a model or a policy that cannot be; LAMMPS is missing; a child was killed.
    """
    for n_atoms in plan.atoms:  # refused before anything long begins
        build_system(plan.system, n_atoms, plan.seed)
    for ranks in plan.ranks:
        find_launcher(ranks)
    cases = []
    with (
        tempfile.TemporaryDirectory() as scratch,
        tqdm(total=plan.n_steps, disable=True if quiet else None, dynamic_ncols=True) as bar,
    ):
        for name in plan.sizes or (plan.model,):
            network = _prepare(plan, name, Path(scratch), bar)
            for n_atoms in plan.atoms:
                for threads in plan.threads:
                    for allocator in plan.allocators:
                        bar.set_description(f"{network.name} {n_atoms} atoms, threads {threads}, {allocator}")
                        cases.append(_run_case(plan, network, n_atoms, threads, allocator, bar.update))
    return Results(
        machine=describe_machine(),
        command=tuple(command),
        seed=plan.seed,
        cases=tuple(cases),
    )


def _prepare(plan: Plan, name: str, scratch: Path, bar: tqdm) -> Network:
    """Make or read the checkpoint, and export it in every precision."""
    if name in plan.sizes:
        path = str(save_random_network(scratch / f"{name}.model", describe_network(name), plan.seed))
    else:
        path = name
    checkpoint = read_checkpoint(path, plan.head, plan.trust)
    require_elements(checkpoint, [build_system(plan.system, 3, plan.seed)])
    label = name if name in plan.sizes else Path(checkpoint.name).stem
    bar.set_description(f"export {label}")
    artifacts = []
    for precision in plan.precisions:
        target = scratch / f"{label}-{precision}.pt"
        export_model(path, target, precision, head=plan.head, trust=plan.trust)
        artifacts.append((precision, str(target)))
        bar.update()
    return Network(label, path, checkpoint, tuple(artifacts))


def _run_case(
    plan: Plan, network: Network, n_atoms: int, threads: int, allocator: str, tick: Callable[[], None]
) -> Case:
    before, others = os.getloadavg()[0], OtherLoad()
    job = Job(
        work=TIMING,
        checkpoint=network.path,
        head=network.checkpoint.head,
        mace_dtypes=plan.mace_dtypes,
        artifacts=network.artifacts,
        system=plan.system,
        n_atoms=n_atoms,
        seed=plan.seed,
        threads=threads,
        rounds=plan.rounds,
        trust=plan.trust,
    )
    timed = run_job(job, allocator, tick)
    contenders = tuple(_complete(values, job, allocator, tick) for values in timed["contenders"])
    lammps = tuple(
        _run_in_lammps(
            plan, contender, dict(network.artifacts)[contender.precision], job, allocator, ranks, tick
        )
        for contender in contenders
        if contender.precision in plan.precisions
        for ranks in plan.ranks
    )
    return Case(
        network=network.name,
        system=plan.system,
        n_atoms=n_atoms,
        n_edges=timed["n_edges"],
        threads=threads,
        allocator=allocator,
        load_average=(before, os.getloadavg()[0]),
        others=others.read(),
        gemm=timed["gemm"],
        copy=timed["copy"],
        operations=_count_operations(network.checkpoint, n_atoms, timed["n_edges"]),
        contenders=contenders,
        lammps=lammps,
    )


def _complete(values: dict, job: Job, allocator: str, tick: Callable[[], None]) -> Contender:
    """A contender with its times, and its memory from a child in which it is alone."""
    own = [pair for pair in job.artifacts if pair[0] == values["precision"]]
    alone = replace(
        job,
        work=MEMORY,
        mace_dtypes=() if own else (values["precision"],),
        artifacts=tuple(own),
    )
    memory = Memory(**run_job(alone, allocator, tick))
    tick()
    split = Split(**values["split"]) if values["split"] else None
    return Contender(**{**values, "rounds": tuple(values["rounds"]), "memory": memory, "split": split})


def _run_in_lammps(
    plan: Plan, contender: Contender, artifact: str, job: Job, allocator: str, ranks: int, tick
) -> LammpsRun:
    steps = max(FEWEST_STEPS, min(MOST_STEPS, round(LAMMPS_ROUND_S / contender.seconds)))
    atoms = build_system(job.system, job.n_atoms, job.seed)
    run = run_lammps(
        Path(artifact), contender.precision, atoms, threads=job.threads, ranks=ranks, allocator=allocator,
        rounds=plan.rounds, steps=steps, seed=job.seed,
    )  # fmt: skip
    tick()
    return run


def _count_operations(checkpoint: Checkpoint, n_atoms: int, n_edges: int) -> dict[str, int] | None:
    try:
        return count_operations(lower(checkpoint), n_atoms, n_edges)
    except Unsupported:
        return None
