"""Segments in LAMMPS: an input file, a process of LAMMPS's Python module (or mpirun), numbers back."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from ase import units

from mdplugin.errors import CaseError
from mdplugin.validation import lammps_input
from mdplugin.validation.case import REFERENCE
from mdplugin.validation.engine import Engine
from mdplugin.validation.lammps_output import (
    count_lines,
    is_whole_restart,
    last_step,
    read_dump,
    read_table,
    speaks_of_dynamics,
)
from mdplugin.validation.plan import REVERSAL, Segment
from mdplugin.validation.recorder import recording_steps
from mdplugin.validation.series import Failure, Series, find_collapse
from mdplugin.validation.spectrum import power_spectra
from mdplugin.validation.systems import count_degrees_of_freedom

POLL_S = 0.2
_MOMENTUM = 1 / (1000 * units.fs)  # amu Å/ps -> ASE's
DATA_SUFFIX = ".data"
LOG = "segment.log"


class LammpsEngine(Engine):
    """States are LAMMPS's restart files, the first a data file; artifacts are linked beside the input."""

    suffix = ".restart"

    def write_start(self, state: Path) -> None:
        """The initial atoms as a data file (told from restart files by its first line)."""
        state.write_text(lammps_input.write_data(self.atoms))

    def is_whole(self, state: Path) -> bool:
        """See `Engine.is_whole`."""
        return is_whole_restart(state)

    def advance(self, segment: Segment, start: Path, scratch: Path, end: Path) -> Series:
        """Run a segment; see `Engine.advance`."""
        with start.open("rb") as file:
            from_data = file.read(8) == b"mdplugin"
        place(start, scratch / (lammps_input.START_DATA if from_data else lammps_input.START_RESTART))
        model = "reference.pt" if segment.potential == REFERENCE else "candidate.pt"  # LAMMPS mangles labels
        place(self.potentials[segment.potential].path, scratch / model)
        script = lammps_input.write_segment(self.case, self.atoms, segment, model, from_data=from_data)
        (scratch / "segment.in").write_text(script)
        message = self._execute(scratch)
        series = self._read(segment, scratch, message)
        if series.failure is None:
            (scratch / lammps_input.END_RESTART).replace(end)
        return series

    def _execute(self, scratch: Path) -> str | None:
        """Run the input; what LAMMPS says of dynamics that went wrong, or None.

        Raises:
            CaseError: it was killed, refused the input, or ended for another reason than the dynamics.
        """
        command = [sys.executable, "-P", "-m", "mdplugin.validation.lammps_process", "segment.in", LOG]
        energies = scratch / lammps_input.ENERGIES
        process = subprocess.Popen(
            [*command, str(os.getpid()), str(self.case.ranks)],
            cwd=scratch,
            env={**os.environ, "OMP_NUM_THREADS": str(self.case.threads)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",  # LAMMPS cuts and mangles what is not ASCII
        )
        message = self._watch(process, energies)
        if process.returncode == 0:
            return None
        if not energies.is_file():  # it never came to the dynamics
            raise CaseError(f"LAMMPS refuses segment.in: {message}")
        if process.returncode < 0 or process.returncode in (9, 137) or "KILLED BY SIGNAL" in message:
            raise CaseError(  # memory, a person, a scheduler: says nothing about the potential
                f"LAMMPS was killed ({message}) after step {last_step(energies)} of a segment: nothing can be said; "
                "run the same command again, it goes on from the last checkpoint"
            )
        if not speaks_of_dynamics(message):
            raise CaseError(
                f"LAMMPS broke off after step {last_step(energies)} of a segment for a reason that is not the "
                f"potential's ({message}): remove it and run the same command again, it goes on from the last checkpoint"
            )
        return message

    def _watch(self, process: subprocess.Popen, energies: Path) -> str:
        """Wait for the process, show its progress; its error message."""
        with process:
            try:
                while True:
                    try:
                        _, stderr = process.communicate(timeout=POLL_S)
                    except subprocess.TimeoutExpired:
                        self.reach(last_step(energies))
                        continue
                    self.reach(last_step(energies))
                    return _clean_message(stderr, process.returncode)
            except BaseException:  # an interrupted validation must not leave LAMMPS running
                process.kill()
                raise

    def _read(self, segment: Segment, scratch: Path, message: str | None) -> Series:
        n_atoms, total = len(self.atoms), segment.steps * (2 if segment.phase == REVERSAL else 1)
        if message is None:
            self._require_whole(segment, scratch, total)
        # a run that broke off leaves half a line; the turning point of a reversal is printed twice
        rows = read_table(scratch / lammps_input.ENERGIES, 6)
        rows = rows[np.append(True, np.diff(rows[:, 0]) > 0)[: len(rows)]]
        steps, time_ps, potential, kinetic, conserved, wall = rows.T
        degrees_of_freedom = count_degrees_of_freedom(self.atoms)
        failure = find_collapse(potential, kinetic, degrees_of_freedom, self.explosion_K)
        if failure is None and message is not None:
            failure = Failure(int(steps[-1]) + 1 if len(steps) else 0, message)
        samples = read_table(scratch / lammps_input.SAMPLES, 9)
        if not self.atoms.pbc.all():
            samples[:, 1:3] = np.nan  # LAMMPS's box around a cluster has no physical volume
        _, frames, cells = read_dump(scratch / lammps_input.FRAMES, n_atoms)
        frame_every = recording_steps(self.case, segment)[1]
        frequency, spectrum = self._read_spectrum(segment, scratch)
        return Series(
            time_ps=time_ps,
            potential_eV=potential,
            kinetic_eV=kinetic,
            conserved_eV=conserved,
            wall_s=np.diff(wall, prepend=0.0),
            n_atoms=n_atoms,
            degrees_of_freedom=degrees_of_freedom,
            sample_time_ps=samples[:, 0],
            pressure_bar=samples[:, 1],
            volume_A3=samples[:, 2],
            momentum=samples[:, 3:6] * _MOMENTUM,
            angular_momentum=samples[:, 6:9] * _MOMENTUM,
            frame_time_ps=np.arange(len(frames)) * frame_every * segment.timestep_fs / 1000,
            positions=frames,
            cells=cells,
            spectrum=spectrum,
            frequency_per_cm=frequency,
            failure=failure,
        )

    def _read_spectrum(self, segment: Segment, scratch: Path) -> tuple[np.ndarray, np.ndarray]:
        velocities = np.zeros((0, len(self.atoms), 3))
        if segment.velocity_every:
            _, velocities, _ = read_dump(scratch / lammps_input.VELOCITIES, len(self.atoms))
            velocities = velocities[
                : -(-segment.steps // segment.velocity_every)
            ]  # the last is the next's first
        return power_spectra(velocities, self.atoms.numbers, segment.timestep_fs * segment.velocity_every)

    def _require_whole(self, segment: Segment, scratch: Path, total: int) -> None:
        """Raise CaseError if a run that ended well left a file that is not whole: LAMMPS ignores a full disk."""
        frame = lammps_input.DUMP_HEADER_LINES + len(self.atoms)
        sample_every, frame_every = recording_steps(self.case, segment)
        turns = 1 if segment.phase == REVERSAL else 0
        expected = {
            lammps_input.ENERGIES: 1 + total + 1 + turns,  # a title, and step 0
            lammps_input.FRAMES: (total // frame_every + 1) * frame,
        }
        if segment.phase != REVERSAL:
            expected[lammps_input.SAMPLES] = 1 + total // sample_every + 1
        if segment.velocity_every:
            expected[lammps_input.VELOCITIES] = (total // segment.velocity_every + 1) * frame
        for name, lines in expected.items():
            if (found := count_lines(scratch / name)) != lines:
                raise CaseError(
                    f"{name}: expected {lines} lines from LAMMPS, got {found}: the disk is full; make room, and run "
                    "the same command again"
                )
        if not is_whole_restart(scratch / lammps_input.END_RESTART):
            raise CaseError(
                f"{lammps_input.END_RESTART}: expected a whole restart file from LAMMPS, got a part of it: the disk is "
                "full; make room, and run the same command again"
            )


def place(source: Path, target: Path) -> None:
    """Make the file `source` appear as `target` too: a hard link, or a copy where there can be none."""
    if source == target:
        return
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def _clean_message(stderr: str, returncode: int) -> str:
    """LAMMPS's error without the place in its source; what is known where it left none."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip().strip("=")]
    marked = [line for line in lines if "ERROR" in line]
    if returncode < 0:
        return f"signal {-returncode}"
    line = (marked or lines[-1:] or [f"LAMMPS ended with status {returncode} and no message"])[0]
    return re.sub(r"^ERROR( on proc \d+)?: |\s*\(\S+:\d+\)\s*$", "", line)
