"""p-values of a difference against a limit, and how much more data would decide.

With a difference d, its standard error s and a limit D two questions are asked of Student's t distribution:

    fail   is |true difference| > D?   p_fail = P(|t s + D| >= |d|) under |true difference| = D, small if beyond
    pass   is |true difference| < D?   p_pass = P(t s <= |d| - D), small if within (two one-sided tests)

Neither shown means that the runs are too short to tell. Equivalence testing: Schuirmann, J. Pharmacokinet. Biopharm. 15,
657 (1987).
"""

import bisect
import math
from collections.abc import Sequence

import numpy as np
from scipy import special, stats

from mdplugin.validation.limits import Limit
from mdplugin.validation.statistics import Estimate

FACTORS = np.geomspace(1.0, 1e6, 800).tolist()  # more data than there is
SURELY = 1.645  # standard errors beyond a limit
POWER = 0.9  # of each side of a test with the data that are advised: of two sides 0.8


def find_p_values(difference: Estimate, limit: float, *, one_sided: bool) -> tuple[float, float]:
    """(p_fail, p_pass) of a difference; see the head of this file. NaN if the error is not known."""
    value = difference.value if one_sided else abs(difference.value)
    if math.isinf(value):
        return 0.0, 1.0
    if not difference.is_known:
        return math.nan, math.nan
    if difference.error == 0:
        return (1.0, 0.0) if value <= limit else (0.0, 1.0)
    # Student's distribution is special.stdtr
    inside = float(special.stdtr(difference.dof, (value - limit) / difference.error))
    beyond = float(special.stdtr(difference.dof, (limit - value) / difference.error))
    if not one_sided:
        beyond += float(special.stdtr(difference.dof, -(value + limit) / difference.error))
    return min(1.0, beyond), inside


def find_count_p_values(
    candidate: Sequence[Estimate], reference: Sequence[Estimate], allowed: float
) -> tuple[float, float]:
    """(p_fail, p_pass) of counts of rare events, whose scatter in a few runs says nothing.

    The candidate's count is held against a Poisson variable of the reference's rate and `allowed` more per run. The
    reference's rate is as uncertain as its own count makes it: gamma-distributed (Jeffreys' prior), which makes its part
    of the candidate's count negative binomial. Bonds that break together, all those of a molecule or of a defect, are
    counted as one: everything is divided by how many there are in a clump (`find_clump`).
    """
    n, clump = len(candidate), find_clump(candidate, reference)
    mine, theirs = (round(sum(each.value for each in side) / clump) for side in (candidate, reference))

    def p_at_most(count: int) -> float:
        of_background = np.arange(count + 1)
        weights = stats.nbinom.pmf(of_background, theirs + 0.5, 0.5)
        return float(weights @ special.pdtr(count - of_background, n * allowed / clump))

    return max(0.0, 1 - p_at_most(mine - 1)), p_at_most(mine)


def find_clump(candidate: Sequence[Estimate], reference: Sequence[Estimate]) -> float:
    """How many events come at a time, at least 1: the variance of counts between runs over their mean.

    The variance of both sides, about their own means, is given the room that so few runs leave it (the mean of the inverse
    chi-square distribution).
    """
    counts = [np.array([each.value for each in side]) for side in (candidate, reference) if len(side)]
    dof = sum(len(side) - 1 for side in counts)
    mean = sum(float(side.mean()) for side in counts)
    if dof < 1 or not mean > 0:
        return 1.0
    variance = sum(float(((side - side.mean()) ** 2).sum()) for side in counts) / max(dof - 2, 0.25)
    return max(1.0, len(counts) * variance / mean)


def find_factors(
    difference: Estimate, allowed: float, limits: dict[str, Limit], n_p_values: int, *, one_sided: bool
) -> tuple[int | None, int | None]:
    """How many times more (replicas, length) decide in four of five cases; (None, None) if no number will.

    Variances fall with the number of replicas, and with the length of what is measured all along. (The variance of a
    slope falls faster, but only if nothing heats by chance.) Degrees of freedom grow with the replicas; with the length
    they do where errors are those of blocks, but not where they are the scatter of runs: not to be counted on.
    """
    true, error = _guess_true(difference, allowed, one_sided=one_sided), difference.error
    if true is None:
        return None, None

    def is_decided(factor: float, dof: float) -> bool:
        less = error / math.sqrt(factor)
        swing = float(special.stdtrit(dof, POWER)) * less
        _, p_pass = find_p_values(Estimate(true + swing, less, dof), allowed, one_sided=one_sided)
        p_fail, _ = find_p_values(Estimate(true - swing, less, dof), allowed, one_sided=one_sided)
        is_beyond = true - swing > allowed and n_p_values * p_fail < limits["false_alarm"].value
        return p_pass < limits["false_pass"].value or is_beyond

    def find_factor(growth: int) -> int | None:
        """The least of FACTORS that decides; degrees of freedom grow with this power of it."""
        k = bisect.bisect_left(FACTORS, True, key=lambda f: is_decided(f, difference.dof * f**growth))
        return max(2, math.ceil(FACTORS[k])) if k < len(FACTORS) else None

    return find_factor(1), find_factor(0)


def _guess_true(difference: Estimate, allowed: float, *, one_sided: bool) -> float | None:
    """The difference that more data are planned for; None if it is known well, and as large as the limit.

    Within the limit or not surely beyond it: one standard error nearer to zero than what was seen, as far off as noise alone
    is in one of three cases, and no more than half the limit. Beyond: one standard error less too.
    """
    value, error = difference.value if one_sided else abs(difference.value), difference.error
    near = value - error if one_sided else max(0.0, value - error)
    if value - allowed > SURELY * error:
        return near
    if error < allowed / 2:
        if abs(value - allowed) < error:
            return None
        return near if value < allowed else value
    return min(near, allowed / 2 if allowed > 0 else -error / 2)
