"""What `mdplugin bench` computes: water, its motion, operations, splits of a step. No time is asserted."""

import time
from types import SimpleNamespace

import ase.neighborlist
import numpy as np
import pytest
import torch
from ase import units

from mdplugin.bench import load, probes
from mdplugin.bench.networks import SIZES, describe_network
from mdplugin.bench.operations import count_operations
from mdplugin.bench.split import split_events
from mdplugin.bench.systems import TEMPERATURE_K, TIMESTEP_FS, Vibration, build_system
from mdplugin.bench.timing import time_in_turns
from mdplugin.checkpoint import read_checkpoint, save_random_network
from mdplugin.errors import CaseError
from mdplugin.lowering import lower

# ------------------------------------------------------------------------------ systems


@pytest.mark.parametrize("n_atoms", [27, 192, 384, 648, 1002, 1536, 4800])
def test_a_box_of_any_size_is_liquid_water(n_atoms):
    box = build_system("box", n_atoms, seed=0)
    assert box.get_chemical_symbols() == ["O", "H", "H"] * (n_atoms // 3) and box.pbc.all()
    density = box.get_masses().sum() * units._amu * 1e3 / (box.get_volume() * 1e-24)
    assert abs(density - 0.997) <= 0.004  # the bundled box has 0.993
    i, j, d = ase.neighborlist.neighbor_list("ijd", box, 2.0)
    own = i // 3 == j // 3
    bonds = d[own & (i % 3 == 0)]
    assert len(bonds) == 2 * (n_atoms // 3) and (abs(bonds - 0.98) <= 0.15).all()
    # between molecules: two nuclei of water come as near as 1.4 Å; ours are turned at random
    assert d[~own].min() >= 0.9


def test_a_box_of_whole_copies_is_the_bundled_box():
    small, large = build_system("box", 192, seed=0), build_system("box", 1536, seed=1)
    assert np.allclose(large.cell.lengths(), 2 * small.cell.lengths())
    assert np.allclose(large.positions[:192], small.positions)


def test_a_cluster_is_whole_molecules_without_a_cell():
    cluster = build_system("cluster", 27, seed=0)
    assert len(cluster) == 27 and not cluster.pbc.any() and cluster.cell.rank == 0
    # nine molecules of 30 Å³ fill a ball of 8 Å across
    assert np.ptp(cluster.positions, axis=0).max() <= 10


@pytest.mark.parametrize("n_atoms", [1, 100, 100_000])
def test_half_a_molecule_is_refused_with_the_next_counts(n_atoms):
    with pytest.raises(CaseError, match=f"multiple of 3, got {n_atoms}: take"):
        build_system("box", n_atoms, seed=0)


def test_the_motion_has_the_speeds_of_its_temperature_at_every_step():
    atoms = build_system("box", 4800, seed=0)
    motion = Vibration(atoms, seed=1)
    for step in (0, 17):
        half = 0.01  # of a step: the central difference is then exact to 1e-7
        ahead, behind = motion.positions(step + half), motion.positions(step - half)
        speeds = (ahead - behind) / (2 * half * TIMESTEP_FS * units.fs)
        kinetic = 0.5 * (atoms.get_masses()[:, None] * speeds**2).mean()
        # the mean of n squares of normals is off by sqrt(2 / n); five of these
        bound = 5 * np.sqrt(2 / speeds.size)
        assert abs(kinetic / (0.5 * units.kB * TEMPERATURE_K) - 1) <= bound
    assert (motion.positions(3) == Vibration(atoms, seed=1).positions(3)).all()
    assert (motion.positions(3) != Vibration(atoms, seed=2).positions(3)).any()


# ------------------------------------------------------------------------------ operations


def test_operations_of_the_tiny_network_are_those_counted_by_hand(tmp_path):
    path = save_random_network(tmp_path / "tiny.model", describe_network("tiny"), seed=0)
    counted = count_operations(lower(read_checkpoint(path)), n_atoms=2, n_edges=5)
    # docs/lowering.md, table "Counts": K = 32; layer 1 has 3 paths, v = 3, T = 9, 9 couplings, layer 2 has 7, 15, 35, 37
    # reverse: R and R' (2 P taps), P, 2 T; 2 v in layer 1, whose senders have no gradient, 3 v in layer 2
    # l_max 2: L = 0 has 1 + 9 + 25 monomials, as many couplings, 1 + 3 + 5 paths; L = 1 3 + 14 + 56, 3 + 14 + 71, 1 + 2 + 5
    scalars = (9 + 2 * 25) + (1 + 9 + 25) + (1 + 3 + 5)
    vectors = (14 + 2 * 56) + (3 + 14 + 71) + 3 * (1 + 2 + 5)
    assert counted == {
        "convolve 1": 2 * 5 * (32 * (3 * 6 + 3 + 9) + 9),
        "convolve 2": 2 * 5 * (32 * (7 * 6 + 15 + 35) + 37),
        "reverse convolve 1": 2 * 5 * (32 * (36 + 3 + 18 + 6) + 2 * 9),
        "reverse convolve 2": 2 * 5 * (32 * (84 + 7 + 70 + 45) + 2 * 37),
        "contract 1": 2 * 2 * 32 * (scalars + vectors),
        "contract 2": 2 * 2 * 32 * scalars,
        "reverse contract 1": 2 * 4 * 32 * (scalars + vectors),
        "reverse contract 2": 2 * 4 * 32 * scalars,
        # both messages and up, forward and reverse
        "linear maps": 2 * 2 * 2 * (9_216 + 21_504 + 4_096),
        # the linear readout, both layers' share of the perceptron's 16 units, its output
        "readout": 2 * 2 * 2 * (32 + 2 * 32 * 16 + 16),
    }


def test_sizes_are_those_of_the_names():
    irreps = {size: describe_network(size)["hidden_irreps"] for size in SIZES}
    assert irreps == {
        "tiny": "32x0e + 32x1o",
        "small": "96x0e",
        "medium": "128x0e + 128x1o",
        "large": "192x0e + 192x1o + 192x2e",
    }
    assert [describe_network(size)["r_max"] for size in SIZES] == [4.5, 4.5, 5.0, 5.0]


def test_a_random_network_is_the_same_for_the_same_seed_and_leaves_torchs_generator(tmp_path):
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    settings = {**describe_network("tiny"), "num_interactions": 1, "max_ell": 1, "hidden_irreps": "4x0e"}
    paths = [save_random_network(tmp_path / f"{k}.model", settings, seed) for k, seed in enumerate((3, 3, 4))]
    weights = [dict(read_checkpoint(path).network.named_parameters()) for path in paths]
    assert torch.equal(before, torch.random.get_rng_state())
    name = "interactions.0.linear_up.weight"
    assert torch.equal(weights[0][name], weights[1][name])
    assert not torch.equal(weights[0][name], weights[2][name])


# ------------------------------------------------------------------------------ split


def event(name, start, end, *children):
    """As torch's profiler gives it, times in µs."""
    span = SimpleNamespace(start=start, elapsed_us=lambda: end - start)
    return SimpleNamespace(name=name, time_range=span, cpu_children=list(children))


def make_step(shift):
    """A step of 100 µs of a network with two layers; the ops lie below a function of TorchScript."""
    ops = [
        ("mdplugin::edge_geometry", 20, 22), ("mdplugin::convolve", 22, 27), ("aten::addmm_", 27, 30),
        ("mdplugin::contract", 30, 31), ("aten::add_", 31, 33), ("mdplugin::convolve", 33, 40),
        ("mdplugin::contract", 40, 42), ("aten::mm", 42, 43), ("aten::sigmoid", 43, 45),
        ("mdplugin::reverse_contract", 45, 49), ("mdplugin::reverse_convolve", 50, 60),
        ("mdplugin::reverse_contract", 60, 61), ("mdplugin::reverse_convolve", 61, 64),
    ]  # fmt: skip
    inner = [
        event(name, shift + a, shift + b, event("aten::zeros", shift + a, shift + a)) for name, a, b in ops
    ]
    script = event("forward", shift + 18, shift + 66, *reversed(inner))
    artifact = event("bench::artifact", shift + 17, shift + 67, script)
    neighbors = event("bench::neighbors", shift + 5, shift + 15)
    return event("bench::step", shift, shift + 100, neighbors, artifact)


def test_the_parts_of_a_step_are_named_by_layer_and_sum_to_it():
    split = split_events([make_step(0), event("other", 0, 9), make_step(500)], n_layers=2)
    microseconds = {name: round(1e6 * seconds, 9) for name, seconds in split.parts.items()}
    assert microseconds == {
        "neighbour list": 10,
        "edge geometry": 2,
        "convolve 1": 5,
        "linear maps": 3,
        "contract 1": 1,
        "other tensor operations": 2,
        "convolve 2": 7,
        "contract 2": 2,
        "readout": 3,  # a matrix product too is readout between the last contraction and its reverse
        "reverse contract 2": 4,
        "reverse convolve 2": 10,
        "reverse contract 1": 1,
        "reverse convolve 1": 3,
        "host": 47,
    }
    assert next(iter(microseconds)) == "neighbour list" and list(microseconds)[-1] == "host"
    assert split.step == pytest.approx(100e-6, rel=1e-12)


# ------------------------------------------------------------------------------ clocks


class Clock:
    """Advances by what the work says; stands in for time.perf_counter."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)


def test_contenders_take_turns_and_a_rounds_time_is_that_of_one_step(monkeypatch):
    clock, order = Clock(monkeypatch), []

    def make_walk(name, seconds):
        def take_step():
            order.append(name)
            clock.now += seconds

        return SimpleNamespace(take_step=take_step)

    ticks = []
    walks = [make_walk("slow", 4.0), make_walk("fast", 0.25)]
    timed = time_in_turns(walks, rounds=2, tick=lambda: ticks.append(1))
    assert timed == [(1, [4.0, 4.0]), (4, [0.25, 0.25])]  # a round lasts about a second
    assert order == 3 * ["slow"] + 3 * ["fast"] + 2 * (["slow"] + 4 * ["fast"])
    assert len(ticks) == 2 * (2 + 1)


def test_rates_are_operations_and_bytes_over_the_shortest_time(monkeypatch):
    monkeypatch.setattr(probes, "GEMM_SIZE", 8)
    monkeypatch.setattr(probes, "COPY_BYTES", 512)
    spans = iter([9.0, 4.0, 2.0, *[5.0] * 6])  # the first does not count
    now = [0.0]

    def clock():
        now[0] += clock.step
        clock.step = next(spans, 5.0) if clock.step == 0.0 else 0.0
        return now[0]

    clock.step = 0.0
    monkeypatch.setattr(time, "perf_counter", clock)
    assert probes.measure_gemm(torch.float64) == 2 * 8**3 / 2.0
    spans = iter([1.0, *[8.0] * 8])
    assert probes.measure_copy() == 2 * 512 / 8.0


def test_the_load_of_others_is_what_is_busy_less_our_own(monkeypatch, tmp_path):
    stat = tmp_path / "stat"
    monkeypatch.setattr(load, "_STAT", stat)
    monkeypatch.setattr(load, "_read_own_s", lambda: own[0])
    monkeypatch.setattr(time, "monotonic", lambda: own[1])
    monkeypatch.setattr(load.os, "sysconf", lambda name: 100)
    own = [5.0, 1000.0]
    stat.write_text("cpu  1000 0 500 9999 77 1 2 7 0 0\ncpu0 1 2 3\n")
    others = load.OtherLoad()
    own = [13.0, 1010.0]
    stat.write_text("cpu  2500 100 600 9999 99 3 5 12 0 0\ncpu0 1 2 3\n")
    # busy: 15 + 1 + 1 + 0.02 + 0.03 + 0.05 = 17.1 s in 10 s, of which 8 s are ours
    assert others.read() == pytest.approx((17.1 - 8.0) / 10, abs=1e-12)
