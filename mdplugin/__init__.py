"""Low-precision MACE in molecular dynamics: one artifact for ASE and LAMMPS, with a verdict on its physics.

    mdplugin.export_model("water.model", "water-fp32.pt", precision="fp32")
    atoms.calc = mdplugin.MACEQuantCalculator("water-fp32.pt")

Names are imported when first used, so that `import lammps`, which loads our plugin entry point, stays fast.
"""

import importlib

_HOMES = {
    "export_model": "mdplugin.export",
    "load": "mdplugin.artifact",
    "read_manifest": "mdplugin.artifact",
    "Artifact": "mdplugin.artifact",
    "Manifest": "mdplugin.artifact",
    "MACEQuantCalculator": "mdplugin.calculator",
    "Precision": "mdplugin.precision",
    "MDPluginError": "mdplugin.errors",
}
__all__ = list(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'mdplugin' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__():
    return sorted([*globals(), *__all__])
