"""Profiled steps of an artifact -> where the time goes: neighbour list, every op, host.

The ops of libmdplugin_ops name themselves to torch's profiler ("mdplugin::convolve"); a convolution or contraction
belongs to the layer that its place in the step says. Matrix products are linear maps, except between the last
contraction and its reverse, where everything is readout. These steps are not those that are timed.
"""

from collections.abc import Sequence

import ase
from torch.profiler import ProfilerActivity, profile, record_function

from mdplugin.artifact import Artifact
from mdplugin.bench.contender import Walk
from mdplugin.bench.results import Split
from mdplugin.calculator import MACEQuantCalculator
from mdplugin.neighbors import Neighbors

STEP, NEIGHBORS, ARTIFACT = "bench::step", "bench::neighbors", "bench::artifact"
OPS = "mdplugin::"
PER_LAYER = ("convolve", "contract")
MATRIX_PRODUCTS = {
    "mdplugin::multiply",
    "aten::addmm",
    "aten::addmm_",
    "aten::mm",
    "aten::bmm",
    "aten::matmul",
    "aten::baddbmm",
}


class _ProfiledArtifact(Artifact):
    def evaluate(self, *edges_and_species):
        with record_function(ARTIFACT):
            return super().evaluate(*edges_and_species)


class _ProfiledNeighbors(Neighbors):
    def find(self, atoms):
        with record_function(NEIGHBORS):
            return super().find(atoms)


class _ProfiledCalculator(MACEQuantCalculator):
    def __init__(self, artifact: Artifact):
        super().__init__(_ProfiledArtifact(artifact.path, artifact.manifest, artifact.network))
        self._neighbors = _ProfiledNeighbors(artifact.manifest.r_max, self.skin)


def split_step(artifact: Artifact, atoms: ase.Atoms, seed: int, n_steps: int) -> Split:
    """Profile `n_steps` steps of the artifact on `atoms`, after one to warm up."""
    walk = Walk(_ProfiledCalculator(artifact), atoms, seed)
    walk.take_step()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(n_steps):
            with record_function(STEP):
                walk.take_step()
    return split_events(profiler.events(), artifact.manifest.n_layers)


def split_events(events: Sequence, n_layers: int) -> Split:
    """Mean over the steps among torch's profiler events, which have name, time_range (µs) and cpu_children."""
    steps = [event for event in events if event.name == STEP]
    total: dict[str, float] = {}
    for step in steps:
        for name, seconds in _split_one(step, n_layers):
            total[name] = total.get(name, 0.0) + seconds / len(steps)
    step = sum(_seconds(event) for event in steps) / len(steps)
    total["host"] = step - sum(total.values())
    return Split(step, total)


def _split_one(step, n_layers: int) -> list[tuple[str, float]]:
    """(part, seconds) of one step, in the order of their beginnings."""
    parts = [("neighbour list", _seconds(event)) for event in _find(step, NEIGHBORS)]
    ops = [op for event in _find(step, ARTIFACT) for op in _leaves(event)]
    ops.sort(key=lambda op: op.time_range.start)
    counts: dict[str, int] = {}
    for op in ops:
        parts.append((_name_part(op.name, counts, n_layers), _seconds(op)))
    return parts


def _name_part(name: str, counts: dict[str, int], n_layers: int) -> str:
    """What an op is part of; `counts` holds how often each of ours was called in this step."""
    if name.startswith(OPS) and name not in MATRIX_PRODUCTS:
        op = name.removeprefix(OPS)
        counts[op] = counts.get(op, 0) + 1
        text = op.replace("_", " ")
        if op in PER_LAYER:
            return f"{text} {counts[op]}"
        if op.removeprefix("reverse_") in PER_LAYER:
            return f"{text} {n_layers + 1 - counts[op]}"
        return text
    if counts.get("contract") == n_layers and "reverse_contract" not in counts:
        return "readout"
    return "linear maps" if name in MATRIX_PRODUCTS else "other tensor operations"


def _find(event, name: str) -> list:
    """The outermost events called `name` below `event`."""
    found = []
    for child in event.cpu_children:
        found += [child] if child.name == name else _find(child, name)
    return found


def _leaves(event) -> list:
    """The outermost ops below `event`; TorchScript's own functions lie between."""
    ops = []
    for child in event.cpu_children:
        ops += [child] if child.name.startswith((OPS, "aten::")) else _leaves(child)
    return ops


def _seconds(event) -> float:
    return event.time_range.elapsed_us() * 1e-6
