"""The rounding model: closed forms, bounds that nothing passes, and what rounding does to symmetry and energy."""

import json
import math

import pytest
import torch
from architectures import lowered, save

from mdplugin import potentials
from mdplugin.cli import main
from mdplugin.errors import StructureError
from mdplugin.frames import reference_frames
from mdplugin.lowering import lower
from mdplugin.number_types import TYPES, float_of
from mdplugin.numerics.amplification import inject, measure_amplifications, sensitivities
from mdplugin.numerics.block import Block, exact, rank_within
from mdplugin.numerics.blocks import list_blocks
from mdplugin.numerics.error_model import MODES, measure_sizes
from mdplugin.numerics.measurement import applies, measure_block, rms
from mdplugin.numerics.surface import (
    heating_meV_per_atom_per_ps,
    int8_tap,
    measure_surfaces,
    round_couplings,
    round_parameters,
    state_tap,
)
from mdplugin.numerics.system import evaluate_system, join_frames, record
from mdplugin.tables import tabulate


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Case:
    """A model on one frame with everything that the study needs."""

    def __init__(self, model, frames):
        self.model = model
        self.tables = [tabulate(model.basis, layer.convolution, 128, "spline5") for layer in model.layers]
        self.system, _ = join_frames(model, frames)
        self.recording = record(model, self.system, self.tables)
        self.blocks = list_blocks(model, self.system, self.tables, self.recording)

    def forces(self, model=None, tables=None, system=None, **options):
        where = (model or self.model, system or self.system, tables or self.tables)
        return evaluate_system(*where, **options)[1]


@pytest.fixture(scope="module")
def water(water_checkpoint, hexamer):
    hexamer.rattle(0.05, seed=1)
    return Case(lower(water_checkpoint), [hexamer])


def sum_block(x):
    """y = Σ x_i, one after the other."""

    def parts(f):
        return ((value,) for value in f("state", x))

    return Block(
        "sum", "forward", ("y",), lambda f: (f("state", x).sum(0),), x.shape[0], x.shape[0], parts=parts
    )


@pytest.mark.parametrize("n", [16, 256, 2048])
@pytest.mark.parametrize("p", [8, 11])
def test_the_error_of_a_sum_of_random_numbers_grows_with_sqrt_n_u_and_stays_below_n_u(n, p):
    """400 sums of n normal numbers, partial sums rounded to p bits: c u sqrt(n/2) of the sum's own size."""
    block, type_ = sum_block(random(n, 400, seed=n)), float_of(p)
    (row,), errors, _ = measure_block(block, measure_sizes(block), type_, "low sums")
    u = type_.unit_roundoff
    closed_form = math.sqrt(0.18 * (n / 2 + n / 3 + 5)) * u
    assert 0.5 <= row.measured / closed_form <= 1.5
    assert 0.5 <= row.measured / row.first_order <= 1.5
    assert row.of_bound <= 1
    worst = ((1 + u) ** (2 * n + 3) - 1) * block.evaluate(lambda _, x: x.abs())[0]
    assert (errors["y"].abs() <= worst * (1 + u)).all()


def test_sums_of_equal_signs_err_by_sqrt_n_over_3_until_they_stagnate():
    """Where the model fails: below half a spacing a term changes nothing, and the error is of order 1."""
    block = sum_block(random(4096, 50, seed=1).abs())
    for p, factor in ((16, 2), (20, 2)):
        (row,), _, _ = measure_block(block, measure_sizes(block), float_of(p), "low sums")
        assert 1 / factor <= row.measured / row.first_order <= factor
    (row,), _, _ = measure_block(block, measure_sizes(block), float_of(4), "low sums")
    assert row.measured > 0.9


def test_rank_counts_the_occurrences_before():
    assert rank_within(torch.tensor([2, 0, 2, 2, 0, 1])).tolist() == [0, 0, 1, 2, 1, 0]


def test_blocks_reproduce_the_stages_of_the_reference(water):
    """Each block called from outside gives the value that the reference itself passed on."""
    seen = set()
    for block in water.blocks:
        for tap, value in zip(block.taps, block.evaluate(exact), strict=True):
            expected = {"energy": water.recording.energy.sum()[None], "forces": water.recording.forces}.get(
                tap
            )
            expected = water.recording.values[tap] if expected is None else expected
            assert float((value - expected).abs().max()) <= 1e-13 * max(1, float(expected.abs().max())), tap
            seen.add(tap)
    assert len(seen) == 31


def test_terms_of_a_block_add_up_to_it(water):
    for block in water.blocks:
        if block.parts is not None:
            total = None
            for part in block.parts(exact):
                total = part if total is None else tuple(a + b for a, b in zip(total, part, strict=True))
            for a, b in zip(total, block.evaluate(exact), strict=True):
                assert rms(a - b) <= 1e-12 * max(1.0, rms(b)), block.name


def test_no_error_of_any_block_in_any_type_passes_its_bound(water):
    for block in water.blocks:
        sizes = measure_sizes(block)
        for name in ("fp32", "bf16", "e4m3", "int8"):
            for mode in MODES:
                if applies(block, TYPES[name], mode):
                    for row in measure_block(block, sizes, TYPES[name], mode)[0]:
                        assert row.of_bound <= 1.0 + 1e-9, row


def test_the_first_order_model_holds_within_a_factor_of_two_where_operands_are_rounded(water):
    """bf16: operands dominate. The sum of energies is left out: its terms are equal numbers with equal errors."""
    for block in water.blocks:
        if (block.name, block.direction) != ("sums", "forward"):
            for row in measure_block(block, measure_sizes(block), TYPES["bf16"], "compute")[0]:
                assert 0.5 <= row.measured / row.first_order <= 2, row


def test_in_float32_the_model_overestimates_up_to_sixfold_and_underestimates_at_most_twofold(water):
    """Torch sums in blocks, some eight at a time; the model sums one after the other."""
    for block in water.blocks:
        if (block.name, block.direction) != ("sums", "forward"):
            for row in measure_block(block, measure_sizes(block), TYPES["fp32"], "compute")[0]:
                assert 1 / 8 <= row.measured / row.first_order <= 2, row


def test_sensitivities_by_one_reverse_pass_agree_with_injected_noise(water):
    squares = sensitivities(water.model, water.system, water.tables, water.recording, 0)
    rows = measure_amplifications(water.model, water.system, water.tables, water.recording, squares, 0)
    assert len(rows) == 28
    for row in rows:  # one draw of noise and three probes on 18 atoms: chance of some 30 %
        assert 1 / 3 <= row.measured / row.model <= 3, row


def test_errors_injected_on_the_forces_are_the_force_error(water):
    error = random(water.system.n_atoms, 3)
    found = inject(water.model, water.system, water.tables, {"forces": error})
    assert torch.equal(found, water.recording.forces + error)


def rotation():
    Q, _ = torch.linalg.qr(random(3, 3, seed=5))
    return Q * torch.sign(torch.linalg.det(Q))


@pytest.mark.parametrize("name", ["bf16", "e4m3", "int8"])
def test_rounded_parameters_stay_equivariant_and_rounded_state_and_couplings_do_not(water, name):
    Q, turned = rotation(), water.system.rotate(rotation())

    def broken(**options):
        return float((water.forces(system=turned, **options) - water.forces(**options) @ Q.T).abs().max())

    model, tables = round_parameters(water.model, water.tables, TYPES[name])
    assert rms(water.forces(model, tables) - water.recording.forces) > 1e-3  # it is another surface
    assert broken(model=model, tables=tables) <= 1e-12
    assert broken(tap=state_tap(TYPES[name])) > 1e-3
    assert broken(model=round_couplings(water.model, TYPES[name])) > 1e-4


def test_rounded_norms_keep_equivariance_and_rounded_components_do_not(water):
    Q, turned = rotation(), water.system.rotate(rotation())
    for scale, bound in (
        ("norm alone", (0, 1e-12)),
        ("norm over m", (1e-5, 1)),
        ("largest component", (1e-5, 1)),
    ):
        tap = int8_tap(water.model, scale)
        error = float((water.forces(system=turned, tap=tap) - water.forces(tap=tap) @ Q.T).abs().max())
        assert bound[0] <= error <= bound[1], scale


def test_forces_of_rounded_parameters_are_the_gradient_of_their_energy_and_those_of_rounded_state_are_not(
    water,
):
    where = (water.model, water.system, water.tables)
    rows = {
        (r.way, r.type): r for r in measure_surfaces(*where, [TYPES[name] for name in ("bf16", "int8")], 0)
    }
    for name in ("bf16", "int8"):
        assert rows["parameters", name].gradient_meV_per_A < 1e-2 * rows["state", name].gradient_meV_per_A
        assert rows["state", name].heating_meV_per_atom_per_ps > 0
        assert rows["parameters", name].heating_meV_per_atom_per_ps is None


def test_white_force_noise_heats_an_oscillator_as_derived():
    """20,000 oscillators in velocity Verlet; energy gained over 400 steps against 3 sigma² dt / (2 m) per atom."""
    sigma, mass, dt, k, n, steps = 0.05, 18.0, 0.5, 20.0, 20_000, 400
    unit = 103.642697  # amu Å²/fs² in eV
    generator = torch.Generator().manual_seed(0)

    def noise():
        return sigma * torch.randn((n, 3), generator=generator, dtype=torch.float64)

    x, v = torch.zeros((n, 3), dtype=torch.float64), torch.zeros((n, 3), dtype=torch.float64)
    force = -k * x + noise()
    for _ in range(steps):
        v = v + 0.5 * dt * force / mass / unit
        x = x + dt * v
        force = -k * x + noise()
        v = v + 0.5 * dt * force / mass / unit
    energy = float((0.5 * mass * unit * v**2 + 0.5 * k * x**2).sum(1).mean())
    rate = heating_meV_per_atom_per_ps(torch.tensor(sigma), torch.tensor([mass], dtype=torch.float64), dt)
    # 20,000 atoms with 3 degrees of freedom: 1 %; the oscillator's own step error (w dt)²/8 = 2e-4
    assert abs(1000 * energy / (rate * steps * dt / 1000) - 1) < 0.03


@pytest.mark.parametrize("name", ["foundation-0b", "three-layers", "nonlinear"])
def test_blocks_of_other_architectures_are_those_of_the_reference_too(name):
    model = lowered(name)
    case = Case(model, [reference_frames(model.atomic_numbers)[3]])
    for block in case.blocks:
        for tap, value in zip(block.taps, block.evaluate(exact), strict=True):
            if tap in case.recording.values and tap not in (
                "edge_force",
                "E",
            ):  # those hold density and zbl too
                expected = case.recording.values[tap]
                assert float((value - expected).abs().max()) <= 1e-12 * max(1, float(expected.abs().max())), (
                    tap
                )


def test_frames_are_joined_as_if_evaluated_alone(water, hexamer):
    both, used = join_frames(water.model, [hexamer, hexamer])
    assert used == 2 and both.frame.tolist() == 18 * [0] + 18 * [1]
    forces = water.forces(system=both)
    assert rms(forces[:18] - forces[18:]) <= 1e-13


def test_an_unknown_element_is_refused_by_name(water, hexamer):
    hexamer.symbols[0] = "Xe"
    with pytest.raises(StructureError, match="does not know Xe"):
        join_frames(water.model, [hexamer])
    hexamer.symbols[0] = "O"


def test_the_command_writes_figures_with_their_data(tmp_path, capsys, hexamer):
    hexamer.calc = None
    hexamer[:6].write(tmp_path / "dimer.xyz")
    arguments = [
        "numerics",
        str(save("l-max-1")),
        "--structures",
        str(tmp_path / "dimer.xyz"),
        "--quiet",
        "--json",
        "--types",
        "bf16",
    ]
    assert main([*arguments, "-o", str(tmp_path / "figures")]) == 0
    study = json.loads(capsys.readouterr().out)
    assert study["n_atoms"] == 6 and study["machine"]["versions"]["torch"]
    pictures = sorted(tmp_path.glob("figures/*.png"))
    assert len(pictures) == 6
    for picture in pictures:
        assert json.loads(picture.with_suffix(".json").read_text())["rows"]
        assert picture.stat().st_size < 150_000
    assert "Amplification" in (tmp_path / "figures/numerics.txt").read_text()


def test_bad_options_are_one_line(capsys):
    assert main(["numerics", "water", "--structures", "nowhere.xyz"]) == 3
    assert main(["numerics", "water", "--elements", "Qq"]) == 3
    assert main(["numerics", "water", "--types", "bf17"]) == 3
    error = capsys.readouterr().err
    assert "elements: expected chemical symbols as H,O, got 'Qq'" in error and error.count("\n") == 3


def test_help_names_every_bundled_potential_and_elements_are_chosen_as_by_export(capsys):
    with pytest.raises(SystemExit):
        main(["numerics", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert f"bundled potential: {', '.join(potentials.names())}" in said
    assert main(["numerics", "water", "--elements", "C"]) == 3
    assert capsys.readouterr().err == "mdplugin: elements: C is not in water.json; it knows H O\n"
