"""Part of a `.model` file + the network that mace-torch builds from its settings -> that network with the file's tensors.

Weights mean nothing without the couplings and scales they were trained with, so all tensors of the file are taken,
buffers (coupling tensors U, masks, radii) as well as parameters; and before that the built network is pickled, read
back the same way and compared with the file part by part. What differs is refused by name, but for the few things below,
in which versions of mace-torch differ without meaning. Not in the file as data, and rebuilt by e3nn: the Clebsch-Gordan
coefficients inside its convolutions (e3nn 0.4.4, to which every mace-torch is pinned).
"""

import io
import math

import torch

from mdplugin.errors import CheckpointError
from mdplugin.model_file import TRUST, Part, printable, read_irreps, read_parts

# of a module's state: for print, for training, or read by other programs alone; and the tables compared by themselves
_NO_MATTER = {
    "training",
    "_is_full_backward_hook",
    "_profiling_str",
    "_prof_str",
    "lammps_mliap",
    "__codegen__",
}
_TABLES = {"_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"}
# written up to 0.3.9 into the ZBL repulsion, whose cutoff is the sum of covalent radii, then as now
_OLDER = {"r_max", "cutoff"}
# written by newer versions: older ones knew only the case of this value
_NEWER = {
    "apply_cutoff": True,
    "cueq_config": None,
    "edge_irreps": None,
    "heads": ["Default"],
    "num_heads": 1,
    "oeq_config": None,
    "use_agnostic_product": False,
    "use_edge_irreps_first": False,
    "use_last_readout_only": False,
    "use_reduced_cg": False,
    "use_so3": False,
}
# buffers, of which mace-torch makes parameters when a training starts from another network's
_TUNED = {"bessel_weights"}
_UNKNOWN = object()
_ROUNDING = 1e-12  # of constants (path weights, moments of activations) that another build of torch computed


def reconstruct(network: torch.nn.Module, file: Part, name: str) -> torch.nn.Module:
    """Put the file's tensors into a network built from its settings.

    Args:
        network: as mace-torch builds it; changed in place.
        file: what `read_parts` found.
        name: of the file, for errors.

    Raises:
        CheckpointError: the file's network is not the one built; names the first part that differs.
    """
    buffer = io.BytesIO()
    torch.save(network, buffer)
    _compare(file, read_parts(buffer, "the network built anew"), f"{name}: {type(file).__name__}")
    _fill(network, file)
    return network


def _compare(file: Part | None, built: Part | None, where: str) -> None:
    """Refuse unless both are the same kind of part with equal attributes, shapes of tensors, and submodules."""
    _require(type(file) is type(built), where, f"a {type(file).__name__}, not a {type(built).__name__}")
    if file is None:
        return
    if _is_graph(file):
        _require(not any(file.arguments[0][kind] for kind in ("_parameters", "_buffers")), where, "tensors")
        return
    kind = type(file).__name__
    _compare_attributes(kind, file, built, where)
    parameters, buffers = _sort_tensors(file, built.table("buffers"))
    for tensors, table in ((parameters, "parameters"), (buffers, "buffers")):
        for name, theirs, ours in _pair(tensors, built.table(table), where):
            _compare_tensors(kind, theirs, ours, f"{where}.{name}")
    if kind == "Contraction":
        _compare_paths(file, where)
    for name, theirs, ours in _pair(file.table("modules"), built.table("modules"), where):
        _compare(theirs, ours, f"{where}.{name}")


def _sort_tensors(file: Part, built_buffers: dict) -> tuple[dict, dict]:
    """The file's parameters and buffers; what fine-tuning made a parameter of, and is built as a buffer, is one of these."""
    parameters, buffers = dict(file.table("parameters")), dict(file.table("buffers"))
    for name in _TUNED & parameters.keys() & built_buffers.keys():
        buffers[name] = parameters.pop(name)
    return parameters, buffers


def _is_graph(part: Part) -> bool:
    """Code of torch.fx; its class and settings say which, so that it need not be read."""
    return type(part).__name__ == "reduce_graph_module"


def _compare_attributes(kind: str, file: Part, built: Part, where: str) -> None:
    hooks = [name for name, value in file.state.items() if "_hooks" in name and value]
    _require(not hooks, f"{where}.{''.join(hooks[:1])}", "code that runs beside the network's own")
    skipped = _NO_MATTER | _TABLES
    if kind == "Linear" and hasattr(built, "instructions"):
        skipped = skipped | {"irreps_in", "instructions"}
        _require(_equal(_linear_map(file), _linear_map(built)), f"{where}.instructions", "another map")
    theirs, ours = (
        {name: value for name, value in part.state.items() if name not in skipped and "_hooks" not in name}
        for part in (file, built)
    )
    for name, value, expected in _pair(theirs, ours, where):
        # reduced couplings need cuequivariance, absent here; the couplings come from the file either way
        fine = name == "use_reduced_cg" or _equal(value, expected)
        _require(fine, f"{where}.{name}", f"{value!r}, not {expected!r}"[:90])


def _pair(file: dict, built: dict, where: str) -> list[tuple]:
    """(name, of the file, of the built network) of what both have, once nothing that matters is left over."""
    for name in sorted(built.keys() - file.keys()):
        value = built[name]
        default = _NEWER.get(name, _UNKNOWN)
        if name == "edge_irreps" and "node_feats_irreps" in built:
            default = built["node_feats_irreps"]
        zeroed = name.startswith("weights_") and name.endswith("_zeroed")
        _require(zeroed or _equal(value, default), f"{where}.{name}", "nothing")
    for name in sorted(file.keys() - built.keys()):
        unused = name in _OLDER and where.endswith(".pair_repulsion_fn")
        _require(unused, f"{where}.{name}", "more than it builds")
    return [(name, file[name], built[name]) for name in sorted(file.keys() & built.keys())]


def _compare_tensors(kind: str, theirs: torch.Tensor | None, ours: torch.Tensor | None, where: str) -> None:
    """Dense tensors of one shape, but for the number of paths of a contraction: reduced couplings have fewer."""
    if theirs is not None and ours is not None:
        dense = theirs.layout is torch.strided and theirs.device.type == "cpu"
        # older versions kept the cutoff's order, now an integer, as a floating-point number
        real = theirs.is_floating_point() or not (theirs.is_complex() or ours.is_floating_point())
        _require(dense and real, where, f"a tensor of {theirs.dtype}, {theirs.layout}, {theirs.device}")
    shapes = [None if tensor is None else list(tensor.shape) for tensor in (theirs, ours)]
    paths = {"Contraction": -1 if ".U_matrix_" in where else 1, "ParameterList": 1}.get(kind)
    if paths is not None and all(shapes) and len(shapes[0]) == len(shapes[1]):
        shapes[0][paths] = shapes[1][paths]
    _require(shapes[0] == shapes[1], where, f"shape {shapes[0]}, not {shapes[1]}")


def _compare_paths(contraction: Part, where: str) -> None:
    """As many paths in the weights as in the couplings of the same degree."""
    weights = [contraction.weights_max, *contraction.weights.table("parameters").values()]
    for k, weight in enumerate(weights):
        name = f"U_matrix_{contraction.correlation - k}"
        couplings = contraction.table("buffers")[name]
        _require(
            weight.shape[1] == couplings.shape[-1],
            f"{where}.{name}",
            f"{couplings.shape[-1]} paths of couplings for {weight.shape[1]} of weights",
        )


def _linear_map(linear: Part) -> list[tuple]:
    """e3nn's Linear as blocks (offset in, offset out, shape, path weight), those that lie side by side merged.

    mace-torch up to 0.3.8 wrote 16x0e where newer versions write 8x0e+8x0e: the same features, weights and map.
    """
    offsets_in, offsets_out = (_offsets(irreps) for irreps in (linear.irreps_in, linear.irreps_out))
    blocks: list[tuple] = []
    for instruction in linear.instructions:
        i_in, i_out, shape, path_weight = instruction.arguments
        if i_in == -1:
            blocks.append((-1, offsets_out[i_out][0], shape, path_weight))
            continue
        (start, dim), out = offsets_in[i_in], offsets_out[i_out][0]
        if blocks and blocks[-1][0] >= 0:
            first, last_out, (mul, mul_out), weight = blocks[-1]
            if (first + mul * dim, last_out, mul_out, weight) == (start, out, shape[1], path_weight):
                blocks[-1] = (first, out, (mul + shape[0], mul_out), weight)
                continue
        blocks.append((start, out, shape, path_weight))
    return blocks


def _offsets(irreps: Part) -> list[tuple[int, int]]:
    """Position of each entry's first component, and components per channel."""
    offsets, start = [], 0
    for mul, (degree, _) in read_irreps(irreps):
        dim = 2 * degree + 1
        offsets.append((start, dim))
        start += mul * dim
    return offsets


def _equal(a, b) -> bool:
    if isinstance(a, Part) or isinstance(b, Part):
        return type(a) is type(b) and _equal(a.arguments, b.arguments) and _equal(a.state, b.state)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(a[name], b[name]) for name in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(_equal(*pair) for pair in zip(a, b, strict=True))
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=_ROUNDING)
    return type(a) is type(b) and a == b


def _fill(network: torch.nn.Module, file: Part) -> None:
    """Replace every tensor that the file has; submodules that are code alone (scripted, torch.fx) have none."""
    parameters, buffers = _sort_tensors(file, network._buffers)
    for name, weight in parameters.items():
        network._parameters[name] = None if weight is None else torch.nn.Parameter(weight.detach(), False)
    for name, value in buffers.items():
        if name in network._buffers:
            network._buffers[name] = None if value is None else value.detach()
    for name, part in file.table("modules").items():
        if part is not None and name in network._modules and not _is_graph(part):
            _fill(network._modules[name], part)


def _require(fine: bool, where: str, found: str) -> None:
    if not fine:
        raise CheckpointError(
            f"{printable(where)}: expected what mace-torch builds from the file's settings, got {printable(found)}; "
            f"the network is of another version or was changed by hand: {TRUST}"
        )
