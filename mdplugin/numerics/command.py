"""`mdplugin numerics`: options -> study -> figures with their data, and tables."""

import argparse
import json
from pathlib import Path

from mdplugin import potentials


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `mdplugin numerics` to its parser."""
    bundled = ", ".join(potentials.names())
    parser.add_argument("model", help=f"a .model file of mace-torch, or a bundled potential: {bundled}")
    parser.add_argument(
        "--structures",
        type=Path,
        help="frames, any format of ASE (default: the bundled ones, else generated)",
    )
    parser.add_argument(
        "-o", "--output", type=Path, help="directory for the figures and their data (default: none are drawn)"
    )
    parser.add_argument("--head", help="readout head, where the model has several")
    parser.add_argument("--elements", metavar="H,O", help="keep only these of the model's elements")
    parser.add_argument("--types", metavar="bf16,int8", help="number types, e.g. bf16,int8 (default all)")
    parser.add_argument("--seed", type=int, default=0, help="of noise, probes and rotations (default 0)")
    parser.add_argument("--json", action="store_true", help="print all numbers as JSON instead of the tables")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(arguments: argparse.Namespace) -> int:
    """Measure, draw and print.

    Raises:
        MDPluginError: the model cannot be read or lowered, the structures do not fit it.
    """
    from mdplugin.checkpoint import read_checkpoint
    from mdplugin.errors import StructureError
    from mdplugin.export import choose_elements
    from mdplugin.lowering import lower
    from mdplugin.network_native import tabulate_layers
    from mdplugin.numerics.figures import draw_figures
    from mdplugin.numerics.report import format_study
    from mdplugin.numerics.study import run_study
    from mdplugin.precision import Precision

    if arguments.output is not None and arguments.output.exists() and not arguments.output.is_dir():
        raise StructureError(f"{arguments.output}: expected a directory for the figures, got a file")
    checkpoint = read_checkpoint(arguments.model, arguments.head, arguments.trust)
    symbols = None if arguments.elements is None else arguments.elements.split(",")
    model = lower(checkpoint, choose_elements(checkpoint, symbols))
    frames = _read_frames(arguments, model.atomic_numbers)
    tables, _ = tabulate_layers(model, Precision.parse("fp32"))
    study = run_study(
        Path(arguments.model).name,
        model,
        tables,
        frames,
        types=_parse_types(arguments.types),
        seed=arguments.seed,
        quiet=arguments.quiet,
    )
    if arguments.output is not None:
        arguments.output.mkdir(parents=True, exist_ok=True)
        draw_figures(study, arguments.output)
        (arguments.output / "numerics.txt").write_text(format_study(study) + "\n")
    print(json.dumps(study.as_dict(), indent=1) if arguments.json else format_study(study))
    return 0


def _parse_types(text: str | None) -> tuple[str, ...]:
    """Names of number types.

    Raises:
        PrecisionError: an unknown one.
    """
    from mdplugin.errors import PrecisionError
    from mdplugin.number_types import TYPES

    if text is None:
        return tuple(TYPES)
    names = tuple(dict.fromkeys(text.split(",")))
    if unknown := [name for name in names if name not in TYPES]:
        raise PrecisionError(f"--types: expected some of {', '.join(TYPES)}, got '{unknown[0]}'")
    return names


def _read_frames(arguments: argparse.Namespace, numbers: tuple[int, ...]) -> list:
    """(name, atoms) of the file given, of the bundled structures, or generated."""
    from mdplugin.frames import reference_frames
    from mdplugin.structures import read_frames

    files = [arguments.structures] if arguments.structures else potentials.structures(arguments.model)
    frames = [(file.name, atoms) for file in files for atoms in read_frames(file)]
    return frames or [("generated", atoms) for atoms in reference_frames(numbers)]
