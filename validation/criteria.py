"""What is asked of each observable: which comparison, which limit, which unit."""

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mdplugin.validation.limits import LEVELS


class Kind(enum.StrEnum):
    """How a candidate's estimate becomes a difference with a limit."""

    DIFFERENCE = "difference"  # |candidate - reference| <= limit
    RELATIVE = "relative"  # |log candidate - log reference| <= log(1 + limit); |difference| <= floor where that is more
    DEVIATION = "deviation"  # |candidate - target| <= limit
    BOUND = "bound"  # candidate <= limit
    MAGNITUDE = "magnitude"  # log candidate <= log limit; what scatters by orders has no error bar but that of replicas
    COUNT = "count"  # of events in a run: candidate's rate - reference's <= limit
    DEFICIT = "deficit"  # reference - candidate <= limit
    RATIO = "ratio"  # candidate <= limit times the reference, or the floor


@dataclass(frozen=True)
class Criterion:
    """How an observable is judged.

    Attributes:
        kind: of comparison.
        limit: name in limits.py. floor: name of the limit, in the observable's unit, below which nothing matters, for
            RATIO and RELATIVE.
        title: for people. unit: of the observable.
        target: for DEVIATION, and for the judgement of the float64 runs by themselves.
        grows: whether longer runs say more: not where so many steps or frames are taken of a run of any length.
        needs: what an error bar takes, of runs that are too short for one.
        by_each_run: whether runs that all exceed the limit fail by that, whatever their scatter: the limit holds for every
            run, and a run's own fluctuations tell its error.
        is_distance: whether the candidate's number is its distance from float64, and float64's are those of its runs from
            each other's mean.
        is_paired: whether replicas are compared in pairs: where it is measured, runs of one start have not parted.
    """

    kind: Kind
    limit: str
    title: str
    unit: str = ""
    floor: str = ""
    target: float = 0.0
    grows: bool = True
    needs: str = "more replicas, longer runs"
    by_each_run: bool = False
    is_distance: bool = False
    is_paired: bool = False

    @property
    def is_one_sided(self) -> bool:
        """Whether less, as far as it may be, is as good."""
        return self.kind in (Kind.BOUND, Kind.MAGNITUDE, Kind.COUNT, Kind.DEFICIT, Kind.RATIO)


_NEEDS_RUNS = "three replicas or more, longer runs"
_DRIFT = "drift_meV_per_atom_per_ps"
CRITERIA = {
    "energy_drift": Criterion(
        Kind.DIFFERENCE, _DRIFT, "drift of the conserved energy", "meV/atom/ps", by_each_run=True
    ),
    "drift_ratio": Criterion(
        Kind.DEVIATION, "drift_ratio", "drift against thermal fluctuation", by_each_run=True
    ),
    "energy_fluctuation": Criterion(
        Kind.RATIO, "fluctuation_factor", "fluctuation of the total energy", "meV/atom",
        floor="fluctuation_floor_meV_per_atom", grows=False, is_paired=True,
    ),
    "timestep_exponent": Criterion(
        Kind.DIFFERENCE, "timestep_exponent", "exponent of the fluctuation with dt", target=2.0, grows=False,
        by_each_run=True, is_paired=True,
    ),
    "momentum": Criterion(Kind.MAGNITUDE, "momentum_ratio", "change of the momentum", grows=False),
    "angular_momentum": Criterion(
        Kind.MAGNITUDE, "angular_momentum_ratio", "change of the angular momentum", grows=False
    ),
    "reversal": Criterion(Kind.MAGNITUDE, "reversal_A", "error of time reversal", "Å", grows=False),
    "gradient": Criterion(
        Kind.DEVIATION, "gradient", "forces over energy gradient", target=1.0, grows=False, by_each_run=True
    ),
    "force_rmse": Criterion(Kind.BOUND, "force_rmse_meV_per_A", "force error (rms)", "meV/Å", grows=False),
    "force_slope": Criterion(Kind.DEVIATION, "force_slope", "force regression slope", target=1.0, grows=False),
    "shadow_energy": Criterion(
        Kind.BOUND, "shadow_energy", "energy difference on its own frames, std over sqrt(N) kT", grows=False
    ),
    "shadow_trend": Criterion(
        Kind.DEVIATION, _DRIFT, "trend of the energy difference", "meV/atom/ps"
    ),
    "temperature": Criterion(Kind.DEVIATION, "temperature", "temperature over the thermostat's", target=1.0),
    "kinetic_distribution": Criterion(
        Kind.DEVIATION, "kinetic_variance", "variance of the kinetic energy over canonical", target=1.0
    ),
    "peak_temperature": Criterion(Kind.RATIO, "peak_factor", "highest temperature of a run", "K", grows=False),
    "rdf": Criterion(Kind.BOUND, "rdf_rms", "g(r), rms distance from float64", needs=_NEEDS_RUNS, is_distance=True),
    "rdf_peak_height": Criterion(Kind.RELATIVE, "rdf_peak_height", "g(r), first peak's height"),
    "rdf_peak_position": Criterion(Kind.DIFFERENCE, "rdf_peak_position_A", "g(r), first peak's position", "Å"),
    "coordination": Criterion(Kind.RELATIVE, "coordination", "coordination number", floor="coordination_floor"),
    "diffusion": Criterion(
        Kind.RELATIVE, "diffusion", "diffusion coefficient", "1e-9 m²/s", floor="diffusion_floor",
        needs="runs of 5 ps or more, with several frames between 1 and 2.5 ps",
    ),
    "vdos_distance": Criterion(
        Kind.BOUND, "vdos_distance", "vibrational spectrum, distance from float64", needs=_NEEDS_RUNS, is_distance=True
    ),
    "vdos_shift": Criterion(Kind.RELATIVE, "vdos_shift", "highest vibrational band, mean", "cm⁻¹"),
    "pressure_gradient": Criterion(
        Kind.DEVIATION, "pressure_gradient_bar", "pressure less the energy's own change with volume", "bar", grows=False
    ),
    "density": Criterion(Kind.RELATIVE, "density", "density", "g/cm³"),
    "pressure": Criterion(Kind.DIFFERENCE, "pressure_bar", "pressure", "bar"),
    "volume_fluctuation": Criterion(Kind.RELATIVE, "volume_fluctuation", "fluctuation of the volume", "Å³"),
    "bonds": Criterion(Kind.COUNT, "bonds_changed", "bonds broken or formed, per run", grows=False),
    # of the reference alone (case.ONLY_SOUNDNESS)
    "volume_trend": Criterion(Kind.DEVIATION, "volume_trend", "trend of the volume"),
    "bonds_share": Criterion(Kind.BOUND, "bonds_share", "share of the bonds that change", grows=False),
    "minimum_distance": Criterion(Kind.DEFICIT, "minimum_distance_A", "smallest distance, mean of parts of a run", "Å"),
}  # fmt: skip


# what one choice of a case stands for, where that is not the observable of the same name alone; the first is always there
PARTS = {
    "shadow": ("force_rmse", "force_slope", "shadow_energy", "shadow_trend"),
    "rdf": ("rdf", "rdf_peak_height", "rdf_peak_position"),
    "vdos": ("vdos_distance", "vdos_shift"),
}
GENERAL_LIMITS = (*LEVELS, "explosion_K")


def find_limits(chosen: Iterable[str]) -> tuple[str, ...]:
    """Names of the limits that decide a case of the chosen observables."""
    found = [CRITERIA[part] for name in chosen for part in PARTS.get(name, (name,))]
    names = [name for each in found for name in (each.limit, each.floor) if name]
    return tuple(dict.fromkeys([*names, *GENERAL_LIMITS]))


NEEDS_VOLUME = (
    "rdf", "coordination", "pressure", "pressure_gradient", "density", "volume_fluctuation", "volume_trend",
)  # fmt: skip


def find_obstacle(name: str, periodic: Sequence[bool]) -> str | None:
    """What an observable needs and a structure that is `periodic` so (3) does not have, or None."""
    if name in NEEDS_VOLUME and not all(periodic):
        return "a structure with periods in three directions"
    if name == "angular_momentum" and any(periodic):
        return "a structure without periods, which alone conserves it"
    return None


def find_measurable(names: Iterable[str], periodic: Sequence[bool]) -> tuple[str, ...]:
    """Those observables that such a structure has."""
    return tuple(name for name in names if find_obstacle(name, periodic) is None)


def find_criterion(observable: str) -> Criterion:
    """The criterion of an observable; what follows a blank (a pair, an element) names a case of it."""
    return CRITERIA[observable.partition(" ")[0]]
