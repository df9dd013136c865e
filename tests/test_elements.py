"""Export of some of a model's elements: the same numbers on them, a smaller file, and a refusal of the others."""

import ase
import numpy as np
import pytest
import torch
from architectures import save, save_from

import mdplugin
from mdplugin.artifact import read_manifest
from mdplugin.cli import main
from mdplugin.errors import CheckpointError, StructureError
from mdplugin.frames import reference_frames

# Same weights, but radial tables of their own: each within 1e-9 of its largest slope (network_native.TABLES),
# over some ten neighbours with slopes of order 1 eV/Å
TABLE_BOUND = 1e-8


@pytest.fixture(scope="module")
def transformed(tmp_path_factory):
    """H, C, N, O with a radial function per species pair (Agnesi) and a repulsion per species pair (ZBL)."""
    return save_from(
        tmp_path_factory.mktemp("elements") / "organic.model",
        atomic_numbers=(1, 6, 7, 8),
        first="RealAgnosticDensityInteractionBlock",
        later="RealAgnosticDensityResidualInteractionBlock",
        distance_transform="Agnesi",
        pair_repulsion=True,
        max_ell=1,
        correlation=2,
    )


def evaluate(path, frames):
    calculator = mdplugin.MACEQuantCalculator(path)
    results = []
    for frame in frames:
        calculator.calculate(frame, ["energy", "forces"])
        results.append((calculator.results["energies"], calculator.results["forces"]))
    return results


@pytest.mark.parametrize("backend", ["native", "e3nn"])
def test_kept_elements_have_the_numbers_of_the_whole_model(transformed, tmp_path, backend):
    mdplugin.export_model(transformed, tmp_path / "all.pt", "fp64", backend=backend)
    manifest = mdplugin.export_model(
        transformed, tmp_path / "some.pt", "fp64", backend=backend, elements=("O", "H")
    )
    whole = read_manifest(tmp_path / "all.pt")
    assert manifest.elements == ("H", "O") and manifest.atomic_numbers == (1, 8)  # in the model's order
    assert manifest.e0s_eV == (whole.e0s_eV[0], whole.e0s_eV[3])
    assert manifest.masses_amu == (whole.masses_amu[0], whole.masses_amu[3])
    frames = reference_frames((1, 8), seed=7)
    pairs = zip(*(evaluate(tmp_path / name, frames) for name in ("some.pt", "all.pt")), strict=True)
    for (energies, forces), (all_energies, all_forces) in pairs:
        assert np.abs(energies - all_energies).max() <= TABLE_BOUND
        assert np.abs(forces - all_forces).max() <= TABLE_BOUND
    with pytest.raises(StructureError, match="C"):
        evaluate(tmp_path / "some.pt", [ase.Atoms("CO", positions=[[0, 0, 0], [1.1, 0, 0]])])


def test_an_artifact_of_two_of_89_elements_is_smaller(tmp_path):
    sizes = {}
    for elements in (None, ("H", "O")):
        path = tmp_path / f"{elements}.pt"
        mdplugin.export_model(save("many-elements"), path, elements=elements)
        sizes[elements] = path.stat().st_size
    with torch.no_grad():
        species = torch.jit.load(tmp_path / "None.pt").e0s.numel()
    assert species == 89
    assert sizes["H", "O"] < 0.8 * sizes[None]


def test_the_command_line_takes_symbols(transformed, tmp_path, capsys):
    target = tmp_path / "some.pt"
    assert main(["export", str(transformed), "-o", str(target), "--elements", "N,H"]) == 0
    assert "elements H N," in capsys.readouterr().out
    assert read_manifest(target).elements == ("H", "N")


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ("Si", "elements: Si is not in organic.model; it knows H C N O"),
        ("h,O", "elements: expected chemical symbols as H,O, got 'h'"),
        ("X", "elements: expected chemical symbols as H,O, got 'X'"),
        ("", "elements: expected chemical symbols as H,O, got ''"),
        ("O,H,O", "elements: expected different ones among H C N O, got 'O,H,O'"),
    ],
)
def test_elements_that_cannot_be_kept_are_refused_in_one_line(
    transformed, tmp_path, capsys, elements, message
):
    status = main(["export", str(transformed), "-o", str(tmp_path / "a.pt"), "--elements", elements])
    assert status == 3
    assert capsys.readouterr().err == f"mdplugin: {message}\n"
    assert not list(tmp_path.iterdir())


def test_no_elements_and_frames_with_others_are_refused(transformed, tmp_path):
    with pytest.raises(CheckpointError, match="expected different ones among H C N O, got ''"):
        mdplugin.export_model(transformed, tmp_path / "a.pt", elements=())
    with pytest.raises(StructureError, match=r"frame 0: elements C are not among those kept of .*: H O"):
        mdplugin.export_model(transformed, tmp_path / "a.pt", elements=("H", "O"), frames=[ase.Atoms("CO")])
