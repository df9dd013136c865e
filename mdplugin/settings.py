"""Part of a `.model` file -> the settings that mace-torch builds its network from, as plain values; and those -> arguments.

The settings are the keyword arguments of mace-torch's MACE and ScaleShiftMACE with classes by name and irreps as text:
what a potential's JSON holds. A pickled network does not keep them all, so some are read off its parts.
"""

import json

import numpy as np
import torch

from mdplugin.model_file import Part, read_irreps
from mdplugin.radial_networks import BASES

DISTANCE_TRANSFORMS = {"AgnesiTransform": "Agnesi", "SoftTransform": "Soft"}


def read_settings(network: Part) -> dict:
    """Settings of a pickled MACE or ScaleShiftMACE; what its version of mace-torch did not know has its old meaning.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: the parts are not those of a MACE.
    """
    interactions, products = network.interactions.children(), network.products.children()
    radial, heads = network.radial_embedding, getattr(network, "heads", ["Default"])
    settings = {
        "r_max": _decimal(network.r_max),
        "num_bessel": radial.out_dim,
        "num_polynomial_cutoff": int(radial.cutoff_fn.p),
        "max_ell": max(degree for _, (degree, _) in read_irreps(interactions[0].edge_attrs_irreps)),
        "interaction_cls": type(interactions[-1]).__name__,
        "interaction_cls_first": type(interactions[0]).__name__,
        "num_interactions": len(interactions),
        "num_elements": network.atomic_numbers.numel(),
        **_read_features(interactions),
        **_read_readouts(network.readouts.children(), len(heads)),
        "atomic_energies": network.atomic_energies_fn.atomic_energies.tolist(),
        "avg_num_neighbors": interactions[0].avg_num_neighbors,
        "atomic_numbers": network.atomic_numbers.tolist(),
        "correlation": [p.symmetric_contractions.contractions.children()[0].correlation for p in products],
        "pair_repulsion": hasattr(network, "pair_repulsion_fn"),
        "apply_cutoff": getattr(network, "apply_cutoff", True),
        "use_edge_irreps_first": getattr(network, "use_edge_irreps_first", False),
        "use_reduced_cg": getattr(network, "use_reduced_cg", False),
        "use_so3": getattr(network, "use_so3", False),
        "use_agnostic_product": getattr(network, "use_agnostic_product", False),
        "use_last_readout_only": getattr(network, "use_last_readout_only", False),
        "distance_transform": _read_transform(radial),
        "radial_MLP": interactions[0].radial_MLP,
        "radial_type": BASES[type(radial.bessel_fn).__name__],
        "heads": heads,
    }
    if (edge_irreps := getattr(network, "edge_irreps", None)) is not None:
        settings["edge_irreps"] = _text(edge_irreps)
    if hasattr(network, "scale_shift"):
        settings["atomic_inter_scale"] = network.scale_shift.scale.tolist()
        settings["atomic_inter_shift"] = network.scale_shift.shift.tolist()
    return json.loads(json.dumps(settings))  # plain values, or a TypeError: no part goes on from here


def _read_features(interactions: list[Part]) -> dict:
    """hidden_irreps, which the last layer cuts down to its first entry unless told to keep them all."""
    last = interactions[-1].hidden_irreps
    hidden = interactions[1].node_feats_irreps if len(interactions) > 1 else last
    keeps = len(interactions) > 1 and len(read_irreps(hidden)) > 1 and _text(last) == _text(hidden)
    return {"hidden_irreps": _text(hidden), "keep_last_layer_irreps": keeps}


def _read_readouts(readouts: list[Part], n_heads: int) -> dict:
    """Class, gate and units per head of the last readout; without meaning where all readouts are linear."""
    last = readouts[-1] if readouts else None
    if not hasattr(last, "non_linearity"):
        return {"MLP_irreps": "16x0e", "gate": "None"}
    (activation,) = last.non_linearity.acts.children()
    ((mul, (degree, parity)),) = read_irreps(last.hidden_irreps)
    return {
        "readout_cls": type(last).__name__,
        "MLP_irreps": _format([(mul // n_heads, (degree, parity))]),
        "gate": "None" if activation is None else _function_name(activation.f),
    }


def _read_transform(radial: Part) -> str:
    if not hasattr(radial, "distance_transform"):
        return "None"
    return DISTANCE_TRANSFORMS[type(radial.distance_transform).__name__]


def _function_name(function: type[Part] | Part) -> str:
    """Of a function of Python, or of a builtin, which is pickled as getattr(its owner, name)."""
    if isinstance(function, Part) and type(function).__name__ == "getattr":
        return function.arguments[1]
    return function.__name__


def _decimal(number: torch.Tensor) -> float:
    """The shortest decimal that rounds to a 0-dimensional tensor: 5.2, not 5.199999809, for a float32."""
    return float(str(number.numpy()))


def _text(irreps: Part | str) -> str:
    """As e3nn prints it; mace-torch keeps some irreps printed."""
    return irreps if isinstance(irreps, str) else _format(read_irreps(irreps))


def _format(entries: list[tuple[int, tuple[int, int]]]) -> str:
    return "+".join(f"{mul:d}x{degree:d}{'e' if parity == 1 else 'o'}" for mul, (degree, parity) in entries)


def constructor_arguments(mace, settings: dict) -> dict:
    """Keyword arguments of mace-torch's constructor; `mace` is the package.

    Raises:
        TypeError, ValueError: a name or irreps that mace-torch does not know.
    """
    from e3nn import o3

    arguments = dict(settings)
    classes = {
        "interaction_cls": mace.modules.interaction_classes,
        "interaction_cls_first": mace.modules.interaction_classes,
        "readout_cls": mace.modules.readout_classes,
        "gate": mace.modules.gate_dict,
    }
    for name, known in classes.items():
        if name in arguments:
            if arguments[name] not in known:
                raise ValueError(f"{name} '{arguments[name]}'; mace-torch has {', '.join(known)}")
            arguments[name] = known[arguments[name]]
    for name in ("hidden_irreps", "MLP_irreps", "edge_irreps"):
        if name in arguments:
            arguments[name] = o3.Irreps(arguments[name])
    for name in ("atomic_energies", "atomic_inter_scale", "atomic_inter_shift"):
        if name in arguments:
            arguments[name] = np.array(arguments[name], dtype=np.float64)
    return arguments
