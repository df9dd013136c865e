"""The ops of libmdplugin_ops: one documented function each. Importing this module loads the library."""

import torch

from mdplugin import native
from mdplugin.errors import NativeError


def _load() -> None:
    try:
        torch.ops.load_library(str(native.library_directory() / native.OPS_LIBRARY))
    except (native.BuildError, OSError) as error:
        raise NativeError(f"native libraries: {error}; `mdplugin doctor` checks the set-up") from error
    try:
        torch.ops.mdplugin.instruction_set()
    except RuntimeError as error:  # no AVX2, or a wrong MDPLUGIN_ISA: no kernel could run
        raise NativeError(str(error).splitlines()[0].removeprefix("mdplugin: ")) from error


_load()


def halo(features: torch.Tensor, n_nodes: int) -> torch.Tensor:
    """Features of local and ghost nodes from the features of the local ones.

    Args:
        features: (n_local, n_channels) float32 or float64.
        n_nodes: local + ghost nodes; in a single process n_nodes == n_local and this is the identity.

    Returns:
        (n_nodes, n_channels), the ghosts' rows fetched from the ranks that own them. The reverse adds the
        gradients of ghost rows to their owners.

    Raises:
        RuntimeError: there are ghosts and no engine exchanges them.
    """
    return torch.ops.mdplugin.halo(features, n_nodes)
