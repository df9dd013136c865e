"""The NVE case as a score: structure -> equilibration -> two NVE runs -> measures -> verdict -> report."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import mdplugin
from mdplugin.errors import CaseError
from mdplugin.validation.case import NveCase
from mdplugin.validation.observables import NveMeasures, Shadow, measure_run, measure_shadow
from mdplugin.validation.plot import plot_energies
from mdplugin.validation.potential import (
    Potential,
    hash_file,
    load_potential,
    load_reference,
    require_elements,
    require_reference_precision,
)
from mdplugin.validation.progress import Progress, show_progress
from mdplugin.validation.provenance import record_provenance
from mdplugin.validation.report import FIGURE, REPORT_JSON, REPORT_MARKDOWN, SERIES, Report
from mdplugin.validation.runner_ase import AseEngine
from mdplugin.validation.runner_lammps import LammpsEngine
from mdplugin.validation.series import Failure, Run, save_runs
from mdplugin.validation.stage import exit_when_terminated, open_stage
from mdplugin.validation.systems import Structure, draw_velocities, find_structure
from mdplugin.validation.verdict import judge, require_sound_reference

_ENGINES = {"ase": AseEngine, "lammps": LammpsEngine}
N_SHADOW_FRAMES = 20


@dataclass(frozen=True)
class Dynamics:
    """What the engine produced: runs by label, the candidate's failed equilibration, forces on its frames."""

    runs: dict[str, Run]
    equilibration_failure: Failure | None
    shadow: Shadow | None


def validate_nve(
    case: NveCase, directory: str | os.PathLike, *, quiet: bool = False, command: list[str] | None = None
) -> Report:
    """Run an artifact and its float64 reference at constant energy from one state, and judge the artifact.

    Args:
        case: what to run.
        directory: receives report.json, report.md, energies.npz, energy.png, trajectories and, for LAMMPS,
            all that its inputs need to be run again: candidate.pt and reference.pt (hard links where the
            file system allows) and data. Made if missing; files of an earlier report are replaced when all
            is done. A LAMMPS run that ends in an error leaves its log there as failed.log.
        quiet: no progress bar.
        command: the command line, for the report.

    Raises:
        CaseError: the case cannot be run, its reference does not conserve energy, or the disk is full.
        StructureError, ArtifactError, CheckpointError, FidelityError: bad structure or model.
    """
    structure = find_structure(case.structure, case.reference)
    manifest = mdplugin.read_manifest(case.model)
    require_elements(structure.atoms, case.model)
    require_reference_precision(case.reference)
    with exit_when_terminated(), open_stage(directory) as stage:
        candidate = load_potential(case.model, case.threads)
        reference = load_reference(case.reference, stage, manifest.head, case.threads, case.trust)
        require_elements(structure.atoms, reference.path)
        return compare_potentials(case, structure, candidate, reference, stage, quiet=quiet, command=command)


def compare_potentials(
    case: NveCase,
    structure: Structure,
    candidate: Potential,
    reference: Potential,
    stage: Path,
    *,
    quiet: bool = False,
    command: list[str] | None = None,
) -> Report:
    """`validate_nve` for potentials that are loaded: in ASE any calculators. Files go to `stage`.

    Raises:
        CaseError: the reference does not conserve energy, or the engine refuses the case.
    """
    potentials = {"candidate": candidate, "reference": reference}
    total = case.equilibration_steps + 2 * case.steps
    with show_progress(total, quiet) as progress:
        dynamics = run_dynamics(case, structure, potentials, stage, progress)
    measured = {label: measure_run(run) for label, run in dynamics.runs.items()}
    measures = NveMeasures(
        **measured, shadow=dynamics.shadow, equilibration_failure=dynamics.equilibration_failure
    )
    verdict = judge(measures)
    save_runs(stage / SERIES, dynamics.runs)
    drifts = {label: run.drift for label, run in measured.items()}
    plot_energies(
        stage / FIGURE, dynamics.runs, drifts, f"{candidate.name}, {case.engine}: {verdict.outcome}"
    )
    report = Report(
        case=case,
        measures=measures,
        verdict=verdict,
        potentials={label: potential.describe() for label, potential in potentials.items()},
        provenance=record_provenance(case, structure, command or []),
        series_sha256=hash_file(stage / SERIES),
        directory=stage.parent,
    )
    (stage / REPORT_MARKDOWN).write_text(report.to_markdown())
    (stage / REPORT_JSON).write_text(report.to_json())
    return report


def run_dynamics(
    case: NveCase, structure: Structure, potentials: dict[str, Potential], directory: Path, progress: Progress
) -> Dynamics:
    """Equilibrate with the candidate, then run reference and candidate from the same state.

    If the candidate cannot equilibrate, the reference does it: then the NVE runs still start from one state,
    and a case that is too violent for both is told from a candidate that fails.

    Raises:
        CaseError: the reference fails too.
    """
    atoms = draw_velocities(structure.atoms, case.temperature_K, case.seed)
    engine = _ENGINES[case.engine](case, atoms, potentials, directory, progress)
    failure = engine.equilibrate("candidate")
    if failure is not None and (again := engine.equilibrate("reference")) is not None:
        raise CaseError(
            f"equilibration fails with the candidate at step {failure.step} and with the float64 reference "
            f"at step {again.step} ({again.reason}): the case is at fault; try a shorter --timestep-fs or "
            "another structure"
        )
    reference = engine.run("reference")
    require_sound_reference(measure_run(reference))
    candidate = engine.run("candidate")
    shadow = None
    if candidate.failure is None:
        frames = engine.frames("candidate")
        chosen = np.unique(np.linspace(0, len(frames) - 1, N_SHADOW_FRAMES).round().astype(int))
        calculators = (potentials[label].calculator for label in ("candidate", "reference"))
        shadow = measure_shadow([frames[index] for index in chosen], *calculators)
    return Dynamics({"candidate": candidate, "reference": reference}, failure, shadow)
