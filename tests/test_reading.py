"""A `.model` is read without running it: the same network as Python's unpickler gives, or a refusal by name."""

import lzma
import pathlib

import ase.io
import pytest
import torch
from architectures import ARCHITECTURES, build, save, save_from
from edges_of import frames
from model_files import change, require_equal

from mdplugin.checkpoint import _mace, read_checkpoint, save_potential
from mdplugin.cli import main
from mdplugin.errors import CheckpointError
from mdplugin.model_file import OTHER_NETWORKS


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_the_network_built_anew_is_the_one_that_python_unpickles(name):
    checkpoint = build(name)
    trusted = read_checkpoint(save(name), checkpoint.head, trust=True)
    found, expected = checkpoint.network.state_dict(), trusted.network.state_dict()
    assert found.keys() == expected.keys()
    # weights, masks, U, and e3nn's own 3j symbols, which are no data of the file: all to the last bit
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    require_equal(checkpoint, trusted)


def test_a_file_of_an_older_mace_torch_is_the_same_network(tmp_path):
    packed = pathlib.Path(__file__).parent / "data" / "mace-0.3.8.model.xz"
    old = tmp_path / "old.model"
    old.write_bytes(lzma.decompress(packed.read_bytes()))
    checkpoint = read_checkpoint(old)
    assert checkpoint.trained_dtype == "float32" and checkpoint.heads == ("Default",)
    require_equal(checkpoint, read_checkpoint(old, trust=True))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small .model file."""
    return save_from(tmp_path_factory.mktemp("reading") / "a.model", max_ell=1, correlation=2)


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


def test_a_potential_without_pickle_is_not_written_for_other_couplings(model, tmp_path):
    save_potential(read_checkpoint(model), tmp_path / "a.json")
    require_equal(read_checkpoint(tmp_path / "a.json"), read_checkpoint(model))
    change(model, tmp_path / "b.model", rotate_paths)
    with pytest.raises(CheckpointError, match="U_matrix_2 is not what mace-torch would build again"):
        save_potential(read_checkpoint(tmp_path / "b.model"), tmp_path / "b.json")
    with pytest.raises(CheckpointError, match="settings are not known: read it without --trust"):
        save_potential(read_checkpoint(model, trust=True), tmp_path / "b.json")
    assert not (tmp_path / "b.json").exists()


def test_every_buffer_comes_from_the_file(model, tmp_path):
    def shift(network):
        for name, buffer in network.named_buffers():
            if "_compiled" not in name and buffer.is_floating_point():
                buffer.mul_(1.001)

    shifted = read_checkpoint(change(model, tmp_path / "b.model", shift))
    require_equal(shifted, read_checkpoint(tmp_path / "b.model", trust=True))
    assert shifted.r_max == pytest.approx(4.004, abs=1e-12)


@pytest.mark.parametrize("factor", [1.0, 1.01])
def test_a_fine_tuned_network_is_read_with_its_frequencies(model, tmp_path, factor):
    def tune(network):  # as mace_run_train --foundation_model leaves it: a parameter, and no buffer any more
        basis = network.radial_embedding.bessel_fn
        frequencies = factor * basis.bessel_weights
        del basis.bessel_weights
        basis.bessel_weights = torch.nn.Parameter(frequencies)

    tuned = read_checkpoint(change(model, tmp_path / "b.model", tune))
    frequencies = read_checkpoint(model).network.radial_embedding.bessel_fn.bessel_weights
    assert torch.equal(tuned.network.radial_embedding.bessel_fn.bessel_weights, factor * frequencies)
    require_equal(tuned, read_checkpoint(tmp_path / "b.model", trust=True))
    if factor == 1:
        save_potential(tuned, tmp_path / "b.json")
        require_equal(read_checkpoint(tmp_path / "b.json"), tuned)


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


@pytest.mark.parametrize("verb", ["compare", "validate", "numerics"])
def test_every_verb_that_reads_a_model_asks_for_trust(model, tmp_path, capsys, artifacts, verb):
    path = change(model, tmp_path / "b.model", set_note)
    structure = tmp_path / "molecule.xyz"
    ase.io.write(structure, frames((1, 8))[1])
    arguments = {
        "compare": ["compare", artifacts["organic", "fp32"], "--structures", structure, "--reference", path],
        "validate": ["validate", "nve", "--model", artifacts["organic", "fp32"], "--plan",
                     "--structure", structure, "-o", tmp_path / "nve", "--reference", path],
        "numerics": ["numerics", path, "--structures", structure, "--types", "bf16"],
    }[verb]  # fmt: skip
    arguments = [str(argument) for argument in arguments]
    assert main(arguments) == 3
    assert "the pickle names pathlib.PurePosixPath" in capsys.readouterr().err
    assert main([*arguments, "--trust"]) == 0


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


EXTRA_INPUTS = {"total_charge": {"type": "continuous", "in_dim": 1, "emb_dim": 2, "per": "graph"}}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"embedding_specs": EXTRA_INPUTS}, r"takes extra inputs \(total_charge\)"),
        ({"embedding_specs": EXTRA_INPUTS, "use_embedding_readout": True}, r"extra inputs \(total_charge\)"),
        ({"cueq_config": "CuEquivarianceConfig"}, r"names mace\.modules\.wrapper_ops\.CuEquivarianceConfig"),
        ({"oeq_config": "OEQConfig"}, r"names mace\.modules\.wrapper_ops\.OEQConfig"),
    ],
)
def test_extra_inputs_and_accelerators_are_refused_by_name(tmp_path, settings, message):
    with _mace():
        from mace.modules import wrapper_ops

        settings = {k: getattr(wrapper_ops, v)() if isinstance(v, str) else v for k, v in settings.items()}
    path = save_from(tmp_path / "b.model", max_ell=1, correlation=1, **settings)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(path)


def _module(name):
    with _mace() as mace:
        return getattr(mace.modules, name)
