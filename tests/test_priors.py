"""Priors: the laws of the kit, SciPy's densities, and what it means to be learned."""

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from scipy import special, stats
from torch import Size, nn
from torch.nn.functional import softplus

from ppl_vae import (
    MLP,
    VAE,
    Conditional,
    ContinuousBernoulli,
    GaussianMixture,
    Normal,
    StandardNormal,
    StudentTPrior,
    UniformBox,
    fit,
)
from ppl_vae.data import quadrature
from ppl_vae.diagnostics import evidence, log_mean_interval
from ppl_vae.programs import log_weights
from ppl_vae.testing import ConformanceError, check_prior, check_program

ALWAYS = ["alone", "shapes", "support", "seed", "tensors", "deepcopy", "state_dict", "dtype"]
# Three well separated components in the plane, of unequal weights and scales.
LOC = torch.tensor([[0.0, 3.0], [-4.0, -1.0], [2.0, -2.0]])
SCALE = torch.tensor([[0.5, 1.0], [1.0, 0.3], [0.7, 0.7]])
WEIGHTS = torch.tensor([1.0, 2.0, 5.0])

# Densities in float64 after moderate sums: 1e-16 * 1e3, with a factor 1e3 to spare.
EXACT = 1e-10

PRIORS = {
    "standard": lambda: StandardNormal(2),
    "one dim": lambda: StandardNormal(1, loc=3.0, scale=0.1),
    "scalar": lambda: StandardNormal(()),
    "grid": lambda: StandardNormal((2, 2), scale=torch.tensor([1.0, 5.0])),
    "ten dims": lambda: StandardNormal(10),
    "mixture": lambda: GaussianMixture(LOC, SCALE, WEIGHTS),
    "one component": lambda: GaussianMixture(torch.zeros(1, 1)),
    "five dims": lambda: GaussianMixture(torch.eye(5)[:3] * 4, 0.5),
    "learned": lambda: GaussianMixture(LOC, SCALE, WEIGHTS, learned=True),
    "student": lambda: StudentTPrior(2, loc=torch.tensor([0.0, 3.0])),
    "infinite variance": lambda: StudentTPrior(1, df=1.5, scale=2.0),
    "student grid": lambda: StudentTPrior((2, 2)),
    "box": lambda: UniformBox(2, low=torch.tensor([-1.0, 3.0]), high=4.0),
    "far box": lambda: UniformBox(1, low=1000.0, high=1001.0),
    "box of five dims": lambda: UniformBox(5),
}
MOMENTS = ("standard", "one dim", "scalar", "student", "infinite variance", "box", "far box")


@pytest.mark.parametrize("name", PRIORS)
def test_the_kit(name):
    expected = [*ALWAYS]
    expected += ["gradients"] if name == "learned" else []
    expected += ["normalised", "draws"]
    # A mixture states none; there are none from random points, in more than two dims.
    expected += ["moments"] if name in MOMENTS else []
    assert list(check_prior(PRIORS[name]())) == expected


def test_standard_normal_is_scipys(float64):
    loc, scale, z = torch.randn(3), torch.rand(3) + 0.1, torch.randn(7, 3)
    exact = stats.norm(loc, scale).logpdf(z).sum(-1)
    log_prob = StandardNormal(3, loc=loc, scale=scale)().log_prob(z)
    assert (log_prob - torch.as_tensor(exact)).abs().max() < EXACT


@pytest.mark.parametrize("learned", [False, True])
def test_mixture_is_scipys(learned, float64):
    loc, scale = torch.randn(4, 3), torch.rand(4, 3) + 0.1
    weights, z = torch.rand(4) + 0.1, 2 * torch.randn(7, 3)
    terms = stats.norm(loc, scale).logpdf(z[:, None]).sum(-1)
    exact = special.logsumexp(terms + np.log((weights / weights.sum()).numpy()), axis=-1)
    log_prob = GaussianMixture(loc, scale, weights, learned=learned)().log_prob(z)
    assert (log_prob - torch.as_tensor(exact)).abs().max() < EXACT


def test_learned_and_fixed_start_as_the_same_prior():
    z = torch.randn(50, 2)
    fixed, learned = (GaussianMixture(LOC, SCALE, WEIGHTS, learned=k)() for k in (False, True))
    # A scale goes through softplus and back in float32: 1e-7, times (z / scale)² < 3e2.
    assert torch.allclose(fixed.log_prob(z), learned.log_prob(z), rtol=1e-4)


def test_a_learned_mixture_keeps_its_floor():
    prior = GaussianMixture(LOC, learned=True, min_scale=0.2)
    with torch.no_grad():
        prior.scale.fill_(-1e30)
    assert torch.equal(prior().scale, torch.full((3, 2), 0.2))


def test_gradient_ascent_finds_the_mean_of_the_data(float64):
    # One component at a known scale: the log-likelihood's only maximum in loc is the mean.
    data = torch.randn(200, 2) + torch.tensor([3.0, -1.0])
    prior = GaussianMixture(torch.zeros(1, 2), learned=True)
    variance = float((0.001 + softplus(prior.scale.detach()[0, 0])) ** 2)
    for _ in range(50):
        prior.zero_grad()
        prior().log_prob(data).mean().backward()
        with torch.no_grad():  # a Newton step: the curvature is 1/scale², so it lands at once
            prior.loc += variance * prior.loc.grad
    assert torch.allclose(prior.loc[0], data.mean(0), atol=1e-9)


def test_the_prior_is_the_callers_copy():
    # What is given is copied: training a prior must not change the tensor it was built from.
    loc = torch.zeros(3, 2)
    prior = GaussianMixture(loc, learned=True)
    with torch.no_grad():
        prior.loc += 1
    assert torch.equal(loc, torch.zeros(3, 2))


# ------------------------------------------------------------------------- Student's t, and a box


def test_student_is_scipys(float64):
    df, loc, scale, z = torch.rand(3) + 1, torch.randn(3), torch.rand(3) + 0.1, torch.randn(7, 3)
    exact = stats.t(df, loc, scale).logpdf(z).sum(-1)
    log_prob = StudentTPrior(3, df=df, loc=loc, scale=scale)().log_prob(z)
    assert (log_prob - torch.as_tensor(exact)).abs().max() < EXACT


def test_a_box_is_uniform_inside_and_closed():
    # A draw that is rounded to the edge has to have a density, as the edge is in the support.
    d = UniformBox(2, low=1000.0, high=1001.0)()
    edges = torch.tensor([[1000.0, 1000.5], [1001.0, 1001.0]])
    assert torch.equal(d.log_prob(edges), torch.zeros(2)) and d.support.check(edges).all()
    pyro_off = UniformBox(1, low=0.0, high=4.0)()
    pyro_off.base_dist._validate_args = False
    outside = pyro_off.log_prob(torch.tensor([[-0.1], [4.1], [1.0]]))
    assert outside.tolist()[:2] == [-torch.inf] * 2 and outside[2].exp() == 0.25


def test_an_encoder_on_the_reals_is_pushed_into_the_box():
    # Codes 30 scales out: sigmoid(30) rounds to 1, and 1000 + 1 to the edge. The loss stays finite.
    vae = VAE(
        UniformBox(1, low=1000.0, high=1001.0),
        Conditional(MLP(), Normal(3, scale=1.0), given=1),
        Conditional(MLP(), Normal(1, scale=10.0), given=3),
    )
    x = torch.randn(200, 3)
    z = vae.guide(x)
    assert ((z >= 1000) & (z <= 1001)).all() and (z == 1001).any()
    found = fit(vae, x, epochs=2, seed=0, progress=False)
    assert np.isfinite(found.history["loss"]).all()
    check_program(vae, x)


class Shares(nn.Module):
    """x_d | z_d ~ Binomial(4, z_d)."""

    event_shape = Size([2])

    def forward(self, z):
        return dist.Binomial(4, z).to_event(1)


class Positive(nn.Module):
    """q(z|x) with two positive parameters: as a Beta it is p(z|x) under a flat p(z)."""

    event_shape = Size([2])

    def __init__(self, kind):
        super().__init__()
        self.kind, self.counts = kind, nn.Parameter(torch.ones(2))

    def forward(self, x):
        a, b = self.counts
        return self.kind(a + x, b + 4 - x).to_event(1)


X = torch.cartesian_prod(torch.arange(5.0), torch.arange(5.0))  # all that can be seen


def test_a_guide_on_the_support_of_the_prior_is_used_as_it_is():
    vae = VAE(UniformBox(2, low=0.0, high=1.0), Shares(), Positive(dist.Beta))
    # The exact posterior: every weight is p(x) = 1 / 5². A dozen float32 terms of size 10.
    assert (log_weights(vae, X, 20, seed=0) - np.log(1 / 25)).abs().max() < 1e-4
    fit(vae, X, epochs=1, seed=0, progress=False)
    assert (vae.encoder.counts != 1).all()
    # The same of a Conditional, whose family says where it lies.
    vae.encoder = Conditional(MLP(4), ContinuousBernoulli(2), given=2)
    z = vae.guide(X)
    assert torch.equal(vae.posterior(X).log_prob(z), vae.encoder(X).log_prob(z))
    assert log_weights(vae, X, 20, seed=0).isfinite().all()


@pytest.mark.parametrize(("family", "high"), [(dist.Gamma, 1.0), (dist.Beta, 2.0)])
def test_a_guide_on_another_support_is_refused(family, high):
    vae = VAE(UniformBox(2, low=0.0, high=high), Shares(), Positive(family))
    says = "Got a guide with support .* under a prior.*Try a Normal"
    with pytest.raises(ValueError, match=says) as refusal:
        log_weights(vae, X, 5)
    assert "Trace" not in str(refusal.value) and "tensor" not in str(refusal.value)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: StudentTPrior(2, df=0.0), "df=.* expected positive finite"),
        (lambda: StudentTPrior(2, scale=-1.0), "scale=.* expected positive finite"),
        (lambda: StudentTPrior(2, loc=torch.nan), "loc=.* expected finite"),
        (lambda: StudentTPrior(2, loc=torch.zeros(3)), r"loc of shape \(3,\); expected one that"),
        (lambda: UniformBox(2, low=1.0), "expected low < high"),
        (lambda: UniformBox(2, high=torch.inf), "high=.* expected finite"),
        (lambda: UniformBox(0), "expected positive integers"),
    ],
)
def test_numbers_that_make_no_prior_are_refused(build, says):
    with pytest.raises(ValueError, match=says) as caught:
        build()
    assert "Try" in str(caught.value)


def test_priors_say_what_they_are():
    assert repr(StudentTPrior(2)) == "StudentTPrior(2, df=5, loc=0, scale=1)"
    assert repr(UniformBox((2, 2), low=0.0)) == "UniformBox((2, 2), low=0, high=1)"
    assert repr(StandardNormal(1)) == "StandardNormal(1)"
    assert repr(StandardNormal(2, loc=torch.tensor([0.0, 1.0]))) == (
        "StandardNormal(2, loc=[…], scale=1)"
    )


# ---------------------------------------------------------------------------------- the evidence


def evidence_by_sampling_is_the_integral(prior, tolerance=1e-8):
    """In a world of one latent dim, with a guide that is wider than the posterior."""
    vae = VAE(
        prior,
        Conditional(MLP(), Normal(4, scale=1.0), given=1),
        Conditional(MLP(), Normal(1, scale=3.0), given=4),
    )
    with torch.no_grad():
        # Any data will do: these have their posteriors where the guide is.
        x = vae.decoder(torch.linspace(-2.0, 2.0, 100)[:, None]).sample()
        exact = quadrature(vae.prior(), vae.decoder, x, tolerance=tolerance).log_evidence.numpy()
    weights = log_weights(vae, x, 4000, seed=0).numpy()
    z = (evidence(weights).log_evidence - exact) / evidence(weights).se
    lower, upper = log_mean_interval(weights, 0.95)
    covered = ((lower <= exact) & (exact <= upper)).mean()
    # 100 at 95 %: 4 binomial sd of 2.2 %. z: a mean within 4 sd of 1/sqrt(100), and the bias.
    assert covered > 0.86 and abs(z.mean()) < 0.45 and np.abs(z).max() < 5, (covered, z.mean())


@pytest.mark.parametrize("name", ["student", "box"])
@pytest.mark.usefixtures("float64")
def test_evidence_agrees_with_quadrature(name):
    prior = {"student": StudentTPrior(1, df=3.0), "box": UniformBox(1, low=-2.0, high=3.0)}[name]
    evidence_by_sampling_is_the_integral(prior)


# ------------------------------------------------------------------------------ p(z | covariates)


def test_a_prior_given_covariates_passes_the_kit():
    prior = Conditional(MLP(8), Normal(2), given={"c": 3})
    kept = check_prior(prior, context=torch.randn(4, 3))
    assert list(kept) == [*ALWAYS, "gradients", "normalised", "draws", "moments", "rows"]
    two = Conditional(MLP(8), Normal(1), given=[3, 2])
    assert "rows" in check_prior(two, context=(torch.randn(4, 3), torch.randn(4, 2)))


class Mixed(nn.Module):
    """Looks at other rows than its own."""

    def __init__(self):
        super().__init__()
        self.part = Conditional(MLP(4), Normal(1), given=2)
        self.event_shape = self.part.event_shape

    def forward(self, c):
        return self.part(c if c.dim() == 1 else c - c.mean(0))


class Bare(nn.Module):
    """Has no tensor of its own: its dtype is that of the covariates."""

    event_shape = torch.Size([1])

    def forward(self, c):
        return dist.Normal(c, 1.0).to_event(1)


def test_a_prior_whose_rows_depend_on_each_other_breaks_a_law():
    assert "rows" in check_prior(Bare(), context=torch.randn(4, 1))
    with pytest.raises(ConformanceError, match="'rows'"):
        check_prior(Mixed(), context=torch.randn(4, 2))
