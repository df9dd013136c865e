"""Case -> runs in LAMMPS: input files, a process of LAMMPS's Python module, energies back."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import ase
import ase.io
import numpy as np
import torch

from mdplugin.errors import CaseError
from mdplugin.validation import lammps_input
from mdplugin.validation.engine import Engine
from mdplugin.validation.series import Failure, Run, find_collapse

POLL_S = 0.2


class LammpsEngine(Engine):
    """Runs artifacts, which lie as LABEL.pt beside the inputs; every NVE run begins from start.data."""

    def __post_init__(self):
        self._threads = self.case.threads or torch.get_num_threads()
        data = lammps_input.write_data(self.atoms)
        for name in (lammps_input.INITIAL_DATA, lammps_input.START_DATA):  # the latter until equilibrated
            (self.directory / name).write_text(data)
        for label, potential in self.potentials.items():
            _place(potential.path, self.directory.resolve() / _artifact(label))

    def equilibrate(self, label: str) -> Failure | None:
        """Langevin dynamics from the initial state; writes start.data unless it fails."""
        if self.case.equilibration_steps == 0:
            return None
        self.progress.begin("equilibration")
        script = lammps_input.write_equilibration(self.case, self.atoms, _artifact(label), self._threads)
        return self._execute("equilibrate", script, self.case.equilibration_steps).failure

    def run(self, label: str) -> Run:
        """Constant-energy run from start.data; leaves LABEL.in, .log, .energies and .lammpstrj."""
        self.progress.begin(label)
        script = lammps_input.write_nve(self.case, self.atoms, label, _artifact(label), self._threads)
        return self._execute(label, script, self.case.steps)

    def frames(self, label: str) -> list[ase.Atoms]:
        """The frames that `run` wrote, in LAMMPS's orientation."""
        path = self.directory / f"{label}.lammpstrj"
        n_frames = self.case.steps // self.case.trajectory_every + 1
        _require_lines(path, n_frames * (lammps_input.DUMP_HEADER_LINES + len(self.atoms)))
        return ase.io.read(path, ":", format="lammps-dump-text")

    def _execute(self, label: str, script: str, steps: int) -> Run:
        energies = self.directory / f"{label}.energies"
        energies.unlink(missing_ok=True)
        (self.directory / f"{label}.in").write_text(script)
        command = [sys.executable, "-m", "mdplugin.validation.lammps_process"]
        command += [f"{label}.in", f"{label}.log", str(os.getpid())]
        process = subprocess.Popen(
            command,
            cwd=self.directory,
            env={**os.environ, "OMP_NUM_THREADS": str(self._threads)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",  # LAMMPS cuts and mangles what is not ASCII
        )
        message = self._watch(process, energies)
        if process.returncode and not energies.is_file():  # it never came to the dynamics
            raise CaseError(f"LAMMPS refuses {label}.in: {message}")
        if process.returncode < 0:  # memory, a person, a scheduler: says nothing about the potential
            raise CaseError(
                f"LAMMPS was killed by signal {-process.returncode} in {label}.in after step "
                f"{_last_step(energies)}: nothing can be said; run it again"
            )
        if process.returncode == 0:
            _require_lines(energies, 1 + steps + 1)  # a title, and step 0
        return _read_run(energies, len(self.atoms), message if process.returncode else None)

    def _watch(self, process: subprocess.Popen, energies: Path) -> str:
        """Wait for the process, show its progress; its error message."""
        with process:
            try:
                while True:
                    try:
                        _, stderr = process.communicate(timeout=POLL_S)
                    except subprocess.TimeoutExpired:
                        self.progress.reach(_last_step(energies))
                        continue
                    self.progress.reach(_last_step(energies))
                    return _clean_message(stderr, process.returncode)
            except BaseException:  # an interrupted validation must not leave LAMMPS running
                process.kill()
                raise


def _artifact(label: str) -> str:
    return f"{label}.pt"


def _place(source: Path, target: Path) -> None:
    """Make the file `source` appear as `target` too: a hard link, or a copy where there can be none."""
    if source == target:
        return
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def _require_lines(path: Path, expected: int) -> None:
    """Raise CaseError if a run that ended well left another number of lines: LAMMPS ignores a full disk."""
    found = path.read_bytes().count(b"\n")
    if found != expected:
        raise CaseError(
            f"{path.name}: expected {expected} lines from LAMMPS, got {found}: the disk is full; make room, or "
            "choose another directory with -o"
        )


def _last_step(energies: Path) -> int:
    """The step of the last complete line, 0 where there is none."""
    if not energies.is_file():
        return 0
    with energies.open("rb") as file:
        file.seek(max(0, energies.stat().st_size - 400))
        lines = file.read().split(b"\n")[:-1]
    word = lines[-1].split()[0] if lines else b"#"
    return int(word) if word.isdigit() else 0


def _clean_message(stderr: str, returncode: int) -> str:
    """LAMMPS's error without the place in its source; what is known where it left none."""
    lines = [line for line in stderr.splitlines() if line.strip()]
    marked = [line for line in lines if "ERROR" in line]
    line = (marked or lines[-1:] or [f"LAMMPS ended with status {returncode} and no message"])[0]
    return re.sub(r"^ERROR( on proc \d+)?: |\s*\(\S+:\d+\)\s*$", "", line)


def _read_run(energies: Path, n_atoms: int, message: str | None) -> Run:
    lines = energies.read_text().splitlines()[1:]
    rows = [words for line in lines if len(words := line.split()) == 5]  # a run that broke off: half a line
    steps, time_ps, potential, kinetic, wall = np.array(rows, dtype=np.float64).reshape(-1, 5).T
    run = Run(time_ps, potential, kinetic, np.diff(wall, prepend=0.0), n_atoms)
    failure = find_collapse(run)
    if failure is None and message is not None:
        failure = Failure(int(steps[-1]) + 1 if len(steps) else 0, message)
    return Run(run.time_ps, run.potential_eV, run.kinetic_eV, run.wall_s, n_atoms, failure)
