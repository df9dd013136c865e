"""Checkpoint -> the artifact's forward, with mace-torch's own e3nn blocks as its interior.

The wide net: serves every MACE that mace-torch builds and scripts, at mace-torch's own speed. Equations:
Batatia et al., NeurIPS 2022 (MACE), eqs. 4-13; the energy is differentiated by autograd with respect to
the edge vectors, from which both engines assemble forces and virials.
"""

import copy
import warnings

import torch

from mdplugin import ops  # noqa: F401  (registers mdplugin::halo, which the script calls)
from mdplugin.checkpoint import Checkpoint
from mdplugin.errors import CheckpointError
from mdplugin.precision import Precision


class E3nnNetwork(torch.nn.Module):
    """mace-torch's network behind the artifact's contract (docs/architecture.md)."""

    def __init__(self, checkpoint: Checkpoint, precision: Precision):
        super().__init__()
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
        if hasattr(network, "pair_repulsion_fn"):
            self.pair_repulsion_fn = network.pair_repulsion_fn
        self.head = checkpoint.head_index
        self.compute_dtype = precision.dtype
        self.register_buffer("atomic_numbers", network.atomic_numbers)
        self.register_buffer("e0s", torch.tensor(checkpoint.e0s, dtype=torch.float64))
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
        one_hot = torch.nn.functional.one_hot(species, self.e0s.size(0)).to(self.compute_dtype)
        heads = torch.full([n_local], self.head, dtype=torch.int64, device=species.device)

        features = self.node_embedding(one_hot)
        Y = self.spherical_harmonics(vectors)
        radial, cutoff = self.radial_embedding(lengths, one_hot, edge_index, self.atomic_numbers)
        energy = torch.zeros([n_local], dtype=self.compute_dtype, device=species.device)
        if hasattr(self, "pair_repulsion_fn"):
            energy = (
                energy + self.pair_repulsion_fn(lengths, one_hot, edge_index, self.atomic_numbers)[:n_local]
            )

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
        local_e0 = self.e0s[species[:n_local]]
        return local_e0 + self.scale * energy.detach().to(torch.float64) + self.shift, edge_force


def _scale_and_shift(checkpoint: Checkpoint) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and shift (eV) of the served head, float64; (1, 0) for a network without ScaleShift."""
    block = getattr(checkpoint.network, "scale_shift", None)
    if block is None:
        return torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    return tuple(
        torch.atleast_1d(value)[checkpoint.head_index if value.numel() > 1 else 0].clone()
        for value in (block.scale, block.shift)
    )


def build_e3nn(checkpoint: Checkpoint, precision: Precision) -> torch.jit.ScriptModule:
    """Script the checkpoint's own network under the contract's forward.

    Raises:
        CheckpointError: TorchScript cannot compile this architecture; says which construct.
    """
    from e3nn.util import jit

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecation notes of TorchScript and of e3nn's generated code
        try:
            network = E3nnNetwork(checkpoint, precision).eval().requires_grad_(False)
            return torch.jit.script(jit.compile(network))
        except (RuntimeError, torch.jit.frontend.NotSupportedError) as error:
            reason = next((line for line in str(error).splitlines() if line.strip()), "no reason given")
            raise CheckpointError(
                f"{checkpoint.name}: TorchScript cannot compile this network: {reason}"
            ) from error
