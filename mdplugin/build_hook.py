"""Wheel build hook: compiles the native libraries into the wheel where torch and LAMMPS are installed.

In pip's isolated build neither is a build requirement (torch alone would be gigabytes): the outer
environment's are used. Where they are missing, the wheel is pure and the libraries are built at first use.
"""

import importlib.util
import sys
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


def _load_native(root: str):
    spec = importlib.util.spec_from_file_location("mdplugin_native", Path(root) / "mdplugin" / "native.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class NativeLibraries(BuildHookInterface):
    """Adds mdplugin/lib/*.so to the wheel."""

    def initialize(self, version: str, build_data: dict) -> None:
        """Called by hatch before it packs the wheel."""
        if self.target_name != "wheel" or version == "editable":
            return
        native = _load_native(self.root)
        try:
            environment = native.find_environment()
            if environment.torch is None:
                raise native.BuildError("torch is not installed here")
            libraries = native.cached_build(environment, "$ORIGIN/../../torch/lib")
        except native.BuildError as error:
            self.app.display_warning(f"mdplugin: {error}; the native libraries will be built at first use")
            return
        for file in libraries.iterdir():
            build_data["force_include"][str(file)] = f"mdplugin/lib/{file.name}"
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
