"""Ranks and coverage are those of sbi, on the same draws (the extra `bench`)."""

import numpy as np
import pytest
import torch

from ppl_vae.diagnostics import ranks, tarp_ranks

sbc = pytest.importorskip("sbi.diagnostics.sbc", reason="sbi is part of the extra 'bench'")
tarp = pytest.importorskip("sbi.diagnostics.tarp")
torch.distributions.Distribution.set_default_validate_args(True)  # its imports switch it off


def draws():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(300, 3, generator=generator)
    return (
        z,
        torch.randn(50, 300, 3, generator=generator) + 0.2,
        torch.randn(300, 3, generator=generator),
    )


def test_ranks_are_sbis():
    z, many, _ = draws()
    theirs = sbc._run_sbc(z, torch.zeros(300, 1), many, show_progress_bar=False)
    assert np.array_equal(ranks(z, many), theirs.numpy())


def test_coverage_of_balls_is_sbis():
    z, many, references = draws()
    ecp, alpha = tarp._run_tarp(many, z, references, num_bins=30)
    # theirs: a histogram of the coverage, by float32 edges from its smallest to its largest value
    share = tarp_ranks(z, many, references) / 50
    hist, edges = np.histogram(share.astype(np.float32), bins=alpha.numpy())
    assert np.allclose(ecp.numpy()[1:], np.cumsum(hist) / 300, atol=1e-6)
    assert edges[0] == share.min().astype(np.float32) and np.isclose(edges[-1], share.max())
