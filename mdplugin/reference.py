"""MaceModel + edges -> energies and forces, every stage in plain float64 torch: the specification of the kernels.

Each stage is a pure function with its hand-written reverse beside it: `reverse_f` takes the gradient of the
energy with respect to the output of `f` and returns it with respect to the inputs. Symbols as in Batatia et al.,
NeurIPS 2022 (MACE): Y_lm, R, A, B; u are the senders' features, m the messages. Layouts: model.py.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mdplugin.model import Layer, MaceModel, Perceptron, Zbl
from mdplugin.radial import Jet, envelope, evaluate_density, evaluate_radial
from mdplugin.reference_layer import (
    contract,
    convolve,
    density_sum,
    exchange,
    gate,
    gate_message,
    linear,
    node_map,
    normalise,
    reverse_contract,
    reverse_convolve,
    reverse_density_sum,
    reverse_gate_message,
    reverse_linear,
    reverse_node_map,
    reverse_normalise,
)
from mdplugin.tables import RadialTable


class Halo(NamedTuple):
    """How ghosts get their features: forward (n_local, C) -> (n_nodes, C), reverse the transpose."""

    forward: Callable[[Tensor], Tensor]
    reverse: Callable[[Tensor], Tensor]


Tap = Callable[[str, Tensor], Tensor]


def untouched(name: str, value: Tensor) -> Tensor:
    """The tap that changes nothing."""
    return value


class Graph(NamedTuple):
    """Edges and nodes of one evaluation: r Å, unit vectors, Y, species pairs; species of all and of local nodes."""

    r: Tensor
    unit: Tensor
    Y: Tensor
    pair: Tensor
    senders: Tensor
    receivers: Tensor
    species: Tensor
    z: Tensor
    n_local: int


class Tape(NamedTuple):
    """What the reverse of a layer needs: radial functions, sender features, density, messages before and after the gate."""

    R: Jet
    u: Tensor
    density: Jet | None
    rho: Tensor | None
    y: Tensor
    m: Tensor


def evaluate(  # noqa: PLR0913, PLR0917 (the contract, and the three ways to use it)
    model: MaceModel,
    edge_vectors: Tensor,
    senders: Tensor,
    receivers: Tensor,
    species: Tensor,
    n_local: int,
    halo: Halo | None = None,
    tables: Sequence[RadialTable] | None = None,
    tap: Tap = untouched,
) -> tuple[Tensor, Tensor]:
    """The artifact's contract.

    Args:
        model: the lowered potential.
        edge_vectors: (n_edges, 3) float64 Å, r_receiver - r_sender + shift.
        senders: (n_edges,) int64 in [0, n_nodes). receivers: (n_edges,) int64 in [0, n_local).
        species: (n_nodes,) int64 index into `model.atomic_numbers`.
        n_local: nodes whose energy is wanted; the others are ghosts.
        halo: the exchange of features; needed when there are ghosts and more than one layer.
        tables: radial tables per layer instead of the exact functions.
        tap: sees the output of every stage by name and returns what the next stages get: "Y", "R.1", "dR.1", "u.1",
            "A.1", "y.1" (message before density and gate), "m.1", "B.1", "E"; of the reverse, layer by layer from the
            last, "gB.1" (of the readout), "gm.1", "gy.1", "gA.1", "gR.1", "gY.1", "gu.1", "gr.1", "gu_all.2" (with
            the gate's), "gB.1.2" (to B of layer 1 from u of layer 2), and "edge_force".

    Returns:
        node_energy (n_local,) eV and edge_force (n_edges, 3) = -dE/d(edge_vectors) eV/Å.

    Raises:
        ValueError: ghosts without a halo.
    """
    if halo is None:
        if species.shape[0] != n_local and len(model.layers) > 1:
            ghosts = species.shape[0] - n_local
            raise ValueError(f"evaluate: expected a halo exchange for {ghosts} ghosts, got none")
        halo = Halo(lambda x: x, lambda x: x)
    pair = model.basis.pairs[species[senders], species[receivers]]
    r, unit, Y = edge_geometry(edge_vectors, model.l_max)
    graph = Graph(r, unit, tap("Y", Y), pair, senders, receivers, species, species[:n_local], n_local)
    B, tapes, energy, gr = _forward(model, graph, halo, tables, tap)
    gr_layers, gY = _reverse(model, graph, halo, B, tapes, tap)
    edge_force = -model.scale * reverse_edge_geometry(r, unit, model.l_max, gr + gr_layers, gY)
    node_energy = model.e0s[graph.z] + model.shift + model.scale * energy
    return node_energy, tap("edge_force", edge_force)


def _forward(
    model: MaceModel, graph: Graph, halo: Halo, tables: Sequence[RadialTable] | None, tap: Tap
) -> tuple[list[Tensor], list[Tape], Tensor, Tensor]:
    """B and tape of every layer; energy of every node in units of `scale`, and the pair repulsion's part of dE/dr."""
    B: list[Tensor] = []
    tapes: list[Tape] = []
    for t, layer in enumerate(model.layers):
        at = _in_layer(tap, t)
        R, density = _radial(model, t, graph, tables)
        R = R._replace(f=at("R", R.f), d1=at("dR", R.d1))
        u = exchange(halo.forward, node_map(layer.up, B, graph.z)) if t else layer.up.bias[graph.species]
        tape = run_layer(layer, graph, R, density, at("u", u), at)
        B.append(at("B", contract(layer.contraction, tape.m, graph.z)))
        tapes.append(tape)
    energy, gr = readout(model, B, graph.z), torch.zeros_like(graph.r)
    if model.zbl is not None:
        pair = (graph.species[graph.senders], graph.species[graph.receivers])
        v, gr = zbl(model.zbl, graph.r, *pair)
        energy = energy + torch.zeros_like(energy).index_add(0, graph.receivers, v)
    return B, tapes, tap("E", energy), gr


def _reverse(
    model: MaceModel, graph: Graph, halo: Halo, B: Sequence[Tensor], tapes: Sequence[Tape], tap: Tap
) -> tuple[Tensor, Tensor]:
    """Gradients of the layers' energy with respect to r and Y: `_forward` from its end to its beginning."""
    gr, gY = torch.zeros_like(graph.r), torch.zeros_like(graph.Y)
    gB = [tap(f"gB.{s + 1}", g) for s, g in enumerate(reverse_readout(model, B, graph.z))]
    for t, layer in reversed(list(enumerate(model.layers))):
        at = _in_layer(tap, t)
        gm = at("gm", reverse_contract(layer.contraction, tapes[t].m, graph.z, gB[t]))
        gr_t, gY_t, gu, gu_own = reverse_run_layer(layer, graph, tapes[t], gm, at)
        gr, gY = gr + gr_t, gY + gY_t
        if t:
            gu = at("gu_all", exchange(halo.reverse, gu) + gu_own)
            for s, g in enumerate(reverse_node_map(layer.up, gu, graph.z)):
                gB[s] = gB[s] + tap(f"gB.{s + 1}.{t + 1}", g)
    return gr, gY


def _in_layer(tap: Tap, t: int) -> Tap:
    return lambda name, value: tap(f"{name}.{t + 1}", value)


def _radial(
    model: MaceModel, t: int, graph: Graph, tables: Sequence[RadialTable] | None
) -> tuple[Jet, Jet | None]:
    """R and rho of every edge with their derivatives, exact or from tables."""
    conv = model.layers[t].convolution
    if tables:
        density = None if conv.density is None else tables[t].density(graph.r, graph.pair)
        return tables[t].functions(graph.r, graph.pair), density
    where = (graph.r, graph.pair)
    density = None if conv.density is None else evaluate_density(model.basis, conv.density, *where)
    return evaluate_radial(model.basis, conv.radial, *where), density


def run_layer(
    layer: Layer, graph: Graph, R: Jet, density: Jet | None, u: Tensor, tap: Tap = untouched
) -> Tape:
    """Sender features u (n_nodes, rows, channels) -> messages m (n_local, rows, channels)."""
    A = convolve(layer.convolution, R.f, graph.Y, u, graph.senders, graph.receivers, graph.n_local)
    y, rho = tap("y", linear(layer.message, tap("A", A), graph.z)), None
    if density is not None:
        rho = density_sum(density.f, graph.receivers, graph.n_local)
        y = normalise(y, rho)
    m = y if layer.gate is None else gate_message(layer.gate, y, u[: graph.n_local])
    return Tape(R, u, density, rho, y, tap("m", m))


def reverse_run_layer(
    layer: Layer, graph: Graph, tape: Tape, gm: Tensor, tap: Tap = untouched
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients with respect to r, Y, u of all nodes as senders, and u of the local nodes themselves."""
    gr, gy, gu_own = torch.zeros_like(graph.r), gm, torch.zeros_like(tape.u[: graph.n_local])
    if layer.gate is not None:
        gy, gu_own = reverse_gate_message(layer.gate, tape.y, tape.u[: graph.n_local], gy)
    if tape.rho is not None:
        gy, grho = reverse_normalise(tape.y, tape.rho, gy)
        gr = (reverse_density_sum(grho, graph.receivers) * tape.density.d1)[:, 0]
    gA = tap("gA", reverse_linear(layer.message, tap("gy", gy), graph.z))
    edges = (graph.senders, graph.receivers)
    gR, gY, gu = reverse_convolve(layer.convolution, tape.R.f, graph.Y, tape.u, *edges, gA)
    gr = gr + tap("gr", (tap("gR", gR) * tape.R.d1).sum(-1))
    return gr, tap("gY", gY), tap("gu", gu), gu_own


# --- geometry ---


def edge_geometry(edge_vectors: Tensor, l_max: int) -> tuple[Tensor, Tensor, Tensor]:
    """r (n_edges,) Å, unit vectors (n_edges, 3), Y (n_edges, (l_max + 1)²)."""
    r = torch.linalg.vector_norm(edge_vectors, dim=-1)
    unit = edge_vectors / r[:, None]
    return r, unit, spherical_harmonics(unit, l_max)[0]


def reverse_edge_geometry(r: Tensor, unit: Tensor, l_max: int, gr: Tensor, gY: Tensor) -> Tensor:
    """dE/d(edge_vectors): along the edge from r, across it from Y."""
    _, dY = spherical_harmonics(unit, l_max)
    g = torch.einsum("elx,el->ex", dY, gY)
    across = g - (g * unit).sum(-1, keepdim=True) * unit
    return gr[:, None] * unit + across / r[:, None]


def spherical_harmonics(unit: Tensor, l_max: int) -> tuple[Tensor, Tensor]:
    """Real Y_lm of unit vectors and their derivatives, sum over m of Y_lm² = 2l + 1, row l² + l + m.

    As e3nn: m = -l..l about the y axis, so Y_1 = sqrt(3) (x, y, z). The derivatives (n, rows, 3) are those of the
    polynomials in (x, y, z); project out the component along `unit`. Y_lm = N_lm Q_lm(y) Re or Im (z + i x)^|m|,
    where Q_lm is the m-th derivative of the Legendre polynomial P_l.
    """
    x, y, z = unit.unbind(-1)
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    Q = {(l, m): zero for l in range(l_max + 1) for m in range(l + 1, l_max + 2)}  # noqa: E741
    for m in range(l_max + 1):
        Q[m, m] = one * math.prod(range(1, 2 * m, 2))
        for l in range(m + 1, l_max + 1):  # noqa: E741
            below = Q[l - 2, m] if l > m + 1 else zero
            Q[l, m] = ((2 * l - 1) * y * Q[l - 1, m] - (l + m - 1) * below) / (l - m)
    cosine, sine = [one], [zero]
    for _ in range(l_max):
        cosine, sine = [*cosine, z * cosine[-1] - x * sine[-1]], [*sine, x * cosine[-1] + z * sine[-1]]
    Y, dY = [], []
    for l in range(l_max + 1):  # noqa: E741
        for m in range(-l, l + 1):
            k = abs(m)
            N = math.sqrt((2 * l + 1) * (2 if k else 1) * math.factorial(l - k) / math.factorial(l + k))
            wave = sine[k] if m < 0 else cosine[k]
            # d/dz (z + i x)^k = k (z + i x)^(k-1); d/dx is i times that
            dz = k * (sine[k - 1] if m < 0 else cosine[k - 1]) if k else zero
            dx = k * (cosine[k - 1] if m < 0 else -sine[k - 1]) if k else zero
            Y.append(N * Q[l, k] * wave)
            dY.append(N * torch.stack([Q[l, k] * dx, Q[l, k + 1] * wave, Q[l, k] * dz], dim=-1))
    return torch.stack(Y, dim=-1), torch.stack(dY, dim=-2)


# --- energy ---


def readout(model: MaceModel, B: Sequence[Tensor], z: Tensor) -> Tensor:
    """Energy of every node (n_local,) in units of `scale`."""
    energy = node_map(model.linear, B, z)[:, 0, 0]
    if model.perceptron is not None:
        hidden = node_map(model.perceptron.hidden, B, z)[:, 0]
        energy = energy + perceptron(model.perceptron, hidden)[0]
    return energy


def reverse_readout(model: MaceModel, B: Sequence[Tensor], z: Tensor) -> list[Tensor]:
    """Gradient of the sum of `readout` with respect to every B."""
    gB = [torch.zeros_like(B_s) for B_s in B]
    one = torch.ones((len(z), 1, 1), dtype=torch.float64)
    parts = [(model.linear, one)]
    if model.perceptron is not None:
        hidden = node_map(model.perceptron.hidden, B, z)[:, 0]
        parts.append((model.perceptron.hidden, perceptron(model.perceptron, hidden)[1][:, None]))
    for map_, g in parts:
        gB[: len(map_.maps)] = [g_B + g_s for g_B, g_s in zip(gB, reverse_node_map(map_, g, z), strict=False)]
    return gB


def perceptron(net: Perceptron, x: Tensor) -> tuple[Tensor, Tensor]:
    """Energy (n,) and its gradient with respect to x (n, width)."""
    y, slope = gate(net.gate, x)
    y, slope = net.gate_scale * y, net.gate_scale * slope
    if net.middle is None:
        return y @ net.output + net.output_bias, net.output * slope
    y2, slope2 = gate(net.gate, y @ net.middle + net.middle_bias)
    y2, slope2 = net.gate_scale * y2, net.gate_scale * slope2
    return y2 @ net.output + net.output_bias, ((net.output * slope2) @ net.middle.T) * slope


def zbl(model: Zbl, r: Tensor, z_sender: Tensor, z_receiver: Tensor) -> tuple[Tensor, Tensor]:
    """Half of the pair repulsion of every edge, eV, and its derivative, eV/Å."""
    pair = (z_sender, z_receiver)
    decays = model.decays / model.screening[pair][:, None]
    waves = model.coefficients * torch.exp(-decays * r[:, None])
    phi, dphi = waves.sum(-1), -(decays * waves).sum(-1)
    f, df, _ = envelope(r, model.r_cut[pair], model.p)
    v = model.amplitude[pair] / r
    return v * phi * f, v * (dphi * f + phi * df - phi * f / r)
