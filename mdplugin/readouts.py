"""mace-torch's readouts and pair repulsion -> the energy terms of MaceModel, for one head."""

from collections.abc import Sequence

import torch

from mdplugin.errors import Unsupported
from mdplugin.irreps import linear_bias, lower_linear, require_class, select_channels
from mdplugin.linear_maps import follow, join
from mdplugin.model import NodeMap, Perceptron, Zbl, scalar_layout

READOUTS = ("LinearReadoutBlock", "NonLinearReadoutBlock", "NonLinearBiasReadoutBlock")
GATES = ("silu", "tanh", "abs")
# Ziegler, Biersack, Littmark 1985: decays of the screening function, fixed in mace-torch's code
ZBL_DECAYS = (3.2, 0.9423, 0.4028, 0.2016)
ZBL_COULOMB_EV_A = 14.3996
ZBL_BOHR_A = 0.529


def lower_readouts(
    readouts: Sequence[torch.nn.Module], features: Sequence[NodeMap], head: int, n_heads: int
) -> tuple[NodeMap, Perceptron | None]:
    """Merge all linear readouts of a head into one node map; lower the non-linear one.

    Args:
        readouts: mace-torch's readouts in order.
        features: h after every layer.
        head: index of the head served. n_heads: how many there are.

    Raises:
        Unsupported: a readout or gate that is not known.
    """
    if not len(readouts):
        raise Unsupported("readouts: the network has none (use_last_readout_only with one interaction)")
    n_species = features[0].bias.shape[0]
    linear = NodeMap(scalar_layout(1), torch.zeros((n_species, 1, 1), dtype=torch.float64), ())
    perceptron = None
    for k, readout in enumerate(readouts):
        require_class("readout", readout, READOUTS)
        h = features[-1] if len(readouts) == 1 else features[k]
        if type(readout).__name__ == "LinearReadoutBlock":
            weights = select_channels(lower_linear("readout", readout.linear), slice(head, head + 1))
            linear = join(linear, follow(h, weights))
        elif perceptron is None:
            perceptron = _lower_perceptron(readout, h, head, n_heads)
        else:
            raise Unsupported("readouts: expected at most one non-linear readout, got several")
    return linear, perceptron


def _lower_perceptron(readout: torch.nn.Module, h: NodeMap, head: int, n_heads: int) -> Perceptron:
    """The hidden units of other heads are masked to zero by mace-torch, so only this head's are kept."""
    first = lower_linear("readout.linear_1", readout.linear_1)
    if [(b.l, b.parity, b.copies) for b in first.target.blocks] != [(0, 1, 1)]:
        raise Unsupported(f"MLP_irreps: expected even scalars, got {readout.hidden_irreps}")
    masked = getattr(readout, "num_heads", 1) > 1
    width = first.target.channels // n_heads if masked else first.target.channels
    units = slice(head * width, (head + 1) * width) if masked else slice(0, width)
    (activation,) = readout.non_linearity.acts
    gate, scale = _lower_gate(activation)
    middle = middle_bias = None
    if hasattr(readout, "linear_mid"):
        (weight,) = lower_linear("readout.linear_mid", readout.linear_mid).weights
        middle = weight.matrix[0, units, units].clone()
        middle_bias = linear_bias(readout.linear_mid)[units].clone()
    (weight,) = lower_linear("readout.linear_2", readout.linear_2).weights
    output_bias = linear_bias(readout.linear_2)
    return Perceptron(
        hidden=follow(h, select_channels(first, units)),
        gate=gate,
        gate_scale=scale,
        middle=middle,
        middle_bias=middle_bias,
        output=weight.matrix[0, units, head].clone(),
        output_bias=0.0 if output_bias is None else float(output_bias[head]),
    )


def _lower_gate(activation: torch.nn.Module | None) -> tuple[str, float]:
    if activation is None:
        return "identity", 1.0
    name = getattr(activation.f, "__name__", str(activation.f))
    if name not in GATES:
        raise Unsupported(f"gate: expected None or one of {', '.join(GATES)}, got {name}")
    return name, 1.0 if activation._is_id else float(activation.cst)


def lower_zbl(network: torch.nn.Module, atomic_numbers: Sequence[int], species: list[int]) -> Zbl | None:
    """Pair repulsion per species pair, or None."""
    if not hasattr(network, "pair_repulsion_fn"):
        return None
    block = network.pair_repulsion_fn
    require_class("pair_repulsion", block, ("ZBLBasis",))
    Z = torch.tensor([atomic_numbers[z] for z in species], dtype=torch.float64)
    radii = block.covalent_radii.double()[Z.long()]
    powers = Z ** float(block.a_exp)
    return Zbl(
        amplitude=0.5 * ZBL_COULOMB_EV_A * Z[:, None] * Z[None, :],
        screening=float(block.a_prefactor) * ZBL_BOHR_A / (powers[:, None] + powers[None, :]),
        r_cut=radii[:, None] + radii[None, :],
        coefficients=block.c.double().clone(),
        decays=torch.tensor(ZBL_DECAYS, dtype=torch.float64),
        p=int(block.p),
    )
