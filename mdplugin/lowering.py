"""Checkpoint -> MaceModel: every part of a mace-torch network read into plain arrays, or refused by name.

Reads attributes and weights of `Checkpoint.network` without importing mace or e3nn. Consecutive linear maps are
merged as they are read: all that is linear in the B of earlier layers (linear_up, skip_tp, product.linear, linear
readouts and the first map of the last readout) becomes one map per consumer and layer (model.NodeMap).
"""

from collections.abc import Sequence

import torch

from mdplugin.checkpoint import Checkpoint
from mdplugin.contraction import lower_term
from mdplugin.errors import Unsupported
from mdplugin.interactions import NONLINEAR, lower_interaction
from mdplugin.irreps import lower_layout, lower_linear, require_class, require_plain
from mdplugin.linear_maps import follow, join
from mdplugin.model import Contraction, Layer, MaceModel, NodeMap, scalar_layout
from mdplugin.radial_networks import lower_basis
from mdplugin.readouts import lower_readouts, lower_zbl

NETWORKS = ("MACE", "ScaleShiftMACE")


def lower(checkpoint: Checkpoint, elements: Sequence[int] | None = None) -> MaceModel:
    """Read a MACE network into plain float64 arrays.

    Args:
        checkpoint: the network and the head served.
        elements: atomic numbers to keep, in the order wanted; None keeps all of the network's.

    Raises:
        Unsupported: the network has a part the native engine does not know; names it.
    """
    network = checkpoint.network
    require_class("network", network, NETWORKS)
    if hasattr(network, "joint_embedding"):
        raise Unsupported(
            f"embedding_specs: inputs beyond positions and species ({', '.join(network.embedding_specs)})"
        )
    species = _choose_species(checkpoint, elements)
    numbers = [checkpoint.atomic_numbers[z] for z in species]
    nonlinear = any(type(block).__name__ == NONLINEAR for block in network.interactions)
    basis = lower_basis(network.radial_embedding, numbers, ordered_pairs=nonlinear)
    features = _lower_embedding(network.node_embedding, species)
    layers, histories = [], []
    for interaction, product in zip(network.interactions, network.products, strict=True):
        layer, features = _lower_layer(checkpoint, interaction, product, features, species)
        layers.append(layer)
        histories.append(features)
    linear, perceptron = lower_readouts(
        network.readouts, histories, checkpoint.head_index, len(checkpoint.heads)
    )
    scale, shift = _lower_scale(checkpoint)
    return MaceModel(
        atomic_numbers=tuple(numbers),
        r_max=checkpoint.r_max,
        e0s=torch.tensor(checkpoint.e0s, dtype=torch.float64)[species],
        scale=scale,
        shift=shift,
        basis=basis,
        layers=tuple(layers),
        linear=linear,
        perceptron=perceptron,
        zbl=lower_zbl(network, checkpoint.atomic_numbers, species),
    )


def _choose_species(checkpoint: Checkpoint, elements: Sequence[int] | None) -> list[int]:
    """Indices into the network's one-hot encoding of the elements kept."""
    known = checkpoint.atomic_numbers
    if elements is None:
        return list(range(len(known)))
    unknown = [z for z in elements if z not in known]
    if unknown or not elements or len(set(elements)) != len(elements):
        raise Unsupported(f"elements: expected different elements among {list(known)}, got {list(elements)}")
    return [known.index(z) for z in elements]


def _lower_scale(checkpoint: Checkpoint) -> tuple[float, float]:
    block = getattr(checkpoint.network, "scale_shift", None)
    if block is None:
        return 1.0, 0.0
    values = (torch.atleast_1d(value.double()) for value in (block.scale, block.shift))
    return tuple(float(v[checkpoint.head_index if v.numel() > 1 else 0]) for v in values)


def _lower_embedding(embedding: torch.nn.Module, species: list[int]) -> NodeMap:
    """h of layer 0: one vector per species."""
    linear = lower_linear("node_embedding", embedding.linear)
    (weight,) = linear.weights
    rows = weight.matrix[0][species]  # (n_species, channels): the one-hot channels are the species
    layout = scalar_layout(rows.shape[1])
    return NodeMap(layout, rows[:, None, :].clone(), ())


def _lower_layer(
    checkpoint: Checkpoint, block: torch.nn.Module, product: torch.nn.Module, h: NodeMap, species: list[int]
) -> tuple[Layer, NodeMap]:
    """One interaction and its product; returns the layer and h after it."""
    parts = lower_interaction(block, species)
    if parts.gate is not None and getattr(checkpoint.network.radial_embedding, "apply_cutoff", True):
        raise Unsupported(
            f"apply_cutoff True with {type(block).__name__}: its messages do not vanish at the cutoff"
        )
    reached = (parts.gate.after if parts.gate else parts.message).weights
    contraction = _lower_contraction(product, {w.target for w in reached}, species)
    after = lower_linear("product.linear", product.linear)
    bias = torch.zeros((len(species), after.target.n_rows, after.target.channels), dtype=torch.float64)
    features = NodeMap(after.target, bias, (None,) * len(h.maps) + (after,))
    if parts.residual is not None and product.use_sc:
        features = join(features, follow(h, parts.residual))
    layer = Layer(follow(h, parts.up), parts.convolution, parts.message, contraction, parts.gate)
    return layer, features


def _lower_contraction(product: torch.nn.Module, reached: set[int], species: list[int]) -> Contraction:
    """The symmetric contraction; only the blocks `reached` of its input can differ from zero."""
    block = require_plain("symmetric_contractions", product.symmetric_contractions, "SymmetricContraction")
    source, target = lower_layout(block.irreps_in)[0], lower_layout(block.irreps_out)[0]
    if any(b.copies != 1 for b in (*source.blocks, *target.blocks)) or source.channels != target.channels:
        raise Unsupported(f"symmetric contraction: expected one copy of each irrep, got {block.irreps_in}")
    dead = {
        r for b in range(len(source.blocks)) if b not in reached for r in range(*source.offsets[b : b + 2])
    }
    terms = []
    for index, contraction in enumerate(block.contractions):
        highest = contraction.correlation
        weights = {highest: contraction.weights_max}
        weights.update({highest - 1 - k: weight for k, weight in enumerate(contraction.weights)})
        for degree in range(1, highest + 1):
            U = getattr(contraction, f"U_matrix_{degree}").double()
            U = U[None] if target.blocks[index].l == 0 else U
            W = weights[degree].detach().double()
            W = W[species] if W.shape[0] > 1 else W  # one row: shared by all (use_agnostic_product)
            term = lower_term(
                U,
                W,
                source=source,
                target=target,
                block=index,
                degree=degree,
                dead_rows=dead,
            )
            terms += [] if term is None else [term]
    return Contraction(source, target, tuple(terms))
