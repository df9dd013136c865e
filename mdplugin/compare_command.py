"""`mdplugin compare`: options -> rows, verdicts, certificates.

Exit status 0; with bounds 0 pass, 1 fail, 2 inconclusive.
"""

import argparse
import json
import sys
from pathlib import Path

from mdplugin.bounds import DEFAULTS, QUANTITIES, Finding, judge, parse_bounds, worst
from mdplugin.errors import ArtifactError, BoundError

EXIT_STATUS = {"pass": 0, "fail": 1, "inconclusive": 2}

_DESCRIPTION = """\
Compare artifacts with mace-torch in float64 on the frames of a file: errors of energy, forces and stress, also against
the frames' own labels; local equivariance; force noise, force roughness and energy roughness; speed and size.
What each number is: docs/usage.md."""
_EPILOG = """\
examples:
  mdplugin compare water-fp32.pt water-w8.pt --reference water --structures frames.xyz
  mdplugin compare water-w8.pt --reference water --structures frames.xyz --bounds force-rmse=1meV/A,force-noise=0.1
  mdplugin compare water-w8.pt --reference water --structures frames.xyz --certify"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `mdplugin compare` to its parser."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    add = parser.add_argument
    add("artifacts", nargs="+", type=Path, metavar="ARTIFACT")
    add("--reference", required=True, help="the checkpoint: a .model file or a bundled potential")
    add("--structures", type=Path, required=True, help="frames, any format of ASE")
    add("--head", help="readout head of the reference, where it has several")
    add_effort(parser, n_rounds=15)
    add(
        "--bounds",
        metavar="NAME=NUMBER,...",
        help=f"judge the artifacts, exit status 1 for fail, 2 for inconclusive; NAME of {describe_quantities()}",
    )
    add("--certify", action="store_true", help="write what was found into the artifacts; both engines say it")
    add("--json", action="store_true", help="print everything as JSON")
    add("--quiet", action="store_true", help="no progress bar")


def add_effort(parser: argparse.ArgumentParser, n_rounds: int) -> None:
    """Add the options that say how much is measured; `read_effort` reads them."""
    add = parser.add_argument
    add(
        "--probe-frames",
        type=int,
        metavar="N",
        help="frames for equivariance, noise and roughness, evenly spread (default 4; 0: none)",
    )
    add("--rotations", type=int, metavar="N", help="rotations and inversions of each of them (default 8)")
    add("--directions", type=int, metavar="N", help="straight paths through each of them (default 4)")
    add(
        "--rounds",
        type=int,
        default=n_rounds,
        metavar="N",
        help=f"how often the artifacts are timed, in turns (default {n_rounds})",
    )
    add("--seed", type=int, help="of rotations and directions (default 0)")


def read_effort(arguments: argparse.Namespace):
    """The `Effort` that the options ask for.

    Raises:
        BoundError: a number that makes no sense.
    """
    from mdplugin.compare import Effort

    names = ("probe_frames", "rotations", "directions", "rounds", "seed")
    return Effort(**{name: value for name in names if (value := getattr(arguments, name)) is not None})


def describe_quantities() -> str:
    """What can be bounded, with units, for --help."""
    return ", ".join(f"{name} ({each.unit})" for name, each in QUANTITIES.items())


def run(arguments: argparse.Namespace) -> int:
    """Do what the command line asks for.

    Raises:
        MDPluginError: bad option, artifact, reference or structure.
    """
    from mdplugin.artifact import load
    from mdplugin.checkpoint import read_checkpoint
    from mdplugin.compare import compare_artifacts
    from mdplugin.compare_table import format_tables
    from mdplugin.structures import describe_structures, read_frames

    effort = read_effort(arguments)
    bounds = _read_bounds(arguments, effort.probe_frames)
    artifacts = [load(path) for path in arguments.artifacts]
    frames = read_frames(arguments.structures)
    structures = describe_structures(arguments.structures, frames)
    checkpoint = read_checkpoint(arguments.reference, arguments.head, arguments.trust)
    mismatches = [_find_mismatch(artifact, checkpoint) for artifact in artifacts]
    if arguments.certify:
        _require_certifiable(artifacts, mismatches)
    _warn(mismatches)
    total = effort.count_evaluations(len(frames), len(artifacts))
    with _progress(total, arguments.quiet) as bar:
        rows = compare_artifacts(artifacts, checkpoint, frames, effort, bar.update)
    findings = [judge(row.as_dict(), bounds) for row in rows[1:]]
    foreign = {row.content_sha256 for row, line in zip(rows[1:], mismatches, strict=True) if line}
    if arguments.json:
        print(_to_json(rows, foreign, findings, structures, checkpoint, effort))
    else:
        print(format_tables(rows, foreign))
        if bounds:
            print("\n" + "\n".join(map(_verdict_line, rows[1:], findings)))
    if arguments.certify:
        for artifact, row, each in zip(artifacts, rows[1:], findings, strict=True):
            certificates = certify_row(artifact.path, row.as_dict(), each, structures, checkpoint)
            print(f"{artifact.path}: {certificates.line}", file=sys.stderr)
    outcome = worst([finding for each in findings for finding in each])
    return EXIT_STATUS[outcome] if bounds else 0


def _read_bounds(arguments: argparse.Namespace, probe_frames: int) -> dict[str, float]:
    if arguments.bounds is None:
        names = DEFAULTS if arguments.certify else {}
        return {name: value for name, value in names.items() if probe_frames or not QUANTITIES[name].probed}
    bounds = parse_bounds(arguments.bounds)
    if probe_frames == 0 and (probed := [name for name in bounds if QUANTITIES[name].probed]):
        raise BoundError(f"bounds: {probed[0]} is measured by probes: give --probe-frames of 1 or more")
    return bounds


def _find_mismatch(artifact, checkpoint) -> str:
    """Says that an artifact was exported from another file or head than the reference's; "" where it was not."""
    source, head = artifact.manifest.source, artifact.manifest.head
    if (source["sha256"], head) == (checkpoint.sha256, checkpoint.head):
        return ""
    return (
        f"{artifact.path}: expected an artifact of {checkpoint.name} ({checkpoint.sha256[:16]}), head {checkpoint.head}, "
        f"got one of {source['name']} ({source['sha256'][:16]}), head {head}"
    )


def _require_certifiable(artifacts, mismatches: list[str]) -> None:
    """Refuse to certify an artifact by another potential than the one it was exported from."""
    from mdplugin.artifact import writable_path

    for artifact, mismatch in zip(artifacts, mismatches, strict=True):
        if mismatch:
            raise ArtifactError(f"{mismatch}: give its own source as --reference to certify it")
        writable_path(artifact.path)


def _warn(mismatches: list[str]) -> None:
    """One line on stderr per artifact of another potential, before anything is measured."""
    for mismatch in filter(None, mismatches):
        print(
            f"mdplugin: warning: {mismatch}: its errors are differences of two potentials, not of rounding alone; "
            "give its own source as --reference",
            file=sys.stderr,
        )


def _progress(total: int, quiet: bool):
    """A bar on stderr; none where nobody watches."""
    from tqdm import tqdm

    return tqdm(
        total=total, desc="compare", unit="evaluation", disable=True if quiet else None, dynamic_ncols=True
    )


def _verdict_line(row, findings: list[Finding]) -> str:
    return "\n  ".join([f"{row.name}: {worst(findings)}", *(finding.describe() for finding in findings)])


def _to_json(
    rows, foreign: set[str], findings: list[list[Finding]], structures: dict, checkpoint, effort
) -> str:
    import dataclasses

    from mdplugin.machine import describe_machine

    verdicts = [
        {"name": row.name, "outcome": worst(each), "findings": [dataclasses.asdict(f) for f in each]}
        for row, each in zip(rows[1:], findings, strict=True)
        if each
    ]
    content = {
        "structures": structures,
        "reference": {"name": checkpoint.name, "sha256": checkpoint.sha256, "head": checkpoint.head},
        "effort": dataclasses.asdict(effort),
        "rows": [
            {**row.as_dict(), "exported_from_reference": row.content_sha256 not in foreign} for row in rows
        ],
        "verdicts": verdicts,
        "provenance": describe_machine(),
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)


def certify_row(
    path: Path, row: dict, findings: list[Finding], structures: dict, checkpoint, kind: str = "compare"
):
    """Write the row and its verdict into the artifact; the certificates that it holds now.

    Raises:
        ArtifactError: the file is not the one that was measured, or cannot be written.
    """
    from mdplugin.certificate import Certificate, certify
    from mdplugin.machine import describe_machine

    outcome, force = worst(findings), row["float64"]["force_rmse_meV_per_A"]
    formula = structures["formulas"][0] + (", ..." if len(structures["formulas"]) > 1 else "")
    frames = f"{structures['n_frames']} frame{'s' * (structures['n_frames'] > 1)} of {formula}"
    certificate = Certificate(
        kind=kind,
        outcome=outcome,
        line=f"{kind} {outcome} on {frames}, force RMSE {force:.2g} meV/Å from float64",
        content_sha256=row["content_sha256"],
        structures=structures,
        reference={"name": checkpoint.name, "sha256": checkpoint.sha256, "precision": "mace-torch float64"},
        measured=row,
        bounds={finding.name: {"bound": finding.bound, "outcome": finding.outcome} for finding in findings},
        provenance=describe_machine(),
    )
    return certify(path, [certificate])
