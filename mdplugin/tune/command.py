"""`mdplugin tune`: options -> the fastest artifact inside the budget, tables, plots, JSON.

Exit status 0; 1 where no policy meets the budget: then nothing is written but the measurements.
"""

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from mdplugin.compare_command import add_effort, describe_quantities, read_effort
from mdplugin.errors import ArtifactError, BoundError, FidelityError

EXIT_INFEASIBLE = 1

_DESCRIPTION = """\
Find the precision policy that is fastest on this machine inside a budget of errors, and export it. Every format of every
block is measured alone on the frames; the best combinations and every preset are measured as wholes. Stopped and started
again it goes on from its measurements; with all of them there it decides the same again. How: docs/usage.md."""
_EPILOG = """\
examples:
  mdplugin tune water --structures frames.xyz --budget force-rmse=1meV/A,force-noise=0.1meV/A -o water-mixed.pt
  mdplugin tune water --structures frames.xyz --budget force-rmse=5,equivariance=1 -o water-mixed.pt --report tuning"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `mdplugin tune` to its parser."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    add = parser.add_argument
    add("source", help="a .model file of mace-torch, or a bundled potential")
    add("--structures", type=Path, required=True, help="frames, any format of ASE")
    add(
        "--budget",
        required=True,
        metavar="NAME=NUMBER,...",
        help=f"largest values against float64; NAME of {describe_quantities()}",
    )
    add(
        "--calibrate",
        type=Path,
        metavar="FRAMES",
        help="round fixed-point matrices for the least force error on these, other structures than those above",
    )
    add("-o", "--output", type=Path, required=True, help="the artifact to write, e.g. water-mixed.pt")
    add(
        "--report",
        type=Path,
        metavar="DIR",
        help="where plots, JSON and measurements go (default: beside the output)",
    )
    add("--head", help="readout head, where the model has several")
    add("--threads", type=int, default=1, metavar="N", help="threads of torch (default 1, timed by CPU time)")
    add("--candidates", type=int, default=8, metavar="N", help="policies in search of the best (default 8)")
    add_effort(parser, n_rounds=31)
    add("--json", action="store_true", help="print everything as JSON")
    add("--quiet", action="store_true", help="no progress bar")


def run(arguments: argparse.Namespace) -> int:
    """Do what the command line asks for.

    Raises:
        MDPluginError: bad option, source or structure; a file that cannot be written.
    """
    from mdplugin.artifact import writable_path
    from mdplugin.checkpoint import read_checkpoint, require_elements
    from mdplugin.machine import choose_clock
    from mdplugin.structures import describe_structures, read_frames
    from mdplugin.threads import torch_threads
    from mdplugin.tune.budget import parse_budget
    from mdplugin.tune.measurements import Measurements, describe_context
    from mdplugin.tune.report import as_dict, describe_choice, format_report
    from mdplugin.tune.tuner import count_steps, tune
    from mdplugin.tune.workshop import Workshop

    budget, effort = parse_budget(arguments.budget), read_effort(arguments)
    _require_numbers(arguments, effort)
    output, name_file = writable_path(arguments.output), _name_files(arguments)
    frames = read_frames(arguments.structures)
    structures = describe_structures(arguments.structures, frames)
    checkpoint = read_checkpoint(arguments.source, arguments.head, arguments.trust)
    require_elements(checkpoint, frames)
    context = describe_context(checkpoint, structures, arguments.threads, choose_clock(arguments.threads)[0])
    calibration = read_frames(arguments.calibrate) if arguments.calibrate else ()
    if calibration:
        require_elements(checkpoint, calibration)
        context["calibration"] = describe_structures(arguments.calibrate, calibration)
        if context["calibration"]["sha256"] == structures["sha256"]:
            raise BoundError(
                f"calibrate: expected other frames than those of --structures, got the same file, {arguments.calibrate}"
            )
    measurements = Measurements(name_file("measurements.json"), context)
    total = count_steps(checkpoint.n_layers, effort, arguments.candidates)
    with (
        torch_threads(arguments.threads),
        tempfile.TemporaryDirectory(prefix="mdplugin-tune-") as scratch,
        _progress(total, arguments.quiet) as step,
    ):
        workshop = Workshop(
            checkpoint, frames, measurements, Path(scratch), arguments.threads, step, calibration
        )
        outcome = tune(workshop, budget, effort, arguments.candidates)
        if outcome.chosen is not None:
            _write(workshop, outcome, effort, arguments, output)
    report = as_dict(outcome, context, effort)
    text = json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False)
    if outcome.chosen is None:
        if arguments.json:
            print(text)
        print(f"mdplugin: {describe_choice(outcome)}", file=sys.stderr)
        return EXIT_INFEASIBLE
    _write_report(outcome, text, name_file)
    print(text if arguments.json else f"{format_report(outcome)}\n{arguments.output}: written")
    return 0


def _require_numbers(arguments: argparse.Namespace, effort) -> None:
    for name in ("threads", "candidates"):
        if getattr(arguments, name) < 1:
            raise BoundError(f"{name}: expected a whole number of 1 or more, got {getattr(arguments, name)}")
    if effort.probe_frames < 1:
        raise BoundError("probe-frames: expected 1 or more: tune compares noise and symmetry")


def _name_files(arguments: argparse.Namespace) -> Callable[[str], Path]:
    """The function from 'measurements.json' to water-mixed-measurements.json in the directory of the report.

    Raises:
        ArtifactError: the directory cannot be made or written.
    """
    from mdplugin.artifact import writable_path

    directory = arguments.report or arguments.output.parent
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArtifactError(f"cannot write {directory}: {error.strerror}; choose another --report") from error
    return lambda name: writable_path(directory / f"{arguments.output.stem}-{name}")


@contextlib.contextmanager
def _progress(total: int, quiet: bool) -> Iterator[Callable[[str], None]]:
    """A bar on stderr, none where nobody watches; the function that takes a step with a text."""
    from tqdm import tqdm

    with tqdm(
        total=total, desc="tune", unit="measurement", disable=True if quiet else None, dynamic_ncols=True
    ) as bar:

        def step(text: str) -> None:
            bar.set_postfix_str(text, refresh=False)
            bar.total = max(bar.total, bar.n + 1)
            bar.update()

        yield step


def _write(workshop, outcome, effort, arguments: argparse.Namespace, output: Path) -> None:
    """Export the chosen policy, measure the very file, certify it, and put it in its place.

    Raises:
        FidelityError: `export` refuses the policy, or the file is not what was measured before.
    """
    from mdplugin.archive import write_whole
    from mdplugin.artifact import load
    from mdplugin.compare_command import certify_row
    from mdplugin.export import export_model
    from mdplugin.tune.budget import hold
    from mdplugin.tune.report import base_ms

    chosen, trial = outcome.chosen, workshop.scratch / output.name
    export_model(
        arguments.source,
        trial,
        chosen.policy,
        head=arguments.head,
        backend="native",
        frames=workshop.frames,
        calibrate=workshop.calibrate(chosen.policy),
        trust=arguments.trust,
    )
    row = workshop.measure_file(load(trial), effort).as_dict()
    findings = hold(row, outcome.budget)
    if any(finding.outcome != "pass" for finding in findings):
        raise FidelityError(
            f"{chosen.policy}: as exported it is not what was measured: {findings}: not written"
        )
    row |= {
        "times_fp32_speed": base_ms(outcome) / chosen.timing.ms,
        "network_ms_per_frame": chosen.timing.ms,
        "tuned_on": f"{workshop.measurements.context['cpu']}, {workshop.threads} threads",
    }
    structures = workshop.measurements.context["structures"]
    certify_row(trial, row, findings, structures, workshop.checkpoint, kind="tune")
    write_whole(output, trial.read_bytes())


def _write_report(outcome, text: str, name_file: Callable[[str], Path]) -> None:
    from mdplugin.archive import write_whole
    from mdplugin.tune.figures import draw_figures

    write_whole(name_file("tuning.json"), text.encode() + b"\n")
    draw_figures(outcome, name_file)
