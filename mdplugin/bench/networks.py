"""Size name -> settings of a mace-torch network for water, with which `checkpoint.save_random_network` makes one.

small, medium and large are the sizes of MACE-OFF23 (Kovács et al. 2023); weights are random, since the time of a step
does not depend on them. Blocks, radial functions and readouts are the defaults of mace_run_train.
"""

SIZES = ("tiny", "small", "medium", "large")
_DEGREES = {
    "tiny": {"hidden_irreps": "32x0e + 32x1o", "max_ell": 2, "r_max": 4.5},
    "small": {"hidden_irreps": "96x0e", "max_ell": 3, "r_max": 4.5},
    "medium": {"hidden_irreps": "128x0e + 128x1o", "max_ell": 3, "r_max": 5.0},
    "large": {"hidden_irreps": "192x0e + 192x1o + 192x2e", "max_ell": 3, "r_max": 5.0},
}
_NEIGHBORS = {4.5: 38.0, 5.0: 52.0}  # atoms within r_max in liquid water
_COMMON = {
    "num_bessel": 8,
    "num_polynomial_cutoff": 5,
    "interaction_cls": "RealAgnosticResidualInteractionBlock",
    "interaction_cls_first": "RealAgnosticResidualInteractionBlock",
    "num_interactions": 2,
    "num_elements": 2,
    "MLP_irreps": "16x0e",
    "gate": "silu",
    "atomic_energies": [-13.6, -2041.8],
    "atomic_numbers": [1, 8],
    "correlation": 3,
    "radial_MLP": [64, 64, 64],
    "atomic_inter_scale": 1.0,
    "atomic_inter_shift": 0.0,
}


def describe_network(size: str) -> dict:
    """The arguments of mace-torch's ScaleShiftMACE, as plain values."""
    degrees = _DEGREES[size]
    return {**_COMMON, **degrees, "avg_num_neighbors": _NEIGHBORS[degrees["r_max"]]}
