"""Frames of one potential -> how far a candidate's averages over configurations are from float64's, without their noise.

A candidate whose forces are the gradient of its energy samples exp(-E / kT) of that energy. On its own frames float64's
average of A is

    <A>_r = <A w> / <w>,   w = exp((E - E_r) / kT)

(Zwanzig, J. Chem. Phys. 22, 1420 (1954); Torrie and Valleau, J. Comput. Phys. 23, 187 (1977)), in npt too, where both
have one volume. The difference <A> - <A>_r comes of one set of frames, whose noise cancels as far as the weights are
even; two sets of independent runs differ by the noise of both, many times as much.

Frames of one potential say nothing of places where it never is: a candidate with a wall that float64 does not have looks
like float64 on its own side of it. So the same is asked of float64's frames with 1 / w, and a test passes only where both
directions pass. What neither of them visits in its runs, no comparison of these runs can tell.

It counts where the forces are shown to be that gradient, the pressure too where there is one (GATES of verdict.py), and
where the weights are even: else few frames would speak for all. It says nothing of dynamics (diffusion, spectra), nor of
the temperature, which has tests of its own.
"""

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from mdplugin.validation.measurement import Measurement
from mdplugin.validation.observables import structure
from mdplugin.validation.observables.shadow import Shadow
from mdplugin.validation.observables.structure import Rdf
from mdplugin.validation.observables.thermal import AMU_PER_A3_IN_G_PER_CM3
from mdplugin.validation.profiles import estimate_distance, find_populated
from mdplugin.validation.statistics import Estimate, estimate_mean_of_few, scale

MIN_EFFECTIVE = 0.5  # of the frames: Kish's (sum w)^2 / sum w^2
N_BLOCKS = 25  # of a run, left out one by one


def weigh_frames(log_weights: np.ndarray) -> np.ndarray | None:
    """(n_frames,) weights of sum 1 from their logarithms; None if they are too uneven."""
    weights = np.exp(log_weights - log_weights.max())
    weights /= weights.sum()
    return weights if 1 / (weights @ weights) >= MIN_EFFECTIVE * len(weights) else None


def estimate_shifts(
    shadows: Sequence[Shadow], reference: Measurement, *, of_reference: bool = False
) -> dict[str, list[Estimate]]:
    """Observable -> candidate less float64, an estimate for each run, or one of a distance of g(r).

    From frames of the candidate's runs or, with `of_reference`, of float64's. Empty if weights are uneven. The windows of
    peaks and shells are those of the `reference`, as in profiles.py.
    """
    if not shadows:
        return {}
    own, sign = (1, -1) if of_reference else (0, 1)
    weights = weigh_frames(sign * np.concatenate([shadow.log_weights for shadow in shadows]))
    if weights is None:
        return {}
    lengths = [len(shadow.log_weights) for shadow in shadows]
    shifts: dict[str, list[Estimate]] = {}
    for pair, rdfs in reference.rdfs.items():
        runs = [shadow.rdfs[pair] for shadow in shadows if pair in shadow.rdfs]
        if len(runs) == len(shadows):
            shifts |= _shift_rdf(pair, runs, rdfs, weights)
    pressure = np.concatenate([shadow.pressure_bar for shadow in shadows])
    volume = np.concatenate([shadow.volume_A3 for shadow in shadows])
    mass = AMU_PER_A3_IN_G_PER_CM3 * shadows[0].mass_amu
    ideal = np.concatenate([shadow.ideal_bar for shadow in shadows])
    of_frames = {
        "pressure": lambda even, weights: (
            even @ (pressure[:, own] + ideal) - weights @ (pressure[:, 1 - own] + ideal)
        ),
        "density": lambda even, weights: (even - weights) @ (mass / volume),
        "volume_fluctuation": lambda even, weights: _fluctuate(even, volume) - _fluctuate(weights, volume),
    }
    for name, shift in of_frames.items():
        if name in reference.values:
            shifts[name] = [estimate for (estimate,) in _jackknife(shift, weights, lengths)]
    return {
        name: estimates if name.startswith("rdf ") else [scale(each, sign) for each in estimates]
        for name, estimates in shifts.items()
    }


def _shift_rdf(
    pair: str, runs: Sequence[Rdf], of_reference: Sequence[Rdf], weights: np.ndarray
) -> dict[str, list[Estimate]]:
    """The shifts of g(r), of its first peak and its shell; `runs` have a block for each frame."""
    cut = structure.cut_to_common_range([*of_reference, *runs])
    own, runs = cut[: len(of_reference)], cut[len(of_reference) :]
    mean, lengths = np.mean([rdf.mean for rdf in own], axis=0), [len(run.g) for run in runs]
    apart = _leave_out_runs([run.g for run in runs], np.split(weights, np.cumsum(lengths)[:-1]))
    apart = apart[:, find_populated(mean[None], np.array([run.mean for run in runs]))]
    found = {f"rdf {pair}": [estimate_distance(apart, np.zeros_like(apart))]}
    if (shell := structure.find_shell(own[0].r, mean)) is None:
        return found
    r = own[0].r
    g, counts, centres = (
        np.concatenate([getattr(run, name) for run in runs]) for name in ("g", "counts", "centres")
    )

    def shift_shell(even: np.ndarray, weights: np.ndarray) -> np.ndarray:
        plain, other = (
            structure.describe_shell(r, each @ g, each @ counts, each @ centres, shell)
            for each in (even, weights)
        )
        return plain - other

    of_runs = _jackknife(shift_shell, weights, lengths)
    for name, estimates in zip(structure.SHELL_NUMBERS, zip(*of_runs, strict=True), strict=True):
        found[f"{name} {pair}"] = list(estimates)
    return found


def _leave_out_runs(profiles: Sequence[np.ndarray], weights: Sequence[np.ndarray]) -> np.ndarray:
    """(n_runs, n_bins) pseudovalues of the mean of profiles less their weighted mean.

    Args:
        profiles: (n_frames, n_bins) of each run. weights: (n_frames,) of each, of sum 1 over all runs: within a run of few
            correlation times they would say little of how its frames differ from those of the others.
    """
    frames, sums = [len(each) for each in weights], [each.sum() for each in weights]
    even = np.array([each.sum(axis=0) for each in profiles])
    uneven = np.array([part @ each for part, each in zip(weights, profiles, strict=True)])

    def shift(kept: np.ndarray) -> np.ndarray:
        return kept @ even / (kept @ frames) - kept @ uneven / (kept @ sums)

    n = len(profiles)
    without = np.array([shift(kept) for kept in 1.0 - np.eye(n)]) if n > 1 else 0.0
    return n * shift(np.ones(n)) - (n - 1) * without


def _jackknife(
    shift: Callable[[np.ndarray, np.ndarray], np.ndarray | float],
    weights: np.ndarray,
    lengths: Sequence[int],
) -> list[list[Estimate]]:
    """Of each run the estimates of a `shift` (one number or several) of even weights (n_frames,) and of these.

    Its runs have so many frames. The pseudovalues of all frames without one of N_BLOCKS blocks of a run (Efron and Stein,
    Ann. Stat. 9, 586 (1981)) are taken as a few correlated samples: a peak is sought in the mean of all runs.
    """
    edges = np.cumsum([0, *lengths])
    blocks = [
        np.array_split(np.arange(start, end), min(N_BLOCKS, end - start))
        for start, end in itertools.pairwise(edges)
    ]
    n_blocks = sum(map(len, blocks))

    def leave_out(block: np.ndarray) -> np.ndarray:
        kept = np.ones(len(weights))
        kept[block] = 0
        return np.atleast_1d(shift(kept / kept.sum(), kept * weights / (kept @ weights)))

    whole = leave_out(np.arange(0))
    estimates = []
    for of_run in blocks:
        values = n_blocks * whole - (n_blocks - 1) * np.array([leave_out(block) for block in of_run])
        estimates.append([estimate_mean_of_few(column) for column in values.T])
    return estimates


def _fluctuate(weights: np.ndarray, values: np.ndarray) -> float:
    """Standard deviation of values (n,) under weights (n,) of sum 1."""
    return float(np.sqrt(weights @ (values - weights @ values) ** 2))
