"""The op mdplugin::halo in one process: the identity, differentiable, never silently wrong."""

import pytest
import torch

from mdplugin import ops


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_halo_is_the_identity_without_ghosts(dtype):
    features = torch.arange(12, dtype=dtype).reshape(4, 3).T  # not contiguous
    assert torch.equal(ops.halo(features, 3), features)
    assert torch.equal(torch.ops.mdplugin.halo_reverse(features, 3), features)


def test_halo_returns_memory_of_its_own():
    features = torch.ones(2, 3)
    ops.halo(features, 2).zero_()
    assert torch.equal(features, torch.ones(2, 3))


def test_halo_and_its_reverse_are_differentiable_twice():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(3, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    for op in (torch.ops.mdplugin.halo, torch.ops.mdplugin.halo_reverse):
        assert torch.autograd.gradcheck(op, (features, 3))
        assert torch.autograd.gradgradcheck(op, (features, 3))


def test_ghosts_without_an_engine_are_refused():
    with pytest.raises(RuntimeError, match="2 ghost nodes, but no engine has registered an exchange"):
        ops.halo(torch.ones(3, 4), 5)
    with pytest.raises(RuntimeError, match="2 ghost nodes, but no engine has registered an exchange"):
        torch.ops.mdplugin.halo_reverse(torch.ones(5, 4), 3)


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (torch.ones(3), r"expected rows \(nodes, channels\), got 1 dimensions"),
        (torch.ones(3, 2, dtype=torch.float16), "expected float32 or float64, got Half"),
        (torch.ones(3, 2, device="meta"), "meta"),
    ],
)
def test_what_is_not_rows_of_floats_is_refused(features, words):
    with pytest.raises((RuntimeError, NotImplementedError), match=words):
        ops.halo(features, 3)
