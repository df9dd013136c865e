"""Export: the artifact is mace-torch in float64 to rounding, or it is not written."""

import copy
import dataclasses
import json
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import architectures
import ase
import numpy as np
import pytest
import torch

import mdplugin
from mdplugin import export
from mdplugin.artifact import Manifest, load, read_manifest, save
from mdplugin.calculator import MACEQuantCalculator
from mdplugin.checkpoint import _mace, evaluate_mace, read_checkpoint, save_potential
from mdplugin.errors import ArtifactError, CheckpointError, FidelityError, PrecisionError, StructureError
from mdplugin.frames import reference_frames
from mdplugin.precision import PRESETS, Precision

# The bounds: fp64 is another summation order of the same numbers; fp32 has unit roundoff 6e-8,
# amplified by sums over some hundred terms and by cancellation between edges.
BOUNDS = {"fp64": (1e-9, 1e-8, 1e-9), "fp32": (1e-5, 1e-4, 1e-5)}


def assert_equal_to_mace(artifact, frames, references, precision):
    energy_bound, force_bound, stress_bound = BOUNDS[precision]
    calculator = MACEQuantCalculator(artifact)
    for frame, reference in zip(frames, references, strict=True):
        calculator.calculate(frame, ["energy", "forces"])
        results = calculator.results
        assert abs(results["energy"] - reference.energy) / len(frame) <= energy_bound
        assert np.abs(results["energies"] - reference.energies).max() <= 10 * energy_bound
        assert np.abs(results["forces"] - reference.forces).max() <= force_bound
        if reference.stress is not None:
            assert np.abs(results["stress"] - reference.stress).max() <= stress_bound


@pytest.mark.parametrize("backend", ["native", "e3nn"])
@pytest.mark.parametrize("precision", ["fp64", "fp32"])
def test_water_artifact_equals_mace_torch_in_float64(
    artifacts, water_frames, water_reference, precision, backend
):
    some = slice(None, None, 1 if backend == "native" else 4)  # e3nn: mace-torch's own blocks, and slow
    assert_equal_to_mace(
        artifacts["water", precision, backend], water_frames[some], water_reference[some], precision
    )


@pytest.fixture(scope="module")
def ethanol_reference(organic_model, ethanol_frames):
    return evaluate_mace(read_checkpoint(organic_model), ethanol_frames)


@pytest.mark.parametrize("backend", ["native", "e3nn"])
@pytest.mark.parametrize("precision", ["fp64", "fp32"])
def test_ethanol_artifact_equals_mace_torch_in_float64(
    artifacts, ethanol_frames, ethanol_reference, precision, backend
):
    assert_equal_to_mace(
        artifacts["organic", precision, backend], ethanol_frames, ethanol_reference, precision
    )


# with and without scale and shift, 1 to 3 layers, each kind of block, radial functions per pair of species, ZBL, other types
SERVED = [
    "mace-no-shift",
    "one-layer",
    "residual-residual",
    "foundation-0b",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("three-layers", "gaussian", "float32")),
]


@pytest.mark.parametrize("name", SERVED)
def test_architecture_is_served_as_mace_torch_computes_it(tmp_path, name):
    checkpoint = architectures.build(name)
    frames = reference_frames(checkpoint.atomic_numbers[:2], seed=3)
    references = evaluate_mace(checkpoint, frames)
    for backend in ("native", "e3nn"):
        manifest = mdplugin.export_model(architectures.save(name), tmp_path / "a.pt", "fp64", backend=backend)
        assert manifest.backend == backend
        assert manifest.trained_dtype == ("float32" if name == "float32" else "float64")
        assert_equal_to_mace(tmp_path / "a.pt", frames, references, "fp64")


@pytest.mark.parametrize("backend", ["native", "e3nn"])
def test_repulsion_at_contact_is_in_float64_whatever_torchs_default_dtype(tmp_path, backend):
    """mace-torch multiplies by a constant in the default dtype: float32 here, which is 1.7e-8 eV/Å on these frames."""
    mdplugin.export_model(architectures.save("zbl"), tmp_path / "zbl.pt", "fp64", backend=backend)
    frames = [
        ase.Atoms("H2O", positions=[[0, 0, 0], [0.7, 0, 0.1], [0.1, 0.8, 0]]),
        ase.Atoms("O2", positions=[[0, 0, 0], [0.9, 0, 0]]),
    ]
    references = evaluate_mace(architectures.build("zbl"), frames)
    assert max(np.abs(reference.forces).max() for reference in references) > 8
    calculator = MACEQuantCalculator(tmp_path / "zbl.pt")
    for frame, reference in zip(frames, references, strict=True):
        calculator.calculate(frame, ["energy", "forces"])
        # native: the radial table's own error, 1e-9 of the largest slope; e3nn: rounding
        assert abs(calculator.results["energy"] - reference.energy) <= 1e-9
        assert np.abs(calculator.results["forces"] - reference.forces).max() <= 1e-9


def test_a_network_trained_in_float32_is_held_against_couplings_rounded_to_it(tmp_path):
    """Ours are exact, mace-torch's are not: 2e-8 eV/Å for water, which fp64 does not allow a network of float64."""
    with _mace():
        torch.save(read_checkpoint("water").network.float(), tmp_path / "f32.model")
    manifest = mdplugin.export_model(tmp_path / "f32.model", tmp_path / "f32.pt", "fp64", backend="native")
    policy = Precision.parse("fp64")
    assert manifest.trained_dtype == "float32"
    strict = policy.allowed("float64")
    assert strict.force_eV_per_A < manifest.fidelity["force_eV_per_A"] <= 1e-6
    with pytest.raises(FidelityError, match=r"allowed 1e-0[89]"):
        export.require_fidelity(manifest.fidelity, policy, "f32.model", "float64")


def test_each_head_of_a_multi_head_model_is_served(tmp_path):
    model, heads = architectures.save("three-heads-bias"), ["a", "b", "c"]
    frames = reference_frames((1, 8), seed=1)
    energies = []
    for head in heads:
        manifest = mdplugin.export_model(model, tmp_path / f"{head}.pt", "fp64", head=head)
        references = evaluate_mace(read_checkpoint(model, head), frames)
        assert_equal_to_mace(tmp_path / f"{head}.pt", frames, references, "fp64")
        assert manifest.head == head
        energies.append(references[0].energy)
    assert len(set(energies)) == len(heads)  # else the test could not tell heads apart


def test_several_heads_and_none_chosen_is_refused(tmp_path):
    model = architectures.save("two-heads")
    with pytest.raises(CheckpointError, match=r"several heads \(first, second\)"):
        mdplugin.export_model(model, tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match="expected a head among first, second, got 'third'"):
        mdplugin.export_model(model, tmp_path / "m.pt", head="third")


def test_manifest_answers_every_question_of_an_engine(artifacts, water_checkpoint):
    manifest = read_manifest(artifacts["water", "fp32"])
    assert manifest.precision == "fp32" and str(Precision.parse(manifest.precision)) == "fp32"
    assert manifest.trained_dtype == "float64"
    assert manifest.elements == ("H", "O") and manifest.atomic_numbers == (1, 8)
    assert manifest.r_max == 4.5 and manifest.n_layers == 2 and manifest.head == "Default"
    assert manifest.e0s_eV == water_checkpoint.e0s
    assert manifest.source["sha256"] == water_checkpoint.sha256
    assert manifest.torch_version == torch.__version__
    assert manifest.fidelity["force_eV_per_A"] <= 1e-4
    assert mdplugin.load(artifacts["water", "fp32"]).describe() == f"{manifest.describe()}, not validated"
    assert Manifest.from_json(manifest.to_json(), "here") == manifest


@pytest.mark.parametrize("schema", [1, 3])
def test_artifact_of_another_schema_is_refused(artifacts, schema):
    values = json.loads(read_manifest(artifacts["water", "fp32"]).to_json())
    with pytest.raises(ArtifactError, match=f"schema {schema}, this mdplugin reads 2: export"):
        Manifest.from_json(json.dumps({**values, "schema": schema}), "other.pt")


@pytest.mark.parametrize(
    "change", [{"schema": "2"}, {"schema": None}, {"r_max": "big"}, {"elements": "H"}, {"e0s_eV": None}]
)
def test_a_manifest_of_wrong_types_is_called_damaged(artifacts, change):
    values = json.loads(read_manifest(artifacts["water", "fp32"]).to_json())
    with pytest.raises(ArtifactError, match="damaged manifest"):
        Manifest.from_json(json.dumps({**values, **change}), "bad.pt")
    with pytest.raises(ArtifactError, match="damaged manifest"):
        Manifest.from_json("[]", "bad.pt")


def test_links_are_followed_and_only_regular_files_replaced(tmp_path, artifacts):
    artifact = load(artifacts["water", "fp32"])
    (tmp_path / "old.pt").write_text("old")
    (tmp_path / "link.pt").symlink_to("old.pt")
    save(artifact.network, artifact.manifest, tmp_path / "link.pt")
    assert (tmp_path / "link.pt").is_symlink()
    assert read_manifest(tmp_path / "old.pt") == artifact.manifest
    os.mkfifo(tmp_path / "pipe.pt")
    for name, kind in (("pipe.pt", "not a regular file"), (".", "a directory")):
        with pytest.raises(ArtifactError, match=f"it is {kind}; choose another file"):
            save(artifact.network, artifact.manifest, tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == ["link.pt", "old.pt", "pipe.pt"]


def test_a_full_disk_is_one_line_and_leaves_the_old_file(tmp_path, artifacts):
    (tmp_path / "old.pt").write_text("old")
    code = (
        "import resource, sys; from mdplugin.artifact import load, save; from pathlib import Path;"
        "a = load(sys.argv[1]); resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000));"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); save(a.network, a.manifest, Path('old.pt'))"
    )
    command = [sys.executable, "-c", code, artifacts["water", "fp32"]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "ArtifactError: cannot write" in done.stderr and "File too large" in done.stderr
    assert os.listdir(tmp_path) == ["old.pt"] and (tmp_path / "old.pt").read_text() == "old"


def test_frames_of_the_user_come_on_top_of_the_generated_ones(tmp_path):
    manifest = mdplugin.export_model("water", tmp_path / "w.pt", frames=[ase.Atoms("O")])
    assert manifest.fidelity["n_frames"] == 1 + len(reference_frames((1, 8)))
    with pytest.raises(StructureError, match="frame 0: expected finite positions"):
        mdplugin.export_model("water", tmp_path / "w.pt", frames=[ase.Atoms("O", positions=[[np.nan, 0, 0]])])


def corrupt(checkpoint, factor):
    """The checkpoint with its last weight block scaled: what a wrong export would compute."""
    network = copy.deepcopy(checkpoint.network)
    with torch.no_grad():
        network.readouts[0].linear.weight.mul_(factor)
    return dataclasses.replace(checkpoint, network=network)


@pytest.mark.parametrize(
    ("factor", "error"), [(1.001, r"is 0\.000\d+ eV/atom, allowed 1e-09"), (np.nan, "is nan eV/atom")]
)
def test_a_wrong_network_is_refused_and_the_old_file_kept(
    tmp_path, monkeypatch, water_checkpoint, factor, error
):
    target = tmp_path / "w.pt"
    target.write_text("precious")
    build = export._build
    monkeypatch.setattr(export, "_build", lambda checkpoint, *rest: build(corrupt(checkpoint, factor), *rest))
    with pytest.raises(FidelityError, match=error):
        mdplugin.export_model("water", target, "fp64")
    assert target.read_text() == "precious"
    assert os.listdir(tmp_path) == ["w.pt"]


def test_unknown_precision_lists_the_legal_ones(tmp_path):
    with pytest.raises(
        PrecisionError, match=r"expected one of fp64, fp32, bf16, .*, got 'fp23'; did you mean fp32"
    ):
        mdplugin.export_model("water", tmp_path / "w.pt", "fp23")
    assert [str(Precision.parse(name)) for name in PRESETS] == list(PRESETS)


def test_export_leaves_torchs_global_state_alone(tmp_path, reads_anew):
    before = torch.get_default_dtype(), torch.get_num_threads(), dict(os.environ), torch.is_grad_enabled()
    for backend in ("native", "e3nn"):
        with torch.no_grad():  # as the caller may have it
            mdplugin.export_model("water", tmp_path / "w.pt", "fp64", backend=backend)
    assert before == (
        torch.get_default_dtype(),
        torch.get_num_threads(),
        dict(os.environ),
        torch.is_grad_enabled(),
    )


def test_a_potential_saved_without_pickle_computes_the_same(tmp_path, organic_model, ethanol_frames):
    checkpoint = read_checkpoint(organic_model)
    save_potential(checkpoint, tmp_path / "organic.json")
    saved = evaluate_mace(read_checkpoint(tmp_path / "organic.json"), ethanol_frames[:3])
    for value, reference in zip(saved, evaluate_mace(checkpoint, ethanol_frames[:3]), strict=True):
        assert abs(value.energy - reference.energy) <= 1e-9
        assert np.abs(value.forces - reference.forces).max() <= 1e-10


def test_an_artifact_says_nothing_of_the_machine_and_its_tensors_stay_aligned(artifacts):
    path = artifacts["water", "fp32"]
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        records = {entry.filename: archive.read(entry) for entry in archive.infolist()}
        assert not [name for name in records if name.endswith((".debug_pkl", "serialization_id"))]
        for entry in archive.infolist():
            # a local header is 30 bytes, the lengths of name and extra field its last four
            name, extra = struct.unpack("<HH", content[entry.header_offset + 26 : entry.header_offset + 30])
            assert (entry.header_offset + 30 + name + extra) % 64 == 0
    installed = str(Path(mdplugin.__file__).parent).encode()
    assert not [name for name, data in records.items() if installed in data]
