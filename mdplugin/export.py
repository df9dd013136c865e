"""Checkpoint + precision policy -> artifact: build, measure against mace-torch in float64, write or refuse."""

import dataclasses
import hashlib
import importlib.metadata
import os
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import ase
import numpy as np
import torch
from ase.data import atomic_masses, atomic_numbers, chemical_symbols

from mdplugin import artifact as artifacts
from mdplugin.artifact import Artifact, Manifest
from mdplugin.calculator import MACEQuantCalculator
from mdplugin.checkpoint import Checkpoint, Evaluation, evaluate_mace, read_checkpoint, require_elements
from mdplugin.errors import ArtifactError, CheckpointError, FidelityError, StructureError, Unsupported
from mdplugin.frames import reference_frames
from mdplugin.network_e3nn import build_e3nn, require_base_type
from mdplugin.network_native import build_native
from mdplugin.precision import Precision

BACKENDS = ("auto", "native", "e3nn")


def export_model(  # noqa: PLR0913 (all that an export can be told, by keyword)
    source: str | os.PathLike,
    target: str | os.PathLike,
    precision: str | Precision = "fp32",
    *,
    head: str | None = None,
    backend: str = "auto",
    elements: Sequence[str] | None = None,
    frames: Sequence[ase.Atoms] = (),
    calibrate: Sequence[ase.Atoms] = (),
    trust: bool = False,
) -> Manifest:
    """Export a MACE checkpoint to the artifact that ASE and LAMMPS serve.

    Before the file is written, the artifact is run on reference frames beside mace-torch in float64.

    Args:
        source: `.model` of mace-torch, or the name of a bundled potential.
        target: the artifact to write; written atomically, an existing file is replaced.
        precision: policy, see `mdplugin.precision.PRESETS`.
        head: readout head, where the model has several.
        backend: "native" (our kernels), "e3nn" (mace-torch's own blocks), or "auto": native where it knows the
            architecture, else e3nn, with the reason in a warning.
        elements: chemical symbols to keep of the model's, in any order; None keeps all. The artifact is smaller and
            refuses the others (with e3nn's blocks it has the same size).
        frames: structures to compare on besides the generated ones, which hold every element kept.
        calibrate: structures like those to be simulated, a few hundred atoms in all: fixed-point matrices are rounded for
            the least force error on them (calibrate.py) instead of to nearest. For policies with `linear` in fixed point.
        trust: run what a `.model`'s pickle says, for classes that `read_checkpoint` refuses.

    Returns:
        The manifest that was written.

    Raises:
        CheckpointError, PrecisionError: bad source, head, element or policy; a policy that has nothing to calibrate, or
            that mace-torch's own blocks cannot serve.
        StructureError: a frame has an element that is not kept.
        FidelityError: non-finite or farther from float64 than the policy allows; nothing is written.
        ArtifactError: the target cannot be written.
    """
    policy = Precision.parse(precision)
    if backend not in BACKENDS:
        raise ArtifactError(f"backend: expected one of {', '.join(BACKENDS)}, got '{backend}'")
    if backend == "e3nn":
        require_base_type(policy)
    target = artifacts.writable_path(target)
    checkpoint = read_checkpoint(source, head, trust)
    kept = choose_elements(checkpoint, elements)
    require_elements(checkpoint, [*frames, *calibrate], kept)
    if calibrate:
        policy.require_fixed_point()
    frames = [*reference_frames(kept), *frames]
    network, used, tables = _build(checkpoint, policy, backend, kept, calibrate)
    manifest = _describe(checkpoint, policy, used, tables, kept, calibrate)
    fidelity = _try_out(network, manifest, checkpoint, frames)
    require_fidelity(fidelity, policy, checkpoint.name, checkpoint.trained_dtype)
    manifest = dataclasses.replace(manifest, fidelity=fidelity)
    artifacts.save(network, manifest, target)
    return manifest


def build_trial(
    checkpoint: Checkpoint, policy: Precision, path: Path, calibrate: Sequence[ase.Atoms] = ()
) -> Artifact:
    """The native artifact of a policy as a file that nobody has measured yet, loaded; `calibrate` as for `export_model`.

    Raises:
        Unsupported: the native engine does not know the network, or cannot tabulate it in this policy.
    """
    kept = checkpoint.atomic_numbers
    network, used, tables = _build(checkpoint, policy, "native", kept, calibrate)
    artifacts.save(network, _describe(checkpoint, policy, used, tables, kept, calibrate), path)
    return artifacts.load(path)


def choose_elements(checkpoint: Checkpoint, elements: Sequence[str] | None) -> tuple[int, ...]:
    """Atomic numbers of the elements to keep, in the model's order.

    Raises:
        CheckpointError: none, no chemical element, one twice, or one that the model does not know.
    """
    known = checkpoint.atomic_numbers
    if elements is None:
        return known
    names = " ".join(chemical_symbols[z] for z in known)
    for symbol in elements:
        if symbol not in chemical_symbols[1:]:
            raise CheckpointError(f"elements: expected chemical symbols as H,O, got '{symbol}'")
        if atomic_numbers[symbol] not in known:
            raise CheckpointError(f"elements: {symbol} is not in {checkpoint.name}; it knows {names}")
    if not elements or len(set(elements)) != len(elements):
        raise CheckpointError(f"elements: expected different ones among {names}, got '{','.join(elements)}'")
    return tuple(z for z in known if chemical_symbols[z] in elements)


def _build(
    checkpoint: Checkpoint,
    policy: Precision,
    backend: str,
    kept: tuple[int, ...],
    calibrate: Sequence[ase.Atoms] = (),
) -> tuple[torch.jit.ScriptModule, str, list[dict]]:
    """The network, the backend that it came from, and the facts of its radial tables."""
    if backend != "e3nn":
        try:
            network, tables = build_native(checkpoint, policy, kept, calibrate)
            return network, "native", tables
        except Unsupported as error:
            if backend == "native":
                raise
            if policy.choices:
                raise Unsupported(
                    f"{checkpoint.name} as {policy}: low precision takes the native engine, which has no {error}; "
                    "try --precision fp32"
                ) from error
            warnings.warn(
                f"{checkpoint.name}: exported with backend e3nn, since native has no {error}", stacklevel=3
            )
    return build_e3nn(checkpoint, policy, kept), "e3nn", []


def _describe(
    checkpoint: Checkpoint,
    policy: Precision,
    backend: str,
    tables: list[dict],
    kept: tuple[int, ...],
    calibrate: Sequence[ase.Atoms] = (),
) -> Manifest:
    e0 = dict(zip(checkpoint.atomic_numbers, checkpoint.e0s, strict=True))
    return Manifest(
        mdplugin_version=importlib.metadata.version("mdplugin"),
        precision=str(policy),
        backend=backend,
        trained_dtype=checkpoint.trained_dtype,
        elements=tuple(chemical_symbols[z] for z in kept),
        atomic_numbers=kept,
        r_max=checkpoint.r_max,
        n_layers=checkpoint.n_layers,
        head=checkpoint.head,
        heads=checkpoint.heads,
        e0s_eV=tuple(e0[z] for z in kept),
        masses_amu=tuple(float(atomic_masses[z]) for z in kept),
        torch_version=torch.__version__,
        source={"name": checkpoint.name, "sha256": checkpoint.sha256},
        radial_tables=tuple(tables),
        calibration=_describe_frames(calibrate) if calibrate else None,
    )


def _describe_frames(frames: Sequence[ase.Atoms]) -> dict:
    """Numbers of frames and atoms, and a SHA-256 over elements, positions, cells and periods."""
    digest = hashlib.sha256()
    for frame in frames:
        for part in (frame.numbers, frame.positions, frame.cell.array, frame.pbc):
            digest.update(np.ascontiguousarray(part).tobytes())
    return {"n_frames": len(frames), "n_atoms": sum(map(len, frames)), "sha256": digest.hexdigest()}


def _try_out(
    network: torch.jit.ScriptModule, manifest: Manifest, checkpoint: Checkpoint, frames: list[ase.Atoms]
) -> dict:
    """Fidelity of the file as an engine will load it, not of the network in memory."""
    with tempfile.TemporaryDirectory() as scratch:
        trial = Path(scratch) / "trial.pt"
        artifacts.save(network, manifest, trial)
        return measure_fidelity(artifacts.load(trial), checkpoint, frames)


def measure_fidelity(artifact: Artifact, checkpoint: Checkpoint, frames: list[ase.Atoms]) -> dict:
    """Largest errors of the artifact against mace-torch in float64 over `frames`.

    Returns:
        n_frames; energy_eV_per_atom, force_eV_per_A, stress_eV_per_A3: max-norm errors, each divided by the
        largest reference value of its frame where that exceeds 1 eV/atom (after E0), 1 eV/Å, 0.1 eV/Å³
        (rounding is relative, and generated frames can be violent). NaN where the artifact is not finite.
    """
    calculator = MACEQuantCalculator(artifact)
    e0 = dict(zip(checkpoint.atomic_numbers, checkpoint.e0s, strict=True))
    errors = []
    for frame, reference in zip(frames, evaluate_mace(checkpoint, frames), strict=True):
        offset = sum(e0[int(z)] for z in frame.numbers)
        errors.append(_frame_error(calculator, frame, reference, offset))
    energy, force, stress = (float(np.max(column)) for column in zip(*errors, strict=True))
    return {
        "n_frames": len(frames),
        "energy_eV_per_atom": energy,
        "force_eV_per_A": force,
        "stress_eV_per_A3": stress,
    }


def _frame_error(
    calculator: MACEQuantCalculator, frame: ase.Atoms, reference: Evaluation, e0: float
) -> tuple[float, float, float]:
    try:
        calculator.calculate(frame, ["energy", "forces"])
    except StructureError:
        return np.nan, np.nan, np.nan
    results, n_atoms = calculator.results, len(frame)
    energy = _scaled_error(results["energy"] / n_atoms, reference.energy / n_atoms, 1.0, e0 / n_atoms)
    force = _scaled_error(results["forces"], reference.forces, 1.0)
    stress = 0.0 if reference.stress is None else _scaled_error(results["stress"], reference.stress, 0.1)
    return energy, force, stress


def _scaled_error(value, reference, unit: float, offset: float = 0.0) -> float:
    """Max-norm error, relative to the largest |reference - offset| where that exceeds `unit`."""
    return float(np.max(np.abs(value - reference)) / max(1.0, np.max(np.abs(reference - offset)) / unit))


def require_fidelity(fidelity: dict, policy: Precision, name: str, trained_dtype: str) -> None:
    """Raise FidelityError unless every error is finite and within what the policy allows such a network."""
    tolerance = policy.allowed(trained_dtype)
    for quantity, unit in (
        ("energy_eV_per_atom", "eV/atom"),
        ("force_eV_per_A", "eV/Å"),
        ("stress_eV_per_A3", "eV/Å³"),
    ):
        bound, error = getattr(tolerance, quantity), fidelity[quantity]
        if not error <= bound:  # NaN fails
            advice = "" if str(policy) == "fp64" else "; try --precision fp64"
            raise FidelityError(
                f"{name} as {policy}: {quantity.split('_')[0]} error against mace-torch float64 is {error:.3g} {unit}, "
                f"allowed {bound:.3g}: not written{advice}"
            )
