"""Brackets of the gaps hold them in worlds where they are known, after few local steps or many."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from ppl_vae import Program, posterior_predictive, refine
from ppl_vae.data import LinearGaussian
from ppl_vae.diagnostics import evidence
from ppl_vae.posterior import Gaps, gaps
from ppl_vae.posterior.gaps import WIDER, _widen

ROWS = 100
# p(z|x) has the correlation −0.8: what independent coordinates cost is known.
WORLD = LinearGaussian(
    torch.tensor([[2.0, 2.0], [0.0, 0.5]]).double(), torch.zeros(2).double(), 1.0
)
X, _ = WORLD.sample(ROWS, seed=1)
PRECISION = WORLD.posterior(X).precision_matrix[0]
SD = PRECISION.diagonal() ** -0.5  # of the best independent Normal (Bishop 2006, eq. 10.12)
FAMILY = 0.5 * (PRECISION.diagonal().log().sum() - PRECISION.logdet()).item()  # its KL
# 0.7 times as wide, and half its sd off: what that costs on top.
NETWORK = 2 * (0.49 - 1 - 2 * math.log(0.7)) / 2 + 0.5 * 0.25 * (SD @ PRECISION @ SD).item()


def guide(x):
    with pyro.plate("data", len(x)):
        loc = WORLD.posterior(x).loc + 0.5 * SD
        pyro.sample("z", dist.Normal(loc, 0.7 * SD).to_event(1))


PROGRAM = Program(WORLD.model, guide)
TRUTH = {
    "amortisation": NETWORK,
    "approximation": FAMILY,
    "correlation": FAMILY,
    "remainder": 0.0,
}


@pytest.fixture(scope="module")
def many():
    return gaps(PROGRAM, X, steps=200, seed=0, progress=False)


@pytest.fixture(scope="module")
def few():
    return gaps(PROGRAM, X, steps=3, seed=0, progress=False)


def missed(brackets):
    """Where any of them misses the truth, by more than rounding."""
    ends = brackets._asdict()
    return np.any(
        [(ends[n][0] > t + 1e-9) | (ends[n][1] < t - 1e-9) for n, t in TRUTH.items()], axis=0
    )


@pytest.mark.parametrize("steps", ["many", "few"])
def test_the_brackets_hold_the_truth(steps, request):
    found = request.getfixturevalue(steps)
    # All at once in 95 % or more: 16 misses of 100 have a chance of 4·10^-5 at 5 %.
    assert missed(found.brackets).sum() < 16
    assert not missed(found.mean_brackets)


def test_the_brackets_are_of_use(many):
    ends = many.mean_brackets
    # Of 100 data and 1000 draws, sd(log w) = 1.1: a mean is known to 2.33 · 0.0035, and log p(x),
    # whose margin is averaged, to 2.33 · 0.005, where the steps have arrived to 0.01.
    assert ends.amortisation[0] == pytest.approx(NETWORK, abs=0.03)
    assert ends.amortisation[1] == pytest.approx(NETWORK + FAMILY, abs=0.03)
    assert ends.approximation == pytest.approx((0, FAMILY), abs=0.04)
    assert ends.remainder == pytest.approx((0, 0), abs=0.03)
    assert many.evidence.quantified.all()


def test_what_the_steps_left_undone_is_inside(few):
    # The estimate is short of the truth by far more than its error, and its bracket says so.
    short = NETWORK - few.amortisation
    assert (short > 5 * few.amortisation_se).mean() > 0.9
    assert few.mean_brackets.amortisation[0] < NETWORK - 0.1
    assert few.mean_brackets.amortisation[1] > NETWORK


def test_levels_nest_and_the_mean_is_printed(many):
    wide, narrow = (many._replace(level=c).brackets.amortisation for c in (0.99, 0.5))
    low, high = many.brackets.amortisation
    assert ((wide[0] <= low) & (low <= narrow[0]) & (narrow[1] <= high) & (high <= wide[1])).all()
    ends = many.mean_brackets
    shown = [
        f"{name} {getattr(many, name).mean():.3f} [{low:.3f}, {high:.3f}]"
        for name, (low, high) in ends._asdict().items()
        if name != "approximation"
    ]
    assert repr(many) == f"Gaps(N=100; nats per datum [0.95 bracket]: {', '.join(shown)})"
    with pytest.raises(ValueError, match="Got level=1.0"):
        gaps(PROGRAM, X, level=1.0)


def test_a_datum_whose_evidence_is_not_quantified_has_no_upper_end():
    rng = np.random.default_rng(0)
    log_w = rng.standard_normal((1000, 2)) * (0.3, 1.0)
    log_w[:, 1] = 0.8 * rng.exponential(size=1000)  # k-hat 0.8
    known = evidence(log_w)
    assert known.quantified.tolist() == [True, False]
    found = Gaps(np.zeros((3, 2)), np.full((3, 2), 0.01), known, np.array([0.1, 3.0]), 0.95)
    for low, high in found.brackets:
        assert np.isfinite(low).all() and np.isfinite(high).tolist() == [True, False]
    # The mean speaks of all data, and says of how many this is not known.
    assert found.mean_brackets.amortisation[1] > 1.5
    assert repr(found).endswith("; k-hat > 0.5 for 50%)")


def test_an_exact_guide_has_no_gap():
    found = gaps(Program(WORLD.model, WORLD.guide), X[:20], steps=50, progress=False)
    for low, high in found.brackets:
        assert (low <= 1e-9).all() and (high > -1e-9).all() and (high < 0.1).all()


def test_a_wider_guide_is_wider_about_its_mean():
    found = refine(PROGRAM, X, steps=50, progress=False)
    before, after = [], []
    for kept in (before, after):
        kept.append(posterior_predictive(found, X, 200, seed=0).latents["z"])
        if kept is before:
            _widen(found)
    moved = (after[0] - before[0]) / (WIDER - 1)  # z − m, the same noise in both
    assert torch.allclose(moved.std(0), before[0].std(0), rtol=1e-9)
    assert (moved.mean(0).abs() < 1.0).all()
    # m is the mean of the guide, as 64 draws know it: ± 0.13 sd, here at 5 SE, and 200 draws' own.
    centre = (before[0] - moved).mean(0)
    assert ((centre - before[0].mean(0)).abs() < 5 * 0.15 * before[0].std(0)).all()
