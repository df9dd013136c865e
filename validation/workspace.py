"""A case's directory: what its runs need, written once; and the execution of one run in it.

DIR/case.json      the case and the hashes of what it uses:
                   sha256: content of models/*.pt by label, bytes of the structure; of labels that it has had, too
                   checkpoint_sha256: of the reference's checkpoint; null for an artifact; older directories lack it
DIR/models/        LABEL.pt of every candidate, reference.pt; copies, so that who writes into a model changes no case
DIR/structure.*    a copy
DIR/runs/NAME/     see chain.py
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import ase

import mdplugin
from mdplugin import potentials
from mdplugin.archive import content_sha256
from mdplugin.errors import CaseError
from mdplugin.validation.case import REFERENCE, Case
from mdplugin.validation.case_file import describe_case, parse_case
from mdplugin.validation.chain import execute_run
from mdplugin.validation.criteria import find_obstacle
from mdplugin.validation.engine import Engine
from mdplugin.validation.plan import RunPlan, plan_runs
from mdplugin.validation.potential import (
    Potential,
    export_reference,
    hash_checkpoint,
    hash_file,
    is_artifact,
    require_elements,
    require_reference_precision,
)
from mdplugin.validation.runner_lammps import LammpsEngine
from mdplugin.validation.series import copy_durably, replace_durably
from mdplugin.validation.stage import exit_when_terminated
from mdplugin.validation.systems import Structure, draw_velocities, find_structure, read_structure

SCHEMA = 1
CASE_FILE, MODELS, RUNS = "case.json", "models", "runs"
STRUCTURE = "structure"  # the structure's key among the hashes
# what a directory's case may change without starting anew; of the limits all but the one that ends runs
MAY_GROW = ("length_ps", "replicas", "models", "limits")


def prepare(case: Case, directory: Path, trust: bool = False, exported: Path | None = None) -> None:
    """Make `directory` hold all that the runs need: case.json, models and structure.

    With `trust`, a `.model` as reference is opened by running its pickle, see `export_model`. A case file cannot ask
    for that. `exported` is the reference's artifact that another case of the same models was prepared with.

    Raises:
        CaseError: it holds another case; else see `validate`.
    """
    if STRUCTURE in case.labels:
        raise CaseError(f"models: expected files of other names than '{STRUCTURE}', got one: rename it")
    _require_files(case)
    structure = find_structure(case.structure, case.reference, case.repeat)
    _require_measurable(case, structure)
    head = _require_one_head(case)
    for model in case.models:
        require_elements(structure.atoms, model)
    require_reference_precision(case.reference)
    hashes = {label: content_sha256(model) for label, model in zip(case.labels, case.models, strict=True)}
    hashes[STRUCTURE] = hash_file(structure.path)
    if is_artifact(case.reference):
        hashes[REFERENCE] = content_sha256(case.reference)
    checkpoint = hash_checkpoint(case.reference)
    record = _read_record(directory) if (directory / CASE_FILE).is_file() else None
    if record is not None:
        _require_same_case(case, hashes, checkpoint, record, directory)
        hashes = {**record["sha256"], **hashes}
        checkpoint = checkpoint or record.get("checkpoint_sha256")
    try:
        (directory / MODELS).mkdir(parents=True, exist_ok=True)
        for label, model in zip(case.labels, case.models, strict=True):
            copy_durably(Path(model), directory / MODELS / f"{label}.pt")
        reference = directory / MODELS / f"{REFERENCE}.pt"
        if record is not None and reference.is_file():
            _require_prepared(reference, content_sha256(reference), hashes.get(REFERENCE))
        else:
            part = reference.with_name(f".{reference.name}")
            export_reference(exported or case.reference, part, head, trust)
            replace_durably(part, reference)
        hashes[REFERENCE] = content_sha256(reference)
        require_elements(structure.atoms, reference)
        copy_durably(structure.path, directory / f"structure{structure.path.suffix}")
        _write_record(case, hashes, checkpoint, directory / CASE_FILE)
    except OSError as error:
        raise CaseError(
            f"cannot write {directory}: {error.strerror or error}; make room, or choose a writable directory with -o"
        ) from error


def _require_measurable(case: Case, structure: Structure) -> None:
    """Raise CaseError if the structure cannot be run in this ensemble, or not show an observable that is asked for."""
    if case.ensemble == "npt" and not structure.atoms.pbc.all():
        raise CaseError(
            f"npt: expected a structure with periods in three directions, got {structure.path.name} with "
            f"{int(structure.atoms.pbc.sum())}: it has no volume; nvt and stability need none"
        )
    for name in case.observables:
        if obstacle := find_obstacle(name, structure.atoms.pbc):
            raise CaseError(f"observables: {name} needs {obstacle}: leave it out, or change that")


def _require_files(case: Case) -> None:
    """Raise CaseError if a model or the reference is a folder; an empty name is the working directory's."""
    for name, path in (*(("models", model) for model in case.models), ("reference", case.reference)):
        if Path(path).is_dir() and path not in potentials.names():
            raise CaseError(
                f"{name}: expected a file, got {f'the directory {path}' if path else 'an empty name'}"
            )


def _require_one_head(case: Case) -> str:
    """The head of all models, and of a reference that is an artifact.

    Raises:
        CaseError: they differ: another head is another potential.
    """
    artifacts = [*case.models, *([case.reference] if is_artifact(case.reference) else [])]
    heads = [mdplugin.read_manifest(path).head for path in artifacts]
    for path, head in zip(artifacts, heads, strict=True):
        if head != heads[0]:
            raise CaseError(
                f"{path}: expected the head of {artifacts[0]}, '{heads[0]}', got '{head}': export both with one --head, or "
                "judge them one by one"
            )
    return heads[0]


def _require_same_case(
    case: Case, hashes: dict[str, str], checkpoint: str | None, record: dict, directory: Path
) -> None:
    """Raise CaseError if `record`, which `directory` holds, is not of this case, grown at most."""
    old, new = describe_case(record["case"]), describe_case(case)
    kept = [name for name in new if name not in MAY_GROW and name not in (REFERENCE, STRUCTURE)]
    changed = [name for name in kept if new[name] != old[name]]
    changed += [name for name in ("length_ps", "replicas") if new[name] < old[name]]
    if record["case"].limit_table["explosion_K"].value != case.limit_table["explosion_K"].value:
        changed.append("limits")
    changes = [(name, old[name], new[name]) for name in changed]
    files = [name for name, value in record["sha256"].items() if hashes.get(name, value) != value]
    if REFERENCE not in hashes and not _is_same_checkpoint(case, checkpoint, record):
        files.append(REFERENCE)
    asked = {**dict(zip(case.labels, case.models, strict=True)), REFERENCE: case.reference}
    changes += [(name, "another file", asked.get(name, case.structure)) for name in files]
    if changes:
        name, there, wanted = changes[0]
        raise CaseError(
            f"{directory} holds another case ({name}: {there} there, {wanted} asked for): choose another directory "
            "with -o, or remove it"
        )


def _is_same_checkpoint(case: Case, checkpoint: str | None, record: dict) -> bool:
    """Whether a reference that is no artifact is the recorded one: by its hash, by its name where one is unknown."""
    if checkpoint is None or "checkpoint_sha256" not in record:
        return Path(case.reference).name == Path(record["case"].reference).name
    return checkpoint == record["checkpoint_sha256"]


def _require_prepared(path: Path, found: str, prepared: str | None) -> None:
    """Raise CaseError if a file's hash is not the one of `prepare`; old directories may not know that."""
    if prepared is not None and found != prepared:
        raise CaseError(
            f"{path}: expected the file that the case was prepared with (SHA-256 {prepared[:16]}...), got another "
            f"({found[:16]}...): restore it, or remove it and give the case's `mdplugin validate` command again"
        )


def _write_record(case: Case, hashes: dict[str, str], checkpoint: str | None, path: Path) -> None:
    # --collect --certify may be given in another directory
    models = tuple(os.path.abspath(model) for model in case.models)
    record = {
        "schema": SCHEMA,
        "case": describe_case(case.replace(models=models)),
        "sha256": hashes,
        "checkpoint_sha256": checkpoint,
    }
    part = path.with_suffix(".part")
    part.write_text(json.dumps(record, indent=1) + "\n")
    replace_durably(part, path)


def _read_record(directory: Path) -> dict:
    """What `_write_record` wrote, its case as a `Case`.

    Raises:
        CaseError: there is none.
    """
    try:
        record = json.loads((directory / CASE_FILE).read_text())
        if record["schema"] != SCHEMA:
            raise ValueError(f"schema {record['schema']}")
        hashes = record["sha256"]
        if not isinstance(record["case"], dict) or not isinstance(hashes, dict):
            raise ValueError(f"a {CASE_FILE} without a case or without hashes")
        if not all(isinstance(text, str) for text in hashes.values()):
            raise ValueError(f"a {CASE_FILE} with hashes that are no texts")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _no_prepared_directory(directory, error) from error
    return {**record, "case": parse_case(record["case"], str(directory / CASE_FILE))}


def _no_prepared_directory(directory: Path, error: Exception) -> CaseError:
    return CaseError(
        f"{directory}: expected a directory that `mdplugin validate ... -o DIR` made, got {error}"
    )


def read_prepared(directory: Path) -> tuple[Case, Structure]:
    """The case of a directory that `prepare` made, with its own copy of the structure.

    Raises:
        CaseError: it is none, or one of its files is not what it was.
        ArtifactError: a model is not there, or damaged.
    """
    record = _read_record(directory)
    case = record["case"]
    structures = sorted(directory.glob("structure.*"))
    if len(structures) != 1:
        names = ", ".join(path.name for path in structures) or "none"
        raise CaseError(
            f"{directory}: expected one file structure.*, which `prepare` wrote there, got {names}"
        )
    (path,) = structures
    hashes = record["sha256"]
    _require_prepared(path, hash_file(path), hashes.get(STRUCTURE))
    for label in (REFERENCE, *case.labels):
        model = directory / MODELS / f"{label}.pt"
        _require_prepared(model, content_sha256(model), hashes.get(label))
    return case, read_structure(path, case.repeat)


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
