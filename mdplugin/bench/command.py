"""`mdplugin bench`: options -> plan -> tables, or JSON."""

import argparse
import sys
from pathlib import Path

from mdplugin.bench.job import ALLOCATORS
from mdplugin.bench.networks import SIZES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `mdplugin bench` to its parser."""
    networks = parser.add_mutually_exclusive_group(required=True)
    networks.add_argument(
        "--size",
        type=_names(SIZES),
        metavar="SIZES",
        help=f"networks with random weights: {', '.join(SIZES)}",
    )
    networks.add_argument("--model", help="a .model file of mace-torch with H and O, or a bundled one: water")
    parser.add_argument("--head", help="readout head of --model, where it has several")
    parser.add_argument("--system", choices=("box", "cluster"), default="box", help="periodic or free water")
    parser.add_argument("--atoms", type=_counts, default=(192,), help="atoms of the water (default 192)")
    parser.add_argument("--threads", type=_counts, default=(1,), help="threads of torch (default 1)")
    parser.add_argument("--precision", type=_words, default=("fp32",), help="policies (default fp32)")
    parser.add_argument(
        "--against", choices=("mace-torch",), help="time mace-torch in float64 and float32 in turns with ours"
    )
    parser.add_argument(
        "--allocator",
        type=_names(ALLOCATORS),
        default=tuple(ALLOCATORS),
        help="glibc's malloc as it is, or set to keep memory: stock,tuned (default both)",
    )
    parser.add_argument("--lammps", action="store_true", help="run the artifacts in LAMMPS too")
    parser.add_argument("--ranks", type=_counts, default=(1,), help="MPI ranks of LAMMPS (default 1)")
    parser.add_argument("--rounds", type=_count, default=7, help="turns of every program (default 7)")
    parser.add_argument("--seed", type=int, default=0, help="of weights, water and motion (default 0)")
    parser.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="raw results to FILE, or instead of the tables"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print.

    Raises:
        MDPluginError: see `benchmark.run_plan`; or the JSON file cannot be written.
    """
    from mdplugin.artifact import writable_path
    from mdplugin.bench.benchmark import Plan, run_plan
    from mdplugin.bench.report import format_results
    from mdplugin.precision import Precision

    target = writable_path(Path(arguments.json)) if arguments.json not in (None, "-") else None
    plan = Plan(
        sizes=arguments.size or (),
        model=arguments.model,
        head=arguments.head,
        system=arguments.system,
        atoms=arguments.atoms,
        threads=arguments.threads,
        precisions=tuple(str(Precision.parse(name)) for name in arguments.precision),
        allocators=arguments.allocator,
        against_mace=arguments.against is not None,
        ranks=arguments.ranks if arguments.lammps else (),
        rounds=arguments.rounds,
        seed=arguments.seed,
        trust=arguments.trust,
    )
    results = run_plan(plan, sys.argv, arguments.quiet)
    if target is not None:
        target.write_text(results.to_json())
    print(results.to_json() if arguments.json == "-" else format_results(results))
    return 0


def _words(text: str) -> tuple[str, ...]:
    """Words between commas, each once."""
    words = tuple(dict.fromkeys(word.strip() for word in text.split(",")))
    if not all(words):
        raise argparse.ArgumentTypeError(f"expected names with commas between, got '{text}'")
    return words


def _names(known) -> type:
    """Parser of words that are all among `known`."""

    def parse(text: str) -> tuple[str, ...]:
        words = _words(text)
        if unknown := [word for word in words if word not in known]:
            raise argparse.ArgumentTypeError(f"expected some of {', '.join(known)}, got '{unknown[0]}'")
        return words

    return parse


def _count(text: str) -> int:
    """A whole number above zero."""
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"expected a whole number above zero, got '{text}'")
    return int(text)


def _counts(text: str) -> tuple[int, ...]:
    """Whole numbers above zero between commas."""
    return tuple(dict.fromkeys(_count(word) for word in _words(text)))
