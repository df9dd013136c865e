"""`.model` file -> Part: the objects that mace-torch pickled, as inert data.

A `.model` is a pickle of live objects: opened the usual way, it runs whatever it names. Here torch's restricted
unpickler reads it (`torch.load(weights_only=True)`: no import, no opcode outside its own short list), and each name
that a MACE network needs, be it a class or a function, stands for a `Part`, which keeps what it is given and does
nothing. So `torch.fx`'s `reduce_graph_module`, which executes source text, and `getattr`, which stands in the file for
`torch.tanh`, execute nothing, no constructor runs, and e3nn's scripted code stays bytes. Any other name is refused
before the first object is made.
"""

import contextlib
import zipfile
from collections.abc import Iterator
from typing import BinaryIO

import torch
from torch.serialization import (
    add_safe_globals,
    clear_safe_globals,
    get_safe_globals,
    get_unsafe_globals_in_checkpoint,
    safe_globals,
)

from mdplugin.errors import CheckpointError

NETWORKS = ("MACE", "ScaleShiftMACE")  # of mace.modules.models: energies of positions and species alone
# networks of mace-torch with other outputs or inputs: dipoles, polarisability, charges
OTHER_NETWORKS = (
    "AtomicDielectricMACE",
    "AtomicDipolesMACE",
    "EnergyDipolesMACE",
    "MACELES",
    "PolarMACE",
)

# what to do about a refusal
TRUST = "if you trust where the file comes from, --trust (in Python trust=True) opens it as Python does"

# module -> names of it that stand for a Part
_NAMES = {
    "builtins": ("getattr",),
    "torch._C": ("_VariableFunctions", "_VariableFunctionsClass"),  # of getattr(..., "tanh")
    "torch.fx._symbolic_trace": ("Tracer",),
    "torch.fx.graph_module": ("reduce_graph_module",),
    "torch.nn.functional": ("sigmoid", "silu"),
    "torch.nn.modules.activation": ("SiLU",),
    "torch.nn.modules.container": ("ModuleDict", "ModuleList", "ParameterList", "Sequential"),
    "torch.nn.modules.linear": ("Linear",),
    "torch.nn.modules.normalization": ("LayerNorm",),
    "torch.nn.modules.sparse": ("Embedding",),
    "e3nn.math._normalize_activation": ("normalize2mom",),
    "e3nn.nn._activation": ("Activation",),
    "e3nn.nn._fc": ("FullyConnectedNet", "_Layer"),
    "e3nn.o3._irreps": ("Irrep", "Irreps", "_MulIr"),
    "e3nn.o3._linear": ("Instruction", "Linear"),
    "e3nn.o3._spherical_harmonics": ("SphericalHarmonics",),
    "e3nn.o3._tensor_product._instruction": ("Instruction",),
    "e3nn.o3._tensor_product._sub": ("FullyConnectedTensorProduct",),
    "e3nn.o3._tensor_product._tensor_product": ("TensorProduct",),
    "mace.modules.blocks": (
        "AtomicEnergiesBlock",
        "EquivariantProductBasisBlock",
        "LinearNodeEmbeddingBlock",
        "LinearReadoutBlock",
        "NonLinearBiasReadoutBlock",
        "NonLinearReadoutBlock",
        "RadialEmbeddingBlock",
        "RealAgnosticAttResidualInteractionBlock",
        "RealAgnosticDensityInteractionBlock",
        "RealAgnosticDensityResidualInteractionBlock",
        "RealAgnosticInteractionBlock",
        "RealAgnosticResidualInteractionBlock",
        "RealAgnosticResidualNonLinearInteractionBlock",
        "ScaleShiftBlock",
    ),
    "mace.modules.embeddings": ("GenericJointEmbedding",),
    "mace.modules.gate": ("GatedEquivariantBlock",),
    "mace.modules.irreps_tools": ("reshape_irreps",),
    "mace.modules.models": NETWORKS,
    "mace.modules.radial": (
        "AgnesiTransform",
        "BesselBasis",
        "ChebychevBasis",
        "GaussianBasis",
        "PolynomialCutoff",
        "RadialMLP",
        "SoftTransform",
        "ZBLBasis",
    ),
    "mace.modules.symmetric_contraction": ("Contraction", "SymmetricContraction"),
}


class Part:
    """An object of the file: its class is named as the object's was, and nothing else of that class is here.

    Attributes, buffers, parameters and submodules are found by name as on a torch.nn.Module.

    Attributes:
        arguments: what the pickle made it with.
        state: what the pickle then set, for a module its `__dict__`.
    """

    __slots__ = ("arguments", "state")

    def __new__(cls, *arguments):
        """Keep the arguments of whatever the name stood for."""
        part = super().__new__(cls)
        part.arguments, part.state = arguments, {}
        return part

    def __init__(self, *arguments):
        pass

    def __repr__(self):
        return f"{type(self).__name__}{self.arguments}"

    def __setstate__(self, state):
        self.state = state

    def __getattr__(self, name: str):
        for table in (self.state, *(self.table(kind) for kind in ("parameters", "buffers", "modules"))):
            if name in table:
                return table[name]
        raise AttributeError(f"{type(self).__name__} has no {name}")

    def table(self, kind: str) -> dict:
        """A module's own "parameters", "buffers" or "modules" by name."""
        return self.state.get(f"_{kind}") or {}

    def children(self) -> list["Part"]:
        """Submodules in their order, e.g. those of a ModuleList."""
        return list(self.table("modules").values())


def read_irreps(irreps: Part) -> list[tuple[int, tuple[int, int]]]:
    """e3nn's Irreps as (multiplicity, (degree, parity)) of each entry."""
    entries = [entry.arguments[0] for entry in irreps.arguments[0]]
    return [(mul, irrep.arguments[0]) for mul, irrep in entries]


_PARTS = {
    f"{module}.{name}": type(name, (Part,), {"__module__": module, "__slots__": ()})
    for module, names in _NAMES.items()
    for name in names
}


@contextlib.contextmanager
def _inert_names() -> Iterator[None]:
    """The unpickler knows our parts and torch's own tensors, and nothing that this process has allowed elsewhere."""
    allowed = get_safe_globals()
    clear_safe_globals()
    try:
        with safe_globals([(part, name) for name, part in _PARTS.items()]):
            yield
    finally:
        clear_safe_globals()
        add_safe_globals(allowed)


def read_parts(file: BinaryIO, name: str) -> object:
    """What a file of torch.save holds: a Part for a pickled network, or plain containers and tensors (on the CPU).

    Args:
        file: open for reading, seekable.
        name: of the file, for errors.

    Raises:
        CheckpointError: not an archive of torch.save, damaged, another network of mace-torch, or a pickle that names
            anything not on the list; says which name.
    """
    if not zipfile.is_zipfile(file):
        raise CheckpointError(
            f"{name}: expected a MACE checkpoint (.model of mace-torch), got a file that torch.save did not write, "
            "or not to its end; is it complete?"
        )
    with _inert_names():
        try:
            file.seek(0)
            unknown = sorted(get_unsafe_globals_in_checkpoint(file))
            _refuse(name, unknown)
            file.seek(0)
            # explicit, since TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD, which mace-torch sets, turns the default off
            return torch.load(file, map_location="cpu", weights_only=True)
        except CheckpointError:
            raise
        except Exception as error:
            # a damaged or hostile pickle fails in any way: KeyError, struct.error, ...
            raise CheckpointError(
                f"{name}: expected a MACE checkpoint (.model of mace-torch), got a file that torch cannot read "
                f"({_reason(error)}); is it complete?"
            ) from error


def _refuse(name: str, unknown: list[str]) -> None:
    """Refuse names in the pickle that are neither torch's own nor on the list."""
    for module, _, kind in (full.rpartition(".") for full in unknown):
        if module in ("mace.modules.models", "mace.modules.extensions") and kind in OTHER_NETWORKS:
            raise CheckpointError(f"{name}: expected a network of class {' or '.join(NETWORKS)}, got {kind}")
    if unknown:
        raise CheckpointError(
            f"{name}: refused, and nothing of it was run: the pickle names {', '.join(map(printable, unknown[:3]))}"
            f"{', ...' if len(unknown) > 3 else ''}, which a MACE network has no use for; {TRUST}"
        )


def printable(text: str) -> str:
    """Text of a file for one line on a terminal: short, and without control characters."""
    return "".join(c if c.isprintable() else "?" for c in text[:500])


def _reason(error: Exception) -> str:
    """The line of torch's advice that says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if "error:" in line] or lines or [type(error).__name__]
    return printable(lines[0][:90])
