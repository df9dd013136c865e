"""Model + frames -> all numbers of `mdplugin numerics`: local errors, curves, amplifications, force errors, surfaces."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import ase
import torch
from torch import Tensor
from tqdm import tqdm

from mdplugin.machine import describe_machine
from mdplugin.model import MaceModel
from mdplugin.number_types import TYPES, NumberType, float_of
from mdplugin.numerics.amplification import (
    Amplification,
    inject,
    measure_amplifications,
    predict_force_error,
    sensitivities,
)
from mdplugin.numerics.block import Block
from mdplugin.numerics.blocks import list_blocks
from mdplugin.numerics.cancellation import Cancellation, measure_cancellation
from mdplugin.numerics.error_model import MODES, measure_sizes
from mdplugin.numerics.knots import KnotError, measure_knots, wasted_range
from mdplugin.numerics.measurement import LocalError, applies, measure_block, rms
from mdplugin.numerics.surface import (
    STEP_FS,
    Int8Scale,
    Surface,
    heating_meV_per_atom_per_ps,
    measure_scales,
    measure_surfaces,
)
from mdplugin.numerics.system import Recording, System, join_frames, record
from mdplugin.tables import RadialTable

SIGNIFICANDS = (2, 3, 4, 5, 6, 8, 11, 14, 17, 20, 24)


@dataclass(frozen=True)
class ForceError:
    """Errors of one block, forward and reverse, in one type: what they do to the forces.

    Attributes:
        block, type, mode: which. measured_meV_per_A, model_meV_per_A: root mean squares over components.
    """

    block: str
    type: str
    mode: str
    measured_meV_per_A: float
    model_meV_per_A: float


@dataclass(frozen=True)
class Study:
    """Everything the command writes; `describe` lists the conditions."""

    model: str
    structures: list[str]
    n_frames: int
    n_atoms: int
    n_edges: int
    seed: int
    types: list[str]
    table_intervals: list[int]
    machine: dict
    local: list[LocalError]
    curve: list[LocalError]
    amplification: list[Amplification]
    force: list[ForceError]
    surface: list[Surface]
    surface_atoms: int
    int8_scales: list[Int8Scale]
    knots: list[KnotError]
    wasted_range: list[float]
    heating_of_1_meV_per_A: float
    cancellation: Cancellation

    def as_dict(self) -> dict:
        """Plain values for JSON."""
        return dataclasses.asdict(self)


def run_study(
    name: str,
    model: MaceModel,
    tables: Sequence[RadialTable],
    frames: Sequence[tuple[str, ase.Atoms]],
    *,
    types: Sequence[str] = tuple(TYPES),
    seed: int = 0,
    quiet: bool = False,
) -> Study:
    """Measure everything on frames, each with the name of its file.

    Raises:
        StructureError: see `join_frames`.
    """
    chosen = [TYPES[type_] for type_ in types]
    system, used = join_frames(model, [atoms for _, atoms in frames])
    recording = record(model, system, tables)
    blocks = list_blocks(model, system, tables, recording)
    squares = sensitivities(model, system, tables, recording, seed)
    with tqdm(
        total=len(blocks) + 3, unit="block", disable=True if quiet else None, dynamic_ncols=True
    ) as bar:
        local, force = _measure_blocks(model, system, tables, recording, blocks, squares, chosen, bar)
        amplification = measure_amplifications(model, system, tables, recording, squares, seed)
        bar.update()
        curve = _measure_curve(blocks, len(model.layers))
        bar.update()
        smallest, _ = join_frames(model, [min((atoms for _, atoms in frames), key=len)])
        surface = measure_surfaces(model, smallest, tables, chosen, seed)
        scales = measure_scales(model, smallest, tables, seed)
        bar.update()
    return Study(
        model=name,
        structures=list(dict.fromkeys(file for file, _ in frames[:used])),
        n_frames=used,
        n_atoms=system.n_atoms,
        n_edges=len(system.senders),
        seed=seed,
        types=list(types),
        table_intervals=[table.n_intervals for table in tables],
        machine=describe_machine(),
        local=local,
        curve=curve,
        amplification=amplification,
        force=force,
        surface=surface,
        surface_atoms=smallest.n_atoms,
        int8_scales=scales,
        knots=measure_knots(model, system),
        wasted_range=wasted_range(tables, system),
        heating_of_1_meV_per_A=heating_meV_per_atom_per_ps(
            torch.tensor(1e-3, dtype=torch.float64), system.masses, STEP_FS
        ),
        cancellation=measure_cancellation(model, system, recording),
    )


def _measure_blocks(
    model: MaceModel,
    system: System,
    tables: Sequence[RadialTable],
    recording: Recording,
    blocks: Sequence[Block],
    squares: dict[str, Tensor],
    types: Sequence[NumberType],
    bar: tqdm,
) -> tuple[list[LocalError], list[ForceError]]:
    """Local errors of every block, and what forward and reverse of one block together do to the forces."""
    local, force = [], []
    for forward, reverse in zip(blocks[::2], blocks[1::2], strict=True):
        sizes = {block.direction: measure_sizes(block) for block in (forward, reverse)}
        for type_ in types:
            for mode in MODES:
                errors, deviations = {}, {}
                for block in (forward, reverse):
                    if applies(block, type_, mode):
                        rows, e, s = measure_block(block, sizes[block.direction], type_, mode)
                        local += rows
                        errors |= e
                        deviations |= s
                if mode == "compute" or (mode == "storage" and forward.has_parameters):
                    measured = rms(inject(model, system, tables, errors) - recording.forces)
                    predicted = predict_force_error(deviations, squares, system.n_atoms)
                    force.append(
                        ForceError(forward.name, type_.name, mode, 1000 * measured, 1000 * predicted)
                    )
        bar.update(2)
    return local, force


def _measure_curve(blocks: Sequence[Block], n_layers: int) -> list[LocalError]:
    """The last layer's tensor-product convolution in floats of any significand."""
    rows = []
    for block in blocks:
        if block.name == f"convolution.{n_layers}":
            sizes = measure_sizes(block)
            for p in SIGNIFICANDS:
                for mode in MODES[1:]:
                    if applies(block, float_of(p), mode):
                        rows += measure_block(block, sizes, float_of(p), mode)[0]
    return rows
