"""Networks of every policy are the plain float64 reference of the rounded model, on the architecture matrix."""

import functools

import numpy as np
import pytest
import torch
from architectures import lowered
from edges_of import frames, inputs
from lammps_runs import System, measure
from test_network_native import ENERGY_BOUND, FORCE_BOUND, run

import mdplugin
from mdplugin import reference
from mdplugin.network_native import NativeNetwork, tabulate_layers
from mdplugin.precision import PRESETS, Precision
from mdplugin.quantize import quantize_model, quantize_tables

# every kind of block, pairs of species with tables of their own, matrices per species, one channel, three layers
ARCHITECTURES = ["plain-residual", "plain-plain", "density-residual-twice", "agnesi", "zbl", "three-layers", "hidden-l2",
                 "l-max-3-one-channel", "correlation-4"]  # fmt: skip
LOW = [name for name in PRESETS if name not in ("fp64", "fp32")]
PARAMETERS = [name for name in LOW if not Precision.parse(name).rounds_state]
STATE = [*sorted(set(LOW) - set(PARAMETERS)), "fp32,messages=bf16", "fp32,messages=fp16", "fp32,readout=bf16",
         "fp32,readout=fp16", "fp32,radial=w16a16", "fp32,linear.2=w8a8"]  # fmt: skip
MIXED = ["fp32,radial=bf16,product=bf16", "fp32,radial=fp16,product=fp16,readout=w16", "fp32,radial=w8,linear.2=w8",
         "fp32,radial.2=w16,product.1=w8"]  # fmt: skip
# half a step of a number type, relative to the number, or to the node's largest
ROUNDOFF = {"bf16": 2.0**-9, "fp16": 2.0**-12, "w8a16": 2.0**-16, "w16a16": 2.0**-16, "w8a8": 2.0**-8}


@functools.cache
def scene(name):
    model = lowered(name)
    return model, [(frame, inputs(model, frame)) for frame in frames(model.atomic_numbers)]


@functools.cache
def tables_of(name, *formats):
    text = ",".join(["fp32", *(f"radial.{t}={knots}" for t, knots in enumerate(formats, 1))])
    return tabulate_layers(scene(name)[0], Precision.parse(text))[0]


@functools.cache
def rounded(name, text):
    """The model and its tables after the policy, and the energies and edge forces of the frames in float64."""
    model, data = scene(name)
    policy = Precision.parse(text)
    tables = tables_of(name, *(policy.format("radial", t + 1) for t in range(len(model.layers))))
    model, tables = quantize_tables(model, tables, policy)
    model = quantize_model(model, policy)
    return model, tables, [reference.evaluate(model, *a, len(f), tables=tables) for f, a in data]


def worst(results, expected):
    """Largest errors of energies and edge forces, relative to the largest above 1 eV and 1 eV/Å."""
    errors = []
    for result, exact in zip(results, expected, strict=True):
        assert all(bool(part.isfinite().all()) for part in result)
        errors.append(
            [float((x - y).abs().max() / max(1.0, y.abs().max())) for x, y in zip(result, exact, strict=True)]
        )
    return np.max(errors, axis=0)


def evaluate(name, text):
    """The network's own results."""
    model, tables, _ = rounded(name, text)
    network = NativeNetwork(model, tables, Precision.parse(text))
    return [run(network, arguments, len(frame)) for frame, arguments in scene(name)[1]]


@pytest.mark.parametrize("text", [*PARAMETERS, *MIXED])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_rounded_parameters_cost_no_more_than_fp32_does(name, text):
    """The network computes in float32, with exactly the parameters of the rounded model."""
    energy, force = worst(evaluate(name, text), rounded(name, text)[2])
    assert energy <= ENERGY_BOUND[torch.float32] and force <= FORCE_BOUND[torch.float32]


@functools.cache
def amplification(name):
    """What rounding does to this network, by the reference: errors after all parameters have 16 bits, over 2^-16."""
    _, _, exact = rounded(name, "fp32")
    return worst(rounded(name, "w16")[2], exact) / 2.0**-16


@pytest.mark.parametrize("text", STATE)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_rounded_state_costs_what_its_roundoff_says(name, text):
    """First order: as the same relative errors in the parameters do, in as many products.

    Forces: operands are rounded in both directions, hence 2 (measured: up to 0.97). Weights of a table's slope cancel to
    a third or less, and their rounding does not: 6 where tables are in whole numbers (measured: up to 3.3).
    Energies are few, and some happen to be right with rounded parameters: 16 (measured: up to 7.5, in the middle 0.5).
    """
    formats = [word for _, _, word in Precision.parse(text).choices]
    u = max(ROUNDOFF.get(word, 0.0) for word in formats)
    energy, force = worst(evaluate(name, text), rounded(name, text)[2])
    limit = u * amplification(name)
    assert energy <= 16 * limit[0] + ENERGY_BOUND[torch.float32] / 10
    assert force <= (6 if "w16a16" in formats else 2) * limit[1] + FORCE_BOUND[torch.float32] / 10


@pytest.mark.parametrize("text", LOW)
def test_a_policy_changes_what_it_says(text):
    """No preset is fp32 under another name."""
    found = evaluate("three-layers", text)
    exact = rounded("three-layers", "fp32")[2]
    assert worst(found, exact)[1] >= 10 * worst(evaluate("three-layers", "fp32"), exact)[1]


# --- files ---


@pytest.mark.parametrize("text", LOW)
def test_an_exported_policy_is_what_ase_runs(artifacts, water_frames, text):
    artifact = mdplugin.load(artifacts["water", text])
    manifest, policy = artifact.manifest, Precision.parse(text)
    assert manifest.precision == text and manifest.backend == "native"
    assert [table["knots"] for table in manifest.radial_tables] == [
        policy.format("radial", t) for t in (1, 2)
    ]
    assert manifest.fidelity["force_eV_per_A"] <= policy.allowed("float64").force_eV_per_A
    results = []
    for source in (artifact, mdplugin.load(artifacts["water", "fp32"])):
        calculator = mdplugin.MACEQuantCalculator(source, skin=0)
        calculator.calculate(water_frames[0], ["forces"])
        results.append(calculator.results)
    error = np.abs(results[0]["forces"] - results[1]["forces"]).max()
    # water at 300 K is less violent than the frames of the export
    assert 1e-6 <= error <= policy.allowed("float64").force_eV_per_A / 4


def test_files_shrink_with_their_numbers(artifacts):
    size = {text: artifacts["water", text].stat().st_size for text in ("fp64", "fp32", "w16", "w8")}
    # without the 60 kB of code, constants and manifest that every file has
    assert size["w16"] - 60e3 <= 0.5 * (size["fp32"] - 60e3)
    assert size["w8"] < size["w16"] <= 0.5 * size["fp64"]


def test_inspect_says_the_policy(artifacts, capsys):
    from mdplugin.cli import main

    assert main(["inspect", str(artifacts["water", "w8a16"])]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    (where,) = [i for i, line in enumerate(lines) if line.split() == ["precision", "w8a16"]]
    explanation = Precision.parse("w8a16").explain()
    assert lines[where + 1 : where + 1 + len(explanation)] == explanation and len(explanation) == 6
    assert lines[where + 1 + len(explanation)].split() == ["backend", "native"]
    assert main(["inspect", str(artifacts["water", "fp32"])]) == 0
    assert "rounds" not in capsys.readouterr().out


@pytest.mark.parametrize("text", ["bf16", "w8", "w8a16", "fp32,messages=bf16"])
def test_lammps_rounds_as_ase_does(artifacts, water_frames, tmp_path, text):
    """One kernel, one rounding; the order of edges in sums differs, which moves a state across a step now and then."""
    atoms = water_frames[0].copy()
    atoms.wrap()
    path = artifacts["water", text]
    result = measure(tmp_path, path, {"water": System(atoms, "p p p")}, ("O", "H"))["water"]
    calculator = mdplugin.MACEQuantCalculator(path, skin=0)
    calculator.calculate(atoms, ["forces"])
    expected = calculator.results
    # float32 sums in another order: 1e-4 eV/Å as for fp32; state: a few values in a thousand rounded the other way
    bound = 1e-4 + 4 * ROUNDOFF.get(text, 0.0)
    assert np.abs(result.forces - expected["forces"]).max() <= bound
    assert abs(result.energy - expected["energy"]) <= 1e-5 * len(atoms)


def test_two_ranks_round_as_one_does(artifacts, water_frames, tmp_path):
    atoms = water_frames[0].copy()
    atoms.wrap()
    system, path = {"water": System(atoms, "p p p")}, artifacts["water", "w8a16"]
    one, two = (measure(tmp_path, path, system, ("O", "H"), ranks)["water"] for ranks in (1, 2))
    # float32: what comes back from ghosts is added in another order, and sums of 40 neighbours differ by sqrt(40) u of
    # their largest. State: that moves one value in 80 across a step of 2^-15 of its node's largest, at random signs;
    # a force moves by a step of itself where all of them do (measured: 0.1 of either bound; without rounded state 5e-7)
    float32, step = np.sqrt(40) * 2.0**-24, 2 * ROUNDOFF["w8a16"]
    difference, largest = two.forces - one.forces, np.abs(one.forces).max()
    assert np.abs(difference).max() <= step * largest
    assert np.sqrt(np.mean(difference**2)) <= np.sqrt(float32 / step) * step * largest
    # interaction energies of atoms are below 1 eV, E0s are float64
    assert np.abs(two.energies - one.energies).max() <= float32
    assert abs(two.energy - one.energy) <= float32 * len(atoms)
