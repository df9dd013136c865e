"""Number of layers -> the blocks that are tuned and their policies; formats by block -> `Precision`.

A block is a role of `mdplugin.precision` in one layer, for the readout in all: `radial.1`, `linear.2`, `readout`.
`messages` is left out: rounding what the convolution gathers saves no time on a CPU.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from mdplugin.precision import LAYERED, ROLES, Precision

BASE = "fp32"
TUNED = tuple(role for role in ROLES if role != "messages")


@dataclass(frozen=True)
class Block:
    """A role in a layer (1 is the first), or in the whole network (0)."""

    role: str
    layer: int = 0

    def __str__(self) -> str:
        return f"{self.role}.{self.layer}" if self.layer else self.role

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats it can have besides the base type."""
        return tuple(name for name in ROLES[self.role] if name != BASE)


def list_blocks(n_layers: int) -> list[Block]:
    """All blocks of a network, role by role."""
    return [
        Block(role, layer)
        for role in TUNED
        for layer in (range(1, n_layers + 1) if role in LAYERED else (0,))
    ]


def combine(formats: Mapping[Block, str], n_layers: int) -> Precision:
    """The policy of these formats, fp32 elsewhere; a role with one format in all layers is spelled once."""
    choices = {}
    for role in TUNED:
        blocks = [block for block in list_blocks(n_layers) if block.role == role]
        names = [formats.get(block, BASE) for block in blocks]
        if len(set(names)) == 1:
            choices[role, 0] = names[0]
        else:
            choices |= {(role, block.layer): name for block, name in zip(blocks, names, strict=True)}
    return Precision.make(BASE, choices)
