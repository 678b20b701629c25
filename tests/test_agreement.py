"""A guide beside the posterior: differences of known size, chains, resampling, and the picture."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from arviz_stats.base import array_stats

from ppl_vae import MLP, VAE, Conditional, Implicit, Normal, Program, StandardNormal, plots
from ppl_vae.data import LinearGaussian
from ppl_vae.diagnostics import agreement, smoothed
from ppl_vae.plots.style import as_svg
from ppl_vae.posterior import guide_agreement, reference_posterior, resampled, resampled_posterior
from ppl_vae.posterior.nuts import Reference
from ppl_vae.posterior.replayed import replayed
from ppl_vae.programs import NoDensityError
from ppl_vae.training.inductor import why_not

# p(z|x) has the correlation −0.85.
WEIGHT = torch.tensor([[3.0, 3.0], [0.5, -0.5], [0.2, 0.0]]).double()
WORLD = LinearGaussian(WEIGHT, torch.zeros(3).double(), 1.0)
X, _ = WORLD.sample(4, seed=1)
EXACT = WORLD.posterior(X)
SD = EXACT.covariance_matrix.diagonal(dim1=-2, dim2=-1).sqrt()


def reference(latents, rows=4):
    """Independent draws, as if they were a chain's."""
    size = next(iter(latents.values())).shape[:2].numel()
    return Reference(latents, np.ones(rows), np.full(rows, float(size)), 0, 2, size // 2)


def test_it_says_by_how_much_and_in_which_units():
    q = dist.Normal(EXACT.loc + 0.5 * SD, 2 * SD).sample((4000,))
    found = agreement(q, EXACT.sample((4000,)), names=["a", "b"], seed=0)
    # The sampling error of q is twice that of a right one, its sd being twice as large; and 0.7 of
    # `noise` are the errors of logarithms of sds. 16 numbers at 5 SE: 10^-5.
    noise = found.noise[:, None]
    assert found.noise == pytest.approx((2 / 4000) ** 0.5)
    assert (abs(found.mean_error - 0.5) < 5 * 1.6 * noise).all()
    assert (abs(np.log(found.sd_ratio / 2)) < 5 * 0.71 * noise).all()
    rho = EXACT.covariance_matrix[:, 0, 1] / SD.prod(-1)
    assert np.allclose(found.correlation_error, -rho, atol=5 * found.noise.max())
    assert found.rms_mean_error == pytest.approx(0.5, abs=0.1)
    assert found.rms_log_sd_ratio == pytest.approx(np.log(2), abs=0.1)
    assert "told apart" in repr(found) and len(repr(found)) < 160 and found.names == ("a", "b")


def test_what_a_classifier_finds_is_no_more_than_there_is():
    shifted = WORLD.broken_posterior(X, shift=0.5)
    found = agreement(shifted.sample((2000,)), EXACT.sample((2000,)), seed=0)
    best = dist.Normal(0.0, 1.0).cdf(torch.tensor(0.5 * 2**0.5 / 2)).item()  # a likelihood ratio's
    assert (found.c2st < best + 4 * found.c2st_se).all()  # 4 data at 4 SE: 10^-4
    assert (found.c2st > 0.5 + 4 * found.c2st_se).all()
    assert found.c2st[found.worst].tolist() == sorted(found.c2st, reverse=True)


def test_a_chain_is_thinned_before_a_classifier_sees_it():
    # An autoregression of the exact law: draws side by side have the correlation 0.95.
    rng, rho, rows = np.random.default_rng(0), 0.95, 12
    chain = np.empty((4000, rows, 2))
    chain[0] = rng.standard_normal((rows, 2))
    for t in range(1, len(chain)):
        noise = rng.standard_normal((rows, 2))
        chain[t] = rho * chain[t - 1] + (1 - rho**2) ** 0.5 * noise
    draws = rng.standard_normal(chain.shape)
    ess = np.full(rows, len(chain) * (1 - rho) / (1 + rho))
    found, unthinned = (agreement(draws, chain, ess=e, seed=0) for e in (ess, None))

    def excess(a):  # in standard errors
        return (a.c2st - 0.5).sum() / np.sqrt((a.c2st_se**2).sum())

    assert abs(excess(found)) < 4  # one in 10^4
    assert excess(unthinned) > 8  # what it was trained beside, it knows again
    # The means of 24 chains, in units of what was promised: at 5 SE, 10^-5.
    assert (abs(found.mean_error) < 5 * found.noise[:, None]).all()
    assert np.sqrt(np.mean((found.mean_error / found.noise[:, None]) ** 2)) > 0.6


def test_chains_that_are_worth_nothing_are_no_reference():
    q, p = np.random.default_rng(0).standard_normal((2, 100, 3, 2))
    found = agreement(q, p, ess=[100, 5, np.nan], seed=0)
    assert np.isnan(found.c2st).tolist() == np.isnan(found.c2st_se).tolist() == [False, True, True]
    assert found.noise[1] == pytest.approx((1 / 100 + 1 / 5) ** 0.5) and np.isnan(found.noise[2])
    assert np.isfinite(found.mean_error).all() and found.worst[0] == 0
    assert "2 without a reference" in repr(found)
    assert plots.agreement(found).axes[2].get_title("left") == "datum 2: no reference"
    assert repr(agreement(q, p, ess=[1, 1, 1], seed=0)).endswith("; 3 without a reference)")


def test_nuts_cannot_be_told_from_the_exact_posterior():
    world = LinearGaussian.random(2, 3, seed=0)
    x, _ = world.sample(4, seed=1)
    program = Program(world.model, world.guide)
    few = {"num_samples": 200, "warmup": 100, "num_chains": 2, "progress": False}
    exact = guide_agreement(program, x, reference_posterior(program, x, **few, seed=0))
    excess = (exact.c2st - 0.5).sum() / np.sqrt((exact.c2st_se**2).sum())
    assert abs(excess) < 4 and (exact.khat == -np.inf).all()  # one in 10^4
    assert (abs(exact.mean_error) < 5 * exact.noise[:, None]).all()  # 8 numbers: 10^-5
    assert (abs(np.log(exact.sd_ratio)) < 5 * exact.noise[:, None]).all()


def test_guides_without_a_density_are_compared_too():
    torch.manual_seed(0)
    vae = VAE(
        StandardNormal(2),
        Conditional(MLP(4), Normal(3), given=2),
        Implicit(MLP(4), 2, noise=2, given=3),
    )
    found = guide_agreement(vae, X.float(), reference({"z": EXACT.sample((2, 50))}))
    assert found.khat is None and found.names == ("z[0]", "z[1]") and (found.c2st > 0.5).all()


def test_a_reference_of_something_else_is_refused():
    program = Program(WORLD.model, WORLD.guide)
    z = EXACT.sample((2, 50))
    with pytest.raises(ValueError, match=r"got \['w'\] of 4 data, expected \['z'\] of 4"):
        guide_agreement(program, X, reference({"w": z}))
    with pytest.raises(ValueError, match="of 3 data, expected"):
        guide_agreement(program, X, reference({"z": z[:, :, :3]}, rows=3))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"draws": np.zeros((100, 2))}, r"draws: got the shape \(100, 2\)"),
        ({"draws": np.zeros((10, 3, 2))}, "S 20 or more"),
        ({"draws": np.full((100, 3, 2), np.nan)}, "draws: got nan at datum 0"),
        ({"draws": np.zeros((100, 2, 2))}, "expected the same"),
        ({"reference": np.ones((100, 3, 2))}, r"all equal in z\[0\] of datum 0"),
        ({"ess": [100, 100]}, r"ess: got the shape \(2,\), expected \(3,\)"),
        ({"khat": [1.0]}, r"khat: got the shape \(1,\), expected \(3,\)"),
        ({"names": ["a"]}, "names: got 1 for 2 units"),
    ],
)
def test_what_does_not_fit_is_refused(change, words):
    q, p = np.random.default_rng(0).standard_normal((2, 100, 3, 2))
    with pytest.raises(ValueError, match=words):
        agreement(**{"draws": q, "reference": p, "seed": 0} | change)


def test_resampled_draws_have_the_moments_of_the_posterior():
    program = Program(WORLD.model, WORLD.broken_guide(scale=1.5, shift=0.5))
    found = resampled_posterior(program, X, 4000, num_proposals=20_000, seed=0)
    z = found.latents["z"]
    white = torch.linalg.solve_triangular(
        EXACT.scale_tril, (z - EXACT.loc).unsqueeze(-1), upper=False
    ).squeeze(-1)
    # Mean 0 and covariance 1 of 4 data: their errors are those of S draws with replacement from
    # proposals worth ESS. 20 numbers at 5 SE, 10^-5; a variance of fourth moments has √2 the error.
    error = np.sqrt(1 / 4000 + 1 / found.ess)[:, None]
    second = np.einsum("snd,sne->nde", white, white) / len(white)
    assert (abs(white.mean(0).numpy()) < 5 * error).all()
    assert (abs(second - np.eye(2)) < 5 * 2**0.5 * error[..., None]).all()
    assert found.trusted.all() and found.khat.max() < 0.5 and (found.ess > 4000).all()
    assert abs(error).max() < 0.025  # sharp enough: the guide is off by 0.5 and 1.25


def test_where_khat_is_high_it_is_said_and_the_draws_are_too_narrow():
    narrow = Program(WORLD.model, WORLD.broken_guide(scale=0.3))
    with pytest.warns(UserWarning, match="k-hat is above 0.7, or not known, for 4 of 4 data"):
        found = resampled_posterior(narrow, X, 500, seed=0)
    assert not found.trusted.any() and "for 100%" in repr(found)
    assert (found.latents["z"].std(0) < 0.9 * SD).all()  # as it says


def test_resampling_keeps_noise_seeds_and_blocks_apart(monkeypatch):
    program, state = Program(WORLD.model, WORLD.broken_guide(scale=1.5)), torch.get_rng_state()
    one, two, other = (resampled_posterior(program, X, 50, seed=s).latents["z"] for s in (3, 3, 4))
    assert torch.equal(one, two) and not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)
    monkeypatch.setattr(resampled, "HELD", 1000)  # a datum at a time
    alone = resampled_posterior(program, X, 2000, num_proposals=2000, seed=0)
    assert alone.latents["z"].shape == (2000, 4, 2) and alone.khat.shape == (4,)
    # Each datum has its own posterior: proposals are worth 2000 · 0.6 or so, at 5 SE.
    error = 5 * np.sqrt(1 / 2000 + 1 / alone.ess)[:, None]
    assert (abs((alone.latents["z"].mean(0) - EXACT.loc) / SD).numpy() < error).all()
    twice = resampled_posterior(program, X[[0, 0]], 50, num_proposals=2000, seed=0).latents["z"]
    assert not torch.isin(twice[:, 0], twice[:, 1]).any()  # each datum has noise of its own
    for bad in ({"num_samples": 0}, {"num_samples": True}, {"num_proposals": 10}):
        with pytest.raises(ValueError, match="expected an integer of"):
            resampled_posterior(program, X, **bad)


def test_every_latent_of_a_draw_comes_from_one_proposal_and_sums_are_refused():
    def model(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(0.0, 1.0))
            b = pyro.sample("b", dist.Normal(a, 0.1).expand([len(x)]))
            pyro.sample("x", dist.Normal(b, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(0.0, 1.5).expand([len(x)]))
            pyro.sample("b", dist.Normal(a, 0.2))

    found = resampled_posterior(Program(model, guide), torch.zeros(2), 1000, seed=0)
    # Given x and a, b is within 0.2 of a with a standard deviation below 0.1.
    assert ((found.latents["a"] - found.latents["b"]).std(0) < 0.12).all()

    def mixed(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
            a = pyro.sample("a", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(a + k, 1.0), obs=x)

    def unmixed(x):
        with pyro.plate("data", len(x)):
            pyro.sample("a", dist.Normal(0.0, 1.0).expand([len(x)]))

    with pytest.raises(NoDensityError, match="summed out"):
        resampled_posterior(Program(mixed, unmixed), torch.zeros(2), 50)


def test_smoothed_weights_are_arviz_s_and_stay_where_there_is_no_fit():
    rng = np.random.default_rng(0)
    log_w = rng.standard_normal((500, 5))
    log_w[:, 1] = 3.0  # constant
    log_w[50:, 2] = -np.inf  # mostly out of the support
    log_w[:, 3] = 5000 * log_w[:, 3]  # hopeless
    log_w[:20, 4] = -np.inf
    found = smoothed(log_w)
    assert np.allclose(found.weights.sum(0), 1) and (found.weights >= 0).all()
    theirs = np.exp(array_stats.psislw(-log_w[:, 0])[0])
    assert np.allclose(found.weights[:, 0], theirs / theirs.sum())
    assert np.allclose(found.weights[:, 1], 1 / 500) and found.ess[1] == pytest.approx(500)
    assert found.khat[1] == -np.inf and found.khat[3] == np.inf and np.isnan(found.khat[2])
    assert (found.weights[50:, 2] == 0).all() and found.ess[3] == pytest.approx(1)
    assert (found.weights[:20, 4] < 1e-12).all() and np.isfinite(found.khat[4])


def test_smoothing_halves_the_error_of_a_mean_under_a_guide_that_is_too_narrow():
    z = 0.6 * np.random.default_rng(0).standard_normal((4000, 200, 2))
    log_w = 0.5 * (z**2).sum(-1) * (0.6**-2 - 1)
    found = smoothed(log_w)
    raw = np.exp(log_w - log_w.max(0))
    off, better = (
        np.sqrt(np.square((w[..., None] * z).sum(0)).mean())
        for w in (raw / raw.sum(0), found.weights)
    )
    # 0.14 and 0.07 sd. That of raw weights varies much: the ratio was 0.3 to 0.6 at four seeds.
    assert 0.5 < np.median(found.khat) < 0.7 and better < 0.75 * off


def test_what_python_decides_at_every_call_is_not_replayed():
    def plain(u):
        return (u.sin() * u).sum()

    def deciding(u):
        return plain(u) if u.sum() > 0 else -plain(u)

    calls: list[int] = []

    def changing(u):
        calls.append(1)
        return plain(u) * len(calls)

    def counted(u):
        calls.append(1)
        return plain(u).log()  # not finite where `plain` is negative

    starts = [torch.full((3,), v) for v in (0.5, 1.0)]
    assert replayed(deciding, starts) is deciding and replayed(changing, starts) is changing
    once = replayed(counted, starts)
    made = len(calls)
    for value, asked in ((0.7, 0), (4.0, 1)):
        u = torch.full((3,), value, requires_grad=True)
        found, expected = once(u), plain(u).log()
        assert len(calls) == made + asked and found.isfinite() == expected.isfinite()
        if not asked:
            (one,), (two,) = (torch.autograd.grad(v, u) for v in (2 * found, 2 * expected))
            assert torch.allclose(found, expected) and torch.allclose(one, two)


@pytest.mark.skipif(why_not() is not None, reason="nothing can be compiled here")
def test_a_compiled_function_is_the_function():
    def plain(u):
        return (u.sin() * u).sum()

    quick = replayed(plain, [torch.zeros(3), torch.ones(3)], compile=True)
    u = torch.randn(3, requires_grad=True)
    (one,), (two,) = (torch.autograd.grad(f(u), u) for f in (quick, plain))
    assert quick is not plain and torch.allclose(one, two) and quick(u).allclose(plain(u))


@pytest.mark.parametrize("units", [1, 2, 5])
def test_the_picture_shows_what_was_found(units):
    rng = np.random.default_rng(0)
    q, p = rng.standard_normal((2, 100, 8, units))
    if units > 2:
        q[..., [1, 3]] = q[..., [3, 3]] + 0.1 * q[..., [1, 0]]  # two units that go together
    khat = [0.1, np.nan, np.inf, -np.inf, *(4 * [0.5])]
    found = agreement(q, p, khat=khat, names=[f"a${d}" for d in range(units)], seed=0)
    fig = plots.agreement(found)
    assert len(fig.axes) == 6
    assert fig.axes[0].get_title("left").startswith(f"datum {found.worst[0]}: told apart")
    if units > 2:
        assert {fig.axes[0].get_xlabel(), fig.axes[0].get_ylabel()} == {r"a\$1", r"a\$3"}
    two = plots.agreement(found, data=[1, 2])
    assert [ax.get_title("left").split("\n")[1] for ax in two.axes] == [
        "k-hat not known",
        "k-hat inf",
    ]
    assert as_svg(fig) and as_svg(two)
    with pytest.raises(ValueError, match="got \\[8\\], expected 1 to 12 of the numbers 0 to 7"):
        plots.agreement(found, data=[8])


def test_a_guide_that_is_a_point_can_be_drawn():
    p = np.random.default_rng(0).standard_normal((100, 2, 3))
    found = agreement(np.zeros_like(p), p, seed=0)
    assert (found.rms_log_sd_ratio == np.inf).all() and as_svg(plots.agreement(found))
