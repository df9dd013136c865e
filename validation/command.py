"""`mdplugin validate`: options -> cases -> exit status 0 pass, 1 fail, 2 inconclusive (errors are raised: 3)."""

import argparse
import sys
from pathlib import Path

SUITE = ("nve", "nvt", "npt", "stability")
COMMANDS = "commands.txt"
# what fits into two minutes on two cores with the bundled water: enough to see a gross fault
QUICK = {"length_ps": 0.13, "equilibration_ps": 0.0, "replicas": 2, "checkpoint_ps": 1.0}
QUICK_WITHOUT = ("reversal", "timestep_exponent")  # which take runs of their own
QUICK_NOTE = (
    "quick: runs too short to conclude on drifts, structure or diffusion, none back in time or with another timestep "
    "unless they are named; only what fails is shown to be wrong"
)

_CASE_OPTIONS = (
    "models", "reference", "engine", "structure", "length_ps", "timestep_fs", "temperature_K", "pressure_bar",
    "equilibration_ps", "replicas", "seed", "threads", "ranks", "checkpoint_ps",
)  # fmt: skip
_ELSEWHERE = ("case", *_CASE_OPTIONS, "quick", "trust", "jobs")
# an option -> what it would ignore, and why
_EXCLUDED = {
    "run_name": (
        (*_ELSEWHERE, "plan", "collect", "certify", "json"),
        "it does one run of the case that DIR holds",
    ),
    "collect": ((*_ELSEWHERE, "plan"), "it judges the case that DIR holds"),
    "plan": (("jobs", "certify", "json"), "it runs and judges nothing"),
}

_DESCRIPTION = """\
Run artifacts and their float64 reference, several replicas each, and judge whether the artifacts can be told from
float64. CASE is nve, nvt, npt or stability, all of them in turn (all), a YAML file, or a bundled case:
{cases}.

Exit status: 0 pass, 1 fail, 2 inconclusive (says how much longer), 3 error. A case that was interrupted goes on when
the same command is given again; with more length or replicas it is continued."""
_EPILOG = """\
examples:
  mdplugin validate nve --model water-fp32.pt --reference water -o water-nve
  mdplugin validate all --model water-fp32.pt --reference water -o water-all
  mdplugin validate CASE.yaml --plan -o DIR     write the commands of a case for a cluster, one per line
  mdplugin validate --collect -o DIR            judge it when they are done"""


class _PrintSchema(argparse.Action):
    """Prints the tables of what a case may say, and ends."""

    def __call__(self, parser, namespace, values, option_string=None):
        from mdplugin.validation.schema import describe_schema

        print(describe_schema())
        parser.exit()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `mdplugin validate` to its parser."""
    names = sorted(path.stem for path in (Path(__file__).resolve().parent / "cases").glob("*.yaml"))
    parser.description = _DESCRIPTION.format(cases=", ".join(name for name in names if name not in SUITE))
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("case", nargs="?", metavar="CASE", help="what to run; see above")
    add("--model", dest="models", nargs="+", metavar="FILE.pt", help="the artifacts to judge")
    add("--reference", help="their checkpoint, a bundled potential, or an fp64 artifact")
    add("--engine", help="lammps (default) or ase")
    add("--structure", help="file that ASE reads, or a bundled one; default: the reference's")
    add("--length-ps", type=float, help="length of each run, at least 256 steps")
    add("--timestep-fs", type=float, help="timestep (default 0.5)")
    add(
        "--temperature-K",
        type=float,
        help="temperature (default 300; stability 500); in all, stability is run at 500 or, if that is hotter, at this",
    )
    add(
        "--pressure-bar",
        type=float,
        help="pressure in npt (default 1; of the bundled water in its box what it has there at 300 K, 9800)",
    )
    add("--equilibration-ps", type=float, help="Langevin dynamics with the reference before each run")
    add("--replicas", type=int, help="runs of each potential, with different seeds (default 3)")
    add("--seed", type=int, help="of the first replica (default 0)")
    add("--threads", type=int, help="torch threads of one run (default 1)")
    add("--ranks", type=int, help="MPI ranks of one run, LAMMPS only (default 1)")
    add("--checkpoint-ps", type=float, help="time between checkpoints")
    add("--jobs", type=int, help="runs at a time, at least 1 (default: as many as the cores serve)")
    add("-o", "--output", type=_directory, required=True, metavar="DIR", help="directory of runs and report")
    add(
        "--quick",
        action="store_true",
        help="a look of two minutes at what is grossly wrong, with runs of 0.13 ps or 256 steps; concludes little",
    )
    add("--trust", action="store_true", help="open the reference's .model by running its pickle")
    add("--plan", action="store_true", help="write the case and its commands, run nothing")
    add("--collect", action="store_true", help="judge the runs in DIR; takes no CASE and none of its options")
    add("--certify", action="store_true", help="write the verdict into the artifacts; both engines say it")
    add(
        "--json", action="store_true", help="print report.json instead of the summary; a list of them for all"
    )
    add("--quiet", action="store_true", help="no progress bar")
    add(
        "--run",
        dest="run_name",
        metavar="NAME",
        help="do one run of a planned case (what --plan writes); takes no CASE either",
    )
    add(
        "--schema",
        action=_PrintSchema,
        nargs=0,
        help="print the keys of a case, its observables and its limits",
    )
    add("--parent", type=int, help=argparse.SUPPRESS)  # the process to end with


def run(arguments: argparse.Namespace) -> int:
    """Do what the command line asks for.

    Raises:
        MDPluginError: options that exclude each other, or the case cannot be run; see `study.validate`.
    """
    from mdplugin.errors import CaseError
    from mdplugin.validation.case import require_integer

    _require_one_purpose(arguments)
    if arguments.run_name is not None:
        return _run_one(arguments)
    if arguments.collect:
        return _finish(*_collect(arguments), arguments)
    if not arguments.case:
        raise CaseError("expected a CASE, --run NAME or --collect; see mdplugin validate --help")
    if arguments.jobs is not None:
        require_integer("jobs", arguments.jobs, 1)
    cases = _read_cases(arguments)
    if arguments.plan:
        return _plan(cases, arguments)
    return _finish(*_validate(cases, arguments), arguments)


def _directory(text: str) -> Path:
    if not text:  # a variable of a script that is not set; Path makes "." of it
        raise argparse.ArgumentTypeError("expected a directory, got ''; for the current one give .")
    return Path(text)


def _require_one_purpose(arguments: argparse.Namespace) -> None:
    """Raise CaseError if an option would be ignored beside --run, --collect or --plan."""
    from mdplugin.errors import CaseError

    given = {name for name, value in vars(arguments).items() if value is not None and value is not False}
    for purpose, (excluded, reason) in _EXCLUDED.items():
        if purpose in given and (extra := [_spell(name) for name in excluded if name in given]):
            raise CaseError(f"expected no {', '.join(extra)} beside {_spell(purpose)}: {reason}")


def _spell(name: str) -> str:
    """An option as it is given."""
    special = {"case": "CASE", "models": "--model", "run_name": "--run"}
    return special.get(name, f"--{name.replace('_', '-')}")


def _read_cases(arguments: argparse.Namespace) -> dict:
    """Directory -> case."""
    given = {name: value for name in _CASE_OPTIONS if (value := getattr(arguments, name)) is not None}
    if arguments.case != "all":
        return {arguments.output: _read_case(arguments.case, given, arguments.quick)}
    suite_K = given.pop("temperature_K", None)
    cases = {}
    for name in SUITE:
        of_case = {key: value for key, value in given.items() if key != "pressure_bar" or name == "npt"}
        case = _read_case(name, of_case, arguments.quick)
        if suite_K is not None:
            hottest_K = max(suite_K, case.temperature_K)
            case = case.replace(temperature_K=hottest_K if name == "stability" else suite_K)
        cases[arguments.output / name] = case
    return _leave_out_npt(cases, arguments.output)


def _leave_out_npt(cases: dict, output: Path) -> dict:
    """Without npt where the structure of `all` has no volume; says so."""
    from mdplugin.validation.systems import find_structure

    npt = cases[output / "npt"]
    structure = find_structure(npt.structure, npt.reference, npt.repeat)
    if structure.atoms.pbc.all():
        return cases
    print(
        f"npt is left out: {structure.path.name} has no volume, it is periodic in fewer than three directions",
        file=sys.stderr,
    )
    return {directory: case for directory, case in cases.items() if case is not npt}


def _read_case(source: str, given: dict, quick: bool):
    """A case with the options of the command line; a quick one is longer than QUICK where its timestep asks for it."""
    from mdplugin.validation.case import MIN_STEPS
    from mdplugin.validation.case_file import read_case
    from mdplugin.validation.criteria import find_measurable
    from mdplugin.validation.systems import find_structure

    if not quick:
        return read_case(source, **given)
    timestep_fs = given.get("timestep_fs") or read_case(source, **given).timestep_fs
    length_ps = max(QUICK["length_ps"], MIN_STEPS * timestep_fs / 1000)
    case = read_case(source, **{**QUICK, "length_ps": length_ps, **given})
    if case.observables or not set(QUICK_WITHOUT) & set(case.chosen_observables):
        return case
    periodic = find_structure(case.structure, case.reference, case.repeat).atoms.pbc
    measurable = find_measurable(case.chosen_observables, periodic)
    return case.replace(observables=tuple(name for name in measurable if name not in QUICK_WITHOUT))


def _validate(cases: dict, arguments: argparse.Namespace) -> tuple[list, list[str]]:
    """Reports, and why some have no verdicts: float64 is not sound there."""
    from mdplugin.validation.plan import plan_runs
    from mdplugin.validation.pool import count_steps_done
    from mdplugin.validation.progress import show_suite
    from mdplugin.validation.study import validate

    _prepare(cases, arguments.trust)  # so that the last case's bad option shows before the first one's hours
    plans = {directory: plan_runs(case) for directory, case in cases.items()}
    total = sum(plan.steps for each in plans.values() for plan in each)
    done = sum(sum(count_steps_done(each, directory).values()) for directory, each in plans.items())
    options = {"jobs": arguments.jobs, "quiet": arguments.quiet, "command": ["mdplugin", *sys.argv[1:]]}
    results = []
    with show_suite(total, done, arguments.quiet) as announce:
        for number, (directory, case) in enumerate(cases.items(), 1):
            if len(cases) > 1:
                announce(f"{directory.name}, {number} of {len(cases)}")
            results.append(_try_to_judge(validate, case, directory, **options))
    return _part(results)


def _try_to_judge(work, *arguments, **options) -> tuple:
    """(report, why it has no verdicts or nothing): the other ensembles are cases of their own."""
    from mdplugin.validation.verdict import UnsoundReferenceError

    try:
        return work(*arguments, **options), ""
    except UnsoundReferenceError as error:
        return error.report, str(error)


def _part(results: list[tuple]) -> tuple[list, list[str]]:
    """Reports, and what some of them are without verdicts for, which names the case where there are several."""
    blamed = [
        f"{report.case.ensemble}: {error}" if len(results) > 1 else error
        for report, error in results
        if error
    ]
    return [report for report, _ in results], blamed


def _prepare(cases: dict, trust: bool) -> None:
    """Prepare the directories of all cases, which have one reference: it is exported once."""
    from mdplugin.validation.case import REFERENCE
    from mdplugin.validation.workspace import MODELS, prepare

    exported = None
    for directory, case in cases.items():
        prepare(case, directory, trust, exported)
        exported = directory / MODELS / f"{REFERENCE}.pt"


def _plan(cases: dict, arguments: argparse.Namespace) -> int:
    import shlex

    from mdplugin.errors import CaseError
    from mdplugin.validation.plan import plan_runs
    from mdplugin.validation.pool import run_command
    from mdplugin.validation.stage import open_stage

    _prepare(cases, arguments.trust)
    lines = []
    for directory, case in cases.items():
        lines += [shlex.join(run_command(plan, directory.resolve())) for plan in plan_runs(case)]
    file = arguments.output / COMMANDS
    try:
        with open_stage(arguments.output, last=COMMANDS) as stage:
            (stage / COMMANDS).write_text("\n".join(lines) + "\n")
    except OSError as error:
        raise CaseError(f"cannot write {file}: {error.strerror or error}; make room") from error
    print(f"{file}: {len(lines)} commands, in any order, each may be given again after an interruption")
    print(f"then: mdplugin validate --collect -o {arguments.output}")
    return 0


def _collect(arguments: argparse.Namespace) -> tuple[list, list[str]]:
    """As `_validate`, of runs that are done."""
    from mdplugin.errors import CaseError
    from mdplugin.validation.study import collect, require_done
    from mdplugin.validation.workspace import CASE_FILE, read_prepared

    there = [name for name in SUITE if (arguments.output / name / CASE_FILE).is_file()]
    directories = [arguments.output / name for name in there] or [arguments.output]
    has_volume = read_prepared(directories[0])[1].atoms.pbc.all()
    expected = [name for name in SUITE if name != "npt" or has_volume]
    if there and (missing := [name for name in expected if name not in there]):
        raise CaseError(
            f"{arguments.output}: expected the cases of `all` ({', '.join(expected)}), got none of {', '.join(missing)}: "
            f"give its command again, or collect one of them ({directories[0]})"
        )
    for directory in directories:  # before the first is judged
        require_done(directory)
    options = {"command": ["mdplugin", *sys.argv[1:]], "quiet": arguments.quiet}
    return _part([_try_to_judge(collect, directory, **options) for directory in directories])


def _run_one(arguments: argparse.Namespace) -> int:
    from mdplugin.validation.lammps_process import die_with
    from mdplugin.validation.workspace import execute_one

    if arguments.parent:
        die_with(arguments.parent)
    execute_one(arguments.output, arguments.run_name)
    return 0


def _finish(reports: list, blamed: list[str], arguments: argparse.Namespace) -> int:
    """Print the verdicts, certify, and give the worst exit status: fail before inconclusive before pass.

    Raises:
        CaseError: cases are `blamed`, after all has been said of the others.
    """
    from mdplugin.errors import CaseError
    from mdplugin.validation.comparison import EXIT_STATUS, find_worst
    from mdplugin.validation.report import REPORT_HTML
    from mdplugin.validation.suite import write_suite

    if len(reports) > 1:
        write_suite(reports, arguments.output)
    if arguments.json:
        texts = [report.to_json().rstrip() for report in reports]
        print(texts[0] if len(texts) == 1 else "[" + ",\n".join(texts) + "]")
    else:
        for report in reports:
            if not report.blame:
                _print_summary(report)
        if len(reports) > 1:
            print(f"all of them: {arguments.output / REPORT_HTML}")
    if arguments.quick:
        print(QUICK_NOTE, file=sys.stderr if arguments.json else sys.stdout)
    if arguments.certify:
        from mdplugin.validation.certificate import certify

        for line in certify([report for report in reports if not report.blame]):
            print(line, file=sys.stderr)
    if blamed:
        raise CaseError("; ".join(blamed))
    return EXIT_STATUS[find_worst(report.outcome for report in reports)]


def _print_summary(report) -> None:
    from mdplugin.validation.report import REPORT_HTML

    for verdict in report.verdicts:
        for test in verdict.tests:
            print(f"{test.outcome:12}  {test.title}: {_describe(test)}")
        print(f"{report.case.ensemble}, {verdict.label}: {verdict.sentence}")
    print(f"report: {report.directory / REPORT_HTML}")


def _describe(test) -> str:
    from mdplugin.validation.verdict import format_estimate, format_limit

    unit = f" {test.unit}" if test.unit else ""
    reference = f", float64 {format_estimate(test.reference)}" if test.reference else ""
    reweighted = f"; reweighted {format_estimate(test.reweighted)}{unit}" if test.reweighted else ""
    return (
        f"{format_estimate(test.candidate)}{unit}{reference}{reweighted} (limit {format_limit(test)}{unit})"
    )
