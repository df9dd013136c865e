"""Checkpoint -> the artifact's forward, with mace-torch's own e3nn blocks as its interior.

The wide net: serves every MACE that mace-torch builds and TorchScript compiles, at mace-torch's own speed. Two of its
blocks are replaced: ZBL repulsion by the native engine's, and the gate of the NonLinear interaction. Equations:
Batatia et al., NeurIPS 2022 (MACE), eqs. 4-13; the energy is differentiated by autograd with respect to the edge
vectors, from which both engines assemble forces and virials.
"""

import copy
import warnings
from collections.abc import Sequence

import torch

from mdplugin import ops  # noqa: F401  (registers mdplugin::halo, which the script calls)
from mdplugin.checkpoint import Checkpoint
from mdplugin.errors import CheckpointError, PrecisionError, Unsupported
from mdplugin.network_readout import PairRepulsion, no_repulsion
from mdplugin.precision import BASES, Precision
from mdplugin.readouts import lower_zbl


class Gate(torch.nn.Module):
    """mace-torch's GatedEquivariantBlock: silu of scalars, and other irreps times the sigmoid of their gates.

    mace-torch's own has properties and argument lists that TorchScript cannot compile.
    """

    def __init__(self, block: torch.nn.Module):
        super().__init__()
        names = [getattr(f, "__name__", None) for f in (block._act_scalar, block._act_gate) if f is not None]
        if names != ["silu", "sigmoid"][: len(names)] or not names or block._layout_is_ir_mul:
            raise Unsupported(f"equivariant_nonlin: expected silu and sigmoid, got {names} in {block}")
        self.scalars = (int(block._s_start), int(block._s_len))
        self.gates = (int(block._g_start), int(block._g_len))
        self.gated: list[tuple[int, int, int, int, int]] = list(block._gated_info)
        self.scalar_scale, self.gate_scale = float(block._scalar_cst), float(block._gate_cst)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(n_nodes, dim of scalars, gates, gated) -> (n_nodes, dim of scalars, gated)."""
        scalars = features.narrow(1, self.scalars[0], self.scalars[1])
        parts = [self.scalar_scale * torch.nn.functional.silu(scalars)]
        gates = self.gate_scale * torch.sigmoid(features.narrow(1, self.gates[0], self.gates[1]))
        for start, length, dim, mul, offset in self.gated:
            x = features.narrow(1, start, length).reshape(-1, mul, dim)
            parts.append((x * gates.narrow(1, offset, mul).unsqueeze(2)).flatten(1))
        return torch.cat(parts, dim=1)


class E3nnNetwork(torch.nn.Module):
    """mace-torch's network behind the artifact's contract (docs/architecture.md)."""

    def __init__(self, checkpoint: Checkpoint, precision: Precision, elements: Sequence[int]):
        super().__init__()
        kept = [checkpoint.atomic_numbers.index(z) for z in elements]
        network = copy.deepcopy(checkpoint.network).to(precision.dtype)
        for name in (
            "node_embedding",
            "spherical_harmonics",
            "radial_embedding",
            "interactions",
            "products",
            "readouts",
        ):
            setattr(self, name, getattr(network, name))
        for block in self.interactions:
            if hasattr(block, "equivariant_nonlin"):
                block.equivariant_nonlin = Gate(block.equivariant_nonlin)
        # mace-torch's ZBL multiplies species by a constant in torch's default dtype, float32 in most processes
        zbl = lower_zbl(checkpoint.network, checkpoint.atomic_numbers, kept)
        self.has_zbl = zbl is not None
        self.zbl = PairRepulsion(zbl or no_repulsion(len(kept)))
        self.head = checkpoint.head_index
        self.compute_dtype = precision.dtype
        self.register_buffer("atomic_numbers", network.atomic_numbers)
        self.register_buffer("kept", torch.tensor(kept))  # species -> position in the one-hot encoding
        self.register_buffer("e0s", torch.tensor([checkpoint.e0s[z] for z in kept], dtype=torch.float64))
        scale, shift = _scale_and_shift(checkpoint)
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(
        self,
        edge_vectors: torch.Tensor,
        senders: torch.Tensor,
        receivers: torch.Tensor,
        species: torch.Tensor,
        n_local: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Per-atom energy (n_local,) eV and edge_force (n_edges, 3) eV/Å, both float64."""
        n_nodes = species.size(0)
        vectors = edge_vectors.detach().to(self.compute_dtype).requires_grad_(True)
        lengths = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
        edge_index = torch.stack([senders, receivers])
        one_hot = torch.nn.functional.one_hot(self.kept[species], self.atomic_numbers.size(0))
        one_hot = one_hot.to(self.compute_dtype)
        heads = torch.full([n_local], self.head, dtype=torch.int64, device=species.device)

        features = self.node_embedding(one_hot)
        Y = self.spherical_harmonics(vectors)
        radial, cutoff = self.radial_embedding(lengths, one_hot, edge_index, self.atomic_numbers)
        energy = torch.zeros([n_local], dtype=self.compute_dtype, device=species.device)

        layers: list[torch.Tensor] = []
        for i, (interaction, product) in enumerate(zip(self.interactions, self.products)):  # noqa: B905 (TorchScript)
            if i > 0:
                features = torch.ops.mdplugin.halo(features, n_nodes)
            A, skip = interaction(
                node_attrs=one_hot,
                node_feats=features,
                edge_attrs=Y,
                edge_feats=radial,
                edge_index=edge_index,
                cutoff=cutoff,
                first_layer=(i == 0),
            )
            if skip is not None:
                skip = skip[:n_local]
            features = product(node_feats=A[:n_local], sc=skip, node_attrs=one_hot[:n_local])
            layers.append(features)

        for i, readout in enumerate(self.readouts):
            layer = layers[-1] if len(self.readouts) == 1 else layers[i]
            energy = energy + readout(layer, heads)[:, self.head]

        gradient = torch.autograd.grad([energy.sum()], [vectors], allow_unused=True)[0]
        edge_force = torch.zeros_like(edge_vectors)
        if gradient is not None:
            edge_force = -self.scale * gradient.to(torch.float64)
        node_energy = energy.detach().to(torch.float64)
        if self.has_zbl:
            r = torch.linalg.vector_norm(edge_vectors, dim=1)
            v, slope = self.zbl(r, species[senders], species[receivers])
            node_energy = node_energy.index_add(0, receivers, v)
            edge_force -= self.scale * (slope / r)[:, None] * edge_vectors
        return self.e0s[species[:n_local]] + self.scale * node_energy + self.shift, edge_force


def _scale_and_shift(checkpoint: Checkpoint) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and shift (eV) of the served head, float64; (1, 0) for a network without ScaleShift."""
    block = getattr(checkpoint.network, "scale_shift", None)
    if block is None:
        return torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    return tuple(
        torch.atleast_1d(value)[checkpoint.head_index if value.numel() > 1 else 0].clone()
        for value in (block.scale, block.shift)
    )


def require_base_type(precision: Precision) -> None:
    """Refuse what mace-torch's blocks would compute in the base type under another name.

    Raises:
        PrecisionError: a policy that is more than a base type.
    """
    if precision.choices:
        raise PrecisionError(
            f"precision: backend e3nn computes in {', '.join(BASES)} alone, got '{precision}'; use the native backend"
        )


def build_e3nn(
    checkpoint: Checkpoint, precision: Precision, elements: Sequence[int] | None = None
) -> torch.jit.ScriptModule:
    """Script the checkpoint's own network under the contract's forward; `elements` are the atomic numbers served.

    Raises:
        PrecisionError: a policy that is more than a base type.
        CheckpointError: TorchScript cannot compile this architecture; says which construct.
    """
    from e3nn.util import jit

    require_base_type(precision)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecation notes of TorchScript and of e3nn's generated code
        try:
            network = (
                E3nnNetwork(checkpoint, precision, elements or checkpoint.atomic_numbers)
                .eval()
                .requires_grad_(False)
            )
            return torch.jit.script(jit.compile(network))
        except (RuntimeError, torch.jit.frontend.NotSupportedError) as error:
            reason = next((line for line in str(error).splitlines() if line.strip()), "no reason given")
            blocks = " and ".join(sorted({type(block).__name__ for block in checkpoint.network.interactions}))
            raise CheckpointError(
                f"{checkpoint.name}: TorchScript cannot compile this network of {blocks}: {reason}"
            ) from error
