"""Frames of the runs -> what needs the potentials themselves: shadows, gradients, what reweighting is made of."""

import dataclasses
from collections.abc import Mapping, Sequence

import ase
import numpy as np
from ase.calculators.calculator import Calculator

from mdplugin.validation.case import Case
from mdplugin.validation.measurement import Measurement, Replica
from mdplugin.validation.observables.gradient import measure_gradient, measure_pressure_gradient
from mdplugin.validation.observables.shadow import Sample, Shadow, compare_frames, evaluate, measure_shadow
from mdplugin.validation.observables.structure import Rdf, compute_rdfs
from mdplugin.validation.series import Series, read_frames
from mdplugin.validation.statistics import Estimate

N_FRAMES = 100  # of each run
N_GRADIENT_FRAMES = 25  # of these: each takes seven energies, and is known to 1e-5 in fp32
AVERAGES = ("rdf", "coordination", "pressure", "density", "volume_fluctuation")  # over configurations


def take_samples(
    case: Case,
    atoms: ase.Atoms,
    replicas: Sequence[Replica],
    chosen: tuple[str, ...],
    reference: Calculator | None,
) -> list[Sample]:
    """N_FRAMES frames of each run that did not fail, with what the `reference` says of them."""
    samples = []
    for replica in replicas:
        if replica.failure is not None or replica.main is None:
            continue
        main, indices = replica.main, _spread(len(replica.main.positions), N_FRAMES)
        frames = read_frames(main, atoms, indices)
        has_rdfs = reference is not None and {"rdf", "coordination"} & set(chosen)
        samples.append(
            Sample(
                frames=frames,
                time_ps=main.frame_time_ps[indices],
                temperature_K=case.temperature_K,
                rdfs=_compute_frame_rdfs(main, atoms, indices) if has_rdfs else (),
                reference=None
                if reference is None
                else evaluate(frames, reference, with_pressure="pressure" in chosen),
            )
        )
    return samples


def evaluate_frames(
    samples: Sequence[Sample],
    candidate: Calculator,
    reference: Calculator | None,
    measurement: Measurement,
    chosen: tuple[str, ...],
) -> list[Shadow]:
    """Add a potential's shadow and gradients on its own `samples` to its values; the `reference` is no candidate's."""
    shadows = []
    for sample in samples:
        if "shadow" in chosen and reference is not None:
            shadows.append(compare_frames(sample, candidate))
            _add_values(measurement, measure_shadow(shadows[-1]))
        some = [sample.frames[index] for index in _spread(len(sample.frames), N_GRADIENT_FRAMES)]
        if "gradient" in chosen:
            _add_values(measurement, {"gradient": measure_gradient(some, candidate, reference)})
        if "pressure_gradient" in chosen:
            _add_values(measurement, {"pressure_gradient": measure_pressure_gradient(some, candidate)})
    return shadows


def has_averages(chosen: Sequence[str]) -> bool:
    """Whether something is chosen that reweighting can decide: then float64's frames are compared too."""
    return "shadow" in chosen and bool(set(AVERAGES) & set(chosen))


def _add_values(measurement: Measurement, values: Mapping[str, Estimate]) -> None:
    for name, estimate in values.items():
        measurement.values.setdefault(name, []).append(estimate)


def _compute_frame_rdfs(series: Series, atoms: ase.Atoms, indices: np.ndarray) -> list[Rdf]:
    """g(r) of single frames, a block each."""
    some = dataclasses.replace(series, positions=series.positions[indices], cells=series.cells[indices])
    return compute_rdfs(some, atoms, n_blocks=len(indices))


def _spread(length: int, number: int) -> np.ndarray:
    return np.unique(np.linspace(0, length - 1, number).round().astype(int))
