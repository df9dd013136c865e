"""MaceModel -> the artifact's forward on our own kernels: a short TorchScript score and its mirror image.

edges -> r, Y -> (per layer) u -> A -> m -> B -> readout, then the same stages backwards with hand-written
reverses. Symbols and layouts: model.py and docs/lowering.md; the plain float64 version: reference.py.
"""

import warnings
from collections.abc import Sequence

import ase
import torch
from torch import Tensor

from mdplugin.calibrate import collect_statistics
from mdplugin.checkpoint import Checkpoint
from mdplugin.errors import Unsupported
from mdplugin.lowering import lower
from mdplugin.model import MaceModel
from mdplugin.network_layers import Graph, Interaction, Tape
from mdplugin.network_readout import PairRepulsion, Readout, no_repulsion
from mdplugin.precision import Precision
from mdplugin.quantize import quantize_model, quantize_tables
from mdplugin.tables import RadialTable, measure_table, tabulate

# Kind of the radial tables and the largest error of dR/dr in them, relative to its largest value, by the format of the
# knots. The surface stays smooth (C4; C2 with the cubic splines of w16a16) and forces stay its exact derivative (but for
# the weights of w16a16): this is how far it may lie from the checkpoint's. Far below the tolerances of `Precision`; for
# rounded knots as far as their rounding.
TABLES = {
    "fp64": ("spline5", 1e-9),
    "fp32": ("spline5", 5e-6),
    "w16": ("spline5", 2e-4),
    "w16a16": ("spline3", 1e-3),
    "fp16": ("spline5", 2e-4),
    "bf16": ("spline5", 5e-3),
    "w8": ("spline5", 5e-3),
}
INTERVALS = (64, 80, 96, 112, 128, 160, 192, 256, 512, 1024, 2048, 4096)
LARGEST_TABLE_BYTES = 500_000_000
R_MIN_A = 0.6  # no two nuclei come nearer in dynamics; below it the table is as smooth, only less tight


class NativeNetwork(torch.nn.Module):
    """The artifact's forward (docs/architecture.md) on the ops of libmdplugin_ops."""

    e0s: Tensor
    pairs: Tensor

    def __init__(self, model: MaceModel, tables: Sequence[RadialTable], precision: Precision):
        super().__init__()
        self.dtype = precision.dtype
        self.l_max = model.l_max
        self.scale, self.shift = model.scale, model.shift
        self.e0s, self.pairs = model.e0s.clone(), model.basis.pairs.clone()
        self.has_pairs = model.basis.n_pairs > 1
        self.n_species = len(model.atomic_numbers)
        layers = [Interaction(layer, tables[t], precision, t + 1) for t, layer in enumerate(model.layers)]
        self.layers = torch.nn.ModuleList(layers)
        self.reversed_layers = torch.nn.ModuleList(layers[::-1])
        self.readout = Readout(model.linear, model.perceptron, precision)
        self.has_zbl = model.zbl is not None
        self.zbl = PairRepulsion(model.zbl or no_repulsion(self.n_species))

    def forward(
        self, edge_vectors: Tensor, senders: Tensor, receivers: Tensor, species: Tensor, n_local: int
    ) -> tuple[Tensor, Tensor]:
        """Per-atom energy (n_local,) eV and edge_force (n_edges, 3) eV/Å, both float64."""
        n_nodes, edge_vectors = species.size(0), edge_vectors.contiguous()
        graph = self.build_graph(edge_vectors, senders, receivers, species, n_local)
        tapes: list[Tape] = []
        messages: list[
            list[Tensor]
        ] = []  # the largest tensors that are kept: each goes when its reverse has used it
        B: list[list[Tensor]] = []
        for layer in self.layers:
            u = layer.up.biases if layer.first else self.fetch(layer.up(B, graph.z, graph.groups), n_nodes)
            tape, m, B_t = layer(graph, u)
            tapes.append(tape)
            messages.append(m)
            B.append(B_t)

        gB = [[torch.zeros_like(block) for block in blocks] for blocks in B]
        energy = self.readout(B, gB, graph.z, graph.groups).to(torch.float64)
        gr, gY = torch.zeros_like(graph.r), torch.zeros_like(graph.Y)
        if self.has_zbl:
            receiver_species = species.index_select(0, receivers)
            distances = torch.linalg.vector_norm(edge_vectors, dim=1)
            v, slope = self.zbl(distances, graph.sender_species, receiver_species)
            energy = energy.index_add(0, receivers, v)
            gr += slope.to(self.dtype)

        for layer in self.reversed_layers:
            gu = layer.reverse(graph, tapes.pop(), messages.pop(), gB.pop(), gr, gY)
            if not layer.first:
                layer.up.reverse(self.give_back(gu, n_local), gB, graph.groups)
        node_energy = self.e0s.index_select(0, graph.z) + self.shift + self.scale * energy
        return node_energy, torch.ops.mdplugin.reverse_edge_geometry(
            edge_vectors, gr, gY, self.l_max, self.scale
        )

    def build_graph(
        self, edge_vectors: Tensor, senders: Tensor, receivers: Tensor, species: Tensor, n_local: int
    ) -> Graph:
        """Geometry of the edges, and their grouping by receiver."""
        z, sender_species = species[:n_local], species.index_select(0, senders)
        r, Y = torch.ops.mdplugin.edge_geometry(edge_vectors, self.l_max, self.dtype)
        offsets, order = torch.ops.mdplugin.sort_edges(receivers, r, n_local)
        pair: Tensor | None = None
        if self.has_pairs:
            pair = self.pairs[sender_species, species.index_select(0, receivers)]
        groups = [torch.nonzero(z == s)[:, 0] for s in range(self.n_species)]
        return Graph(
            r,
            Y,
            senders,
            receivers,
            sender_species,
            pair,
            offsets,
            order,
            z.contiguous(),
            groups,
        )

    def fetch(self, u: list[Tensor], n_nodes: int) -> list[Tensor]:
        """Features of all nodes from those of the local ones."""
        result: list[Tensor] = []
        for block in u:
            rows = torch.ops.mdplugin.halo(block.flatten(1), n_nodes)
            result.append(rows.contiguous().view(n_nodes, block.size(1), block.size(2)))
        return result

    def give_back(self, gu: list[Tensor], n_local: int) -> list[Tensor]:
        """Gradients of the local nodes, with those of their ghosts added."""
        result: list[Tensor] = []
        for block in gu:
            rows = torch.ops.mdplugin.halo_reverse(block.flatten(1), n_local)
            result.append(rows.contiguous().view(n_local, block.size(1), block.size(2)))
        return result


def tabulate_layers(model: MaceModel, precision: Precision) -> tuple[list[RadialTable], list[dict]]:
    """The coarsest radial tables within the errors of TABLES, and what the manifest says of them.

    Raises:
        Unsupported: a distance transform gives every species pair a table of its own, and they are too many; or no
            table reaches the bound.
    """
    tables, facts = [], []
    for t, layer in enumerate(model.layers):
        name = precision.format("radial", t + 1)
        kind, bound = TABLES["fp64" if precision.base == "fp64" else name]
        n_functions = len(layer.convolution.paths) * layer.convolution.source.channels
        for n_intervals in INTERVALS:
            size = model.basis.n_pairs * n_intervals * n_functions * precision.dtype.itemsize
            if size > LARGEST_TABLE_BYTES:
                raise Unsupported(
                    f"room for the radial tables of {model.basis.n_pairs} species pairs: {size / 1e9:.1f} GB per layer, "
                    f"at most {LARGEST_TABLE_BYTES / 1e9:g} GB; keep the elements that you need with --elements"
                )
            table = tabulate(model.basis, layer.convolution, n_intervals, kind)
            error = measure_table(table, model.basis, layer.convolution, r_min=R_MIN_A)
            if error.derivative <= bound:
                break
        else:
            raise Unsupported(
                f"radial table of a layer within {bound:g} of its slope: {error.derivative:.1e} at "
                f"{n_intervals} intervals"
            )
        tables.append(table)
        facts.append(
            {
                "kind": kind,
                "knots": name if precision.base != "fp64" else "fp64",
                "intervals": n_intervals,
                "value_error": error.value,
                "slope_error": error.derivative,
            }
        )
    return tables, facts


def build_native(
    checkpoint: Checkpoint,
    precision: Precision,
    elements: Sequence[int] | None = None,
    calibration: Sequence[ase.Atoms] = (),
) -> tuple[torch.jit.ScriptModule, list[dict]]:
    """Lower the checkpoint, or some of its elements, and script it on our kernels.

    Args:
        checkpoint: the network.
        precision: the policy.
        elements: atomic numbers to keep.
        calibration: frames on which matrices are rounded for least force error (calibrate.py); none: to nearest.

    Returns:
        the network, and per layer the radial table's kind, number of intervals and relative errors.

    Raises:
        Unsupported: the checkpoint has a part that the native engine does not know; names it.
    """
    model = lower(checkpoint, elements)
    if any(layer.gate is not None for layer in model.layers):
        raise Unsupported("kernel for RealAgnosticResidualNonLinearInteractionBlock")
    precision.require_layers(len(model.layers))
    tables, facts = tabulate_layers(model, precision)
    model, tables = quantize_tables(model, tables, precision)
    round_matrices = collect_statistics(model, tables, calibration).round if len(calibration) else None
    model = quantize_model(model, precision, round_matrices)
    try:
        network = NativeNetwork(model, tables, precision).eval()
    except RuntimeError as error:  # a size beyond the kernels' buffers; they say which
        raise Unsupported(str(error).splitlines()[0]) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecation notes of TorchScript
        return torch.jit.script(network), facts
