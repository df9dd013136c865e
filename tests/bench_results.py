"""Results of `mdplugin bench` with round numbers, for the tests of tables and bounds."""

from mdplugin.bench.results import Case, Contender, LammpsRun, Memory, Results, Split

PARTS = {"neighbour list": 0.25e-3, "convolve 1": 0.5e-3, "host": 0.25e-3}


def contender(program: str, precision: str, seconds: float, used: int = 10_000_000) -> Contender:
    """Three rounds around a median of `seconds`; `used` bytes above 200 MB."""
    return Contender(
        program=program,
        precision=precision,
        compute={"fp32": "float32", "fp64": "float64"}.get(precision, precision),
        rounds=(0.9 * seconds, 1.3 * seconds, seconds),
        steps_per_round=10,
        memory=Memory(loaded=200_000_000, peak=200_000_000 + used),
        split=Split(1e-3, dict(PARTS)) if program == "mdplugin" else None,
    )


def case(network: str = "medium", n_atoms: int = 192, **changes) -> Case:
    """fp32 in 50 ms, mace-torch float32 in 1 s and float64 in 2 s; 2 GFLOP a step on a machine of 100 GFLOP/s."""
    values = {
        "network": network,
        "system": "box",
        "n_atoms": n_atoms,
        "n_edges": 55 * n_atoms,
        "threads": 1,
        "allocator": "tuned",
        "load_average": (0.5, 1.0),
        "others": 0.0,
        "gemm": {"float64": 50e9, "float32": 100e9},
        "copy": 20e9,
        "operations": {"convolve 1": 20_000_000, "linear maps": 1_980_000_000},
        "contenders": (
            contender("mace-torch", "float64", 2.0),
            contender("mace-torch", "float32", 1.0),
            contender("mdplugin", "fp32", 0.05),
        ),
    }
    return Case(**{**values, **changes})


def lammps_run(ranks: int, seconds: float, network: float) -> LammpsRun:
    """Three rounds; a neighbour list is built in the last."""
    return LammpsRun(
        precision="fp32",
        ranks=ranks,
        steps_per_round=10,
        loop=(seconds, seconds, seconds + 0.003),
        neighbor=(0.0, 0.0, 0.003),
        comm=(0.001,) * 3,
        edges=(0.001,) * 3,
        network=(network,) * 3,
        halo=(0.0,) * 3,
        result=(0.001,) * 3,
    )


def results(*cases: Case) -> Results:
    """Of a made-up machine."""
    machine = {
        "finished": "2026-11-21T00:00:00+00:00",
        "cpu": "Abacus",
        "cores": 2,
        "platform": "Linux",
        "python": "3.11",
        "versions": {"torch": "2.13.0", "lammps": None},
    }
    return Results(machine=machine, command=("/bin/mdplugin", "bench"), seed=0, cases=cases)
