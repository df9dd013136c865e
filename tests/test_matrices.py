"""Matrices of short types are their documented rounding (matrix_kernels.h), computed here in plain float64."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mdplugin import ops  # noqa: F401  (registers the class)
from mdplugin.quantize import round_fixed

U = 2.0**-24  # unit roundoff of float32
LARGEST = {"w8a16": 32767, "w8a8": 127}
STORAGE = {"bf16": torch.bfloat16, "fp16": torch.float16, "w8a16": torch.int8, "w8a8": torch.int8}
KINDS = pytest.mark.parametrize("kind", STORAGE)
# (nodes, rows, in, out): no node, one, several blocks of them; sides that fill panels of 64 columns and tiles, and that
# do not; more than 512 values to a sum, more than 1024
SHAPES = [(0, 3, 16, 32), (1, 1, 16, 16), (7, 3, 48, 80), (65, 5, 64, 64), (3, 7, 144, 112), (2, 1, 400, 176),
          (5, 1, 1040, 48), (4, 1, 48, 1040)]  # fmt: skip
ISA = torch.ops.mdplugin.instruction_set()
SETS = ("v3", "v4", "v4dot")


def f32(x):
    return x.to(torch.float32).to(torch.float64)


class Case:
    """A matrix of each species, its restored values, and features for both directions."""

    def __init__(self, kind, shape, n_species=1, seed=0, weight=1.0, feature=1.0):
        n, rows, n_in, n_out = shape
        self.generator, self.kind = torch.Generator().manual_seed(seed), kind
        matrix = weight * self.random(n_species, n_in, n_out) * torch.exp(self.random(n_species, 1, n_out))
        one = torch.ones((1, 1, 1), dtype=torch.float64)
        if STORAGE[kind] == torch.int8:
            stored = round_fixed(matrix, torch.int8)
            self.values, self.scale = stored.values, stored.scale
        else:
            self.values, self.scale = (matrix / weight).to(STORAGE[kind]), one * weight
            if kind == "bf16":  # has no scale
                self.values, self.scale = matrix.to(torch.bfloat16), one
        self.kernel = torch.classes.mdplugin.Matrix(
            self.values, self.scale, torch.ones(n_in, dtype=torch.float64), kind, False
        )
        self.x = (feature * self.random(n, rows, n_in)).float()
        self.g = (feature * self.random(n, rows, n_out)).float()
        if n:
            self.x[-1] *= 0.1  # nodes have scales of their own

    def random(self, *shape):
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)

    def run(self, x, reverse=False, species=0, start=None):
        n_out = self.values.shape[1 if reverse else 2]
        y = torch.full((*x.shape[:2], n_out), torch.nan) if start is None else start.clone()
        (self.kernel.reverse if reverse else self.kernel.multiply)(x, y, species, start is not None)
        return y

    def expect(self, x, reverse=False, species=0):
        """y in float64, and the bound of its rounding: what the sums' terms are worth."""
        values = self.values.double()[species]
        scale = f32(self.scale.expand(self.values.shape[0], 1, -1)[species][0])
        scale = scale.expand(values.shape[1]) if scale.numel() == 1 else scale
        if self.kind in LARGEST:
            sides = (scale, torch.ones(values.shape[0], dtype=torch.float64))
            unit = (sides if reverse else sides[::-1])[0], (sides if reverse else sides[::-1])[1]
            return emulate_integers(x, values.T if reverse else values, *unit, LARGEST[self.kind])
        weights = (values * scale).T if reverse else values * scale
        short = x.bfloat16().double() if self.kind == "bf16" else round_half(x)
        return short @ weights, (len(weights) + 2) * U * (short.abs() @ weights.abs())


def round_half(x):
    """float16 in units of the power of two below the largest value of the node."""
    x = x.double()
    if not x.numel():
        return x
    power = 2.0 ** torch.floor(torch.log2(x.abs().amax((1, 2), keepdim=True)))
    return (x / power).half().double() * power


def emulate_integers(x, values, in_scale, out_scale, largest):
    """out_scale s sum of a W with a = x in_scale / s rounded to even; every step that the kernel rounds to float32."""
    square = torch.zeros((x.shape[0], x.shape[2]), dtype=torch.float64)
    for m in range(x.shape[1]):
        square = f32(square + f32(x[:, m].double() * in_scale) ** 2)
    norm = f32(square.amax(-1).sqrt())
    s, inverse = f32(norm / largest)[:, None, None], f32(largest / norm)[:, None, None]
    a = torch.round(x.double() * f32(in_scale * inverse))
    assert not a.numel() or float(a.abs().max()) <= largest
    parts = [
        a[..., k : k + 512] @ values[k : k + 512] for k in range(0, values.shape[0], 512)
    ]  # whole numbers: exact
    unit = out_scale * s
    return sum(parts) * unit, (3 + len(parts)) * U * sum(part.abs() for part in parts) * unit


def assert_within(found, expected, bound):
    assert found.shape == expected.shape
    assert bool(((found.double() - expected).abs() <= bound).all())


@KINDS
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products_are_the_documented_rounding(kind, shape):
    case = Case(kind, shape)
    for reverse, x in ((False, case.x), (True, case.g)):
        expected, bound = case.expect(x, reverse)
        assert_within(case.run(x, reverse), expected, bound)
        start = case.random(*expected.shape).float()
        total, rounding = start.double() + expected, U * 8 * (start.abs() + expected.abs())
        assert_within(case.run(x, reverse, start=start), total, bound + rounding)


@KINDS
def test_every_species_has_its_matrix(kind):
    case = Case(kind, (5, 3, 32, 48), n_species=3)
    for species in range(3):
        for reverse, x in ((False, case.x), (True, case.g)):
            assert_within(case.run(x, reverse, species), *case.expect(x, reverse, species))


@pytest.mark.parametrize("storage", [torch.int8, torch.int16, torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("is_double", [False, True])
def test_dense_matrices_multiply_what_is_stored(storage, is_double):
    generator = torch.Generator().manual_seed(1)
    values = (50 * torch.randn(1, 48, 80, generator=generator)).to(storage)
    scale = torch.rand(1, 1, 80, generator=generator, dtype=torch.float64)
    kernel = torch.classes.mdplugin.Matrix(
        values, scale, torch.ones(48, dtype=torch.float64), "dense", is_double
    )
    matrix, dtype = (values.double() * scale)[0], torch.float64 if is_double else torch.float32
    x = torch.randn(3, 5, 48, generator=generator, dtype=dtype)
    y, gx = torch.full((3, 5, 80), torch.nan, dtype=dtype), torch.ones((3, 5, 48), dtype=dtype)
    kernel.multiply(x, y, 0, False)
    kernel.reverse(y, gx, 0, True)
    unit = 2.0**-53 if is_double else U
    assert_within(y, x.double() @ matrix, 52 * unit * (x.double().abs() @ matrix.abs()))
    assert_within(gx, 1 + y.double() @ matrix.T, 84 * unit * (1 + y.double().abs() @ matrix.T.abs()))


@KINDS
def test_nodes_of_zeros_give_zeros(kind):
    case = Case(kind, (4, 3, 32, 48))
    case.x[1] = 0
    assert not case.run(case.x)[1].any()
    start = torch.ones(4, 3, 48)
    assert bool((case.run(case.x, start=start)[1] == 1).all())


NOT_NUMBERS = [
    0x7F800000,
    -0x800000,
    0x7FC00000,
    -0x400000,
    0x7FFFFFFF,
    0x7F800001,
    -1,
]  # ± infinity; any NaN


@KINDS
@pytest.mark.parametrize("bits", NOT_NUMBERS)
def test_what_is_not_finite_never_becomes_a_number(kind, bits):
    case = Case(kind, (5, 3, 64, 48))
    clean, found = case.run(case.x), case.x.clone()
    found.view(torch.int32)[2, 1, 37] = bits
    y = case.run(found)
    assert not y[2, 1].isfinite().any()
    others = [0, 1, 3, 4]  # nodes have nothing to do with each other
    assert torch.equal(y[others], clean[others])


@KINDS
@pytest.mark.parametrize("power", [2.0**100, 2.0**-100, 2.0**60, 2.0**-60])
def test_powers_of_two_pass_through_exactly(kind, power):
    """1e30 and 1e-30 in features or weights neither overflow nor lose bits."""
    plain, features, weights = (Case(kind, (6, 3, 48, 80), **options) for options in
                                ({}, {"feature": power}, {"weight": power}))  # fmt: skip
    for reverse in (False, True):
        y = plain.run(plain.g if reverse else plain.x, reverse)
        for case in (features, weights):
            assert torch.equal(case.run(case.g if reverse else case.x, reverse), y * power)


@pytest.mark.parametrize("kind", LARGEST)
@pytest.mark.parametrize("n", [512, 528, 1040, 2064])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_sums_do_not_overflow(kind, n, sign):
    """n times 127 x 32767 (or 127 x 127): beyond 512 of the first, sums leave 32 bits."""
    values = torch.full((1, n, 16), 127, dtype=torch.int8)
    ones = torch.ones((1, 1, 16), dtype=torch.float64)
    kernel = torch.classes.mdplugin.Matrix(values, ones, torch.ones(n, dtype=torch.float64), kind, False)
    x, y = torch.full((2, 1, n), float(sign)), torch.empty(2, 1, 16)
    kernel.multiply(x, y, 0, False)
    assert float((y.double() / (sign * 127.0 * n) - 1).abs().max()) <= 8 * U


@pytest.mark.parametrize("kind", [*STORAGE, "dense"])
def test_results_are_bitwise_the_same_for_any_number_of_threads(kind):
    case = Case("w8a16" if kind == "dense" else kind, (65, 3, 112, 144))
    if kind == "dense":
        case.kernel = torch.classes.mdplugin.Matrix(
            case.values, case.scale, torch.ones(112, dtype=torch.float64), kind, False
        )
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append((case.run(case.x), case.run(case.g, reverse=True)))
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert torch.equal(result[0], results[0][0]) and torch.equal(result[1], results[0][1])


class Holder(torch.nn.Module):
    def __init__(self, matrix):
        super().__init__()
        self.matrix = matrix

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        self.matrix.multiply(x, y, 1, False)
        return y


@KINDS
def test_a_saved_matrix_is_the_same(kind):
    case, file = Case(kind, (6, 3, 48, 80), n_species=2), io.BytesIO()
    torch.jit.save(torch.jit.script(Holder(case.kernel)), file)
    file.seek(0)
    assert torch.equal(torch.jit.load(file)(case.x, torch.empty(6, 3, 80)), case.run(case.x, species=1))


def test_what_a_kernel_could_not_read_is_refused():
    case = Case("w8a8", (3, 3, 32, 48))
    x, y = case.x, torch.empty(3, 3, 48)
    for wrong in ((x, y[:2]), (x, torch.empty(3, 2, 48)), (x[:, :, :16].contiguous(), y), (x[0], y)):
        with pytest.raises(RuntimeError, match="mdplugin: matrix 32 x 48: got"):
            case.kernel.multiply(*wrong, 0, False)
    for species in (-1, 1):
        with pytest.raises(RuntimeError, match=f"expected a species below 1, got {species}"):
            case.kernel.multiply(x, y, species, False)
    with pytest.raises(RuntimeError, match="feature: expected a contiguous CPU tensor of type Float"):
        case.kernel.multiply(x.double(), y, 0, False)
    one = torch.ones(32, dtype=torch.float64)
    for values, kind, said in (
        (case.values, "int4", "unknown kind int4"),
        (case.values.short(), "w8a8", "got values of type Short"),
        (case.values[:, :20], "w8a8", "multiples of 16"),
    ):
        with pytest.raises(RuntimeError, match=said):
            torch.classes.mdplugin.Matrix(values, case.scale, one[: values.shape[1]], kind, False)


# --- instruction sets ---

PRINT_SUMS = """
import hashlib, torch
import test_matrices as t
assert torch.ops.mdplugin.instruction_set() == "{isa}"
for kind in t.LARGEST:
    for shape in t.SHAPES:
        case = t.Case(kind, shape)
        for reverse, x in ((False, case.x), (True, case.g)):
            print(hashlib.sha256(case.run(x, reverse).numpy().tobytes()).hexdigest())
"""


def run_under(isa, *arguments):
    tests = Path(__file__).parent
    environment = {**os.environ, "MDPLUGIN_ISA": isa, "PYTHONPATH": str(tests), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-P", *arguments]
    return subprocess.run(command, cwd=tests.parent, env=environment, capture_output=True, text=True)


def test_integer_products_are_bitwise_the_same_on_every_instruction_set():
    sets = SETS[: SETS.index(ISA) + 1]
    found = {isa: run_under(isa, "-c", PRINT_SUMS.format(isa=isa)) for isa in sets}
    assert all(done.returncode == 0 for done in found.values()), [done.stderr for done in found.values()]
    assert len({done.stdout for done in found.values()}) == 1
    assert found[ISA].stdout.count("\n") == 2 * 2 * len(SHAPES)


@pytest.mark.skipif("MDPLUGIN_ISA" in os.environ, reason="this is the run under another instruction set")
@pytest.mark.parametrize("isa", SETS[: SETS.index(ISA)])
def test_kernels_of_short_types_are_right_on_narrower_instruction_sets(isa):
    files = [str(Path(__file__).parent / name) for name in ("test_matrices.py", "test_stored_tables.py")]
    choice = ["-k", "not instruction and not saved"]
    done = run_under(isa, "-m", "pytest", "-q", "-x", "--no-header", *choice, *files)
    assert done.returncode == 0, done.stdout[-2000:]


def test_an_instruction_set_that_is_not_there_is_refused():
    done = run_under("v5", "-c", "import test_matrices")
    assert done.returncode != 0
    said = done.stderr.strip().splitlines()[-1]
    legal = ", ".join(SETS[: SETS.index(ISA) + 1])
    assert (
        said
        == f"mdplugin.errors.NativeError: MDPLUGIN_ISA: expected one of {legal} on this processor, got 'v5'"
    )
