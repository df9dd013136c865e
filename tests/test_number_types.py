"""Emulated number types: torch's own casts bit for bit, and the rule that every error is within half a spacing."""

import math

import pytest
import torch

from mdplugin.number_types import TYPES, float_of, power_of_two

TORCH = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "e4m3": torch.float8_e4m3fn,
    "e5m2": torch.float8_e5m2,
}


def numbers(dtype=torch.float32):
    """Values over all exponents of float32, exact ties, subnormals, overflows, zeros."""
    generator = torch.Generator().manual_seed(0)
    wide = torch.randn(200_000, generator=generator) * torch.exp(
        25 * torch.randn(200_000, generator=generator)
    )
    near = torch.randn(200_000, generator=generator)
    ties = torch.arange(-4096, 4096) / 4096 * 1.0
    tails = torch.arange(1, 2000) * 2.0**-27
    special = torch.tensor([0.0, -0.0, 448.0, 463.9, 464.0, 465.0, 57344.0, 61440.0, 65504.0, 65520.0, 1e30])
    return torch.cat([wide, near, ties, tails, special, -special]).to(dtype)


@pytest.mark.parametrize("name", TORCH)
def test_a_float_rounds_as_torch_casts_it_bit_for_bit(name):
    x = numbers(torch.float64 if name == "fp32" else torch.float32)
    expected = x.to(TORCH[name]).double()
    found = TYPES[name].round(x.double())
    same = (found == expected) | (found.isnan() & expected.isnan())
    assert same.all(), x[~same][:5]


def test_all_65536_numbers_of_the_16_bit_types_are_fixed_points():
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int16)
    for name in ("fp16", "bf16"):
        x = bits.view(TORCH[name]).double()
        x = x[torch.isfinite(x)]
        assert torch.equal(TYPES[name].round(x), x)


def test_tf32_keeps_the_upper_19_bits_of_float32_to_nearest_even():
    x = numbers()
    x = x[torch.isfinite(x) & (x.abs() < 1e38)]
    bits = x.view(torch.int32).to(torch.int64)
    odd = (bits >> 13) & 1
    expected = ((bits + 0xFFF + odd) >> 13 << 13).to(torch.int32).view(torch.float32)
    assert torch.equal(TYPES["tf32"].round(x.double()), expected.double())


def test_fixed_point_is_torchs_symmetric_quantisation_per_column():
    x = torch.randn(50, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    step = x.abs().amax(0) / 127
    expected = torch.stack([torch.round(x[:, k] / step[k]) * step[k] for k in range(7)], dim=1)
    assert torch.equal(TYPES["int8"].round(x), expected)
    assert float((TYPES["int16"].round(x) - x).abs().max()) <= float(x.abs().max()) / 32767 / 2 * (1 + 1e-9)


@pytest.mark.parametrize("name", TYPES)
def test_no_error_exceeds_half_a_spacing_and_its_variance_is_a_twelfth_of_the_square(name):
    x = torch.randn(100_000, 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    error = TYPES[name].store(x) - x
    q = TYPES[name].stored_spacing(x)
    assert (error.abs() <= q / 2).all()
    assert abs(float((error**2).mean() / (q**2 / 12).mean()) - 1) < 0.03  # 1e5 values: 1 %


@pytest.mark.parametrize("name", ["fp16", "e4m3", "e5m2"])
def test_a_narrow_type_stores_tiny_and_huge_tensors_by_an_exact_scale(name):
    x = torch.randn(1000, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    type_ = TYPES[name]
    for size in (2.0**-40, 2.0**60):
        assert torch.equal(type_.store(x * size), type_.store(x) * size)
        assert torch.isfinite(type_.store(x * size)).all()
    assert math.log2(type_.scale(x)).is_integer()
    assert TYPES["bf16"].scale(x) == 1


def test_empty_and_zero_tensors_stay_as_they_are():
    for type_ in TYPES.values():
        assert type_.store(torch.zeros(0, 3, dtype=torch.float64)).shape == (0, 3) or type_.is_fixed
        assert not type_.store(torch.zeros(4, 3, dtype=torch.float64)).any()


def test_powers_of_two_are_exact():
    k = torch.arange(-1022, 1024)
    assert [math.frexp(x) for x in power_of_two(k).tolist()] == [(0.5, e + 1) for e in k.tolist()]


def test_a_float_of_any_significand_has_its_unit_roundoff():
    for p in (2, 5, 11, 24):
        type_ = float_of(p)
        one = torch.tensor([1 + type_.unit_roundoff], dtype=torch.float64)
        assert float(type_.round(one)) == 1.0  # the tie goes to even
        assert float(type_.round(one * (1 + 1e-12))) == 1 + 2 * type_.unit_roundoff
