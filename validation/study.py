"""The score: case -> runs -> series -> observables -> comparison -> verdict -> report."""

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import ase
import numpy as np

from mdplugin.errors import CaseError
from mdplugin.validation.case import OBSERVABLES, REFERENCE, Case
from mdplugin.validation.chain import count_done, execute_run, load_run
from mdplugin.validation.criteria import NEEDS_VOLUME, PARTS, find_measurable
from mdplugin.validation.measurement import Measurement, Replica, measure_replicas
from mdplugin.validation.observables.conservation import measure_gradient, measure_pressure_gradient
from mdplugin.validation.observables.shadow import Shadow, compare_frames, measure_shadow
from mdplugin.validation.observables.structure import Rdf, compute_rdfs
from mdplugin.validation.plan import plan_runs
from mdplugin.validation.pool import execute_runs
from mdplugin.validation.potential import Potential, load_potential
from mdplugin.validation.profiles import add_profiles
from mdplugin.validation.progress import show_progress
from mdplugin.validation.provenance import record_provenance
from mdplugin.validation.report import Report, write_report
from mdplugin.validation.reweighting import estimate_shifts
from mdplugin.validation.series import Series, read_frames
from mdplugin.validation.stage import exit_when_terminated
from mdplugin.validation.statistics import UNKNOWN, Estimate
from mdplugin.validation.systems import Structure
from mdplugin.validation.verdict import Findings, judge, require_sound_reference
from mdplugin.validation.workspace import MODELS, RUNS, make_engine, prepare, read_prepared

GLANCE_PS = 0.5  # shorter runs are a look
N_FRAMES = 100  # of each run, for what needs the potentials themselves
N_GRADIENT_FRAMES = 10  # of these: each takes four energies, and is known to 1e-5 in fp32


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
    with exit_when_terminated():
        prepare(case, directory)
        execute_runs(plan_runs(case), directory, count_jobs(case) if jobs is None else jobs, quiet=quiet)
        return collect(directory, command=command)


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
    return _judge_runs(case, structure, potentials, directory, ())


def collect(directory: str | os.PathLike, command=()) -> Report:
    """Judge the runs of a prepared directory and write the report.

    Raises:
        CaseError: runs are missing (says which), or the reference is not sound.
    """
    directory = Path(directory)
    case, structure = read_prepared(directory)
    plans = plan_runs(case)
    missing = [plan for plan in plans if count_done(directory / RUNS / plan.name, plan) < plan.steps]
    if missing:
        names = ", ".join(plan.name for plan in missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise CaseError(
            f"{directory}: {len(missing)} of {len(plans)} runs are not done ({names}): run their commands, or "
            "`mdplugin validate` with the same case"
        )
    potentials = {
        label: load_potential(directory / MODELS / f"{label}.pt", case.threads)
        for label in (REFERENCE, *case.labels)
    }
    return _judge_runs(case, structure, potentials, directory, command)


@dataclass(frozen=True)
class Evidence:
    """All that is known of one potential: replicas, what was measured of them, differences on its frames."""

    replicas: list[Replica]
    measurement: Measurement
    shadows: list[Shadow]


def _judge_runs(
    case: Case, structure: Structure, potentials: Mapping[str, Potential], directory: Path, command
) -> Report:
    evidence, unjudged = {}, ()
    asked = find_measurable(case.chosen_observables, structure.atoms.pbc)
    sound = find_measurable(case.sound_observables, structure.atoms.pbc)
    for label in (REFERENCE, *case.labels):
        replicas = load_replicas(case, label, directory)
        chosen = sound if label == REFERENCE else asked
        measurement = measure_replicas(case, structure.atoms, replicas, chosen)
        shadows = evaluate_frames(case, structure.atoms, potentials, label, replicas, measurement, chosen)
        if label == REFERENCE:
            unjudged = require_sound_reference(case, measurement.values, measurement.failures)
        evidence[label] = Evidence(replicas, measurement, shadows)
    # what was named and these atoms do not have is not passed over
    wanted = case.observables or asked
    findings = tuple(
        _gather_findings(case, label, wanted, evidence, potentials, unjudged) for label in case.labels
    )
    report = Report(
        case=case,
        findings=findings,
        verdicts=tuple(judge(each, case.limit_table) for each in findings),
        potentials={label: potential.describe() for label, potential in potentials.items()},
        speeds={label: each.measurement.ms_per_step for label, each in evidence.items()},
        provenance=record_provenance(case, structure, list(command), directory / RUNS),
        directory=directory,
    )
    try:
        write_report(report, evidence)
    except OSError as error:
        raise CaseError(
            f"cannot write {directory}: {error.strerror or error}; make room, the runs are kept"
        ) from error
    return report


def _gather_findings(
    case: Case,
    label: str,
    wanted: tuple[str, ...],
    evidence: Mapping[str, Evidence],
    potentials: Mapping[str, Potential],
    unjudged: tuple[str, ...],
) -> Findings:
    """What the verdict on one candidate needs; `unjudged` says what could not be asked of the reference."""
    candidate, reference = (evidence[each].measurement for each in (label, REFERENCE))
    extra = add_profiles(candidate, reference)
    shifts = estimate_shifts(evidence[label].shadows, reference)
    sides = mark_missing(wanted, {**candidate.values, **extra[0]}, {**reference.values, **extra[1]})
    return Findings(
        label=label,
        candidate=_chosen(sides[0], case),
        reference=sides[1],
        shifts=_chosen(shifts, case),
        failures=candidate.failures,
        replicas=case.replicas,
        notes=(
            *candidate.notes,
            *(f"float64, {note}" for note in reference.notes),
            *unjudged,
            *_note_scope(case, wanted),
        ),
        foreign=_describe_origin(potentials[label], potentials[REFERENCE]),
    )


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


def load_replicas(case: Case, label: str, directory: Path) -> list[Replica]:
    """What the runs of one potential left."""
    replicas, plans = [], [plan for plan in plan_runs(case) if plan.label == label]
    for replica in range(case.replicas):
        series, preparation = {}, None
        for plan in plans:
            if plan.replica == replica:
                series[plan.kind], failure = load_run(directory / RUNS / plan.name, plan)
                preparation = preparation or failure
        replicas.append(
            Replica(series.get("main"), series.get("coarse"), series.get("reversal"), preparation)
        )
    return replicas


def evaluate_frames(
    case: Case,
    atoms: ase.Atoms,
    potentials: Mapping[str, Potential],
    label: str,
    replicas: list[Replica],
    measurement: Measurement,
    chosen: tuple[str, ...],
) -> list[Shadow]:
    """Add what needs the potentials themselves to the measurement's values: shadow and gradient."""
    shadows: list[Shadow] = []
    candidate, reference = (potentials[each].make_calculator() for each in (label, REFERENCE))
    for replica in replicas:
        if replica.failure is not None or replica.main is None:
            continue
        main, indices = replica.main, _spread(len(replica.main.positions), N_FRAMES)
        frames = read_frames(main, atoms, indices)
        if "shadow" in chosen and label != REFERENCE:
            shadow = compare_frames(
                frames,
                main.frame_time_ps[indices],
                candidate,
                reference,
                case.temperature_K,
                with_pressure="pressure" in chosen,
                rdfs=_compute_frame_rdfs(main, atoms, indices)
                if {"rdf", "coordination"} & set(chosen)
                else (),
            )
            shadows.append(shadow)
            _add_values(measurement, measure_shadow(shadow))
        some = [frames[index] for index in _spread(len(frames), N_GRADIENT_FRAMES)]
        if "gradient" in chosen:
            _add_values(measurement, {"gradient": measure_gradient(some, candidate)})
        if "pressure_gradient" in chosen:
            _add_values(measurement, {"pressure_gradient": measure_pressure_gradient(some, candidate)})
    return shadows


def _add_values(measurement: Measurement, values: Mapping[str, Estimate]) -> None:
    for name, estimate in values.items():
        measurement.values.setdefault(name, []).append(estimate)


def _compute_frame_rdfs(series: Series, atoms: ase.Atoms, indices: np.ndarray) -> list[Rdf]:
    """g(r) of single frames, a block each."""
    some = dataclasses.replace(series, positions=series.positions[indices], cells=series.cells[indices])
    return compute_rdfs(some, atoms, n_blocks=len(indices))


def _spread(length: int, number: int) -> np.ndarray:
    return np.unique(np.linspace(0, length - 1, number).round().astype(int))
