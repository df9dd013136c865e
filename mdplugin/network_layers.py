"""MaceModel's layers -> TorchScript modules on our kernels: linear maps, convolution, contraction.

Features are lists with one tensor per irrep block, (nodes, (2l + 1) * copies, channels), channels padded to a
multiple of the widest vector, so that a linear map is one matrix product per pair of blocks. Every module has its
hand-written reverse. Equations: docs/lowering.md; the plain float64 version: reference.py.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from mdplugin import ops  # noqa: F401  (registers the classes that are built here)
from mdplugin.model import BlockWeight, Convolution, Layer, Layout, LinearMap, NodeMap, Stored
from mdplugin.precision import FORMATS, Precision
from mdplugin.tables import RadialTable

CHANNEL_MULTIPLE = 16  # kernels.h: channel_multiple
LARGEST_BLOCK = 2048  # kernel_edges.h: max_block_functions


def pad_channels(channels: int) -> int:
    """Channels as the kernels store them: a multiple of the widest vector."""
    return -(-channels // CHANNEL_MULTIPLE) * CHANNEL_MULTIPLE


class Linear(torch.nn.Module):
    """y[target] += x[source] @ matrix[species], per pair of blocks; and the transpose."""

    sources: list[int]
    targets: list[int]

    def __init__(self, linear: LinearMap, dtype: torch.dtype, arithmetic: str = "fp32"):
        super().__init__()
        self.sources = [w.source for w in linear.weights]
        self.targets = [w.target for w in linear.weights]
        self.products = torch.nn.ModuleList([Product(linear, w, dtype, arithmetic) for w in linear.weights])
        # whether every block of y and of x has one matrix for all species: it need not be zero before
        blocks = range(len(linear.target.blocks)), range(len(linear.source.blocks))
        shared = all(w.matrix.shape[0] == 1 for w in linear.weights)
        self.fills = shared and sorted(self.targets) == [*blocks[0]] and sorted(self.sources) == [*blocks[1]]

    def forward(self, x: list[Tensor], y: list[Tensor], groups: list[Tensor], add: bool = True):
        """Add to `y`, or write it; blocks are (n, rows, channels), `groups` the nodes of every species."""
        for k, product in enumerate(self.products):
            product(x[self.sources[k]], y[self.targets[k]], groups, add)

    @torch.jit.export
    def reverse(self, gy: list[Tensor], gx: list[Tensor], groups: list[Tensor], add: bool = True):
        """Add the transpose to `gx`, or write it."""
        for k, product in enumerate(self.products):
            product.reverse(gy[self.targets[k]], gx[self.sources[k]], groups, add)


MESSAGE_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
# formats that round operands at run time; all others multiply in the base type, whatever they are stored in
SHORT_OPERANDS = tuple(name for name, each in FORMATS.items() if each.state)


class Product(torch.nn.Module):
    """y += x @ matrix, one matrix product over all nodes and components, or one per species (csrc/matrix_ops.cpp)."""

    def __init__(self, linear: LinearMap, weight: BlockWeight, dtype: torch.dtype, arithmetic: str):
        super().__init__()
        one = torch.ones((1, 1, 1), dtype=torch.float64)
        stored = weight.stored or Stored(weight.matrix.to(dtype), one)
        source, target = (linear.source, weight.source), (linear.target, weight.target)
        values = _pad_side(_pad_side(stored.values, 1, *source), 2, *target)
        ones = torch.ones((1, stored.values.shape[1], 1), dtype=torch.float64)
        in_scale = ones if stored.in_scale is None else stored.in_scale[None, :, None]
        self.matrix = torch.classes.mdplugin.Matrix(
            values,
            _pad_side(stored.scale, 2, *target) if stored.scale.shape[-1] > 1 else stored.scale,
            _pad_side(in_scale, 1, *source).flatten(),
            arithmetic if arithmetic in SHORT_OPERANDS else "dense",
            dtype == torch.float64,
        )
        self.per_species = values.shape[0] > 1

    def forward(self, x: Tensor, y: Tensor, groups: list[Tensor], add: bool):
        """Add to `y` (n, rows, channels), or write it, which takes one matrix for all species."""
        if not self.per_species:
            self.matrix.multiply(x, y, 0, add)
        else:
            for species, nodes in enumerate(groups):
                if nodes.size(0) > 0:
                    part = torch.zeros([nodes.size(0), y.size(1), y.size(2)], dtype=y.dtype)
                    self.matrix.multiply(x.index_select(0, nodes), part, species, True)
                    y.index_add_(0, nodes, part)

    @torch.jit.export
    def reverse(self, gy: Tensor, gx: Tensor, groups: list[Tensor], add: bool):
        """Add the transpose to `gx`, or write it."""
        if not self.per_species:
            self.matrix.reverse(gy, gx, 0, add)
        else:
            for species, nodes in enumerate(groups):
                if nodes.size(0) > 0:
                    part = torch.zeros([nodes.size(0), gx.size(1), gx.size(2)], dtype=gx.dtype)
                    self.matrix.reverse(gy.index_select(0, nodes), part, species, True)
                    gx.index_add_(0, nodes, part)


def _pad_side(matrix: Tensor, dim: int, layout: Layout, block: int) -> Tensor:
    """A side of copies * channels -> copies * padded channels."""
    sides = matrix.unflatten(dim, (layout.blocks[block].copies, layout.channels)).movedim(dim + 1, -1)
    padded = torch.nn.functional.pad(sides, (0, pad_channels(layout.channels) - layout.channels))
    return padded.movedim(-1, dim + 1).flatten(dim, dim + 1).contiguous()


class Affine(torch.nn.Module):
    """y = bias[species] + sum over earlier layers s of maps[s](B_s)."""

    biases: list[Tensor]
    layers: list[int]

    def __init__(self, node_map: NodeMap, dtype: torch.dtype, arithmetic: str = "fp32"):
        super().__init__()
        layout = node_map.target
        self.biases = []
        for b in range(len(layout.blocks)):
            rows = node_map.bias[:, layout.offsets[b] : layout.offsets[b + 1]]
            padded = rows.new_zeros((*rows.shape[:2], pad_channels(layout.channels)))
            padded[..., : layout.channels] = rows
            self.biases.append(padded.to(dtype))
        present = [s for s, part in enumerate(node_map.maps) if part is not None]
        self.layers = present
        self.maps = torch.nn.ModuleList([Linear(node_map.maps[s], dtype, arithmetic) for s in present])

    def forward(self, B: list[list[Tensor]], species: Tensor, groups: list[Tensor]) -> list[Tensor]:
        """Blocks (n, rows, channels)."""
        y = [bias.index_select(0, species) for bias in self.biases]
        for k, part in enumerate(self.maps):
            part(B[self.layers[k]], y, groups)
        return y

    @torch.jit.export
    def reverse(self, gy: list[Tensor], gB: list[list[Tensor]], groups: list[Tensor]):
        """Add the gradients to those of every B."""
        for k, part in enumerate(self.maps):
            part.reverse(gy, gB[self.layers[k]], groups)


class Graph(NamedTuple):
    """Edges and nodes as the stages want them.

    Attributes:
        r, Y: (n_edges,) Å and (n_edges, n_y).
        senders, receivers, sender_species: (n_edges,) int64. pair: (n_edges,) row of the radial table, or None.
        offsets: (n_local + 1,) into order, the edges of every receiver by distance.
        z: (n_local,) species. groups: the local nodes of every species.
    """

    r: Tensor
    Y: Tensor
    senders: Tensor
    receivers: Tensor
    sender_species: Tensor
    pair: Tensor | None
    offsets: Tensor
    order: Tensor
    z: Tensor
    groups: list[Tensor]


class Tape(NamedTuple):
    """What a layer's reverse needs besides m: u, and in Density blocks 1 + rho (n_local,) and d(density)/dr (n_edges,)."""

    u: list[Tensor]
    one_plus_rho: Tensor
    slope: Tensor


class Interaction(torch.nn.Module):
    """One layer: u -> A -> m -> B, and back."""

    def __init__(self, layer: Layer, table: RadialTable, precision: Precision, number: int):
        super().__init__()
        self.dtype = dtype = precision.dtype
        self.first = number == 1  # its u depends on the sender's species alone
        arithmetic = precision.format("linear", number)
        self.up = Affine(layer.up, dtype, arithmetic)
        self.convolution = _build_convolution(
            layer.convolution, table, dtype, precision.format("radial", number)
        )
        self.feature_dtype = MESSAGE_TYPES.get(precision.format("messages", number), dtype)
        self.message = Linear(layer.message, dtype, arithmetic)
        self.message_rows: list[int] = [block.n_rows for block in layer.message.target.blocks]
        self.message_channels = pad_channels(layer.message.target.channels)
        self.contraction = _build_contraction(layer, dtype)
        self.has_density = layer.convolution.density is not None

    def forward(self, graph: Graph, u: list[Tensor]) -> tuple[Tape, list[Tensor], list[Tensor]]:
        """m and B (n_local, rows, channels) per block; `u` has one row per node, in the first layer one per species."""
        n = graph.z.size(0)
        rows = graph.sender_species if self.first else graph.senders
        if self.feature_dtype != self.dtype:  # gradients pass as if nothing had been rounded
            u = [self.round_features(block) for block in u]
        A = self.convolution.forward(u, graph.r, graph.Y, graph.offsets, graph.order, rows, graph.pair)
        m = [torch.empty([n, k, self.message_channels], dtype=self.dtype) for k in self.message_rows]
        if not self.message.fills:
            for block in m:
                block.zero_()
        self.message(A, m, graph.groups, not self.message.fills)
        one_plus_rho, slope = torch.ones([0], dtype=self.dtype), torch.zeros([0], dtype=self.dtype)
        if self.has_density:
            density, slope = self.convolution.density(graph.r, graph.pair)
            one_plus_rho = torch.ones([n], dtype=self.dtype).index_add_(0, graph.receivers, density)
            m = [block / one_plus_rho[:, None, None] for block in m]
        return Tape(u, one_plus_rho, slope), m, self.contraction.forward(m, graph.z)

    def round_features(self, block: Tensor) -> Tensor:
        """In units of the power of two next to a node's largest value, so that float16 neither overflows nor loses bits."""
        top = block.abs().amax(dim=[1, 2], keepdim=True).clamp(min=1e-30)
        unit = top / (2 * torch.frexp(top)[0])  # the exponent alone
        return (block / unit).to(self.feature_dtype).to(self.dtype) * unit

    @torch.jit.export
    def reverse(
        self, graph: Graph, tape: Tape, m: list[Tensor], gB: list[Tensor], gr: Tensor, gY: Tensor
    ) -> list[Tensor]:
        """Add to gr and gY; empties `m`; returns gu, empty in the first layer."""
        n = graph.z.size(0)
        g = self.contraction.reverse(m, gB, graph.z)
        if self.has_density:
            dot = torch.zeros([n], dtype=self.dtype)
            for k in range(len(g)):
                dot += (g[k] * m[k]).sum(dim=[1, 2])
            gr -= (dot / tape.one_plus_rho).index_select(0, graph.receivers) * tape.slope
            g = [block / tape.one_plus_rho[:, None, None] for block in g]
        m.clear()  # the largest tensors go as soon as they can
        gA = self.convolution.allocate_target(n, not self.message.fills)
        self.message.reverse(g, gA, graph.groups, not self.message.fills)
        g.clear()
        rows = graph.sender_species if self.first else graph.senders
        return self.convolution.reverse(
            tape.u, gA, graph.r, graph.Y, graph.offsets, graph.order, rows, graph.pair, gr, gY, not self.first
        )


def _build_convolution(conv: Convolution, table: RadialTable, dtype: torch.dtype, arithmetic: str):
    """The kernel's object: paths, couplings, radial table in storage layout."""
    channels, padded = conv.source.channels, pad_channels(conv.source.channels)
    rows, entry = [], 0
    starts = []
    for path in conv.paths:
        starts.append(entry)
        rows.append(
            [path.l1, path.l2, path.l3, path.source, path.source_copy, conv.source.blocks[path.source].copies,
             path.target, path.target_copy, conv.target.blocks[path.target].copies, entry]
        )  # fmt: skip
        entry += 1 if path.l2 == 0 else (2 * path.l1 + 1) * (2 * path.l3 + 1)
    indices, values = _couplings(conv, starts)
    radial = table.coefficients[..., : table.n_radial]
    knots = table.stored or Stored(radial.to(dtype), torch.ones_like(radial[..., :1]))
    return torch.classes.mdplugin.Convolution(
        torch.tensor(rows, dtype=torch.int64),
        indices,
        values,
        _pack_knots(_block_functions(knots.values, len(conv.paths), channels), arithmetic),
        knots.scale[..., 0].contiguous(),
        table.coefficients[:, None, :, table.n_radial :].to(dtype).contiguous(),
        table.pieces.contiguous(),
        table.r_max,
        padded,
        (conv.l_max + 1) ** 2,
    )


def _block_functions(functions: Tensor, n_paths: int, channels: int) -> Tensor:
    """Knots (pairs, blocks, rows, paths * width): a block holds `width` channels of all paths (kernels.h: RadialTable)."""
    n_pairs, n_rows, _ = functions.shape
    padded = pad_channels(channels)
    width = 32 if padded % 32 == 0 and n_paths * 32 <= LARGEST_BLOCK else CHANNEL_MULTIPLE
    knots = functions.new_zeros((n_pairs, n_rows, n_paths, padded))
    knots[..., :channels] = functions.unflatten(-1, (n_paths, channels))
    return knots.unflatten(-1, (-1, width)).permute(0, 3, 1, 2, 4).flatten(3).contiguous()


def _pack_knots(knots: Tensor, arithmetic: str) -> Tensor:
    """Knots as the kernel reads them (kernels.h: RadialTable): two of 16-bit fixed point to a word of int32."""
    if knots.dtype != torch.int16 or arithmetic == "w16a16":
        return knots
    padded = torch.nn.functional.pad(knots.to(torch.int64), (0, -knots.shape[-1] % (2 * CHANNEL_MULTIPLE)))
    low, high = padded.unflatten(-1, (-1, 2, CHANNEL_MULTIPLE)).unbind(-2)
    return ((high << 16) | (low & 0xFFFF)).to(torch.int32).flatten(-2).contiguous()


def _couplings(conv: Convolution, starts: list[int]) -> tuple[Tensor, Tensor]:
    """[entry, row of Y] and values, by row of Y; a path with l2 = 0 is a multiple of the identity and has one entry."""
    indices, values = [], []
    for (k, row_u, row_Y, row_A), value in zip(conv.indices.tolist(), conv.values.tolist(), strict=True):
        path = conv.paths[k]
        m1 = (row_u - conv.source.row(path.source, 0, path.source_copy)) // conv.source.blocks[
            path.source
        ].copies
        m3 = (row_A - conv.target.row(path.target, 0, path.target_copy)) // conv.target.blocks[
            path.target
        ].copies
        if path.l2 == 0:
            if m1 == 0:
                indices.append((starts[k], row_Y))
                values.append(value)
            continue
        indices.append((starts[k] + m1 * (2 * path.l3 + 1) + m3, row_Y))
        values.append(value)
    order = sorted(range(len(values)), key=lambda k: indices[k][1])
    return (
        torch.tensor([indices[k] for k in order], dtype=torch.int64),
        torch.tensor([values[k] for k in order], dtype=torch.float64),
    )


def _build_contraction(layer: Layer, dtype: torch.dtype):
    contraction = layer.contraction
    padded = pad_channels(contraction.source.channels)
    tensors = []
    for term in contraction.terms:
        n_m = 2 * contraction.target.blocks[term.target].l + 1
        stored = term.stored or Stored(term.weights.to(dtype), torch.ones((1, 1, 1), dtype=torch.float64))
        weights = torch.nn.functional.pad(stored.values, (0, padded - stored.values.shape[2]))
        tensors += [
            torch.tensor([term.target, term.degree, n_m, term.n_paths], dtype=torch.int64),
            term.monomials.contiguous(),
            term.indices.contiguous(),
            term.values.contiguous(),
            weights.contiguous(),
            stored.scale.contiguous(),
        ]
    source_rows = [block.n_rows for block in contraction.source.blocks]
    target_rows = [block.n_rows for block in contraction.target.blocks]
    return torch.classes.mdplugin.Contraction(
        source_rows, target_rows, padded, tensors, dtype == torch.float64
    )
