"""Certificates: what they hold, that they add nothing to the file's content, and that none is shown of another file."""

import copy
import dataclasses
import hashlib
import io
import json
import logging
import pickle
import shutil
import zipfile

import numpy as np
import pytest
import torch
from lammps_runs import System, run_lmp, set_up, write_data
from validation_artifacts import crystal, save_morse

import mdplugin
from mdplugin import artifact as artifacts_module
from mdplugin.archive import CERTIFICATES, content_sha256, put_record, read_record
from mdplugin.certificate import FOREIGN, NOT_VALIDATED, Certificate, certify
from mdplugin.cli import main
from mdplugin.errors import ArtifactError

STRUCTURES = {"name": "crystal.xyz", "sha256": "0" * 64}


def make_certificate(path, kind="compare", outcome="pass", structures=None):
    return Certificate(
        kind=kind,
        outcome=outcome,
        line=f"{kind} {outcome} within 1 meV/Å",
        content_sha256=content_sha256(path),
        structures=structures or STRUCTURES,
        reference={"name": "morse"},
        measured={"force_rmse_meV_per_A": 0.5},
        bounds={"force-rmse": {"bound": 1.0, "outcome": outcome}},
        provenance={"versions": {"torch": torch.__version__}},
    )


@pytest.fixture
def plain(tmp_path):
    return save_morse(tmp_path / "plain.pt")


@pytest.fixture
def certified(plain):
    path = plain.with_name("certified.pt")
    shutil.copyfile(plain, path)
    certify(path, [make_certificate(path)])
    return path


def carry(source, target):
    """Give `target` the certificates of `source`."""
    put_record(target, CERTIFICATES, read_record(source, CERTIFICATES))
    return target


def test_the_content_hash_is_that_of_the_extracted_files(plain, tmp_path):
    with zipfile.ZipFile(plain) as archive:
        archive.extractall(tmp_path / "files")
    (root,) = (tmp_path / "files").iterdir()
    digest = hashlib.sha256()
    names = [path.relative_to(root).as_posix().encode() for path in root.rglob("*") if path.is_file()]
    for name in sorted(names):
        data = (root / name.decode()).read_bytes()
        digest.update(len(name).to_bytes(8, "little") + name + len(data).to_bytes(8, "little") + data)
    assert len(names) > 5 and content_sha256(plain) == digest.hexdigest()


def test_a_certificate_changes_no_byte_of_the_records_before_it(plain, certified):
    before, after = plain.read_bytes(), certified.read_bytes()
    with zipfile.ZipFile(certified) as archive:
        last = archive.infolist()[-1]
        assert last.filename.endswith(CERTIFICATES) and last.compress_type == zipfile.ZIP_STORED
    assert after[: last.header_offset] == before[: last.header_offset]
    assert content_sha256(certified) == content_sha256(plain)


def test_a_certified_artifact_computes_the_same_bits(artifacts, water_frames, tmp_path):
    path = tmp_path / "water.pt"
    shutil.copyfile(artifacts["water", "fp32"], path)
    for kind in ("compare", "validate nve", "validate nve"):
        certify(path, [make_certificate(path, kind)])
    results = []
    for file in (artifacts["water", "fp32"], path):
        calculator = mdplugin.MACEQuantCalculator(file)
        calculator.calculate(water_frames[0], ["forces"])
        results.append(calculator.results["forces"])
    assert np.array_equal(*results)


def test_certificates_live_beside_each_other_and_a_new_one_replaces_its_like(certified):
    (old,) = mdplugin.load(certified).certificates.valid
    certify(certified, [make_certificate(certified, "validate nve", "inconclusive")])
    certify(certified, [make_certificate(certified, outcome="fail")])
    other = {"name": "other.xyz", "sha256": "1" * 64}
    certify(certified, [make_certificate(certified, structures=other)])
    loaded = mdplugin.load(certified)
    outcomes = [(each.kind, each.outcome) for each in loaded.certificates.valid]
    assert outcomes == [("compare", "fail"), ("validate nve", "inconclusive"), ("compare", "pass")]
    assert loaded.describe().count("within 1 meV/Å") == 3
    assert old not in loaded.certificates.valid


def with_another_weight(path):
    artifact = mdplugin.load(path)
    artifact.network.calls += 1
    artifacts_module.save(artifact.network, artifact.manifest, path)


def with_another_manifest(path):
    artifact = mdplugin.load(path)
    other = dataclasses.replace(artifact.manifest, precision="fp32")
    artifacts_module.save(artifact.network, other, path)


def with_a_flipped_bit(path):
    """Of one tensor, everything else byte for byte; the checksum of the archive follows."""
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as old, zipfile.ZipFile(path, "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            flipped = bytes([data[0] ^ 1]) + data[1:] if entry.filename.endswith("data/0") else data
            new.writestr(entry, flipped)


@pytest.mark.parametrize("change", [with_another_weight, with_another_manifest, with_a_flipped_bit])
def test_a_certificate_is_not_shown_of_a_changed_file(plain, certified, change):
    changed = plain.with_name("changed.pt")
    shutil.copyfile(plain, changed)
    change(changed)
    assert content_sha256(changed) != content_sha256(plain)
    loaded = mdplugin.load(carry(certified, changed))
    assert loaded.certificates.valid == () and loaded.certificates.n_foreign == 1
    assert loaded.describe().endswith(f"{NOT_VALIDATED}; {FOREIGN}")


def test_a_certificate_of_another_file_is_refused(plain, certified):
    other = save_morse(plain.with_name("other.pt"), spoiled=2.0)
    with pytest.raises(ArtifactError, match=r"expected the artifact that was measured .* measure it again"):
        certify(other, [make_certificate(certified)])
    # what was carried there goes when the file gets one of its own
    carry(certified, other)
    assert certify(other, [make_certificate(other, "validate nvt")]).n_foreign == 0
    assert "compare" not in mdplugin.load(other).describe()


DAMAGED = {
    "no-json": b"{",
    "no-list": b'{"schema": 1}',
    "newer": b'{"schema": 99, "certificates": []}',
    "not-utf8": b"\xff\xfe",
    "several-lines": b'{"schema": 1, "certificates": [{"line": "pass\\nall is well", "content_sha256": "HASH"}]}',
}


def test_lammps_and_ase_say_the_same_of_every_file(plain, certified, tmp_path):
    """Valid, none, carried, changed, and damaged certificates: the banner of LAMMPS ends as Python's line."""
    files = {"certified": certified, "plain": plain}
    two = files["two"] = tmp_path / "two.pt"
    shutil.copyfile(certified, two)
    certify(two, [make_certificate(two, "validate nve", "fail")])
    files["carried"] = carry(certified, save_morse(tmp_path / "carried.pt", precision="fp32"))
    files["changed"] = tmp_path / "changed.pt"
    shutil.copyfile(plain, files["changed"])
    with_another_weight(files["changed"])
    carry(certified, files["changed"])
    mixed = json.loads(read_record(certified, CERTIFICATES))
    mixed["certificates"].append({**copy.deepcopy(mixed["certificates"][0]), "content_sha256": "0" * 64})
    files["mixed"] = tmp_path / "mixed.pt"
    shutil.copyfile(plain, files["mixed"])
    put_record(files["mixed"], CERTIFICATES, json.dumps(mixed).encode())
    for name, data in DAMAGED.items():
        files[name] = tmp_path / f"{name}.pt"
        shutil.copyfile(plain, files[name])
        put_record(files[name], CERTIFICATES, data.replace(b"HASH", content_sha256(plain).encode()))

    write_data(crystal(), tmp_path / "crystal.data", ("Ar", "Ne"))
    system = System(crystal(), "p p p")
    parts = [set_up(system, "crystal.data", path.name, ("Ar", "Ne")) for path in files.values()]
    done = run_lmp(tmp_path, "\nclear\n".join(parts))
    assert done.returncode == 0, done.stdout
    banners = [line for line in done.stdout.splitlines() if line.startswith("mace/quant: ")]
    expected = [f"mace/quant: {path.name} {mdplugin.load(path).describe()}" for path in files.values()]
    assert banners == expected
    says = dict(zip(files, banners, strict=True))
    assert says["certified"].endswith("compare pass within 1 meV/Å")
    assert says["two"].endswith("compare pass within 1 meV/Å; validate nve fail within 1 meV/Å")
    assert says["plain"].endswith(NOT_VALIDATED)
    assert says["mixed"].endswith(f"compare pass within 1 meV/Å; {FOREIGN}")
    for name in ("carried", "changed", *DAMAGED):
        assert says[name].endswith(f"{NOT_VALIDATED}; {FOREIGN}"), name


# ------------------------------------------------------------------------------------ what users see


def test_the_calculator_says_one_line_on_load(certified, caplog):
    with caplog.at_level(logging.INFO, "mdplugin"):
        calculator = mdplugin.MACEQuantCalculator(certified)
    (record,) = caplog.records
    assert record.getMessage() == f"{certified}: {mdplugin.load(certified).describe()}"
    assert "compare pass within 1 meV/Å" in record.getMessage()
    caplog.clear()
    with caplog.at_level(logging.INFO, "mdplugin"):
        copy.deepcopy(calculator)
        pickle.loads(pickle.dumps(calculator))
        mdplugin.MACEQuantCalculator(mdplugin.load(certified))
    assert caplog.records == []


def test_the_line_goes_to_stderr_where_no_logging_is_set_up(plain, capsys, monkeypatch):
    log = logging.getLogger("mdplugin")
    monkeypatch.setattr(log, "propagate", False)  # away from pytest's own handlers
    mdplugin.MACEQuantCalculator(plain)
    assert capsys.readouterr().err == f"mdplugin: {plain}: {mdplugin.load(plain).describe()}\n"
    monkeypatch.setattr(log, "level", logging.WARNING)
    log.manager._clear_cache()
    mdplugin.MACEQuantCalculator(plain)
    assert capsys.readouterr().err == ""


def test_inspect_shows_all_of_it(certified, plain, capsys):
    assert main(["inspect", str(certified)]) == 0
    text = capsys.readouterr().out
    for fact in ("certificate: compare pass within 1 meV/Å", "force_rmse_meV_per_A 0.5", "0" * 64, "bound 1"):
        assert fact in text
    assert main(["inspect", str(certified), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert (
        content["certificates"][0]["content_sha256"] == content["content_sha256"] == content_sha256(certified)
    )
    assert main(["inspect", str(plain)]) == 0
    assert f"certificates: {NOT_VALIDATED}" in capsys.readouterr().out


def test_compare_certifies_what_it_measured(artifacts, hexamer, tmp_path, capsys):
    path, frames = tmp_path / "water.pt", tmp_path / "hexamer.xyz"
    shutil.copyfile(artifacts["water", "fp32"], path)
    hexamer.write(frames)
    small = ["--probe-frames", "1", "--rotations", "1", "--directions", "1", "--rounds", "1", "--quiet"]
    command = ["compare", str(path), "--reference", "water", "--structures", str(frames), *small]
    assert main([*command, "--certify"]) == 0
    (certificate,) = mdplugin.load(path).certificates.valid
    assert certificate.kind == "compare" and certificate.outcome == "pass"
    assert certificate.structures["sha256"] == hashlib.sha256(frames.read_bytes()).hexdigest()
    assert certificate.bounds["force-rmse"] == {"bound": 10.0, "outcome": "pass"}
    assert 0 < certificate.measured["float64"]["force_rmse_meV_per_A"] <= 0.1
    assert certificate.provenance["versions"]["torch"] == torch.__version__
    # a finding is certified as it is, a fail too, and takes the place of the one before
    assert main([*command, "--certify", "--bounds", "force-rmse=1e-9"]) == 1
    (certificate,) = mdplugin.load(path).certificates.valid
    assert certificate.line.startswith("compare fail on 1 frame of H12O6, force RMSE ")
    assert content_sha256(path) == content_sha256(artifacts["water", "fp32"])
    capsys.readouterr()


def test_an_artifact_of_another_potential_is_not_certified(artifacts, hexamer, tmp_path, capsys):
    hexamer.write(tmp_path / "hexamer.xyz")
    path = tmp_path / "organic.pt"
    shutil.copyfile(artifacts["organic", "fp32"], path)
    before = path.read_bytes()
    command = ["compare", str(path), "--reference", "water", "--structures", str(tmp_path / "hexamer.xyz")]
    assert main([*command, "--certify"]) == 3
    assert "give its own source as --reference" in capsys.readouterr().err
    assert path.read_bytes() == before
