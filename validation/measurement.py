"""Runs of one potential -> its observables: one estimate per replica, profiles for those that need a common window."""

import itertools
from dataclasses import dataclass, field

import ase
import numpy as np

from mdplugin.validation.case import Case
from mdplugin.validation.observables import conservation, motion, structure, thermal, topology
from mdplugin.validation.plan import COMMON_STEPS
from mdplugin.validation.series import Failure, Series
from mdplugin.validation.statistics import UNKNOWN, Estimate, scale

FASTEST = 0.1


@dataclass(frozen=True)
class Replica:
    """The runs of one replica.

    Attributes:
        main, coarse, reversal: series by kind of run; None where it was not asked for or its preparation failed.
        preparation: where the preparation broke off, or None.
    """

    main: Series | None
    coarse: Series | None = None
    reversal: Series | None = None
    preparation: Failure | None = None

    @property
    def failure(self) -> str | None:
        """What went wrong first, in words, or None; with twice the timestep sound potentials may fail."""
        if self.preparation is not None:
            return f"preparation fails at step {self.preparation.step}: {self.preparation.reason}"
        for name, series in (("run", self.main), ("reversal", self.reversal)):
            if series is not None and series.failure is not None:
                return _describe_failure(name, series)
        return None


def _describe_failure(name: str, series: Series) -> str:
    return f"{name} fails at step {series.failure.step} ({series.length_ps:.3g} ps): {series.failure.reason}"


@dataclass(frozen=True)
class Measurement:
    """What was measured of one potential.

    Attributes:
        values: observable -> one estimate per replica.
        rdfs: pair -> one Rdf per replica.
        displacements: symbol -> one Displacement per replica.
        spectra: (n_windows, n_frequencies) normalised, per replica; frequency_per_cm: (n_frequencies,).
        failures: in words, of the replicas that broke off; they have no values.
        notes: what else is worth telling of a replica, in words.
        ms_per_step: of the main runs, the tenth part of the steps that took least: others on the machine, and rebuilt
            neighbour lists, are in the rest.
        temperature_K: mean of all main runs.
    """

    values: dict[str, list[Estimate]]
    rdfs: dict[str, list[structure.Rdf]] = field(default_factory=dict)
    displacements: dict[str, list[motion.Displacement]] = field(default_factory=dict)
    spectra: list[np.ndarray] = field(default_factory=list)
    frequency_per_cm: np.ndarray | None = None
    failures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    ms_per_step: float = np.nan
    temperature_K: float = np.nan


def measure_replicas(
    case: Case, atoms: ase.Atoms, replicas: list[Replica], chosen: tuple[str, ...]
) -> Measurement:
    """The chosen observables of all replicas that did not fail."""
    numbers = [i for i, each in enumerate(replicas) if each.failure is None and each.main is not None]
    sound = [replicas[number] for number in numbers]
    # noted whatever is chosen: other molecules are another substance
    changes = _count_changes(atoms, replicas)
    failures = [f"replica {i}: {each.failure}" for i, each in enumerate(replicas) if each.failure is not None]
    values: dict[str, list[Estimate]] = {}
    for replica in sound:
        for name, estimate in _measure_replica(case, atoms, replica, chosen).items():
            values.setdefault(name, []).append(estimate)
    if changes and numbers:
        values |= _measure_bonds(atoms, [changes[number] for number in numbers], chosen)
    rdfs: dict[str, list[structure.Rdf]] = {}
    if "rdf" in chosen or "coordination" in chosen:
        rdfs = _by(lambda rdf: rdf.pair, (structure.compute_rdfs(each.main, atoms) for each in sound))
    displacements: dict[str, list[motion.Displacement]] = {}
    if "diffusion" in chosen:
        found = (motion.compute_displacements(each.main, atoms) for each in sound)
        displacements = _by(lambda displacement: displacement.symbol, found)
    for symbol, runs in displacements.items():
        values[f"diffusion {symbol}"] = [run.fit_diffusion() for run in runs]
    spectra, frequency = [], None
    if "vdos" in chosen and all(len(replica.main.spectrum) for replica in sound):
        spectra = [motion.density_of_states(replica.main, atoms) for replica in sound]
        frequency = sound[0].main.frequency_per_cm if sound else None
    temperatures = [float(replica.main.temperature_K.mean()) for replica in sound]
    return Measurement(
        values=values,
        rdfs=rdfs,
        displacements=displacements,
        spectra=spectra,
        frequency_per_cm=frequency,
        failures=tuple(failures),
        notes=(*_note_changes(replicas, changes), *_note_coarse(replicas)),
        ms_per_step=_time_steps(replicas),
        temperature_K=float(np.mean(temperatures)) if temperatures else np.nan,
    )


def _by(key, found) -> dict[str, list]:
    """Key -> what has it, in order, of lists of one replica each."""
    sorted_by = {}
    for each in itertools.chain.from_iterable(found):
        sorted_by.setdefault(key(each), []).append(each)
    return sorted_by


def _time_steps(replicas: list[Replica]) -> float:
    """Milliseconds that the fastest tenth of the steps took."""
    walls = [each.main.wall_s[1:] for each in replicas if each.main is not None and each.main.steps]
    return 1000 * float(np.quantile(np.concatenate(walls), FASTEST)) if walls else np.nan


def _measure_bonds(atoms: ase.Atoms, changes: list[np.ndarray], chosen: tuple[str, ...]) -> dict:
    """The largest number of changed bonds of each replica, and of the reference its share of all bonds."""
    counts, values = [float(each.max(initial=0)) for each in changes], {}
    if "bonds" in chosen:
        values["bonds"] = [Estimate(count) for count in counts]
    if "bonds_share" in chosen:
        n_bonds = max(1, len(topology.find_topology(atoms).pairs))
        poisson = [Estimate(count, max(count, 1.0) ** 0.5) for count in counts]
        values["bonds_share"] = [scale(each, 1 / n_bonds) for each in poisson]
    return values


def _count_changes(atoms: ase.Atoms, replicas: list[Replica]) -> dict[int, np.ndarray]:
    """(n_frames,) changed bonds by the number of the replica, of those that broke off too."""
    return {
        number: topology.count_changes(replica.main, atoms)
        for number, replica in enumerate(replicas)
        if replica.main is not None
    }


def _note_changes(replicas: list[Replica], changes: dict[int, np.ndarray]) -> tuple[str, ...]:
    """When the first bond changes, of the replicas in which one does."""
    when = []
    for number, counts in changes.items():
        if len(changed := np.flatnonzero(counts)):
            when.append(f"replica {number} at {replicas[number].main.frame_time_ps[changed[0]]:.3g} ps")
    return (f"the first bond breaks or forms in {', '.join(when)}",) if when else ()


def _note_coarse(replicas: list[Replica]) -> tuple[str, ...]:
    """Which runs with the coarse timestep have no exponent to tell, since they broke off."""
    coarse = [(i, each.coarse) for i, each in enumerate(replicas) if each.coarse is not None]
    return tuple(
        f"replica {i}: {_describe_failure('run with the coarse timestep', series)}"
        for i, series in coarse
        if series.failure is not None
    )


def _measure_replica(
    case: Case, atoms: ase.Atoms, replica: Replica, chosen: tuple[str, ...]
) -> dict[str, Estimate]:
    main, temperature = replica.main, case.temperature_K
    common_ps = COMMON_STEPS * case.timestep_fs / 1000
    values = {}
    recipes = {
        "energy_drift": lambda: conservation.measure_drift(main),
        "drift_ratio": lambda: conservation.measure_drift_ratio(main),
        "energy_fluctuation": lambda: conservation.measure_fluctuation(main, common_ps),
        "momentum": lambda: conservation.measure_momentum(main, atoms, temperature),
        "reversal": lambda: conservation.measure_reversal(replica.reversal),
        "temperature": lambda: scale(thermal.measure_temperature(main), 1 / temperature),
        "peak_temperature": lambda: thermal.measure_peak_temperature(main),
        "kinetic_distribution": lambda: thermal.measure_kinetic_variance(main, temperature),
        "density": lambda: thermal.measure_density(main, float(atoms.get_masses().sum())),
        "pressure": lambda: thermal.measure_pressure(main),
        "volume_fluctuation": lambda: thermal.measure_volume_fluctuation(main),
        "volume_trend": lambda: thermal.measure_volume_trend(main),
        "minimum_distance": lambda: topology.measure_minimum_distance(main, atoms),
    }
    for name in chosen:
        if name in recipes:
            values[name] = recipes[name]()
    if "angular_momentum" in chosen:
        values["angular_momentum"] = conservation.measure_angular_momentum(main, atoms, temperature)
    if "timestep_exponent" in chosen and replica.coarse is not None:
        values["timestep_exponent"] = (
            UNKNOWN
            if replica.coarse.failure is not None
            else conservation.measure_exponent(main, replica.coarse, common_ps)
        )
    if "kinetic_distribution" in chosen:
        values["kinetic_p_value"] = Estimate(thermal.test_kinetic_distribution(main, temperature))
    return values
