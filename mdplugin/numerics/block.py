"""One block of the network as a sum of products whose numbers can be exchanged: the object of the rounding model.

A block is `evaluate(f)`: a public stage of `mdplugin.reference` in which every number has gone through f(kind, x), kind
"parameter", "state" or "coupling". One function gives all that the model and the measurement need:

    f = identity                      y = Σ terms
    f = rounding to a type            the block in that type
    f = |x|                           Σ |terms|, hence the condition number Σ |terms| / |Σ terms|
    f = x²                            Σ terms²
"""

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

Map = Callable[[str, Tensor], Tensor]
Outputs = tuple[Tensor, ...]


@dataclass(frozen=True)
class Block:
    """A block in one direction.

    Attributes:
        name: of the table's row, e.g. "convolution.2". direction: "forward" or "reverse".
        taps: names of the outputs, as `reference.evaluate` taps them. evaluate: f -> outputs.
        depth: roundings between an operand and the output, at most. n_terms: terms of the longest sum.
        has_parameters: storage then rounds them, else the block's inputs.
        parts: f -> the terms of the outermost sum one after the other, or None where there is no such sum.
        majorant: f -> Σ |terms| where `evaluate` of |x| is not that.
        gradient_square: the variances of the inputs -> variance of the output, where x² does not give it.
    """

    name: str
    direction: str
    taps: tuple[str, ...]
    evaluate: Callable[[Map], Outputs]
    depth: int
    n_terms: int
    has_parameters: bool = False
    parts: Callable[[Map], Iterable[Outputs]] | None = None
    majorant: Callable[[Map], Outputs] | None = None
    gradient_square: Callable[[Map], Outputs] | None = None


def exact(kind: str, x: Tensor) -> Tensor:
    """Every number as it is."""
    return x


def convert(thing, f: Map):
    """A dataclass of the model with f applied to its numbers: `values` are couplings, all others parameters."""
    changes = {}
    for field in dataclasses.fields(thing):
        value = getattr(thing, field.name)
        kind = "coupling" if field.name == "values" else "parameter"
        changes[field.name] = _convert_value(kind, value, f)
    return dataclasses.replace(thing, **changes)


def _convert_value(kind: str, value, f: Map):
    if isinstance(value, Tensor):
        return f(kind, value) if value.is_floating_point() else value
    if isinstance(value, tuple):
        return tuple(_convert_value(kind, item, f) for item in value)
    return convert(value, f) if dataclasses.is_dataclass(value) else value


def rank_within(index: Tensor) -> Tensor:
    """The how-manieth occurrence of its value every entry of `index` is, from 0."""
    order = torch.argsort(index, stable=True)
    counts = torch.bincount(index)
    first = torch.cumsum(counts, 0) - counts
    rank = torch.empty_like(index)
    rank[order] = torch.arange(len(index)) - first[index[order]]
    return rank
