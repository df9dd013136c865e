"""Every limit of a verdict, with its unit, reason and source: the one place to look them up or argue.

A case may change a limit by name (`limits:` in its YAML); the report then shows the case's number.
"""

import dataclasses
import math
from dataclasses import dataclass

from mdplugin.errors import CaseError


@dataclass(frozen=True)
class Limit:
    """A number that decides a verdict, and why it is this number."""

    name: str
    value: float
    unit: str
    reason: str


_TABLE = (
    Limit(
        "false_alarm",
        0.01,
        "",
        "probability that a sound candidate fails a case by chance: p-values are corrected for the number of tests "
        "(Benjamini and Hochberg, which keeps the family-wise rate when nothing is wrong)",
    ),
    Limit(
        "false_pass",
        0.05,
        "",
        "probability that a candidate whose true difference is at a limit passes: two one-sided tests "
        "(Schuirmann 1987); all observables must pass, which needs no correction (intersection-union test)",
    ),
    Limit(
        "each_run",
        0.05,
        "",
        "level at which every run must exceed a limit by itself before runs whose scatter leaves their mean uncertain fail "
        "together (comparison.py), three or more, all to one side; runs without a drift do so in 3 % if they scatter twice "
        "as much as their errors say, in 6 % if three times",
    ),
    Limit(
        "blamed",
        0.001,
        "",
        "probability that a sound reference fails the case by chance, each of its tests: only what is plain is refused, "
        "since nothing is said of the candidates then",
    ),
    Limit(
        "explosion_K",
        10_000.0,
        "K",
        "no system held together by bonds is this hot: it flies apart (mlipaudit, stability)",
    ),
    Limit(
        "drift_meV_per_atom_per_ps",
        0.01,
        "meV/atom/ps",
        "heats by 0.04 K/ps at 3 kB per atom, 4 K in 100 ps: a fifth of what GROMACS accepts from its neighbour "
        "list by default (verlet-buffer-tolerance 0.005 kJ/mol/ps per atom)",
    ),
    Limit(
        "drift_ratio",
        1.0,
        "",
        "|drift| x length / std(E_kin): over the run the total energy moves less than the kinetic energy fluctuates "
        "(mlipaudit, NVE)",
    ),
    Limit(
        "fluctuation_factor",
        math.sqrt(2),
        "",
        "the fluctuation of E is the integrator's own error on a given surface; noise of the same size, added in "
        "quadrature, makes it sqrt(2) times larger",
    ),
    Limit(
        "fluctuation_floor_meV_per_atom",
        0.01,
        "meV/atom",
        "0.0004 kT at 300 K: below it a fluctuation of E changes no observable",
    ),
    Limit(
        "timestep_exponent",
        0.5,
        "",
        "the fluctuation of velocity Verlet goes as dt^2 (Hairer, Lubich, Wanner, Acta Numerica 2003), that of force "
        "noise as dt^(1/2): an exponent further than 0.5 from the reference's is no integrator's",
    ),
    Limit(
        "reversal_A",
        1e-3,
        "Å",
        "forces that depend on positions alone lead back to the start: 1e-3 Å is 4 % of the thermal amplitude of an "
        "O-H bond at 300 K (0.023 Å); white force noise of 1 meV/Å misses by 3e-3 Å after 100 fs",
    ),
    Limit(
        "momentum_ratio",
        0.1,
        "",
        "|P| / sqrt(3 M kT): the motion of the whole holds less than 1 % of the heat of one particle",
    ),
    Limit(
        "angular_momentum_ratio",
        0.1,
        "",
        "change of |L| / sqrt(kT sum m r^2): half a percent of the mean L^2 of a molecule that rotates freely in vacuum",
    ),
    Limit(
        "gradient",
        5e-4,
        "",
        "forces are the gradient of the energy that is reported, along them and along what they differ by from float64's: "
        "a ratio of 1.0005 makes the total energy swing by 0.05 % of the potential energy's swing, the size of a sound "
        "integrator's error",
    ),
    Limit(
        "force_rmse_meV_per_A",
        10.0,
        "meV/Å",
        "precision must not be the largest error: a fifth of the 55 and 76 meV/Å that the bundled water and 3BPA "
        "potentials miss DFT by, in quadrature 2 % more; set it for a better potential",
    ),
    Limit(
        "force_slope",
        0.005,
        "",
        "regression of forces on the reference's: 0.5 % softer bonds shift a frequency by 0.25 %, an O-H stretch by "
        "9 cm^-1, less than the 15 by which velocity Verlet itself does (vdos_shift)",
    ),
    Limit(
        "shadow_energy",
        0.1,
        "",
        "std of the energy difference dE along the trajectory, over sqrt(N) kT, which does not depend on the number of "
        "atoms: an average moves by at most std(dE) / kT of its own thermal spread (Zwanzig 1954, Cauchy and Schwarz), "
        "one per atom by a tenth",
    ),
    Limit(
        "temperature",
        0.02,
        "",
        "2 % are 6 K at 300 K: below the 10 K that the limits of the structure allow for",
    ),
    Limit(
        "kinetic_variance",
        0.5,
        "",
        "half of the canonical variance: a weak-coupling (Berendsen) thermostat with a short time constant lacks more; "
        "finer faults are the chi-square test's",
    ),
    Limit(
        "peak_factor",
        1.2,
        "",
        "amplitudes go as the root of the temperature: in a moment a fifth hotter than float64's hottest an O-H bond "
        "stretches 0.003 Å further; shows bursts of 0.7 kT per atom in 192 atoms and of 1 kT in 64, which the mean over the "
        "run hides",
    ),
    Limit(
        "rdf_rms",
        0.03,
        "",
        "what 10 K do: rms change of g_OO of water between 284.5, 295.1 and 307 K, 2.4 to 6.2 Å, 0.030 each (x-rays: "
        "Skinner, Benmore et al., J. Chem. Phys. 141, 214507 (2014))",
    ),
    Limit(
        "rdf_peak_height",
        0.03,
        "of g",
        "what 10 K do: g_OO's peak falls from 2.67 to 2.57 to 2.51 at 284.5, 295.1, 307 K (Skinner et al. 2014)",
    ),
    Limit(
        "rdf_peak_position_A",
        0.01,
        "Å",
        "the bins in which g_OO of water was measured; from 254 to 366 K its peak moves by 0.03 Å (Skinner et al. 2014)",
    ),
    Limit(
        "coordination",
        0.01,
        "of n",
        "what 30 K do: neighbours within 3.44 Å in water, 4.82 at 284.5 K, 4.85 at 307 K (Skinner et al. 2014); "
        "the 0.3 % of 10 K would take nanoseconds",
    ),
    Limit("coordination_floor", 0.02, "", "one neighbour more or less in 50 shells that are all but empty"),
    Limit(
        "diffusion",
        0.25,
        "of D",
        "what 10 K do: D of water is 2.30 at 298 K, 2.91 at 308 K, 1e-9 m^2/s (Holz, Heil, Sacco, Phys. Chem. Chem. "
        "Phys. 2, 4740 (2000))",
    ),
    Limit(
        "diffusion_floor",
        0.05,
        "1e-9 m²/s",
        "atoms that diffuse so little move by 0.55 Å (rms) in 10 ps, as far as they vibrate: no liquid; a case of a solid "
        "conductor needs its own",
    ),
    Limit(
        "vdos_shift",
        0.0043,
        "of the frequency",
        "mean frequency of the highest band: as much as velocity Verlet itself shifts an O-H stretch of 3400 cm^-1 in "
        "steps of 0.5 fs, by 15 cm^-1, (w dt)^2 / 24 (Hairer, Lubich, Wanner, Acta Numerica 2003)",
    ),
    Limit(
        "vdos_distance",
        0.3,
        "",
        "rms difference of the normalised spectra over the rms of the reference's: lines of 50 cm^-1 (the resolution), as "
        "of a molecule, that are 9 cm^-1 apart differ by as much; broad bands differ so in shape, their shifts are "
        "vdos_shift's",
    ),
    Limit(
        "density",
        0.012,
        "of rho",
        "what 30 K do: water has 0.9966 g/cm^3 at 300 K, 0.9848 at 330 K (Kell, J. Chem. Eng. Data 20, 97 (1975)); the "
        "0.3 % of 10 K would take nanoseconds",
    ),
    Limit(
        "pressure_bar",
        270.0,
        "bar",
        "what holds water at a density that is off by that one's limit of 1.2 % (compressibility 4.5e-5 per bar at 300 K: "
        "Kell 1975)",
    ),
    Limit(
        "pressure_gradient_bar",
        27.0,
        "bar",
        "a tenth of pressure_bar: the pressure that is reported, and that a barostat holds, is the one that the energy "
        "has; a stress over a wrong volume, or with pairs left out, misses by hundreds of bar in a liquid",
    ),
    Limit(
        "volume_fluctuation",
        0.5,
        "of std(V)",
        "a factor of 1.5 in std(V), of 2.25 in the compressibility: as water and ethanol differ (4.6e-5 and 1.1e-4 per "
        "bar at 293 K: CRC Handbook); finer differences show in density and pressure",
    ),
    Limit(
        "bonds_share",
        0.1,
        "of the bonds",
        "a structure of which float64 itself changes a tenth of the bonds at a time is another substance, of which the "
        "candidate's bonds say nothing; asked of the reference alone",
    ),
    Limit(
        "volume_trend",
        0.2,
        "of V",
        "a box that swells or shrinks by a fifth during the runs is on its way to another phase, not in equilibrium: from "
        "277 to 373 K water swells by 4 % (Kell 1975); asked of the reference alone",
    ),
    Limit(
        "bonds_changed",
        1.0,
        "",
        "bonds of the given structure broken (longer than 1.5 times the covalent radii) or new ones formed (shorter "
        "than 1.1 times, or than 0.43 times the van der Waals radii: hydrogens at 1 Å) in the worst frame of a run, beyond "
        "float64's: another bond is another molecule, so fewer than one per run; three runs without any show that at 5 % "
        "(exp(-3)) of bonds that change one by one",
    ),
    Limit(
        "minimum_distance_A",
        0.1,
        "Å",
        "how much closer than in float64 two atoms come, bonded or not (`bonds` counts those that are not and fall "
        "together): four thermal amplitudes of an O-H bond at 300 K (0.023 Å)",
    ),
)
LIMITS = {limit.name: limit for limit in _TABLE}

# What is measured against these limits is defined by numbers of its own, which no case changes.
# A bond, times the sum of the covalent radii: bonded below the first when the run starts, broken above the second, formed
# below the third; the gaps keep vibrations out.
BONDED, BROKEN, FORMED = 1.2, 1.5, 1.1
# Atoms of two molecules that fell together, times the sum of the van der Waals radii: H-H 1.03 Å, O-H 1.17, below the
# O-H of hydrogen bonds.
FUSED = 0.43
# Level of the F test that replicas scatter no more than their own errors say; at 5 % three replicas too often pool what
# they should not, so that 95 % intervals of random walks cover 87 % (Bancroft, Biometrics 20, 427 (1964), has 25 %: 92 %).
POOLING_LEVEL = 0.25

FACTORS = ("fluctuation_factor", "peak_factor")  # times float64's own
LEVELS, MAX_LEVEL = ("false_alarm", "false_pass", "each_run", "blamed"), 0.1


def tighten_levels(table: dict[str, Limit], look: int) -> dict[str, Limit]:
    """The table for the `look`-th look at runs that grow: levels of fail and pass are halved with each after the first.

    Then all looks together, however many, err at most twice as often as the first alone (Bonferroni: 1 + 1/2 + 1/4 ...).
    """
    tightened = dict(table)
    for name in ("false_alarm", "false_pass"):
        old = table[name]
        tightened[name] = dataclasses.replace(old, value=old.value / 2 ** (look - 1))
    return tightened


def set_limits(changes: dict[str, float]) -> dict[str, Limit]:
    """The table with a case's own numbers.

    Raises:
        CaseError: a name that is no limit, or a number that cannot be one.
    """
    table = dict(LIMITS)
    for name, value in changes.items():
        if name not in table:
            raise CaseError(f"limits: expected one of {', '.join(LIMITS)}, got '{name}'")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise CaseError(f"limits: {name}: expected a number of zero or more, got {value!r}")
        if name in FACTORS and value < 1:
            raise CaseError(
                f"limits: {name}: expected a factor of 1 or more, got {value!r}: float64 itself would fail below"
            )
        if name in LEVELS and not 0 < value <= MAX_LEVEL:
            raise CaseError(
                f"limits: {name}: expected a probability above 0, at most {MAX_LEVEL:g}, got {value!r}: a verdict at "
                "another level says nothing"
            )
        old = table[name]
        table[name] = Limit(
            name, float(value), old.unit, f"set by the case (default {old.value:g}: {old.reason})"
        )
    return table
