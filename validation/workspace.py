"""A case's directory: what its runs need, written once; and the execution of one run in it.

DIR/case.json      the case and the hashes of what it uses
DIR/models/        LABEL.pt of every candidate, reference.pt
DIR/structure.*    a copy
DIR/runs/NAME/     see chain.py
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import ase

import mdplugin
from mdplugin.archive import content_sha256
from mdplugin.errors import CaseError
from mdplugin.validation.case import REFERENCE, Case
from mdplugin.validation.case_file import describe_case, parse_case
from mdplugin.validation.chain import execute_run
from mdplugin.validation.engine import Engine
from mdplugin.validation.plan import RunPlan, plan_runs
from mdplugin.validation.potential import (
    Potential,
    export_reference,
    hash_file,
    is_artifact,
    require_elements,
    require_reference_precision,
)
from mdplugin.validation.runner_lammps import LammpsEngine, place
from mdplugin.validation.stage import exit_when_terminated
from mdplugin.validation.systems import Structure, draw_velocities, find_structure

SCHEMA = 1
CASE_FILE, MODELS, RUNS = "case.json", "models", "runs"
MAY_GROW = (
    "length_ps",
    "replicas",
    "models",
    "limits",
)  # what a directory's case may change without starting anew


def prepare(case: Case, directory: Path, trust: bool = False) -> None:
    """Make `directory` hold all that the runs need: case.json, models and structure.

    With `trust`, a `.model` as reference is opened by running its pickle, see `export_model`. A case file cannot ask
    for that.

    Raises:
        CaseError: it holds another case; else see `validate`.
    """
    structure = find_structure(case.structure, case.reference, case.repeat)
    manifests = [mdplugin.read_manifest(model) for model in case.models]
    for model in case.models:
        require_elements(structure.atoms, model)
    require_reference_precision(case.reference)
    hashes = {label: content_sha256(model) for label, model in zip(case.labels, case.models, strict=True)}
    hashes["structure"] = hash_file(structure.path)
    if is_artifact(case.reference):
        hashes[REFERENCE] = content_sha256(case.reference)
    _require_same_case(case, hashes, directory)
    try:
        (directory / MODELS).mkdir(parents=True, exist_ok=True)
        for label, model in zip(case.labels, case.models, strict=True):
            place(Path(model).resolve(), directory.resolve() / MODELS / f"{label}.pt")
        reference = directory / MODELS / f"{REFERENCE}.pt"
        if not reference.is_file():
            export_reference(case.reference, reference, manifests[0].head, trust)
        hashes[REFERENCE] = content_sha256(reference)
        require_elements(structure.atoms, reference)
        shutil.copyfile(structure.path, directory / f"structure{structure.path.suffix}")
        _write_case(case, hashes, directory / CASE_FILE)
    except OSError as error:
        raise CaseError(
            f"cannot write {directory}: {error.strerror or error}; make room, or choose a writable directory with -o"
        ) from error


def _require_same_case(case: Case, hashes: dict[str, str], directory: Path) -> None:
    """Raise CaseError if `directory` holds a case that is not this one, grown at most."""
    path = directory / CASE_FILE
    if not path.is_file():
        return
    stored = json.loads(path.read_text())
    old, new = stored["case"], describe_case(case)
    changed = [name for name in new if name not in MAY_GROW and name not in ("reference", "structure")]
    changed = [name for name in changed if new[name] != old.get(name)]
    changed += [name for name, value in stored["sha256"].items() if name in hashes and hashes[name] != value]
    changed += [name for name in ("length_ps", "replicas") if new[name] < old[name]]
    if changed:
        name = changed[0]
        raise CaseError(
            f"{directory} holds another case ({name}: {old.get(name, 'another file')} there, "
            f"{new.get(name, 'another file')} asked for): choose another directory with -o, or remove it"
        )


def _write_case(case: Case, hashes: dict[str, str], path: Path) -> None:
    part = path.with_suffix(".part")
    part.write_text(
        json.dumps({"schema": SCHEMA, "case": describe_case(case), "sha256": hashes}, indent=1) + "\n"
    )
    os.replace(part, path)


def read_prepared(directory: Path) -> tuple[Case, Structure]:
    """The case of a directory that `prepare` made, with its own copy of the structure.

    Raises:
        CaseError: it is none.
    """
    try:
        stored = json.loads((directory / CASE_FILE).read_text())
        if stored["schema"] != SCHEMA:
            raise ValueError(f"schema {stored['schema']}")
        case = parse_case(stored["case"], str(directory / CASE_FILE))
        (path,) = directory.glob("structure.*")
    except (OSError, ValueError, KeyError) as error:
        raise CaseError(
            f"{directory}: expected a directory that `mdplugin validate ... -o DIR` made, got {error}"
        ) from error
    return case, find_structure(path, case.reference, case.repeat)


def execute_one(directory: Path, name: str) -> None:
    """Do what is left of one run of a prepared directory.

    Raises:
        CaseError: no such run, or it could not be done.
    """
    case, structure = read_prepared(directory)
    plans = {plan.name: plan for plan in plan_runs(case)}
    if name not in plans:
        raise CaseError(f"run: expected one of {', '.join(plans)}, got '{name}'")
    plan = plans[name]
    potentials = {
        label: Potential(label, path=(directory / MODELS / f"{label}.pt").resolve(), threads=case.threads)
        for label in {plan.label, REFERENCE}
    }
    with exit_when_terminated():
        execute_run(make_engine(case, structure.atoms, potentials, plan), plan, directory / RUNS / plan.name)


def make_engine(case: Case, atoms: ase.Atoms, potentials: Mapping[str, Potential], plan: RunPlan) -> Engine:
    """The engine of a run, with the velocities of its replica."""
    start = draw_velocities(atoms, case.temperature_K, plan.seed)
    engine = LammpsEngine if case.engine == "lammps" else _import_ase_engine()
    return engine(case, start, dict(potentials), lambda step: None)


def _import_ase_engine() -> type[Engine]:
    from mdplugin.validation.runner_ase import AseEngine  # ASE's dynamics are slow to import

    return AseEngine
