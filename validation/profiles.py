"""Profiles of candidate and reference (g(r), spectra) -> distances with errors, and peaks in a common window.

The distance of two noisy profiles is never zero. With the means c and r of n_c and n_r independent runs, whose scatter
is s_c and s_r,

    D^2 = |c - r|^2 - s_c^2 / n_c - s_r^2 / n_r

has the true squared distance as its mean (the last terms are what noise adds). Its standard error is the jackknife's
over all runs (Efron and Stein, Ann. Stat. 9, 586 (1981)). Blocks of a run are no such units: what differs between runs
they share.
"""

import math
from collections.abc import Iterator, Mapping

import numpy as np

from mdplugin.validation.measurement import Measurement
from mdplugin.validation.observables import motion, structure
from mdplugin.validation.statistics import UNKNOWN, Estimate, subtract, take_one

MIN_G = 1e-3  # where g is below with both potentials, so near is nobody


def add_profiles(candidate: Measurement, reference: Measurement) -> tuple[dict, dict]:
    """Estimates from the profiles, as (candidate's, reference's) dicts of lists by observable.

    Distances of the two sides stand on the candidate's, once; on the reference's the distance of each of its runs from
    the others' mean, the band of float64. Peaks and shells are on both, per replica.
    """
    sides = ({}, {})
    for pair, of_reference in reference.rdfs.items():
        if not (of_candidate := candidate.rdfs.get(pair, [])):
            continue
        cut = structure.cut_to_common_range([*of_reference, *of_candidate])
        own, others = cut[: len(of_reference)], cut[len(of_reference) :]
        mean = np.mean([rdf.mean for rdf in own], axis=0)
        runs = [np.array([rdf.mean for rdf in rdfs]) for rdfs in (others, own)]
        inside = find_populated(*runs)
        runs = [each[:, inside] for each in runs]
        sides[0][f"rdf {pair}"] = [estimate_distance(*runs)]
        sides[1][f"rdf {pair}"] = measure_own_distances(runs[1])
        if (shell := structure.find_shell(own[0].r, mean)) is None:
            continue
        for values, rdfs in zip(sides, (others, own), strict=True):
            for rdf in rdfs:
                for name, estimate in structure.measure_shell(rdf, shell).items():
                    values.setdefault(f"{name} {pair}", []).append(estimate)
    if reference.spectra and candidate.spectra:
        _add_spectra(sides, candidate, reference)
    return sides


def find_populated(*profiles: np.ndarray) -> np.ndarray:
    """(n_bins,) where g (n_runs, n_bins) of one of the potentials, or both, says that there are pairs."""
    return np.any([each.mean(axis=0) > MIN_G for each in profiles], axis=0)


def _add_spectra(sides: tuple[dict, dict], candidate: Measurement, reference: Measurement) -> None:
    frequency = reference.frequency_per_cm
    runs = [np.array([each.mean(axis=0) for each in side.spectra]) for side in (candidate, reference)]
    size = math.sqrt(float(np.mean(runs[1].mean(axis=0) ** 2)))
    sides[0]["vdos_distance"] = [estimate_distance(runs[0] / size, runs[1] / size)]
    sides[1]["vdos_distance"] = measure_own_distances(runs[1] / size)
    band = motion.find_common_band(*(each.mean(axis=0) for each in runs), frequency)
    for values, measurement in zip(sides, (candidate, reference), strict=True):
        values["vdos_shift"] = [
            motion.measure_band(windows, frequency, band) for windows in measurement.spectra
        ]


RDF_COLUMNS = ("potential", "replica", "pair", "r_A", "g", "pairs", "centres")


def list_rdfs(measurements: Mapping[str, Measurement]) -> Iterator[tuple]:
    """Rows for RDF_COLUMNS: of each run and bin g(r), the raw number of ordered pairs, and of the atoms around which."""
    for label, measurement in measurements.items():
        for pair, rdfs in measurement.rdfs.items():
            for replica, rdf in enumerate(rdfs):
                counts, centres = rdf.counts.sum(axis=0), int(rdf.centres.sum())
                for r, g, pairs in zip(rdf.r, rdf.mean, counts, strict=True):
                    yield label, replica, pair, f"{r:.3f}", f"{g:.6g}", int(pairs), centres


def measure_own_distances(runs: np.ndarray) -> list[Estimate]:
    """Rms distance of each of the runs (n_runs, n_points) from the mean of the others, noise and all."""
    n = len(runs)
    if n < 2:
        return []
    apart = n / (n - 1) * (runs - runs.mean(axis=0))
    return [take_one(value) for value in np.sqrt((apart**2).mean(axis=1))]


DISPLACEMENT_COLUMNS = ("potential", "replica", "element", "lag_ps", "msd_A2")


def list_displacements(measurements: Mapping[str, Measurement]) -> Iterator[tuple]:
    """Rows for DISPLACEMENT_COLUMNS: of each run and lag the mean squared displacement."""
    for label, measurement in measurements.items():
        for symbol, runs in measurement.displacements.items():
            for replica, run in enumerate(runs):
                for lag, square in zip(run.lag_ps, run.square_A2.mean(axis=0), strict=True):
                    yield label, replica, symbol, f"{lag:.6g}", f"{square:.6g}"


def estimate_distance(first: np.ndarray, second: np.ndarray) -> Estimate:
    """Rms distance of two mean profiles, (n_runs, n_points) each, less what their noise contributes; UNKNOWN below 3 runs.

    Below zero it is zero. With s the error of D^2 that of D is s / 2D to first order; where noise is as large as the
    distance the first order ends, and D^2 = s has D = sqrt(s). Degrees of freedom are Welch's and Satterthwaite's, of the
    two sides' parts in s^2.
    """
    if len(first) < 3 or len(second) < 3:
        return UNKNOWN
    square, parts = _squared_distance(first, second), []
    for side, other in ((first, second), (second, first)):
        n = len(side)
        left_out = [_squared_distance(np.delete(side, index, axis=0), other) for index in range(n)]
        parts.append(Estimate(0.0, math.sqrt((n - 1) * float(np.var(left_out))), n - 1))
    spread = subtract(*parts)
    distance = math.sqrt(max(square, 0.0))
    error = spread.error / max(2 * distance, math.sqrt(spread.error)) if spread.error > 0 else 0.0
    return Estimate(distance, error, spread.dof)


def _squared_distance(first: np.ndarray, second: np.ndarray) -> float:
    noise = sum(float(side.var(axis=0, ddof=1).mean()) / len(side) for side in (first, second))
    return float(((first.mean(axis=0) - second.mean(axis=0)) ** 2).mean()) - noise
