"""Predictive checks and the match of q(z) and p(z): their levels, and what they catch."""

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp

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
from ppl_vae.diagnostics import match, mmd_test, unit_kl
from ppl_vae.diagnostics import typicality as compared
from ppl_vae.posterior import (
    aggregate_match,
    checks,
    posterior_check,
    prior_check,
    typicality,
)

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
    # What is missing of a datum is missing of what it is compared with.
    seen = prior_check(vae, drawn, {"cells": lambda v: (~np.isnan(v)).sum(1)}, seed=0)
    assert seen.p_value > 1e-3
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
    prior = rng.standard_normal((300, 3))
    found = match(codes, prior, seed=0)
    alone = ks_2samp(codes[:, 1], prior[:, 1]).pvalue  # the smallest of three
    assert found.unit_p_values["z[1]"] == pytest.approx(3 * alone)
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
    below = (found.simulated[:, None] < found.log_evidence).mean(0)
    assert np.array_equal(found.percentile, below)


def test_a_program_is_matched_with_one_code_for_each_datum_that_differs():
    x, _ = WORLD.sample(100, seed=1)
    found = aggregate_match(PROGRAM, torch.cat([x, x]), seed=0)
    # 100 codes, not 200: the same data twice would be taken for twice as many.
    assert found.num_data == 100 and found.p_value > 1e-3
    assert list(found.units) == ["z[0]", "z[1]"]
    shifted = Program(WORLD.model, WORLD.broken_guide(shift=2.0))
    assert aggregate_match(shifted, x, seed=0).p_value < 1e-2
    with pytest.raises(ValueError, match="Got 3 data that differ"):
        aggregate_match(PROGRAM, x[:3].repeat(20, 1))


def test_what_the_decoder_makes_is_set_beside_the_data():
    x, _ = WORLD.sample(400, seed=1)
    mean = {"mean": lambda v: v.mean(1)}
    right = posterior_check(PROGRAM, x, mean, num_draws=200, seed=0)
    # Of a right guide mean T(rep) − mean T(x) has sd of at most √2 sd(T)/√N = 0.07 sd(T).
    assert abs(right.effects["mean"]) < 5 * 0.07 and right.p_values["mean"] > 0.01
    assert right.replicated["mean"].shape == (200,)
    other = LinearGaussian(WORLD.weight, WORLD.bias + 1.0, WORLD.scale)
    # The guide of the right world: the decoder's cells are all too high by 1.
    wrong = posterior_check(Program(other.model, WORLD.guide), x, mean, num_draws=200, seed=0)
    gain = float(wrong.replicated["mean"].mean() - right.replicated["mean"].mean())
    assert gain == pytest.approx(1.0, abs=1e-6)  # the same draws
    sd = float(x.mean(1).std(correction=0))
    expected = (right.observed["mean"] - float(wrong.replicated["mean"].mean())) / sd
    assert wrong.effects["mean"] == pytest.approx(expected, rel=0.2) and wrong.p_values["mean"] == 0
    assert wrong.worst == "mean"
    lower = LinearGaussian(WORLD.weight, WORLD.bias - 1.0, WORLD.scale)
    below = posterior_check(Program(lower.model, WORLD.guide), x, mean, num_draws=200, seed=0)
    assert below.effects["mean"] > 0 and below.p_values["mean"] == 0
    cells = posterior_check(PROGRAM, x, seed=0)
    assert list(cells.effects) == [f"x[{k}]" for k in range(4)]


def test_the_kl_of_units_is_that_of_normals():
    rng = np.random.default_rng(0)
    prior = rng.standard_normal((200_000, 2))
    loc, scale = rng.standard_normal((500, 2)), np.array([0.5, 1.0])
    exact = 0.5 * (scale**2 + loc**2 - 1 - 2 * np.log(scale)).mean(0)
    found = [unit_kl(loc + scale * rng.standard_normal((5, 500, 2)), prior) for _ in range(40)]
    # With five draws only: unbiased all the same. 5 SE of the mean of 40 runs.
    se = np.std(found, axis=0, ddof=1) / 40**0.5
    assert (
        abs(np.mean(found, axis=0) - exact) < 5 * se + 0.005
    ).all()  # 0.005: the prior's moments
    nothing = unit_kl(rng.standard_normal((50, 2000, 1)), prior[:, :1])
    assert abs(nothing[0]) < 0.01
    with pytest.raises(ValueError, match="S of 3 or more"):
        unit_kl(np.zeros((2, 4, 1)), prior[:, :1])


def test_typicality_refuses_what_is_no_list_of_numbers():
    for bad in (np.zeros((2, 2)), np.array([np.nan]), np.array([])):
        with pytest.raises(ValueError, match="log_evidence: got shape"):
            compared(bad, np.zeros(3))


def test_few_draws_are_held_at_a_time(monkeypatch: pytest.MonkeyPatch):
    x, _ = WORLD.sample(100, seed=1)
    monkeypatch.setattr(checks, "CELLS", 1000)  # two data sets of 400 cells
    held = []
    original = checks.prior_of_data

    def counted(program, batch, count, *, seed):
        held.append(count)
        return original(program, batch, count, seed=seed)

    monkeypatch.setattr(checks, "prior_of_data", counted)
    found = prior_check(PROGRAM, x, num_draws=25, seed=0)
    assert held == [2] * 12 + [1]
    assert all(t.num_data == 100 for t in found.tests.values()) and found.p_value > 1e-3
    drawn = posterior_check(PROGRAM, x, num_draws=25, seed=0)
    whole = np.concatenate(list(drawn.replicated.values()))
    assert len(whole) == 100 and len(set(whole)) == 100  # no piece twice
