"""Profiles of candidate and reference (g(r), spectra) -> estimates that can be compared.

A distance of a noisy profile from another is never zero. Each run is therefore compared with the mean of the other
replicas of the reference, candidate and reference runs alike; what the candidate's distances exceed the reference's by
is no noise.
"""

import numpy as np

from mdplugin.validation.measurement import Measurement
from mdplugin.validation.observables import motion, structure
from mdplugin.validation.statistics import Estimate

R_MIN_G = 1e-3  # where the reference's g is below, so near is nobody


def add_profiles(candidate: Measurement, reference: Measurement) -> tuple[dict, dict]:
    """Estimates per replica from the profiles, as (candidate's, reference's) dicts of lists by observable."""
    sides = ({}, {})
    for pair, own in reference.rdfs.items():
        others = candidate.rdfs.get(pair, [])
        mean = np.mean([rdf.mean for rdf in own], axis=0)
        shell = structure.find_shell(own[0].r, mean)
        for values, rdfs in zip(sides, (others, own), strict=True):
            distances = _distances([rdf.mean for rdf in rdfs], [rdf.mean for rdf in own], _rms_where(mean))
            values[f"rdf {pair}"] = [Estimate(distance, np.nan, 1) for distance in distances]
            if shell is None:
                continue
            for rdf in rdfs:
                for name, estimate in structure.measure_shell(rdf, shell).items():
                    values.setdefault(f"{name} {pair}", []).append(estimate)
    if reference.spectra and candidate.spectra:
        _add_spectra(sides, candidate, reference)
    return sides


def _add_spectra(sides: tuple[dict, dict], candidate: Measurement, reference: Measurement) -> None:
    frequency = reference.frequency_per_cm
    means = [spectra.mean(axis=0) for spectra in reference.spectra]
    band = motion.find_highest_band(np.mean(means, axis=0))
    spacing = frequency[1] - frequency[0]
    for values, measurement in zip(sides, (candidate, reference), strict=True):
        own = [spectra.mean(axis=0) for spectra in measurement.spectra]
        distances = _distances(own, means, lambda difference: 0.5 * np.abs(difference).sum() * spacing)
        values["vdos_overlap"] = [Estimate(distance, np.nan, 1) for distance in distances]
        values["vdos_shift"] = [
            motion.measure_band(spectra, frequency, band) for spectra in measurement.spectra
        ]


def _rms_where(mean: np.ndarray):
    inside = mean > R_MIN_G

    def rms(difference: np.ndarray) -> float:
        return float(np.sqrt(np.mean(difference[inside] ** 2))) if inside.any() else 0.0

    return rms


def _distances(profiles: list[np.ndarray], reference: list[np.ndarray], norm) -> list[float]:
    """Norm of each profile less the mean of the reference's other replicas (those of another number)."""
    distances = []
    for index, profile in enumerate(profiles):
        others = [each for other, each in enumerate(reference) if other != index % max(1, len(reference))]
        distances.append(float(norm(profile - np.mean(others or reference, axis=0))))
    return distances
