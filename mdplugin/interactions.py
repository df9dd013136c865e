"""mace-torch's interaction blocks -> convolution, message map, gate and residual."""

from typing import NamedTuple

import torch
from torch import Tensor

from mdplugin.couplings import wigner_3j
from mdplugin.errors import Unsupported
from mdplugin.irreps import (
    lower_layout,
    lower_linear,
    lower_species_linear,
    require_class,
    require_plain,
    scale_copies,
    scale_map,
)
from mdplugin.linear_maps import compose
from mdplugin.model import Convolution, Density, Gate, Layout, LinearMap, Path
from mdplugin.radial_networks import lower_density, lower_radial, lower_species_radial

NONLINEAR = "RealAgnosticResidualNonLinearInteractionBlock"
# name of the interaction block -> (has a residual, is normalised by the density)
INTERACTIONS = {
    "RealAgnosticInteractionBlock": (False, False),
    "RealAgnosticResidualInteractionBlock": (True, False),
    "RealAgnosticDensityInteractionBlock": (False, True),
    "RealAgnosticDensityResidualInteractionBlock": (True, True),
    NONLINEAR: (True, True),
}


class Interaction(NamedTuple):
    """The parts of an interaction: h -> up -> u, convolution, message, gate; h -> residual -> next h."""

    up: LinearMap
    convolution: Convolution
    message: LinearMap
    gate: Gate | None
    residual: LinearMap | None


class _Paths(NamedTuple):
    """Paths in the model's order, columns of their radial weights, and scales of e3nn per (block, copy) of A."""

    paths: tuple[Path, ...]
    columns: list[Tensor]
    scales: dict[tuple[int, int], float]
    senders: Layout
    target: Layout


def lower_interaction(block: torch.nn.Module, species: list[int]) -> Interaction:
    """One interaction block; `species` are the positions kept of the one-hot encoding.

    Raises:
        Unsupported: a block or a part of it that is not known; names it.
    """
    require_class("interaction", block, INTERACTIONS)
    has_residual, has_density = INTERACTIONS[type(block).__name__]
    if hasattr(block, "conv_fusion"):
        raise Unsupported(
            "conv_fusion: a network converted for an accelerator; save it with mace-torch's own blocks"
        )
    found = _lower_paths(block.conv_tp)
    if type(block).__name__ == NONLINEAR:
        return _lower_nonlinear(block, found, species)
    radial = lower_radial("conv_tp_weights", block.conv_tp_weights, found.columns, found.senders.channels)
    density = lower_density("density_fn", block.density_fn) if has_density else None
    message = scale_copies(lower_linear("linear", block.linear), found.scales)
    message = message if has_density else scale_map(message, 1 / float(block.avg_num_neighbors))
    skip = lower_species_linear("skip_tp", block.skip_tp, species)
    return Interaction(
        up=lower_linear("linear_up", block.linear_up),
        convolution=_convolution(found, radial, density),
        message=message if has_residual else compose(message, skip),
        gate=None,
        residual=skip if has_residual else None,
    )


def _lower_nonlinear(block: torch.nn.Module, found: _Paths, species: list[int]) -> Interaction:
    """The block of MACE-MH and MACE-OMOL: species-wise radial perceptrons, a gate, a second linear map."""
    alpha, beta = float(block.alpha), float(block.beta)
    if alpha == 0:
        raise Unsupported("alpha: expected a message scale different from zero")
    source, target = (_embedding(getattr(block, f"{end}_embedding"), species) for end in ("source", "target"))
    n = len(species)
    pairs = torch.cat([source[:, None].expand(n, n, -1), target[None].expand(n, n, -1)], dim=-1).flatten(0, 1)
    radial = lower_species_radial(
        "conv_tp_weights", block.conv_tp_weights, pairs, found.columns, found.senders.channels
    )
    density = lower_species_radial("density_fn", block.density_fn, pairs, [torch.arange(1)], 1)
    gated = lower_layout(block.irreps_out)[0]
    nonlinearity = block.equivariant_nonlin
    n_gated = len(gated.blocks) - 1
    _require_gate(nonlinearity, gated, n_gated)
    message = scale_copies(lower_linear("linear_1", block.linear_1, gated.channels), found.scales)
    gate = Gate(
        residual=lower_linear("linear_res", block.linear_res, gated.channels),
        scalar_scale=float(nonlinearity._scalar_cst),
        gate_scale=float(nonlinearity._gate_cst),
        gated=gated,
        after=lower_linear("linear_2", block.linear_2),
    )
    return Interaction(
        up=lower_linear("linear_up", block.linear_up),
        convolution=_convolution(found, radial, Density(density, beta / alpha)),
        message=scale_map(message, 1 / alpha),
        gate=gate,
        residual=lower_linear("skip_tp", block.skip_tp),
    )


def _embedding(linear: torch.nn.Module, species: list[int]) -> Tensor:
    (weight,) = lower_linear("embedding", linear).weights
    return weight.matrix[0][species]


def _require_gate(gate: torch.nn.Module, gated: Layout, n_gated: int) -> None:
    """One scalar irrep first, then one gate per other irrep, in their order."""
    require_class("equivariant_nonlin", gate, ("GatedEquivariantBlock",))
    K = gated.channels
    orders = [info[4] for info in gate._gated_info]
    sizes = (gate._s_start, gate._s_len, gate._g_len)
    scalars_first = [(b.l, b.parity) for b in gated.blocks if b.l == 0] == [(0, 1)] and gated.blocks[0].l == 0
    plain = sizes == (0, K, n_gated * K) and orders == [k * K for k in range(n_gated)]
    if not (scalars_first and plain and (not n_gated or gate._g_start == K) and not gate._layout_is_ir_mul):
        raise Unsupported(f"equivariant_nonlin: expected {K}x0e, gates, then irreps in order, got {gate}")
    names = [getattr(f, "__name__", "none") for f in (gate._act_scalar, gate._act_gate) if f is not None]
    if names != ["silu", "sigmoid"][: 1 + (n_gated > 0)]:
        raise Unsupported(f"equivariant_nonlin: expected silu and sigmoid, got {names}")


def _lower_paths(tp: torch.nn.Module) -> _Paths:
    require_plain("conv_tp", tp, "TensorProduct")
    senders, source_entries = lower_layout(tp.irreps_in1)
    target, target_entries = lower_layout(tp.irreps_out)
    harmonics = [ir.l for _, ir in tp.irreps_in2]
    if harmonics != list(range(len(harmonics))) or any(mul != 1 for mul, _ in tp.irreps_in2):
        raise Unsupported(f"edge attributes: expected Y of degree 0, 1, ..., got {tp.irreps_in2}")
    found, scales, offset = [], {}, 0
    for ins in tp.instructions:
        if ins.connection_mode != "uvu" or not ins.has_weight:
            raise Unsupported(f"conv_tp: expected weighted 'uvu' products, got {ins}")
        source, out = source_entries[ins.i_in1], target_entries[ins.i_out]
        l3 = target.blocks[out.block].l
        path = Path(
            senders.blocks[source.block].l, ins.i_in2, l3, source.block, source.copy, out.block, out.copy
        )
        scales[out.block, out.copy] = ins.path_weight / (2 * l3 + 1) ** 0.5
        found.append((path, torch.arange(offset, offset + source.mul)))
        offset += source.mul
    found.sort(key=lambda item: (item[0].target, item[0].target_copy))
    return _Paths(tuple(path for path, _ in found), [column for _, column in found], scales, senders, target)


def _convolution(found: _Paths, radial, density: Density | None) -> Convolution:
    indices, values = [], []
    for k, path in enumerate(found.paths):
        C = wigner_3j(path.l1, path.l2, path.l3) * (2 * path.l3 + 1) ** 0.5
        for m1, m2, m3 in torch.nonzero(C.abs() > 1e-14).tolist():
            row_u = found.senders.row(path.source, m1, path.source_copy)
            row_A = found.target.row(path.target, m3, path.target_copy)
            indices.append((k, row_u, path.l2**2 + m2, row_A))
            values.append(float(C[m1, m2, m3]))
    return Convolution(
        source=found.senders,
        target=found.target,
        l_max=max(path.l2 for path in found.paths),
        paths=found.paths,
        indices=torch.tensor(indices, dtype=torch.int64),
        values=torch.tensor(values, dtype=torch.float64),
        radial=radial,
        density=density,
    )
