"""e3nn's irreps and linear modules -> Layout and LinearMap (attributes only, e3nn is not imported).

e3nn stores features as (mul, m) per irrep and folds `path_weight` into every product; here rows are (m, copy)
with channels innermost, and all such factors are in the matrices. Irreps of unequal multiplicity are padded to
the largest with channels that stay zero.
"""

import math
from collections.abc import Collection
from typing import NamedTuple

import torch
from torch import Tensor

from mdplugin.errors import Unsupported
from mdplugin.model import Block, BlockWeight, Layout, LinearMap


class Entry(NamedTuple):
    """Where one entry of an e3nn irreps list lies in a layout: its block, copy, and number of channels."""

    block: int
    copy: int
    mul: int


def require_class(what: str, module: object, names: Collection[str]) -> None:
    """Refuse a module whose class is not among `names`.

    Raises:
        Unsupported: names the part, what it is and what is known.
    """
    kind = type(module).__name__
    if kind not in names:
        raise Unsupported(f"{what}: expected {' or '.join(names)}, got {kind}")


def require_plain(what: str, module: torch.nn.Module, name: str) -> torch.nn.Module:
    """Refuse accelerated or adapted variants (cuEquivariance, OpenEquivariance, LoRA) of a module.

    Raises:
        Unsupported: the module is not mace-torch's or e3nn's own class `name`.
    """
    kind, home = type(module).__name__, type(module).__module__.partition(".")[0]
    if kind != name or home not in ("e3nn", "mace"):
        raise Unsupported(
            f"{what}: expected {name} of e3nn or mace-torch, got {home}'s {kind} (a network converted for an "
            "accelerator or with unmerged LoRA weights): convert it back first"
        )
    return module


def lower_layout(irreps, channels: int | None = None) -> tuple[Layout, list[Entry]]:
    """Group an e3nn irreps list into blocks of equal irrep, one copy per entry.

    Args:
        irreps: e3nn's irreps.
        channels: of the layout; None is the largest multiplicity. An entry with more becomes several copies.

    Returns:
        the layout, and for every entry of the list where it lies.
    """
    channels = channels or max((mul for mul, _ in irreps), default=0)
    keys: list[tuple[int, int]] = []
    copies: dict[tuple[int, int], int] = {}
    positions = []
    for mul, ir in irreps:
        key = (ir.l, ir.p)
        if key not in copies:
            keys.append(key)
        first = copies.get(key, 0)
        copies[key] = first + max(1, -(-mul // max(1, channels)))
        positions.append((key, first, mul))
    layout = Layout(tuple(Block(*key, copies[key]) for key in keys), channels)
    return layout, [Entry(keys.index(key), copy, mul) for key, copy, mul in positions]


def lower_linear(what: str, linear: torch.nn.Module, channels_out: int | None = None) -> LinearMap:
    """e3nn's Linear without its biases; `channels_out` as in `lower_layout`.

    Raises:
        Unsupported: not e3nn's own Linear.
    """
    require_plain(what, linear, "Linear")
    blocks = _Blocks(linear.irreps_in, linear.irreps_out, 1, channels_out)
    offset = 0
    for ins in linear.instructions:
        size = math.prod(ins.path_shape)
        if ins.i_in >= 0:
            matrix = linear.weight.detach().double()[offset : offset + size].reshape(1, *ins.path_shape)
            blocks.put(ins.i_in, ins.i_out, matrix * ins.path_weight)
            offset += size
    return blocks.as_map()


def linear_bias(linear: torch.nn.Module) -> Tensor | None:
    """Biases of e3nn's Linear onto a single scalar irrep, (mul,), or None."""
    return linear.bias.detach().double().clone() if linear.bias.numel() else None


def lower_species_linear(what: str, tp: torch.nn.Module, species: list[int]) -> LinearMap:
    """e3nn's FullyConnectedTensorProduct with the one-hot species: one matrix per species.

    Raises:
        Unsupported: not e3nn's own module.
    """
    require_plain(what, tp, "FullyConnectedTensorProduct")
    blocks = _Blocks(tp.irreps_in1, tp.irreps_out, len(species))
    offset = 0
    for ins in tp.instructions:
        size = math.prod(ins.path_shape)
        weight = tp.weight.detach().double()[offset : offset + size].reshape(ins.path_shape)
        # l x 0 -> l: the coupling is the identity over sqrt(2l + 1)
        coupling = (2 * tp.irreps_in1[ins.i_in1].ir.l + 1) ** -0.5
        blocks.put(ins.i_in1, ins.i_out, weight.transpose(0, 1)[species] * ins.path_weight * coupling)
        offset += size
    return blocks.as_map()


class _Blocks:
    """Collects the matrices of a map entry by entry."""

    def __init__(self, irreps_in, irreps_out, n_species: int, channels_out: int | None = None):
        self.source, self.inputs = lower_layout(irreps_in)
        self.target, self.outputs = lower_layout(irreps_out, channels_out)
        self.n_species = n_species
        self.matrices: dict[tuple[int, int], Tensor] = {}

    def put(self, i_in: int, i_out: int, matrix: Tensor) -> None:
        """Add the (n_species, mul_in, mul_out) matrix between two entries."""
        a, b = self.inputs[i_in], self.outputs[i_out]
        if not a.mul or not b.mul:
            return
        height = self.source.blocks[a.block].copies * self.source.channels
        width = self.target.blocks[b.block].copies * self.target.channels
        key = (a.block, b.block)
        if key not in self.matrices:
            self.matrices[key] = torch.zeros((self.n_species, height, width), dtype=torch.float64)
        rows, columns = a.copy * self.source.channels, b.copy * self.target.channels
        self.matrices[key][:, rows : rows + a.mul, columns : columns + b.mul] += matrix

    def as_map(self) -> LinearMap:
        weights = tuple(BlockWeight(*key, matrix) for key, matrix in self.matrices.items())
        return LinearMap(self.source, self.target, weights)


def scale_copies(linear: LinearMap, scales: dict[tuple[int, int], float]) -> LinearMap:
    """Multiply what a map reads from (block, copy) by a factor."""
    weights = []
    for w in linear.weights:
        copies = linear.source.blocks[w.source].copies
        factors = torch.tensor([scales[w.source, copy] for copy in range(copies)], dtype=torch.float64)
        rows = factors.repeat_interleave(linear.source.channels)
        weights.append(BlockWeight(w.source, w.target, w.matrix * rows[:, None]))
    return LinearMap(linear.source, linear.target, tuple(weights))


def scale_map(linear: LinearMap, factor: float) -> LinearMap:
    """A map times a number."""
    weights = tuple(BlockWeight(w.source, w.target, w.matrix * factor) for w in linear.weights)
    return LinearMap(linear.source, linear.target, weights)


def select_channels(linear: LinearMap, channels: slice) -> LinearMap:
    """Keep some output channels of a map onto one scalar row."""
    width = len(range(*channels.indices(linear.target.channels)))
    weights = tuple(BlockWeight(w.source, w.target, w.matrix[:, :, channels].clone()) for w in linear.weights)
    return LinearMap(linear.source, Layout(linear.target.blocks, width), weights)
