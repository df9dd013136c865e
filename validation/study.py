"""The score: case -> runs -> series -> observables -> comparison -> verdict -> report."""

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from mdplugin.errors import CaseError
from mdplugin.machine import hash_code
from mdplugin.validation.case import OBSERVABLES, REFERENCE, Case
from mdplugin.validation.chain import count_done, execute_run
from mdplugin.validation.criteria import NEEDS_VOLUME, PARTS, find_measurable
from mdplugin.validation.evidence import Evidence, gather_evidence, list_early_signs, measure_runs
from mdplugin.validation.plan import plan_runs
from mdplugin.validation.pool import Milestone, execute_runs
from mdplugin.validation.potential import Potential, load_potential
from mdplugin.validation.profiles import add_profiles
from mdplugin.validation.progress import show_progress
from mdplugin.validation.provenance import record_provenance
from mdplugin.validation.report import Report, find_look, judge_findings, write_report
from mdplugin.validation.reweighting import estimate_shifts
from mdplugin.validation.stage import exit_when_terminated
from mdplugin.validation.statistics import UNKNOWN, Estimate
from mdplugin.validation.systems import Structure
from mdplugin.validation.verdict import Findings, UnsoundReferenceError, require_sound_reference
from mdplugin.validation.workspace import MODELS, RUNS, make_engine, prepare, read_prepared

GLANCE_PS = 0.5  # shorter runs are a look


def validate(
    case: Case, directory: str | os.PathLike, *, jobs: int | None = None, quiet: bool = False, command=()
) -> Report:
    """Run a case, or what is left of it, and judge its artifacts.

    Args:
        directory: receives case.json, models/, structure.*, runs/ and the report; a case that was interrupted goes on
            from its checkpoints. The same case with more length, replicas or models adds to what is there.
        jobs: runs at a time; None for as many as there are cores for.
        quiet: no progress bar.
        command: the command line, for the report.

    Raises:
        CaseError: the case cannot be run, its reference is not sound, or the disk is full; what was done is kept.
        StructureError, ArtifactError, CheckpointError, FidelityError: bad structure or model.
    """
    directory = Path(directory)
    hash_code()  # of what is loaded, before hours pass
    with exit_when_terminated():
        prepare(case, directory)
        plans = plan_runs(case)
        first = [plan for plan in plans if plan.label == REFERENCE and plan.kind == "main"]
        early = Milestone(first, lambda: _judge_reference(directory, command))
        execute_runs(
            plans, directory, count_jobs(case) if jobs is None else jobs, quiet=quiet, milestone=early
        )
        return collect(directory, command=command, quiet=quiet)


def count_jobs(case: Case) -> int:
    """Runs that the cores of this process can serve at a time."""
    return max(1, len(os.sched_getaffinity(0)) // (case.threads * case.ranks))


def compare_potentials(
    case: Case,
    structure: Structure,
    potentials: Mapping[str, Potential],
    directory: Path,
    *,
    quiet: bool = True,
) -> Report:
    """`validate` in this process, for potentials that are loaded: in ASE any calculators.

    `potentials` has the case's labels and "reference".
    """
    plans = plan_runs(case)
    total, done = sum(plan.steps for plan in plans), 0
    with show_progress(total, quiet) as reach:
        for plan in plans:
            engine = make_engine(case, structure.atoms, potentials, plan)
            execute_run(
                engine, plan, directory / RUNS / plan.name, lambda step, before=done: reach(before + step)
            )
            done += plan.steps
    return _judge_runs(case, structure, potentials, directory, (), quiet)


def collect(directory: str | os.PathLike, command=(), *, quiet: bool = True) -> Report:
    """Judge the runs of a prepared directory and write the report.

    Raises:
        CaseError: runs are missing (says which), or the reference is not sound.
    """
    directory = Path(directory)
    case, structure = require_done(directory)
    return _judge_runs(case, structure, _load_potentials(case, directory), directory, command, quiet)


def _load_potentials(case: Case, directory: Path) -> dict[str, Potential]:
    return {
        label: load_potential(directory / MODELS / f"{label}.pt", case.threads)
        for label in (REFERENCE, *case.labels)
    }


def require_done(directory: Path) -> tuple[Case, Structure]:
    """The case of a prepared directory, all of whose runs are done.

    Raises:
        CaseError: runs are missing (says which).
    """
    case, structure = read_prepared(directory)
    plans = plan_runs(case)
    missing = [plan for plan in plans if count_done(directory / RUNS / plan.name, plan) < plan.steps]
    if missing:
        names = ", ".join(plan.name for plan in missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise CaseError(
            f"{directory}: {len(missing)} of {len(plans)} runs are not done ({names}): run their commands, or "
            "`mdplugin validate` with the same case"
        )
    return case, structure


def _judge_reference(directory: Path, command) -> None:
    """Judge float64 by its main runs alone: a case that is at fault ends before its candidates have run.

    Raises:
        UnsoundReferenceError: it is.
    """
    case, structure = read_prepared(directory)
    own = measure_runs(case, structure.atoms, REFERENCE, directory, list_early_signs(case, structure.atoms))
    try:
        require_sound_reference(case, own.measurement.values, own.measurement.failures)
    except UnsoundReferenceError as error:
        potentials, evidence = _load_potentials(case, directory), {REFERENCE: own}
        look = find_look(directory, case)
        report = _make_report(case, structure, potentials, evidence, (), directory, command, look)
        with _full_disk_named(directory):
            raise _show_blame(report, str(error), evidence) from error


def _judge_runs(
    case: Case,
    structure: Structure,
    potentials: Mapping[str, Potential],
    directory: Path,
    command,
    quiet: bool,
) -> Report:
    asked, evidence = find_measurable(case.chosen_observables, structure.atoms.pbc), {}
    look, blame, findings = find_look(directory, case), "", ()
    try:
        notes = gather_evidence(case, structure, potentials, directory, asked, evidence, quiet)
        # what was named and these atoms do not have is not passed over
        wanted, notes = case.observables or asked, notes + _note_look(look)
        findings = tuple(
            _gather_findings(case, label, wanted, evidence, potentials, notes) for label in case.labels
        )
    except UnsoundReferenceError as error:
        blame = str(error)
    report = _make_report(case, structure, potentials, evidence, findings, directory, command, look)
    with _full_disk_named(directory):
        if blame:
            raise _show_blame(report, blame, evidence)
        write_report(report, evidence)
    return report


def _make_report(
    case: Case,
    structure: Structure,
    potentials: Mapping[str, Potential],
    evidence: Mapping[str, Evidence],
    findings: tuple[Findings, ...],
    directory: Path,
    command,
    look: int,
) -> Report:
    return Report(
        case=case,
        findings=findings,
        verdicts=judge_findings(findings, case, look),
        potentials={label: potential.describe() for label, potential in potentials.items()},
        speeds={label: each.measurement.ms_per_step for label, each in evidence.items()},
        provenance=record_provenance(case, structure, list(command), directory / RUNS),
        directory=directory,
        look=look,
    )


def _show_blame(report: Report, blame: str, evidence: dict) -> UnsoundReferenceError:
    """The error of a report without verdicts, and the page that shows it, which is written."""
    report = dataclasses.replace(report, blame=blame)
    return UnsoundReferenceError(f"{blame}; {write_report(report, evidence)} shows it", report)


@contextlib.contextmanager
def _full_disk_named(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CaseError(
            f"cannot write {directory}: {error.strerror or error}; make room, the runs are kept"
        ) from error


def _gather_findings(
    case: Case,
    label: str,
    wanted: tuple[str, ...],
    evidence: Mapping[str, Evidence],
    potentials: Mapping[str, Potential],
    notes: tuple[str, ...],
) -> Findings:
    """What the verdict on one candidate needs; `notes` are the case's."""
    candidate, reference = (evidence[each].measurement for each in (label, REFERENCE))
    extra = add_profiles(candidate, reference)
    shifts = estimate_shifts(evidence[label].shadows, reference)
    reverse = estimate_shifts(evidence[label].reverse, reference, of_reference=True)
    sides = mark_missing(wanted, {**candidate.values, **extra[0]}, {**reference.values, **extra[1]})
    return Findings(
        label=label,
        candidate=_chosen(sides[0], case),
        reference=sides[1],
        shifts=_chosen(shifts, case),
        reverse_shifts=_chosen(reverse, case),
        failures=candidate.failures,
        replicas=case.replicas,
        notes=(
            *candidate.notes,
            *(f"float64, {note}" for note in reference.notes),
            *notes,
            *_note_scope(case, wanted),
        ),
        foreign=_describe_origin(potentials[label], potentials[REFERENCE]),
    )


def _note_look(look: int) -> tuple[str, ...]:
    """Says so where runs are looked at again."""
    if look == 1:
        return ()
    return (f"look {look} at growing runs, at levels {2 ** (look - 1)} times as strict as the first",)


def _note_scope(case: Case, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Says what the verdict does not speak of: observables that were left out or need a volume, runs too short for most."""
    notes = []
    if left_out := [name for name in case.chosen_observables if name in NEEDS_VOLUME and name not in wanted]:
        notes.append(f"without periods in three directions there is no {', '.join(left_out)}")
    known = OBSERVABLES[case.ensemble]
    if case.observables and (others := [name for name in known if name not in case.observables]):
        notes.append(f"of the observables of {case.ensemble} it was not asked for {', '.join(others)}")
    if case.length_ps < GLANCE_PS:
        notes.append(
            f"runs of {case.length_ps:g} ps conclude nothing on drifts, structure or diffusion: only what fails is shown "
            "to be wrong"
        )
    return tuple(notes)


def _describe_origin(candidate: Potential, reference: Potential) -> str:
    """Says so if the two are not of one checkpoint: then rounding is not what differs."""
    sources = [each.source for each in (candidate, reference)]
    if None in sources or sources[0]["sha256"] == sources[1]["sha256"]:
        return ""
    names = [f"{source['name']} ({source['sha256'][:16]})" for source in sources]
    return (
        f"it was exported from {names[0]}, the reference from {names[1]}: give the checkpoint that it is of"
    )


def mark_missing(wanted: tuple[str, ...], candidate: dict, reference: dict) -> tuple[dict, dict]:
    """Both sides with an unknown number for each observable that was asked for and could not be measured."""
    measured = {name.partition(" ")[0] for name in candidate}
    missing = {PARTS.get(name, (name,))[0] for name in wanted} - measured
    unknown = {name: [UNKNOWN] for name in sorted(missing)}
    return {**candidate, **unknown}, {**reference, **unknown}


def _chosen(values: dict[str, list[Estimate]], case: Case) -> dict[str, list[Estimate]]:
    """What the case asks for; the peaks come with `rdf`."""
    dropped = {"coordination"} if "coordination" not in case.chosen_observables else set()
    if "rdf" not in case.chosen_observables:
        dropped |= set(PARTS["rdf"])
    return {name: each for name, each in values.items() if name.partition(" ")[0] not in dropped}
