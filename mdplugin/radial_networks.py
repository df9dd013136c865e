"""mace-torch's radial embedding and radial perceptrons -> RadialBasis and RadialMLP."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mdplugin.errors import Unsupported
from mdplugin.irreps import require_class
from mdplugin.model import Density, RadialBasis, RadialLayer, RadialMLP

BASES = {"BesselBasis": "bessel", "GaussianBasis": "gaussian", "ChebychevBasis": "chebyshev"}
TRANSFORMS = {"AgnesiTransform": "agnesi", "SoftTransform": "soft"}


def lower_basis(block: torch.nn.Module, atomic_numbers: Sequence[int], ordered_pairs: bool) -> RadialBasis:
    """The radial embedding.

    Args:
        block: mace-torch's RadialEmbeddingBlock.
        atomic_numbers: of the species kept.
        ordered_pairs: whether radial perceptrons tell sender and receiver species apart.

    Raises:
        Unsupported: an unknown basis, transform or cutoff.
    """
    function, cutoff = block.bessel_fn, block.cutoff_fn
    require_class("radial_type", function, BASES)
    require_class("cutoff", cutoff, ("PolynomialCutoff",))
    kind = BASES[type(function).__name__]
    if kind == "bessel":
        frequencies, prefactor = function.bessel_weights, float(function.prefactor)
    elif kind == "gaussian":
        frequencies, prefactor = function.gaussian_weights, float(function.coeff)
    else:
        frequencies, prefactor = function.n, 1.0
    name, constants, lengths = _lower_transform(getattr(block, "distance_transform", None), atomic_numbers)
    if ordered_pairs:
        r_0, pairs = lengths.flatten(), torch.arange(lengths.numel()).reshape(lengths.shape)
    else:
        # sums of the same radii in another order differ by rounding
        kinds, pairs = torch.unique(torch.round(lengths, decimals=9), return_inverse=True)
        r_0 = torch.zeros_like(kinds).scatter_reduce(0, pairs.flatten(), lengths.flatten(), "amax")
    return RadialBasis(
        kind=kind,
        frequencies=frequencies.detach().double().flatten().clone(),
        prefactor=prefactor,
        transform=name,
        transform_constants=constants,
        r_0=r_0,
        pairs=pairs,
        r_max=float(cutoff.r_max),
        p=int(cutoff.p),
        cutoff_after=not getattr(block, "apply_cutoff", True),
    )


def _lower_transform(
    transform: torch.nn.Module | None, atomic_numbers: Sequence[int]
) -> tuple[str, tuple[float, ...], Tensor]:
    """Name, constants, and r_0 (n_species, n_species); 1 without a transform."""
    n = len(atomic_numbers)
    if transform is None:
        return "none", (), torch.ones((n, n), dtype=torch.float64)
    require_class("distance_transform", transform, TRANSFORMS)
    name = TRANSFORMS[type(transform).__name__]
    symbols = {"agnesi": ("q", "p", "a"), "soft": ("alpha",)}[name]
    constants = tuple(float(getattr(transform, symbol)) for symbol in symbols)
    radii = transform.covalent_radii.double()[list(atomic_numbers)]
    return name, constants, (radii[:, None] + radii[None, :]) * (0.5 if name == "agnesi" else 1.0)


def lower_radial(what: str, net: torch.nn.Module, columns: Sequence[Tensor], channels: int) -> RadialMLP:
    """e3nn's FullyConnectedNet with its outputs in path order, channels innermost, absent channels zero.

    Args:
        what: name of the part, for errors.
        net: the perceptron.
        columns: per path, positions of its channels among the outputs.
        channels: per path in the result.

    Raises:
        Unsupported: another class, or an activation that is not silu.
    """
    require_class(what, net, ("FullyConnectedNet",))
    layers, factor = [], 1.0
    modules = list(net.children())
    for k, module in enumerate(modules):
        last = k == len(modules) - 1
        if (module.act is None) != last:
            raise Unsupported(f"{what}: expected an activation after every map but the last")
        scale = factor / (module.h_in * module.var_in / (module.var_out if last else 1)) ** 0.5
        layers.append(RadialLayer(module.weight.detach().double() * scale))
        if not last:
            if getattr(module.act.f, "__name__", "") != "silu":
                raise Unsupported(f"{what}: expected the activation silu, got {module.act.f}")
            factor = module.var_out**0.5 * (1.0 if module.act._is_id else module.act.cst)
    return RadialMLP((*layers[:-1], _order_columns(layers[-1], columns, channels)))


def lower_species_radial(
    what: str, net: torch.nn.Module, embeddings: Tensor, columns: Sequence[Tensor], channels: int
) -> RadialMLP:
    """mace-torch's RadialMLP of (basis, sender embedding, receiver embedding): a first bias per ordered pair.

    Args:
        what, net, columns, channels: as in `lower_radial`.
        embeddings: (n_pairs, n) inputs after the basis functions.

    Raises:
        Unsupported: a module that mace-torch's RadialMLP does not have.
    """
    require_class(what, net, ("RadialMLP",))
    layers: list[RadialLayer] = []
    eps = 0.0
    for module in net.net:
        kind = type(module).__name__
        if kind == "Linear":
            layers.append(
                RadialLayer(module.weight.detach().double().T.clone(), module.bias.detach().double()[None])
            )
        elif kind == "LayerNorm":
            eps = module.eps
            norm = torch.stack([module.weight.detach().double(), module.bias.detach().double()])
            layers[-1] = RadialLayer(layers[-1].weight, layers[-1].bias, norm)
        elif kind != "SiLU":
            raise Unsupported(f"{what}: expected Linear, LayerNorm and SiLU, got {kind}")
    n_basis = layers[0].weight.shape[0] - embeddings.shape[1]
    bias = layers[0].bias + embeddings @ layers[0].weight[n_basis:]
    layers[0] = RadialLayer(layers[0].weight[:n_basis].clone(), bias, layers[0].norm)
    return RadialMLP((*layers[:-1], _order_columns(layers[-1], columns, channels)), eps)


def _order_columns(layer: RadialLayer, columns: Sequence[Tensor], channels: int) -> RadialLayer:
    def order(values: Tensor) -> Tensor:
        ordered = values.new_zeros((values.shape[0], len(columns), channels))
        for k, column in enumerate(columns):
            ordered[:, k, : len(column)] = values[:, column]
        return ordered.flatten(1)

    return RadialLayer(order(layer.weight), None if layer.bias is None else order(layer.bias))


def lower_density(what: str, net: torch.nn.Module) -> Density:
    """The density of the Density blocks.

    Raises:
        Unsupported: as `lower_radial`.
    """
    return Density(lower_radial(what, net, [torch.arange(1)], 1), 1.0)
