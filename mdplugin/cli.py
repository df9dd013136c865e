"""The command `mdplugin`: one function per verb. Exit status: 0 done or pass, 1 fail, 2 inconclusive, 3 error.

Verbs import what they need when they run, so that `mdplugin --help` answers at once.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from mdplugin import potentials
from mdplugin.errors import MDPluginError
from mdplugin.native import BuildError
from mdplugin.structures import read_frames

EXIT_ERROR = 3


class Parser(argparse.ArgumentParser):
    """argparse with one line per error, exit status 3, and no abbreviated options."""

    def __init__(self, **kwargs):
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **kwargs)

    def error(self, message: str):
        """Print one line and exit."""
        self.exit(EXIT_ERROR, f"{self.prog}: {message}; see {self.prog} --help\n")


def build_parser() -> Parser:
    """The parser of all verbs."""
    parser = Parser(
        prog="mdplugin", description="Low-precision MACE for ASE and LAMMPS, with a verdict on its physics."
    )
    parser.add_argument(
        "--debug", action="store_true", help="before the verb: show where an unexpected error arose"
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=Parser)
    _add_export(verbs)
    _add_inspect(verbs)
    _add_compare(verbs)
    _add_tune(verbs)
    _add_bench(verbs)
    _add_numerics(verbs)
    validate = verbs.add_parser("validate", help="run molecular dynamics beside float64 and judge it")
    _add_validate(validate)
    verbs.add_parser(
        "lmp",
        help="run LAMMPS with pair_style mace/quant",
        description="Run the LAMMPS of this environment with pair_style mace/quant; all arguments go to lmp.",
        epilog="example: mdplugin lmp -in in.nve -var steps 1000      (mdplugin lmp -h: LAMMPS's own options)",
    )
    doctor = verbs.add_parser("doctor", help="check the installation; every line says ok or what to do")
    doctor.add_argument("--json", action="store_true", help="print the checks as JSON")
    doctor.set_defaults(run=_run_doctor)
    return parser


def _add_export(verbs) -> None:
    from mdplugin.precision import PRESETS

    parser = verbs.add_parser(
        "export",
        help="export a MACE checkpoint to an artifact",
        description="Export a MACE checkpoint to the TorchScript artifact that ASE and LAMMPS serve.\n"
        "Before it is written it is compared with mace-torch in float64.",
        epilog="example: mdplugin export water.model -o water-fp32.pt --precision fp32",
    )
    bundled = ", ".join(potentials.names())
    parser.add_argument("source", help=f"a .model file of mace-torch, or a bundled potential: {bundled}")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="the artifact to write, e.g. water-fp32.pt"
    )
    parser.add_argument(
        "--precision",
        default="fp32",
        help=f"a policy: {', '.join(PRESETS)} (default fp32), or choices per role, as fp32,linear=w8,radial=w16; "
        "see docs/precision.md",
    )
    parser.add_argument(
        "--calibrate",
        type=Path,
        metavar="FRAMES",
        help="round fixed-point matrices for the least force error on these structures instead of to nearest",
    )
    parser.add_argument("--head", help="readout head, where the model has several")
    parser.add_argument(
        "--backend",
        default="auto",
        help="auto (default), native: our kernels, or e3nn: mace-torch's own blocks",
    )
    parser.add_argument("--elements", metavar="H,O", help="keep only these of the model's elements")
    parser.add_argument("--structures", type=Path, help="frames to compare on besides generated ones")
    _add_trust(parser)
    parser.add_argument("--json", action="store_true", help="print the manifest as JSON")
    parser.set_defaults(run=_run_export)


def _add_trust(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--trust",
        action="store_true",
        help="open a .model by running what its pickle says, for classes that safe reading refuses: only if you trust "
        "where it comes from",
    )


def _run_export(arguments: argparse.Namespace) -> int:
    from mdplugin.export import export_model

    frames = read_frames(arguments.structures) if arguments.structures else ()
    manifest = export_model(
        arguments.source,
        arguments.output,
        arguments.precision,
        head=arguments.head,
        backend=arguments.backend,
        elements=None if arguments.elements is None else arguments.elements.split(","),
        frames=frames,
        calibrate=read_frames(arguments.calibrate) if arguments.calibrate else (),
        trust=arguments.trust,
    )
    if arguments.json:
        print(manifest.to_json())
        return 0
    fidelity = manifest.fidelity
    print(f"{arguments.output}: {manifest.describe()}, not validated")
    print(
        f"against mace-torch float64 on {fidelity['n_frames']} frames, largest error: "
        f"energy {fidelity['energy_eV_per_atom']:.1e} eV/atom, forces {fidelity['force_eV_per_A']:.1e} eV/Å, "
        f"stress {fidelity['stress_eV_per_A3']:.1e} eV/Å³"
    )
    return 0


def _add_inspect(verbs) -> None:
    parser = verbs.add_parser(
        "inspect", help="print what an artifact says about itself, and its certificates"
    )
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--json", action="store_true", help="print the manifest as JSON")
    parser.set_defaults(run=_run_inspect)


def _run_inspect(arguments: argparse.Namespace) -> int:
    from mdplugin.archive import content_sha256
    from mdplugin.artifact import read_manifest
    from mdplugin.certificate import read_certificates
    from mdplugin.precision import Precision

    manifest = json.loads(read_manifest(arguments.artifact).to_json())
    certificates = read_certificates(arguments.artifact)
    if arguments.json:
        described = {
            **manifest,
            "content_sha256": content_sha256(arguments.artifact),
            "certificates": certificates.as_dicts(),
        }
        print(json.dumps(described, indent=1, ensure_ascii=False))
        return 0
    width = max(map(len, manifest))
    policy = Precision.parse(manifest["precision"]).explain()
    for name, value in manifest.items():
        text = json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else value
        print(f"{name:{width}}  {text}")
        for line in policy if name == "precision" else ():
            print(f"{'':{width}}  {line}")
    print()
    print(certificates.to_text())
    return 0


def _add_compare(verbs) -> None:
    from mdplugin import compare_command

    parser = verbs.add_parser(
        "compare", help="errors of artifacts against float64 and labels; equivariance, noise, speed, size"
    )
    compare_command.add_arguments(parser)
    _add_trust(parser)
    parser.set_defaults(run=compare_command.run)


def _add_tune(verbs) -> None:
    from mdplugin.tune import command

    parser = verbs.add_parser(
        "tune", help="find and export the fastest precision policy inside a budget of errors"
    )
    command.add_arguments(parser)
    _add_trust(parser)
    parser.set_defaults(run=command.run)


def _add_bench(verbs) -> None:
    from mdplugin.bench import command

    parser = verbs.add_parser(
        "bench",
        help="time of a step: artifacts, mace-torch and LAMMPS on water, and where it goes",
        description="Time artifacts on water beside mace-torch, in turns in one process, with the stock and with the\n"
        "tuned allocator; memory; where the time goes; distance to the machine's peak. Lists have commas.",
        epilog="example: mdplugin bench --size small,medium --atoms 192 --precision fp32,fp64 --against mace-torch",
    )
    command.add_arguments(parser)
    _add_trust(parser)
    parser.set_defaults(run=command.run)


def _add_numerics(verbs) -> None:
    from mdplugin.numerics import command

    parser = verbs.add_parser(
        "numerics",
        help="rounding errors of every block in every number type, beside a first-order model",
        description="Errors of every block in every number type against float64, beside a first-order model; what they do\n"
        "to forces, equivariance and energy conservation. See docs/numerics.md.",
        epilog="example: mdplugin numerics water -o figures",
    )
    command.add_arguments(parser)
    _add_trust(parser)
    parser.set_defaults(run=command.run)


def _add_validate(parser: argparse.ArgumentParser) -> None:
    from mdplugin.validation import command

    command.add_arguments(parser)
    parser.set_defaults(run=command.run)


def _run_doctor(arguments: argparse.Namespace) -> int:
    from mdplugin.doctor import examine

    return examine(as_json=arguments.json)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    debug = "--debug" in argv[:1]
    argv = argv[1:] if debug else argv
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that has no 'Å' still gets its line
    try:
        if argv[:1] == ["lmp"] and argv[1:] != ["--help"]:  # LAMMPS's options are LAMMPS's own
            from mdplugin.launch import run_lmp

            run_lmp(argv[1:])
        arguments = build_parser().parse_args(argv)
        return arguments.run(arguments)
    except (MDPluginError, BuildError) as error:
        print(f"mdplugin: {error}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        print("mdplugin: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, `head` say, has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_ERROR
    except Exception as error:
        if debug:
            raise
        reason = str(error).splitlines()[0] if str(error) else "no message"
        print(
            f"mdplugin: {type(error).__name__}: {reason}; `mdplugin --debug ...` shows where", file=sys.stderr
        )
        return EXIT_ERROR
