"""Runs -> what is known of each potential: its replicas, their observables, and what float64 says of their frames."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import ase
from ase.calculators.calculator import Calculator

from mdplugin.validation.case import LATER_SIGNS, REFERENCE, SOUNDNESS, Case
from mdplugin.validation.chain import load_run
from mdplugin.validation.criteria import find_measurable
from mdplugin.validation.frames import evaluate_frames, has_averages, take_samples
from mdplugin.validation.measurement import Measurement, Replica, measure_replicas
from mdplugin.validation.observables.shadow import Shadow, compare_frames
from mdplugin.validation.plan import plan_runs
from mdplugin.validation.potential import Potential
from mdplugin.validation.progress import track_potentials
from mdplugin.validation.systems import Structure
from mdplugin.validation.verdict import require_sound_reference
from mdplugin.validation.workspace import RUNS


@dataclass(frozen=True)
class Evidence:
    """All that is known of one potential.

    Attributes:
        replicas: its runs. measurement: of these.
        shadows: a candidate against float64 on frames of its own runs, reverse: on those of float64's, of each replica.
    """

    replicas: list[Replica]
    measurement: Measurement
    shadows: Sequence[Shadow] = ()
    reverse: Sequence[Shadow] = ()


def gather_evidence(
    case: Case,
    structure: Structure,
    potentials: Mapping[str, Potential],
    directory: Path,
    asked: tuple[str, ...],
    evidence: dict[str, Evidence],
    quiet: bool,
) -> tuple[str, ...]:
    """Fill in what is known of each potential, the reference first; what that could not be judged by.

    Raises:
        UnsoundReferenceError: the reference is not sound; nothing is known of the candidates then.
    """
    atoms, reference = structure.atoms, potentials[REFERENCE].make_calculator()
    sound = find_measurable(case.sound_observables, atoms.pbc)
    evidence[REFERENCE] = own = measure_runs(case, atoms, REFERENCE, directory, sound)
    common = take_samples(case, atoms, own.replicas, asked, reference if has_averages(asked) else None)
    evaluate_frames(common, reference, None, own.measurement, sound)
    unjudged = require_sound_reference(case, own.measurement.values, own.measurement.failures)
    for label in track_potentials(case.labels, quiet):
        candidate = potentials[label].make_calculator()
        reverse = [compare_frames(each, candidate) for each in common] if has_averages(asked) else []
        own = measure_candidate(case, atoms, label, candidate, reference, directory, asked)
        evidence[label] = dataclasses.replace(own, reverse=reverse)
    return unjudged


def list_early_signs(case: Case, atoms: ase.Atoms) -> tuple[str, ...]:
    """What the reference is judged by that its main runs alone show."""
    return tuple(
        name
        for name in find_measurable(case.sound_observables, atoms.pbc)
        if name in SOUNDNESS and name not in LATER_SIGNS
    )


def measure_runs(
    case: Case, atoms: ase.Atoms, label: str, directory: Path, chosen: tuple[str, ...]
) -> Evidence:
    """What the runs of one potential say, without any evaluation of their frames."""
    replicas = load_replicas(case, label, directory)
    return Evidence(replicas, measure_replicas(case, atoms, replicas, chosen))


def measure_candidate(
    case: Case,
    atoms: ase.Atoms,
    label: str,
    candidate: Calculator,
    reference: Calculator,
    directory: Path,
    asked: tuple[str, ...],
) -> Evidence:
    """What a candidate's own runs say of it; of float64 only their frames are evaluated."""
    own = measure_runs(case, atoms, label, directory, asked)
    samples = take_samples(case, atoms, own.replicas, asked, reference if "shadow" in asked else None)
    shadows = evaluate_frames(samples, candidate, reference, own.measurement, asked)
    return dataclasses.replace(own, shadows=shadows)


def load_replicas(case: Case, label: str, directory: Path) -> list[Replica]:
    """What the runs of one potential left; what is not there yet is None."""
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
