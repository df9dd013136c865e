"""A `.model` that would write a file when Python unpickles it does not when mdplugin reads it."""

import builtins
import os
import subprocess

import pytest
import torch
from architectures import save_from
from model_files import change, require_equal, unpickle

from mdplugin.checkpoint import read_checkpoint
from mdplugin.cli import main


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small .model file."""
    return save_from(tmp_path_factory.mktemp("hostile") / "a.model", max_ell=1, correlation=2)


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
    plant = Plant(torch.save, {}, str(planted))
    path = change(model, tmp_path / "b.model", lambda network: setattr(network, "note", plant))
    torch.save(plant, tmp_path / "plant")
    with torch.serialization.safe_globals([torch.save]):
        before = set(torch.serialization.get_safe_globals())
        require_harmless(path, planted, capsys)
        assert set(torch.serialization.get_safe_globals()) == before
        torch.load(tmp_path / "plant", weights_only=True)  # what it has allowed, torch's own reading runs
        assert planted.exists()


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
