"""A `.model` is read without running it: the same network as Python's unpickler gives, and no door for anything else."""

import builtins
import os
import pathlib
import subprocess

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES, build, save, save_from
from edges_of import frames

from mdplugin.checkpoint import _mace, evaluate_mace, read_checkpoint
from mdplugin.cli import main
from mdplugin.errors import CheckpointError
from mdplugin.model_file import OTHER_NETWORKS

# both evaluate the same numbers in the same order, but for a sum split in two (files of mace-torch up to 0.3.8)
ROUNDING_BOUND = 1e-12


def require_equal(checkpoint, trusted):
    """Energies, forces and stress of the network built anew are those of the unpickled one."""
    assert checkpoint.trained_dtype == trusted.trained_dtype and checkpoint.e0s == trusted.e0s
    atoms = frames(trusted.atomic_numbers)
    for found, expected in zip(evaluate_mace(checkpoint, atoms), evaluate_mace(trusted, atoms), strict=True):
        assert np.abs(found.energies - expected.energies).max() <= ROUNDING_BOUND
        assert np.abs(found.forces - expected.forces).max() <= ROUNDING_BOUND
        if expected.stress is not None:
            assert np.abs(found.stress - expected.stress).max() <= ROUNDING_BOUND


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_the_network_built_anew_is_the_one_that_python_unpickles(name):
    checkpoint = build(name)
    trusted = read_checkpoint(save(name), checkpoint.head, trust=True)
    found, expected = checkpoint.network.state_dict(), trusted.network.state_dict()
    assert found.keys() == expected.keys()
    # weights, masks, U, and e3nn's own 3j symbols, which are no data of the file: all to the last bit
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    require_equal(checkpoint, trusted)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small .model file."""
    return save_from(tmp_path_factory.mktemp("reading") / "a.model", max_ell=1, correlation=2)


def change(model, target, edit):
    """The file with its network changed by `edit`, as a hand or another program might write it."""
    network = unpickle(model)
    edit(network)
    torch.save(network, target)
    return target


def unpickle(model):
    with _mace():
        return torch.load(model, weights_only=False)


# --- tensors of the file, not of a new network ------------------------------------------------------------------


def rotate_paths(network):
    """Another basis of the couplings U, the weights in the same basis: the same function, as of another version."""
    generator = torch.Generator().manual_seed(2)
    for contraction, U, W in couplings(network):
        Q = torch.linalg.qr(torch.randn(U.shape[-1], U.shape[-1], generator=generator, dtype=U.dtype))[0]
        setattr(contraction, f"U_matrix_{contraction.correlation}", U @ Q)
        W.data = torch.einsum("qp,zqk->zpk", Q, W.data)


def drop_paths(network):
    """Fewer couplings, as cuequivariance's reduced ones."""
    for contraction, U, W in couplings(network):
        setattr(contraction, f"U_matrix_{contraction.correlation}", U[..., :1].contiguous())
        W.data = W.data[:, :1].contiguous()


def couplings(network):
    for product in network.products:
        for contraction in product.symmetric_contractions.contractions:
            U = getattr(contraction, f"U_matrix_{contraction.correlation}")
            yield contraction, U, contraction.weights_max


@pytest.mark.parametrize("edit", [rotate_paths, drop_paths])
def test_couplings_come_from_the_file_with_the_weights_that_belong_to_them(model, tmp_path, edit):
    changed = read_checkpoint(change(model, tmp_path / "b.model", edit))
    require_equal(changed, read_checkpoint(tmp_path / "b.model", trust=True))
    assert (
        changed.network.products[0].symmetric_contractions.contractions[0].U_matrix_2.dtype == torch.float64
    )


def test_every_buffer_comes_from_the_file(model, tmp_path):
    def shift(network):
        for name, buffer in network.named_buffers():
            if "_compiled" not in name and buffer.is_floating_point():
                buffer.mul_(1.001)

    shifted = read_checkpoint(change(model, tmp_path / "b.model", shift))
    require_equal(shifted, read_checkpoint(tmp_path / "b.model", trust=True))
    assert shifted.r_max == pytest.approx(4.004, abs=1e-12)


# --- what is refused --------------------------------------------------------------------------------------------


class Plant:
    """Pickled as a call of `function`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def plants(path):
    """Calls that write a file, by the name that the pickle has for them (its protocol 2 keeps Python 2's)."""
    return {
        "posix.system": Plant(os.system, f"touch {path}"),
        "commands.check_call": Plant(subprocess.check_call, ["touch", str(path)]),
        "builtins.exec": Plant(builtins.exec, f"open({str(path)!r}, 'w')"),
        "io.open": Plant(open, str(path), "w"),
        "torch.serialization.save": Plant(torch.save, {}, str(path)),
    }


def require_harmless(path, planted, capsys):
    """Export refuses the file in one line; nothing is written. Returns the line."""
    directory = sorted(os.listdir(path.parent))
    assert main(["export", str(path), "-o", str(path.with_suffix(".pt"))]) == 3
    error = capsys.readouterr().err
    assert error.startswith(f"mdplugin: {path}: ") and error.count("\n") == 1
    assert sorted(os.listdir(path.parent)) == directory and not planted.exists()
    return error


def require_live(path, planted):
    """The plant is no dud: Python's own unpickler runs it."""
    unpickle(path)
    assert planted.exists()


@pytest.mark.parametrize("name", plants(""))
@pytest.mark.parametrize("unrestricted", [False, True])
def test_a_pickle_that_calls_anything_is_refused_with_its_name(
    model, tmp_path, monkeypatch, capsys, name, unrestricted
):
    if unrestricted:  # mace-torch sets this, and torch.load's default then runs everything
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    planted = tmp_path / "planted"
    path = change(
        model, tmp_path / "b.model", lambda network: setattr(network, "note", plants(planted)[name])
    )
    error = require_harmless(path, planted, capsys)
    assert f"the pickle names {name}, which" in error and "--trust" in error
    require_live(path, planted)


def test_what_the_process_has_allowed_elsewhere_does_not_count(model, tmp_path, capsys):
    planted = tmp_path / "planted"
    plant = Plant(subprocess.check_call, ["touch", str(planted)])
    path = change(model, tmp_path / "b.model", lambda network: setattr(network, "note", plant))
    with torch.serialization.safe_globals([subprocess.check_call]):
        before = set(torch.serialization.get_safe_globals())
        require_harmless(path, planted, capsys)
        assert set(torch.serialization.get_safe_globals()) == before
    require_live(path, planted)


# --- what is read, and not run ----------------------------------------------------------------------------------


def test_source_text_of_torch_fx_is_not_executed(model, tmp_path):
    planted = tmp_path / "planted"
    source = f"open({str(planted)!r}, 'w')\ndef forward(self, x):\n    return x\n"
    body = {"_code": source, "_parameters": {}, "_buffers": {}, "_modules": {}, "training": False}
    plant = Plant(torch.fx.graph_module.reduce_graph_module, body, "")

    def put(network):
        network.products[0].symmetric_contractions.contractions[0]._modules["graph_opt_main"] = plant

    path = change(model, tmp_path / "b.model", put)
    require_equal(read_checkpoint(path), read_checkpoint(model, trust=True))
    assert not planted.exists()
    require_live(path, planted)


class Script(torch.nn.Module):
    """TorchScript that writes a file when torch.jit.load opens it."""

    def __init__(self, path: str):
        super().__init__()
        self.path = path

    def forward(self, x: torch.Tensor):
        return x

    @torch.jit.export
    def __getstate__(self):
        return self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]):
        self.path, self.training = state[0], state[1]
        torch.save(state[0], state[0])


def test_scripted_code_inside_e3nns_modules_is_not_loaded(model, tmp_path):
    planted = tmp_path / "planted"
    script = torch.jit.script(Script(str(planted)))
    path = change(
        model, tmp_path / "b.model", lambda n: n.readouts[0].linear._modules.update(_compiled_main=script)
    )
    require_equal(read_checkpoint(path), read_checkpoint(model, trust=True))
    assert not planted.exists()
    require_live(path, planted)


# --- networks that mace-torch does not build from these settings ------------------------------------------------


def set_note(network):
    network.note = pathlib.PurePosixPath("by hand")


def set_flag(network):
    network.note = "by hand"


def hook(network):
    network.readouts[0].register_forward_hook(torch.nn.functional.silu)


def forget(network):
    del network.radial_embedding.out_dim


def lose(network):
    del network.interactions[1].linear_up.weight


def disagree(network):
    network.interactions[1].avg_num_neighbors = 3.0


def reconnect(network):
    linear = network.interactions[1].linear
    linear.instructions = [linear.instructions[0]._replace(path_weight=0.5), *linear.instructions[1:]]


def add(network):
    network.readouts[1].norm = torch.nn.LayerNorm(1)


def exchange(network):
    network.radial_embedding.bessel_fn = torch.nn.Linear(1, 6)


def cut(network):
    network.interactions[0].linear_up.weight.data = torch.zeros(3, dtype=torch.float64)


def cut_paths(network):
    contraction = network.products[0].symmetric_contractions.contractions[0]
    contraction.weights_max.data = contraction.weights_max.data[:, :1]


def halve(network):
    network.half()


OTHERS = [
    (set_note, r"the pickle names pathlib\.PurePosixPath, which"),
    (set_flag, r"ScaleShiftMACE\.note: expected what mace-torch builds .* got more than it builds"),
    (hook, r"ScaleShiftMACE\.readouts\.0\._forward_hooks: .* got code that runs beside"),
    (forget, "RadialEmbeddingBlock has no out_dim"),
    (lose, r"interactions\.1\.linear_up\.weight: .* got nothing"),
    (disagree, r"interactions\.1\.avg_num_neighbors: .* got 3.0, not 12.0"),
    (reconnect, r"interactions\.1\.linear\.instructions: .* got another map"),
    (add, r"readouts\.1\.norm: .* got more than it builds"),
    (exchange, r"'Linear'"),
    (cut, r"interactions\.0\.linear_up\.weight: .* got shape \[3\], not \[64\]"),
    (cut_paths, r"U_matrix_2: .* got \d paths of couplings for 1 of weights"),
    (halve, "expected weights in float32 or float64, got torch.float16"),
]


@pytest.mark.parametrize(("edit", "message"), OTHERS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_network_that_its_settings_do_not_explain_is_refused_by_name(model, tmp_path, edit, message):
    path = change(model, tmp_path / "b.model", edit)
    with pytest.raises(CheckpointError, match=message) as refusal:
        read_checkpoint(path)
    assert str(refusal.value).startswith(f"{path}: ") and "\n" not in str(refusal.value)


def test_trust_opens_what_the_list_does_not_know(model, tmp_path, capsys):
    path = change(model, tmp_path / "b.model", set_note)
    target = tmp_path / "b.pt"
    assert main(["export", str(path), "-o", str(target), "--precision", "fp64"]) == 3 and not target.exists()
    assert main(["export", str(path), "-o", str(target), "--precision", "fp64", "--trust"]) == 0
    require_equal(read_checkpoint(path, trust=True), read_checkpoint(model))


# --- other networks of mace-torch -------------------------------------------------------------------------------


def test_dipoles_and_polarisabilities_are_refused_by_name(tmp_path):
    with _mace() as mace:
        from e3nn import o3

        settings = dict(
            r_max=4.0, num_bessel=4, num_polynomial_cutoff=5, max_ell=2, num_interactions=2, num_elements=2,
            interaction_cls=mace.modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
            interaction_cls_first=mace.modules.interaction_classes["RealAgnosticInteractionBlock"],
            hidden_irreps=o3.Irreps("4x0e+4x1o+4x2e"), MLP_irreps=o3.Irreps("4x0e+4x1o+4x2e"), gate=torch.tanh,
            avg_num_neighbors=8.0, atomic_numbers=[1, 8], correlation=1, atomic_energies=None,
        )  # fmt: skip
        for kind in ("AtomicDipolesMACE", "AtomicDielectricMACE"):
            torch.save(getattr(mace.modules, kind)(**settings), tmp_path / f"{kind}.model")
    for kind in ("AtomicDipolesMACE", "AtomicDielectricMACE"):
        with pytest.raises(CheckpointError, match=f"of class MACE or ScaleShiftMACE, got {kind}"):
            read_checkpoint(tmp_path / f"{kind}.model")


@pytest.mark.parametrize("kind", OTHER_NETWORKS)
def test_networks_with_charges_are_refused_by_name_with_their_packages_absent(tmp_path, monkeypatch, kind):
    """LES and PolarMACE need packages that are not here: classes of their names stand for them."""
    home = "models" if kind in dir(_module("models")) else "extensions"
    stub = type(kind, (torch.nn.Module,), {"__module__": f"mace.modules.{home}", "__qualname__": kind})
    monkeypatch.setattr(_module(home), kind, stub, raising=False)
    torch.save(stub(), tmp_path / "b.model")
    with pytest.raises(CheckpointError, match=f"of class MACE or ScaleShiftMACE, got {kind}"):
        read_checkpoint(tmp_path / "b.model")


def _module(name):
    with _mace() as mace:
        return getattr(mace.modules, name)
