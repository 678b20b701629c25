"""Predictive checks and the match of q(z) and p(z): their levels, and what they catch."""

import numpy as np
import pytest
import torch

from ppl_vae import (
    MLP,
    VAE,
    Columns,
    Conditional,
    Normal,
    Poisson,
    Program,
    StandardNormal,
)
from ppl_vae.data import LinearGaussian
from ppl_vae.diagnostics import match, mmd_test
from ppl_vae.posterior import prior_check, typicality

WORLD = LinearGaussian.random(2, 4, seed=0)
PROGRAM = Program(WORLD.model, WORLD.guide)


def test_data_of_the_model_pass():
    p = []
    for k in range(40):
        x, _ = WORLD.sample(100, seed=k)
        p.append(prior_check(PROGRAM, x, num_draws=30, seed=1000 + k).p_value)
    # At most Binomial(40, 0.05): 10 or more come once in 10^5.
    assert sum(v <= 0.05 for v in p) < 10


def test_a_decoder_that_is_wrong_is_caught_which_calibration_cannot_see():
    x, _ = WORLD.sample(1000, seed=1)
    noisy = LinearGaussian(WORLD.weight, WORLD.bias, 4 * WORLD.scale)
    shifted = LinearGaussian(WORLD.weight, WORLD.bias + 0.5, WORLD.scale)
    for other in (noisy, shifted):
        found = prior_check(Program(other.model, other.guide), x, seed=0)
        assert found.p_value < 1e-6
    # The data crowd where the model does not go: low, if its bias is too high.
    assert all(t.shape == "low" for t in found.tests.values() if t.p_value < 1e-3)


def test_discrepancies_are_functions_of_data_and_see_gaps():
    x, _ = WORLD.sample(50, seed=1)
    found = prior_check(PROGRAM, x, {"range": lambda v: v.max(1) - v.min(1)}, seed=0)
    assert list(found.tests) == ["range"] and found.p_value > 1e-3
    table = Columns({"n": Poisson(()), "y": Normal(())})
    vae = VAE(
        StandardNormal(1),
        Conditional(MLP(8), table, given=1),
        Conditional(MLP(8), Normal(1), given={"x": 2, "mask": 2}),
    )
    drawn = vae.decoder(torch.zeros(60, 1)).sample()
    drawn[::3, 0] = torch.nan
    found = prior_check(vae, drawn, seed=0)
    assert [t.num_data for t in found.tests.values()] == [40, 60]  # those that are known
    images = torch.rand(20, 5, 5)
    vae = VAE(
        StandardNormal(1),
        Conditional(MLP(8), Normal((5, 5)), given=1),
        Conditional(MLP(8), Normal(1), given=(5, 5)),
    )
    assert list(prior_check(vae, images).tests) == ["mean", "sd", "largest", "share of 0"]
    with pytest.raises(ValueError, match=r"shape \(50, 4\) from the discrepancy 'all'"):
        prior_check(PROGRAM, x, {"all": lambda v: v})


def test_an_mmd_has_an_interval():
    n, shift, h, dims = 300, 0.5, 1.5, 2
    # E exp(−‖a − b‖² / 2h²) of Normals of variance 1 whose means are δ apart.
    same = (h**2 / (h**2 + 2)) ** (dims / 2)
    truth = 2 * same * (1 - np.exp(-dims * shift**2 / (2 * (h**2 + 2))))
    rng, inside = np.random.default_rng(0), 0
    for _ in range(100):
        x, y = rng.standard_normal((2, n, dims))
        low, high = mmd_test(x + shift, y, permutations=50, seed=0, bandwidth=h).interval()
        inside += low <= truth <= high
    # 95 % of 100: 87 or fewer come once in 500, and the seed is fixed.
    assert inside > 87
    low, _ = mmd_test(x, y, permutations=50, seed=0, bandwidth=h).interval()
    assert low == 0.0


def test_a_match_holds_its_level_and_names_the_unit():
    rng, p = np.random.default_rng(0), []
    for k in range(40):
        z = rng.standard_normal((2, 60, 3))
        p.append(match(*z, permutations=99, seed=k).p_value)
    assert sum(v <= 0.05 for v in p) < 10  # as above
    codes = rng.standard_normal((300, 3)) * [1, 2, 1]
    found = match(codes, rng.standard_normal((300, 3)), seed=0)
    assert found.p_value < 1e-4 and found.unit_p_values["z[1]"] < 1e-4 < found.unit_p_values["z[0]"]
    with pytest.raises(ValueError, match="got 1 for 3 units"):
        match(codes, codes, names=["z"], seed=0)


def test_the_evidence_of_data_is_that_of_the_models_own_or_not():
    p = []
    for k in range(40):
        x, _ = WORLD.sample(50, seed=k)
        wide = Program(WORLD.model, WORLD.broken_guide(scale=1.5))  # whatever the guide
        p.append(typicality(wide, x, num_simulated=50, num_samples=5, seed=100 + k).p_value)
    assert sum(v <= 0.05 for v in p) < 10  # as above
    x, _ = WORLD.sample(500, seed=1)
    noisy = LinearGaussian(WORLD.weight, WORLD.bias, 1.5 * WORLD.scale)
    found = typicality(Program(noisy.model, noisy.guide), x, seed=0)
    assert found.p_value < 1e-6
    assert (found.log_evidence > np.median(found.simulated)).mean() > 0.6  # too good to be true
    x[7] += 10.0
    found = typicality(PROGRAM, x, seed=0)
    assert found.percentile.argmin() == 7 and found.percentile[7] == 0.0
