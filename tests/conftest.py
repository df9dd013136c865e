"""Shared fixtures: test frames, checkpoints with random weights, artifacts exported once per session."""

import pickle
from pathlib import Path

import ase.io
import once
import pytest
from networks import save_random_network

import mdplugin
from mdplugin import checkpoint, potentials
from mdplugin.checkpoint import evaluate_mace, read_checkpoint

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="session", autouse=True)
def _made_once(tmp_path_factory, request):
    """What is costly is made once per session and shared by its workers (once.py)."""
    base = tmp_path_factory.getbasetemp()
    is_worker = hasattr(request.config, "workerinput")
    once.share((base.parent if is_worker else base) / "once")
    once.remember_sources()
    once.remember_couplings()
    with pytest.MonkeyPatch.context() as patch:
        once.read_networks_once(patch)
        yield


@pytest.fixture
def reads_anew(monkeypatch):
    """For tests of what reading does, not of what it reads: the network is built again by every `read_checkpoint`."""
    for name in ("_rebuild", "_read_json"):
        monkeypatch.setattr(checkpoint, name, getattr(checkpoint, name).anew)


@pytest.fixture(scope="session")
def water_frames():
    """20 test frames of water_pbe0ts_dpmd: 192 atoms, periodic, DFT labels."""
    return ase.io.read(DATA / "water_pbe0ts_dpmd_test20.xyz.gz", ":", format="extxyz")


@pytest.fixture(scope="session")
def ethanol_frames():
    """20 test frames of ethanol_pbe: 9 atoms, not periodic."""
    return ase.io.read(DATA / "ethanol_pbe_test20.xyz.gz", ":", format="extxyz")


@pytest.fixture(scope="session")
def hexamer():
    """The bundled water hexamer, without its stored results."""
    return ase.io.read(potentials.find_structure("water-hexamer")).copy()


@pytest.fixture(scope="session")
def water_checkpoint():
    return read_checkpoint("water")


@pytest.fixture(scope="session")
def organic_model(tmp_path_factory):
    """A .model file with random weights for H, C, O, as mace-torch saves it."""
    return save_random_network(tmp_path_factory.mktemp("models") / "organic.model", atomic_numbers=(1, 6, 8))


class Artifacts(dict):
    """(model, precision[, backend]) -> path of the artifact, exported when it is first asked for."""

    def __init__(self, sources):
        super().__init__()
        self.sources = sources

    def __missing__(self, key):
        name, precision, *backend = key

        def export(path):
            mdplugin.export_model(self.sources[name], path, precision, backend=(backend or ["auto"])[0])

        self[key] = once.make("-".join(key), key, export, ".pt")
        return self[key]


@pytest.fixture(scope="session")
def artifacts(organic_model):
    """Artifacts of the bundled water potential and of the random organic model."""
    return Artifacts({"water": "water", "organic": organic_model})


@pytest.fixture(scope="session")
def water_reference(water_checkpoint, water_frames):
    """mace-torch in float64 on the water frames."""

    def write(path):
        path.write_bytes(pickle.dumps(evaluate_mace(water_checkpoint, water_frames)))

    return pickle.loads(once.make("water-reference", [], write, ".pickle").read_bytes())


@pytest.fixture(scope="session")
def box(tmp_path_factory):
    """Argon as a structure that cases in ASE start from."""
    from validation_toys import argon_box

    from mdplugin.validation.systems import Structure

    path = tmp_path_factory.mktemp("argon") / "argon.xyz"
    ase.io.write(path, argon_box())
    return Structure(path, argon_box())
