"""What `mdplugin bench` measured, as frozen values, and its JSON form."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mdplugin.errors import CaseError

SCHEMA = 1
MACE_TORCH, MDPLUGIN = "mace-torch", "mdplugin"


@dataclass(frozen=True)
class Memory:
    """Resident memory of a process of its own that takes a few steps, in bytes.

    Attributes:
        loaded: with the model and the structure in memory, before the first step.
        peak: the largest until the end.
    """

    loaded: int
    peak: int

    @property
    def used(self) -> int:
        """What the steps needed beyond what was loaded."""
        return self.peak - self.loaded


@dataclass(frozen=True)
class Split:
    """Where a step's time goes: means over a few profiled steps, in seconds.

    Attributes:
        step: the whole step, with the profiler's own cost.
        parts: name -> seconds, in the order of the step; they sum to `step`. "host" is the rest: Python, ASE, TorchScript.
    """

    step: float
    parts: dict[str, float]


@dataclass(frozen=True)
class Contender:
    """One program at one precision, timed in turns with the others of its case.

    Attributes:
        program: "mdplugin" or "mace-torch". precision: policy or type as its users name it. compute: "float64" or "float32".
        rounds: (n_rounds,) seconds per step, each the mean of `steps_per_round` steps.
        memory: resident memory. split: of mdplugin's artifacts, else None.
    """

    program: str
    precision: str
    compute: str
    rounds: tuple[float, ...]
    steps_per_round: int
    memory: Memory
    split: Split | None = None

    @property
    def seconds(self) -> float:
        """Median time of a step."""
        return float(np.median(self.rounds))

    @property
    def quartiles(self) -> tuple[float, float]:
        """First and third quartile of a step's time."""
        low, high = np.quantile(self.rounds, (0.25, 0.75))
        return float(low), float(high)


@dataclass(frozen=True)
class LammpsRun:
    """An artifact in LAMMPS; every tuple has one entry per round, in seconds per step.

    Attributes:
        loop: LAMMPS's own loop time. neighbor: its neighbour lists. comm: its communication of positions.
        edges, network, halo, result: of the pair style, means over ranks: building edges, the artifact without its
            exchange, the exchange of features between ranks (waiting included), adding forces.
    """

    precision: str
    ranks: int
    steps_per_round: int
    loop: tuple[float, ...]
    neighbor: tuple[float, ...]
    comm: tuple[float, ...]
    edges: tuple[float, ...]
    network: tuple[float, ...]
    halo: tuple[float, ...]
    result: tuple[float, ...]

    @property
    def seconds(self) -> float:
        """Median time of a step."""
        return float(np.median(self.loop))

    @property
    def overhead(self) -> float:
        """What LAMMPS, the pair style and communication add to the artifact's own time, relative to it.

        Over all rounds: neighbour lists are built in few of them.
        """
        return sum(self.loop) / sum(self.network) - 1


@dataclass(frozen=True)
class Case:
    """One system on one set of threads with one allocator, and all that was timed on it.

    Attributes:
        network: size, or name of the checkpoint. system: "box" or "cluster". allocator: "stock" or "tuned".
        n_edges: directed edges within the cutoff.
        load_average: of one minute, before and after. others: cores that other processes used meanwhile.
        gemm: type -> FLOP/s of a matrix product on these threads. copy: bytes/s read and written by a memory copy.
        operations: floating-point operations of a step by part (bench/operations.py); None where only e3nn serves.
    """

    network: str
    system: str
    n_atoms: int
    n_edges: int
    threads: int
    allocator: str
    load_average: tuple[float, float]
    others: float
    gemm: dict[str, float]
    copy: float
    operations: dict[str, int] | None
    contenders: tuple[Contender, ...]
    lammps: tuple[LammpsRun, ...] = ()

    def find(
        self, program: str, *, precision: str | None = None, compute: str | None = None
    ) -> Contender | None:
        """The first contender of a program with this precision or compute type, or None."""
        return next(
            (
                c
                for c in self.contenders
                if c.program == program and precision in (None, c.precision) and compute in (None, c.compute)
            ),
            None,
        )


@dataclass(frozen=True)
class Results:
    """A whole run of the command: its cases, and what they depended on."""

    machine: dict
    command: tuple[str, ...]
    seed: int
    cases: tuple[Case, ...]
    schema: int = SCHEMA

    def to_json(self) -> str:
        """Plain values; `parse_results` reads them back."""
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"


def read_results(path: Path) -> Results:
    """Results from the file that `mdplugin bench --json FILE` wrote.

    Raises:
        CaseError: no such file, or not one of ours.
    """
    try:
        content = json.loads(path.read_text())
        if content["schema"] != SCHEMA:
            raise ValueError(f"schema {content['schema']}, this version reads {SCHEMA}")
        cases = tuple(_parse_case(case) for case in content.pop("cases"))
        return Results(cases=cases, **{**content, "command": tuple(content["command"])})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CaseError(f"{path}: expected results of `mdplugin bench --json FILE`, got {error!r}") from error


def _parse_case(values: dict) -> Case:
    contenders = tuple(_parse_contender(c) for c in values["contenders"])
    lammps = tuple(LammpsRun(**_with_tuples(run)) for run in values["lammps"])
    return Case(**_with_tuples({**values, "contenders": contenders, "lammps": lammps}))


def _parse_contender(values: dict) -> Contender:
    split = Split(**values["split"]) if values["split"] else None
    return Contender(**_with_tuples({**values, "memory": Memory(**values["memory"]), "split": split}))


def _with_tuples(values: dict) -> dict:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
