"""MaceModel + recording -> its blocks, each a call of the reference's own stage, forward and reverse."""

import dataclasses
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from mdplugin.model import Contraction, LinearMap, MaceModel, Perceptron
from mdplugin.numerics.block import Block, Map, Outputs, convert, rank_within
from mdplugin.numerics.system import Recording, System
from mdplugin.reference import edge_geometry, perceptron, spherical_harmonics
from mdplugin.reference_layer import (
    contract,
    convolve,
    gate,
    linear,
    node_map,
    reverse_contract,
    reverse_convolve,
    reverse_linear,
    reverse_node_map,
)
from mdplugin.tables import RadialTable


def list_blocks(
    model: MaceModel, system: System, tables: Sequence[RadialTable], recording: Recording
) -> list[Block]:
    """All blocks in the order of evaluation, every forward one followed by its reverse.

    Density normalisation, gates and the pair repulsion are not among them: they are elementwise, in the base type.
    """
    v = recording.values
    blocks = _harmonics(model, system, v)
    for t in range(len(model.layers)):
        blocks += _radial(model, system, tables[t], v, t)
        blocks += _up(model, system, v, t) if t else []
        blocks += _convolution(model, system, v, t)
        blocks += _message(model, system, v, t)
        blocks += _contraction(model, system, v, t)
    return [*blocks, *_readout(model, system, v), *_sums(system, recording)]


def _harmonics(model: MaceModel, system: System, v: dict[str, Tensor]) -> list[Block]:
    """Y of unit vectors; in reverse dE/d(edge vector) = D gY + unit gr, D = dY/d(edge vector)."""
    r, unit, _ = edge_geometry(system.vectors, model.l_max)
    dY = spherical_harmonics(unit, model.l_max)[1]
    D = (dY - (dY * unit[:, None]).sum(-1, keepdim=True) * unit[:, None]) / r[:, None, None]
    gY, gr = _total(v, "gY"), _total(v, "gr")

    def forward(f: Map) -> Outputs:
        return (spherical_harmonics(f("state", unit), model.l_max)[0],)

    def majorant(f: Map) -> Outputs:
        # (-i|x|, i|y|, |z|) makes every term of the recurrences point the same way
        x, y, z = f("state", unit).unbind(-1)
        turned = torch.stack([-1j * x, 1j * y, z + 0j], dim=-1)
        return (spherical_harmonics(turned, model.l_max)[0].abs(),)

    def gradient_square(variance: Map) -> Outputs:
        return (torch.einsum("elx,ex->el", dY**2, variance("state", unit)),)

    def reverse(f: Map) -> Outputs:
        g = torch.einsum("elx,el->ex", f("state", D), f("state", gY)) + f("state", gr)[:, None] * f(
            "state", unit
        )
        return (f("coupling", torch.tensor([-model.scale], dtype=torch.float64)) * g,)

    def reverse_parts(f: Map) -> Iterable[Outputs]:
        D_, gY_, scale = f("state", D), f("state", gY), -model.scale
        yield (scale * f("state", gr)[:, None] * f("state", unit),)
        for row in range(gY.shape[1]):
            yield (scale * D_[:, row] * gY_[:, row, None],)

    n = (model.l_max + 1) ** 2
    return [
        Block("harmonics", "forward", ("Y",), forward, 6 * model.l_max + 4, model.l_max + 1,
              majorant=majorant, gradient_square=gradient_square),
        Block("harmonics", "reverse", ("edge_force",), reverse, n + 5, n + 1, parts=reverse_parts),
    ]  # fmt: skip


def _radial(
    model: MaceModel, system: System, table: RadialTable, v: dict[str, Tensor], t: int
) -> list[Block]:
    """R = Σ_j w_j c_j of a table, and dR; in reverse gr = Σ gR dR."""
    pair = model.basis.pairs[system.species[system.senders], system.species[system.receivers]]
    rows, weights = table.taps(torch.linalg.vector_norm(system.vectors, dim=-1))
    gR, dR = v[f"gR.{t + 1}"], v[f"dR.{t + 1}"]

    def parts(f: Map) -> Iterable[Outputs]:
        c = f("parameter", table.coefficients)
        w, dw = f("state", weights[0]), f("state", weights[1])
        for j in range(rows.shape[1]):
            c_j = c[pair, rows[:, j]][:, : table.n_radial]
            yield w[:, j, None] * c_j, dw[:, j, None] * c_j

    def forward(f: Map) -> Outputs:
        outputs = list(parts(f))
        return sum(p[0] for p in outputs), sum(p[1] for p in outputs)

    def reverse(f: Map) -> Outputs:
        return ((f("state", gR) * f("state", dR)).sum(-1),)

    def reverse_parts(f: Map) -> Iterable[Outputs]:
        for column in (f("state", gR) * f("state", dR)).unbind(-1):
            yield (column,)

    taps, n, n_taps = (f"R.{t + 1}", f"dR.{t + 1}"), gR.shape[1], rows.shape[1]
    name = f"radial.{t + 1}"
    return [
        Block(name, "forward", taps, forward, n_taps + 2, n_taps, True, parts),
        Block(name, "reverse", (f"gr.{t + 1}",), reverse, n + 2, n, parts=reverse_parts),
    ]


def _convolution(model: MaceModel, system: System, v: dict[str, Tensor], t: int) -> list[Block]:
    conv = model.layers[t].convolution
    R, Y, u, gA = v[f"R.{t + 1}"], v["Y"], v[f"u.{t + 1}"], v[f"gA.{t + 1}"]
    ends = (system.senders, system.receivers)
    n = system.n_atoms

    def numbers(f: Map):
        return dataclasses.replace(conv, values=f("coupling", conv.values)), *(
            f("state", x) for x in (R, Y, u)
        )

    def forward(f: Map) -> Outputs:
        return (convolve(*numbers(f), *ends, n),)

    def reverse(f: Map) -> Outputs:
        return reverse_convolve(*numbers(f), *ends, f("state", gA))

    def parts(f: Map) -> Iterable[Outputs]:
        conv_, R_, Y_, u_ = numbers(f)
        rank = rank_within(system.receivers)
        for k in range(int(rank.max()) + 1):
            e = rank == k
            yield (convolve(conv_, R_[e], Y_[e], u_, ends[0][e], ends[1][e], n),)

    degree = int(torch.bincount(system.receivers).max())
    small = 4 * conv.l_max + 8  # sums over m1, m2, m3, products, coupling
    name, taps = f"convolution.{t + 1}", tuple(f"{x}.{t + 1}" for x in ("gR", "gY", "gu"))
    # the longest sum of the reverse: gY over paths and channels
    longest = max(degree, len(conv.paths) * conv.source.channels)
    return [
        Block(name, "forward", (f"A.{t + 1}",), forward, degree + small, degree, parts=parts),
        Block(name, "reverse", taps, reverse, longest + small + len(conv.paths), degree),
    ]


def _message(model: MaceModel, system: System, v: dict[str, Tensor], t: int) -> list[Block]:
    map_, z = model.layers[t].message, system.species
    A, gy = v[f"A.{t + 1}"], v[f"gy.{t + 1}"]

    def forward(f: Map) -> Outputs:
        return (linear(convert(map_, f), f("state", A), z),)

    def reverse(f: Map) -> Outputs:
        return (reverse_linear(convert(map_, f), f("state", gy), z),)

    def parts(f: Map) -> Iterable[Outputs]:
        converted, x = convert(map_, f), f("state", A)
        for slim in _one_by_one(converted, 1):
            yield (linear(slim, x, z),)

    def reverse_parts(f: Map) -> Iterable[Outputs]:
        converted, g = convert(map_, f), f("state", gy)
        for slim in _one_by_one(converted, 2):
            yield (reverse_linear(slim, g, z),)

    n_in, n_out = (max(w.matrix.shape[axis] for w in map_.weights) for axis in (1, 2))
    name, extra = f"linear.{t + 1}", len(map_.weights) + 2
    return [
        Block(name, "forward", (f"y.{t + 1}",), forward, n_in + extra, n_in, True, parts),
        Block(name, "reverse", (f"gA.{t + 1}",), reverse, n_out + extra, n_out, True, reverse_parts),
    ]


def _one_by_one(map_: LinearMap, axis: int) -> Iterable[LinearMap]:
    """The map with one row (axis 1) or column (axis 2) of its matrices at a time."""
    for j in range(max(w.matrix.shape[axis] for w in map_.weights)):

        def only(matrix: Tensor, j: int = j) -> Tensor:
            kept = torch.zeros_like(matrix)
            if j < matrix.shape[axis]:
                kept.select(axis, j).copy_(matrix.select(axis, j))
            return kept

        weights = tuple(dataclasses.replace(w, matrix=only(w.matrix)) for w in map_.weights)
        yield dataclasses.replace(map_, weights=weights)


def _up(model: MaceModel, system: System, v: dict[str, Tensor], t: int) -> list[Block]:
    """u of a later layer from all earlier B."""
    map_, z = model.layers[t].up, system.species
    B, gu = [v[f"B.{s + 1}"] for s in range(t)], v[f"gu_all.{t + 1}"]

    def forward(f: Map) -> Outputs:
        return (node_map(convert(map_, f), [f("state", x) for x in B], z),)

    def reverse(f: Map) -> Outputs:
        return tuple(reverse_node_map(convert(map_, f), f("state", gu), z))

    width = sum(w.matrix.shape[1] for part in map_.maps if part for w in part.weights) + 4
    taps = tuple(f"gB.{s + 1}.{t + 1}" for s in range(t))
    return [
        Block(f"up.{t + 1}", "forward", (f"u.{t + 1}",), forward, width, width, True),
        Block(f"up.{t + 1}", "reverse", taps, reverse, width, width, True),
    ]


def _contraction(model: MaceModel, system: System, v: dict[str, Tensor], t: int) -> list[Block]:
    contraction, z = model.layers[t].contraction, system.species
    m, gB = v[f"m.{t + 1}"], _total(v, f"gB.{t + 1}")

    def forward(f: Map) -> Outputs:
        return (contract(convert(contraction, f), f("state", m), z),)

    def reverse(f: Map) -> Outputs:
        return (reverse_contract(convert(contraction, f), f("state", m), z, f("state", gB)),)

    def parts(f: Map) -> Iterable[Outputs]:
        m_ = f("state", m)
        for one in _monomials(convert(contraction, f)):
            yield (contract(one, m_, z),)

    def reverse_parts(f: Map) -> Iterable[Outputs]:
        m_, g = f("state", m), f("state", gB)
        for one in _monomials(convert(contraction, f)):
            yield (reverse_contract(one, m_, z, g),)

    n = max(sum(len(x.monomials) for x in contraction.terms if x.target == k) for k in range(2))
    depth = 3 * n + max(x.n_paths for x in contraction.terms) + 12
    name, total = f"contraction.{t + 1}", sum(len(x.monomials) for x in contraction.terms)
    return [
        Block(name, "forward", (f"B.{t + 1}",), forward, depth, n, True, parts),
        Block(name, "reverse", (f"gm.{t + 1}",), reverse, depth + 3 * total, total, True, reverse_parts),
    ]


def _monomials(contraction: Contraction) -> Iterable[Contraction]:
    """The contraction with one monomial at a time."""
    for term in contraction.terms:
        for k in range(len(term.monomials)):
            mine = term.indices[:, 0] == k
            indices = term.indices[mine].clone()
            indices[:, 0] = 0
            slim = dataclasses.replace(
                term, monomials=term.monomials[k : k + 1], indices=indices, values=term.values[mine]
            )
            yield dataclasses.replace(contraction, terms=(slim,))


def _readout(model: MaceModel, system: System, v: dict[str, Tensor]) -> list[Block]:
    """The last products of the readouts; the perceptron's hidden values count as state, its gate as exact."""
    z, net = system.species, model.perceptron
    B = [v[f"B.{s + 1}"] for s in range(len(model.layers))]
    one = torch.ones((len(z), 1, 1), dtype=torch.float64)
    x = None if net is None else node_map(net.hidden, B, z)[:, 0]
    y = None if net is None else _last_hidden(net, x)
    g = None if net is None else perceptron(net, x)[1][:, None]

    def forward(f: Map) -> Outputs:
        energy = node_map(convert(model.linear, f), [f("state", B_s) for B_s in B], z)[:, 0, 0]
        if net is None:
            return (energy,)
        bias = f("parameter", torch.tensor([net.output_bias], dtype=torch.float64))
        return (energy + (f("state", y) * f("parameter", net.output[:, None])[:, 0]).sum(-1) + bias,)

    def reverse(f: Map) -> Outputs:
        outputs = [f("state", torch.zeros_like(B_s)) for B_s in B]
        for map_, g_map in [(model.linear, one)] + ([] if net is None else [(net.hidden, g)]):
            found = reverse_node_map(convert(map_, f), f("state", g_map), z)
            outputs = [a + b for a, b in zip(outputs, found, strict=False)] + outputs[len(found) :]
        return tuple(outputs)

    width = sum(B_s.shape[2] for B_s in B) + (0 if net is None else len(net.output)) + 8
    taps = tuple(f"gB.{s + 1}" for s in range(len(B)))
    return [
        Block("readout", "forward", ("E",), forward, width, width, True),
        Block("readout", "reverse", taps, reverse, width, width, True),
    ]


def _last_hidden(net: Perceptron, x: Tensor) -> Tensor:
    y = net.gate_scale * gate(net.gate, x)[0]
    return y if net.middle is None else net.gate_scale * gate(net.gate, y @ net.middle + net.middle_bias)[0]


def _sums(system: System, recording: Recording) -> list[Block]:
    """Energy of a frame from its atoms, E0 included; force on an atom from its edges."""
    energy, edge_force = recording.energy, recording.values["edge_force"]
    minus, n = torch.tensor([-1.0], dtype=torch.float64), system.n_atoms

    def add(f: Map, x: Tensor, which: Tensor) -> Outputs:
        return (x.new_zeros(int(system.frame.max()) + 1).index_add(0, system.frame[which], x[which]),)

    def forward(f: Map) -> Outputs:
        return add(f, f("state", energy), torch.arange(n))

    def parts(f: Map) -> Iterable[Outputs]:
        rank, x = rank_within(system.frame), f("state", energy)
        for k in range(int(rank.max()) + 1):
            yield add(f, x, torch.nonzero(rank == k)[:, 0])

    def reverse(f: Map) -> Outputs:
        x = f("state", edge_force)
        F = x.new_zeros((n, 3)).index_add(0, system.receivers, x)
        return (F.index_add(0, system.senders, f("coupling", minus) * x),)

    def reverse_parts(f: Map) -> Iterable[Outputs]:
        x = f("state", edge_force)
        for ends, sign in ((system.receivers, 1.0), (system.senders, -1.0)):
            rank = rank_within(ends)
            for k in range(int(rank.max()) + 1):
                e = rank == k
                yield (x.new_zeros((n, 3)).index_add(0, ends[e], sign * x[e]),)

    atoms = int(torch.bincount(system.frame).max())
    degree = int(
        (torch.bincount(system.receivers, minlength=n) + torch.bincount(system.senders, minlength=n)).max()
    )
    return [
        Block("sums", "forward", ("energy",), forward, atoms + 1, atoms, parts=parts),
        Block("sums", "reverse", ("forces",), reverse, degree + 2, degree, parts=reverse_parts),
    ]


def _total(v: dict[str, Tensor], name: str) -> Tensor:
    """Sum of all contributions to a gradient: `name` and all names that begin with it and a dot."""
    return sum(x for key, x in v.items() if key == name or key.startswith(name + "."))
