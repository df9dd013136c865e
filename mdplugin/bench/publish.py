"""`python -P -m mdplugin.bench.publish RESULTS_DIRECTORY FILE.md...`: results -> the tables between markers in Markdown.

A block begins with the line <!-- bench:NAME --> and ends with <!-- /bench:NAME -->; what is between is replaced.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from mdplugin.bench.blocks import fill_blocks
from mdplugin.bench.bounds import format_bounds
from mdplugin.bench.report import (
    LAMMPS_LEGEND,
    SPEED_LEGEND,
    describe,
    format_lammps,
    format_speed,
    format_splits,
    speed_up,
    us_per_atom,
)
from mdplugin.bench.results import MACE_TORCH, MDPLUGIN, Case, Results, read_results
from mdplugin.bench.table import NOTHING, format_number, format_table
from mdplugin.errors import CaseError, MDPluginError

NOT_MEASURED = "*Not measured yet: `make bench` fills this in.*"


def gather(directory: Path) -> list[Results]:
    """The results of every JSON file of the directory, by file name."""
    return [read_results(path) for path in sorted(directory.glob("*.json"))]


def fill_tables(text: str, results: Sequence[Results], where: str) -> str:
    """The text with fresh tables.

    Raises:
        CaseError: a block that nobody knows, or no block at all.
    """

    def write(name: str) -> str:
        if name not in BLOCKS:
            raise CaseError(f"{where}: expected a block of {', '.join(BLOCKS)}, got '{name}'")
        return write_block(name, results)

    return fill_blocks(text, {"bench": write}, where)


def write_block(name: str, results: Sequence[Results]) -> str:
    """The Markdown of one block."""
    cases = [case for result in results for case in result.cases]
    return BLOCKS[name](results, cases) if cases else NOT_MEASURED


def _write_speed(results: Sequence[Results], cases: Sequence[Case]) -> str:
    """Tuned allocator, one thread, beside mace-torch; the ratio with the stock allocator in brackets."""
    header = ["network", "atoms", "precision", "mace-torch, µs/atom/step", "mdplugin", "times faster (stock)"]
    rows = []
    for case in cases:
        if (case.allocator, case.threads) != ("tuned", 1) or _compares_policies(case):
            continue
        stock = _find_stock(case, cases)
        for ours in case.contenders:
            mace = case.find(MACE_TORCH, compute=ours.compute)
            if ours.program != MDPLUGIN or mace is None:
                continue
            other = stock and stock.find(MDPLUGIN, precision=ours.precision)
            in_stock = format_number(speed_up(stock, other, ours.compute)) if other else NOTHING
            rows.append(
                (
                    case.network,
                    f"{case.n_atoms}{'' if case.system == 'box' else ', molecule'}",
                    ours.precision,
                    format_number(us_per_atom(case, mace)),
                    format_number(us_per_atom(case, ours)),
                    f"{format_number(speed_up(case, ours, ours.compute))} ({in_stock})",
                )
            )
    processors = ", ".join(dict.fromkeys(result.machine["cpu"] for result in results))
    return f"{format_table(header, rows)}\n\n{processors}, one thread."


def _compares_policies(case: Case) -> bool:
    """Whether the case is one of the block `policies`: it has more of ours than fp32 and fp64."""
    return sum(each.program == MDPLUGIN for each in case.contenders) > 2


def _find_stock(case: Case, cases: Sequence[Case]) -> Case | None:
    wanted = (case.network, case.system, case.n_atoms, case.threads, "stock")
    return next(
        (c for c in cases if (c.network, c.system, c.n_atoms, c.threads, c.allocator) == wanted), None
    )


def _write_machine(results: Sequence[Results], _: Sequence[Case]) -> str:
    commands = [" ".join(["mdplugin", *result.command[1:]]) for result in results]
    return "\n\n".join(
        f"`{command}`  \n{describe(result)}" for command, result in zip(commands, results, strict=True)
    )


def _write_lammps(_: Sequence[Results], cases: Sequence[Case]) -> str:
    return f"{format_lammps(cases)}\n\n{LAMMPS_LEGEND}" if any(c.lammps for c in cases) else NOT_MEASURED


def _write_policies(results: Sequence[Results], cases: Sequence[Case]) -> str:
    """Policies of one run beside fp32: the cases with more than fp32 and fp64, one thread."""
    header = [
        "network",
        "atoms",
        "policy",
        "µs/atom/step",
        "quartiles",
        "fp32 / this",
        "mace-torch fp32 / this",
    ]
    rows = []
    for case in cases:
        ours = [each for each in case.contenders if each.program == MDPLUGIN]
        base = case.find(MDPLUGIN, precision="fp32")
        if (case.allocator, case.threads) != ("tuned", 1) or base is None or not _compares_policies(case):
            continue
        mace = case.find(MACE_TORCH, compute="float32")
        for each in ours:
            low, high = (format_number(1e6 * seconds / case.n_atoms) for seconds in each.quartiles)
            rows.append(
                (
                    case.network,
                    f"{case.n_atoms}",
                    each.precision,
                    format_number(us_per_atom(case, each)),
                    f"{low} to {high}",
                    format_number(us_per_atom(case, base) / us_per_atom(case, each)),
                    format_number(us_per_atom(case, mace) / us_per_atom(case, each)) if mace else NOTHING,
                )
            )
    if not rows:
        return NOT_MEASURED
    processors = ", ".join(dict.fromkeys(result.machine["cpu"] for result in results))
    return (
        f"{format_table(header, rows)}\n\n{processors}, one thread, tuned allocator, in turns in one process."
    )


BLOCKS = {
    "speed": _write_speed,
    "machine": _write_machine,
    "bounds": lambda _, cases: format_bounds(cases),
    "detail": lambda _, cases: f"{format_speed(cases)}\n\n{SPEED_LEGEND}",
    "split": lambda _, cases: "\n\n".join(format_splits(c for c in cases if c.allocator == "tuned")),
    "lammps": _write_lammps,
    "policies": _write_policies,
}


def main(arguments: list[str]) -> int:
    """Rewrite the files; nothing is written unless every block of every file can be."""
    directory, *files = map(Path, arguments)
    try:
        results = gather(directory)
        texts = [fill_tables(file.read_text(), results, str(file)) for file in files]
    except (MDPluginError, OSError) as error:
        print(f"publish: {error}", file=sys.stderr)
        return 3
    for file, text in zip(files, texts, strict=True):
        file.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
