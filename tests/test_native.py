"""The native build: one build per key, one builder at a time, a stale build is never loaded."""

import dataclasses
import json
import multiprocessing
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mdplugin import native


@pytest.fixture
def environment():
    return native.find_environment()


def write_fake_libraries(environment, directory, rpath):
    """Stands in for the compiler: leaves a stamp and a line in a log, so that builds can be counted."""
    with (native.cache_root() / "builds.log").open("a") as log:
        log.write(f"{rpath}\n")
    (directory / native.STAMP).write_text(json.dumps({"key": native.build_key(environment), "sizes": {}}))


def build_in_process(cache):
    native.cache_root = lambda: Path(cache)
    native.compile_libraries = write_fake_libraries
    native.cached_build(native.find_environment(), "/torch/lib")


def test_the_key_follows_torch_lammps_and_sources(environment, tmp_path, monkeypatch):
    key = native.build_key(environment)
    assert key == native.build_key(environment)
    assert key != native.build_key(dataclasses.replace(environment, torch_version="2.14.0"))
    assert key != native.build_key(dataclasses.replace(environment, lammps_version="2026.1.1"))
    (tmp_path / "a.cpp").write_text("int a;")
    monkeypatch.setattr(native, "source_directories", lambda: (tmp_path, tmp_path))
    changed = native.build_key(environment)
    (tmp_path / "a.cpp").write_text("int b;")
    assert len({key, changed, native.build_key(environment)}) == 3


def test_the_installed_wheel_carries_libraries_for_this_environment():
    directory = native.library_directory()
    assert directory == native.PACKAGE / "lib"
    for name in (native.OPS_LIBRARY, native.ARTIFACT_LIBRARY, native.PLUGIN_LIBRARY):
        assert (directory / name).is_file()


def test_a_truncated_or_missing_library_is_not_loaded(environment, tmp_path):
    directory = tmp_path / "lib"
    shutil.copytree(native.library_directory(), directory)
    key = native.build_key(environment)
    assert native._is_valid(directory, key)
    library = directory / native.OPS_LIBRARY
    library.write_bytes(library.read_bytes()[:5000])
    assert not native._is_valid(directory, key)
    library.unlink()
    assert not native._is_valid(directory, key)


def test_a_torch_upgrade_triggers_a_rebuild(environment, tmp_path, monkeypatch):
    monkeypatch.setattr(native, "cache_root", lambda: tmp_path)
    monkeypatch.setattr(native, "compile_libraries", write_fake_libraries)
    upgraded = dataclasses.replace(environment, torch_version="2.14.0")
    monkeypatch.setattr(native, "find_environment", lambda: upgraded)
    first = native.library_directory()
    assert first.parent == tmp_path and native.library_directory() == first
    assert (tmp_path / "builds.log").read_text().count("\n") == 1


def test_two_processes_that_start_together_build_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=build_in_process, args=(str(tmp_path),)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert (tmp_path / "builds.log").read_text().count("\n") == 1


def test_a_missing_compiler_or_torch_says_what_to_install(environment, tmp_path, monkeypatch):
    with pytest.raises(native.BuildError, match="torch is not installed: run `pip install torch`"):
        native.compile_libraries(dataclasses.replace(environment, torch=None), tmp_path, "")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(native.BuildError, match=r"no C\+\+ compiler: install g\+\+"):
        native.compile_libraries(environment, tmp_path, "")


def test_a_compiler_error_is_one_line_with_the_log(environment, tmp_path, monkeypatch):
    (tmp_path / "broken.cpp").write_text("this is not C++;")
    (tmp_path / "artifact.cpp").write_text("")
    monkeypatch.setattr(native, "source_directories", lambda: (tmp_path, tmp_path))
    with pytest.raises(native.BuildError, match=r"g\+\+ failed: .*broken.cpp.*whole output: ") as caught:
        native.compile_libraries(environment, tmp_path, "")
    assert "\n" not in str(caught.value)


def test_an_unwritable_cache_says_which_variable_to_set(environment, monkeypatch):
    monkeypatch.setattr(native, "cache_root", lambda: Path("/proc/mdplugin"))
    with pytest.raises(native.BuildError, match="set MDPLUGIN_CACHE to a writable directory"):
        native.cached_build(environment, "/torch/lib")


@pytest.mark.slow
def test_the_libraries_compile_from_the_shipped_sources(environment, tmp_path):
    native.compile_libraries(environment, tmp_path, str(environment.torch / "lib"))
    load = f"import torch; torch.ops.load_library('{tmp_path / native.OPS_LIBRARY}'); torch.ops.mdplugin.halo"
    subprocess.run([sys.executable, "-c", load], check=True)


def test_importing_lammps_does_not_import_torch(tmp_path):
    check = "import sys, lammps; assert 'torch' not in sys.modules; lammps.lammps(cmdargs=['-screen','none','-log','none'])"
    subprocess.run([sys.executable, "-c", check], check=True, cwd=tmp_path)  # not the source tree
