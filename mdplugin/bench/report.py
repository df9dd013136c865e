"""Results -> what a person reads: tables of speed, of where the time goes, and of LAMMPS."""

from collections.abc import Iterable

import numpy as np

from mdplugin.bench.results import MACE_TORCH, MDPLUGIN, Case, Contender, LammpsRun, Results
from mdplugin.bench.table import NOTHING, format_number, format_table

QUIET = 0.15  # cores that other processes may use without a remark
SPEED_HEADER = (
    "network",
    "atoms",
    "threads",
    "allocator",
    "program",
    "µs/atom/step",
    "quartiles",
    "mace-torch/this",
    "its fp32/this",
    "1 thread/this",
    "% of GEMM",
    "kB/atom",
    "peak MB",
)
SPEED_LEGEND = (
    "Medians over rounds, in turns with the others of the case. mace-torch/this: its time in the same type over this one; "
    "% of GEMM: counted operations per second over the rate of a matrix product of the same type on the same threads; "
    "kB/atom: resident memory above the loaded model; peak MB: of the whole process."
)
LAMMPS_HEADER = (
    "network",
    "atoms",
    "precision",
    "threads",
    "allocator",
    "ranks",
    "µs/atom/step",
    "1 rank / this",
    "network",
    "halo",
    "edges",
    "result",
    "neighbor",
    "comm",
    "overhead",
)
LAMMPS_LEGEND = (
    "Parts in µs/atom/step: the artifact (network), its exchange of features between ranks with the waiting (halo), the "
    "pair style's edges and forces (edges, result), LAMMPS's lists and exchange of positions (neighbor, comm). "
    "overhead: all that is not the network, relative to it."
)


def format_results(results: Results) -> str:
    """Everything, for a terminal."""
    sections = [describe(results), format_speed(results.cases), SPEED_LEGEND, *format_splits(results.cases)]
    if any(case.lammps for case in results.cases):
        sections += [format_lammps(results.cases), LAMMPS_LEGEND]
    return "\n\n".join(sections)


def describe(results: Results) -> str:
    """One paragraph: machine, its peaks and load, seed, versions."""
    machine = results.machine
    peaks = {
        case.threads: f"{case.threads} thread{'s' if case.threads > 1 else ''}: GEMM float64 "
        f"{case.gemm['float64'] / 1e9:.0f}, float32 {case.gemm['float32'] / 1e9:.0f} GFLOP/s, copy "
        f"{case.copy / 1e9:.0f} GB/s"
        for case in results.cases
    }
    others = max(case.others for case in results.cases)
    warning = f" The machine was busy with other work ({others:.1f} cores): times are too long." * (
        others > QUIET
    )
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items() if version)
    return (
        f"{machine['cpu']}, {machine['cores']} cores.{warning} {'; '.join(peaks.values())}. Seed {results.seed}, "
        f"{machine['finished']}, python {machine['python']}, {versions}."
    )


def format_speed(cases: Iterable[Case]) -> str:
    """One row per contender."""
    cases = list(cases)
    return format_table(SPEED_HEADER, [_speed_row(case, c, cases) for case in cases for c in case.contenders])


def _speed_row(case: Case, contender: Contender, cases: list[Case]) -> tuple[str, ...]:
    low, high = (1e6 * t / case.n_atoms for t in contender.quartiles)
    peak = fraction_of_peak(case, contender)
    return (
        *_name_case(case),
        str(case.threads),
        case.allocator,
        f"{contender.program} {contender.precision}",
        format_number(us_per_atom(case, contender)),
        f"{format_number(low)} to {format_number(high)}",
        format_number(speed_up(case, contender, contender.compute)),
        format_number(speed_up(case, contender, "float32")),
        format_number(thread_scaling(case, contender, cases)),
        NOTHING if peak is None else format_number(100 * peak, 2),
        format_number(contender.memory.used / case.n_atoms / 1e3),
        format_number(contender.memory.peak / 1e6),
    )


def _name_case(case: Case) -> tuple[str, str]:
    return case.network, f"{case.n_atoms}{'' if case.system == 'box' else ' ' + case.system}"


def us_per_atom(case: Case, contender: Contender | LammpsRun) -> float:
    """Median time of a step over the number of atoms, in µs."""
    return 1e6 * contender.seconds / case.n_atoms


def speed_up(case: Case, contender: Contender, compute: str) -> float | None:
    """Time of mace-torch in the type `compute` over that of an artifact; None without mace-torch."""
    mace = case.find(MACE_TORCH, compute=compute)
    return None if mace is None or contender.program != MDPLUGIN else mace.seconds / contender.seconds


def thread_scaling(case: Case, contender: Contender, cases: Iterable[Case]) -> float | None:
    """Time of the same case on one thread over that on more; None on one thread."""
    if case.threads == 1:
        return None
    for other in cases:
        same = (other.network, other.system, other.n_atoms, other.allocator, other.threads)
        if same == (case.network, case.system, case.n_atoms, case.allocator, 1):
            single = other.find(contender.program, precision=contender.precision)
            return None if single is None else single.seconds / contender.seconds
    return None


def fraction_of_peak(case: Case, contender: Contender) -> float | None:
    """The step's counted operations per second over the rate of a matrix product of the same type and threads."""
    if case.operations is None or contender.program != MDPLUGIN:
        return None
    return sum(case.operations.values()) / contender.seconds / case.gemm[contender.compute]


def format_splits(cases: Iterable[Case]) -> list[str]:
    """One table per case; per precision µs/atom, share of the step, and rate relative to a matrix product's."""
    tables = []
    for case in cases:
        split = [c for c in case.contenders if c.split is not None]
        if not split:
            continue
        names = list(dict.fromkeys(name for c in split for name in c.split.parts))
        header = [" ".join(_name_case(case)) + f", threads {case.threads}, {case.allocator}"]
        for c in split:
            header += [f"{c.precision} µs/atom", "%", "% of GEMM"]
        rows = [[name, *_split_cells(case, split, name)] for name in names]
        rows.append(["whole step, profiled", *_total_cells(case, [c.split.step for c in split])])
        rows.append(["whole step, timed", *_total_cells(case, [c.seconds for c in split])])
        tables.append(format_table(header, rows))
    return tables


def _split_cells(case: Case, split: list[Contender], name: str) -> list[str]:
    cells = []
    for c in split:
        seconds = c.split.parts.get(name)
        if seconds is None:
            cells += [NOTHING] * 3
            continue
        flops = (case.operations or {}).get(name)
        rate = NOTHING if flops is None else format_number(100 * flops / seconds / case.gemm[c.compute], 2)
        cells += [
            format_number(1e6 * seconds / case.n_atoms),
            f"{100 * seconds / c.split.step:.1f}",
            rate,
        ]
    return cells


def _total_cells(case: Case, seconds: list[float]) -> list[str]:
    return [cell for s in seconds for cell in (format_number(1e6 * s / case.n_atoms), "", "")]


def format_lammps(cases: Iterable[Case]) -> str:
    """One row per run; parts in µs/atom/step, means over rounds."""
    return format_table(LAMMPS_HEADER, [_lammps_row(case, run) for case in cases for run in case.lammps])


def _lammps_row(case: Case, run: LammpsRun) -> tuple[str, ...]:
    parts = (run.network, run.halo, run.edges, run.result, run.neighbor, run.comm)
    return (
        *_name_case(case),
        run.precision,
        str(case.threads),
        case.allocator,
        str(run.ranks),
        format_number(us_per_atom(case, run)),
        format_number(rank_scaling(case, run)),
        *[format_number(1e6 * float(np.mean(values)) / case.n_atoms) for values in parts],
        f"{100 * run.overhead:.1f} %",
    )


def rank_scaling(case: Case, run: LammpsRun) -> float | None:
    """Time of the same run on one rank over that on more; None on one rank or without it."""
    single = next((r for r in case.lammps if r.ranks == 1 and r.precision == run.precision), None)
    return None if single is None or run.ranks == 1 else single.seconds / run.seconds
