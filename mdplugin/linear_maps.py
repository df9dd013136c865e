"""Algebra of linear maps and node maps: composition and sum, done once at lowering so that kernels see one map."""

import torch
from torch import Tensor

from mdplugin.model import BlockWeight, LinearMap, NodeMap


def compose(first: LinearMap, second: LinearMap) -> LinearMap:
    """x -> second(first(x)), as one map."""
    products: dict[tuple[int, int], Tensor] = {}
    for a in first.weights:
        for b in second.weights:
            if a.target == b.source:
                key = (a.source, b.target)
                product = torch.matmul(a.matrix, b.matrix)
                products[key] = products[key] + product if key in products else product
    return LinearMap(first.source, second.target, tuple(BlockWeight(*key, w) for key, w in products.items()))


def add(first: LinearMap | None, second: LinearMap | None) -> LinearMap | None:
    """x -> first(x) + second(x), as one map; None is zero."""
    if first is None or second is None:
        return second if first is None else first
    sums = {(w.source, w.target): w.matrix for w in first.weights}
    for w in second.weights:
        key = (w.source, w.target)
        sums[key] = sums[key] + w.matrix if key in sums else w.matrix
    return LinearMap(first.source, first.target, tuple(BlockWeight(*key, w) for key, w in sums.items()))


def follow(node_map: NodeMap, linear: LinearMap) -> NodeMap:
    """linear(node_map), as one node map; a species-wise `linear` makes species-wise maps."""
    bias = torch.zeros(
        (node_map.bias.shape[0], linear.target.n_rows, linear.target.channels), dtype=torch.float64
    )
    for weight in linear.weights:
        bias += _map_bias(node_map.bias, linear, weight)
    maps = tuple(None if m is None else compose(m, linear) for m in node_map.maps)
    return NodeMap(linear.target, bias, tuple(None if m is None or not m.weights else m for m in maps))


def _map_bias(bias: Tensor, linear: LinearMap, weight: BlockWeight) -> Tensor:
    result = bias.new_zeros((bias.shape[0], linear.target.n_rows, linear.target.channels))
    source, target = linear.source.offsets, linear.target.offsets
    n_species, width = bias.shape[0], 2 * linear.source.blocks[weight.source].l + 1
    rows = bias[:, source[weight.source] : source[weight.source + 1]].reshape(n_species, width, -1)
    shape = (n_species, linear.target.blocks[weight.target].n_rows, linear.target.channels)
    result[:, target[weight.target] : target[weight.target + 1]] = (rows @ weight.matrix).reshape(shape)
    return result


def join(first: NodeMap | None, second: NodeMap | None) -> NodeMap | None:
    """first + second, as one node map; None is zero."""
    if first is None or second is None:
        return second if first is None else first
    length = max(len(first.maps), len(second.maps))
    pairs = [(_get(first.maps, s), _get(second.maps, s)) for s in range(length)]
    return NodeMap(first.target, first.bias + second.bias, tuple(add(a, b) for a, b in pairs))


def _get(maps: tuple[LinearMap | None, ...], index: int) -> LinearMap | None:
    return maps[index] if index < len(maps) else None
