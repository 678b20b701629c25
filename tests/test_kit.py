"""The conformance kit refuses what is broken, by the right law, and passes what is not.

Every piece here is a sound one with one fault; the soundness of the rest is what the first tests of
each part show.
"""

import math
import random
import threading
import warnings
from dataclasses import replace

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Size, nn
from torch.distributions import constraints
from torch.nn.functional import softplus

from ppl_vae import (
    ELBO,
    MLP,
    VAE,
    Adversarial,
    Bernoulli,
    Binomial,
    Conditional,
    Delta,
    Family,
    GaussianMixture,
    LogNormal,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    PerFeature,
    Poisson,
    Program,
    StandardNormal,
    StudentT,
)
from ppl_vae.data import LinearGaussian
from ppl_vae.distributions import MixtureOfNormals
from ppl_vae.programs.registration import register
from ppl_vae.testing import ConformanceError, check_family, check_prior, check_program
from ppl_vae.testing.nodes import EDGE, nodes

POSITIVE = {"exposure": constraints.positive}

THREE = Size([3])


def refused(check, piece, law, *args, **kwargs) -> str:
    """The message with which a check refuses a piece for breaking a law."""
    with pytest.raises(ConformanceError) as caught:
        check(piece, *args, **kwargs)
    message = str(caught.value)
    assert caught.value.law == law, message
    assert f"law {law!r}. Got " in message and "; expected " in message and ". Try " in message
    return message


# --------------------------------------------------------------------------------- families


def family(
    distribution, *names, support=constraints.real, measure="density", filler=0.0, **transforms
):
    return Family(
        name="mine",
        event_shape=THREE,
        shapes=dict.fromkeys(names, THREE),
        distribution=distribution,
        support=support,
        measure=measure,
        transforms=transforms,
        filler=filler,
    )


def positive(raw):
    return 1e-3 + softplus(raw)


def counts(distribution):
    return family(
        distribution,
        "rate",
        support=constraints.nonnegative_integer,
        measure="mass",
        rate=positive,
    )


def beta(a, b):
    return dist.Beta(a, b)


# What a user may write, beside our own: bounded and half-bounded supports, heavy tails that have no
# mean or no variance, kinks, counts without an end, atoms among counts, cells that depend.
SOUND = {
    "log-normal": family(
        dist.LogNormal, "loc", "scale", support=constraints.positive, scale=positive, filler=1.0
    ),
    "gamma": family(
        dist.Gamma,
        "concentration",
        "rate",
        support=constraints.nonnegative,
        concentration=positive,
        rate=positive,
        filler=1.0,
    ),
    "beta": family(
        beta, "a", "b", support=constraints.unit_interval, a=positive, b=positive, filler=0.5
    ),
    "student": family(
        dist.StudentT, "df", "loc", "scale", df=lambda r: 2 + softplus(r), scale=positive
    ),
    "cauchy": family(dist.Cauchy, "loc", "scale", scale=positive),
    "laplace": family(dist.Laplace, "loc", "scale", scale=positive),
    "poisson": counts(dist.Poisson),
    "zero-inflated": family(
        lambda rate, gate: dist.ZeroInflatedPoisson(rate, gate_logits=gate),
        "rate",
        "gate",
        support=constraints.nonnegative_integer,
        measure="mass",
        rate=positive,
    ),
    "one-hot": family(
        lambda logits: dist.OneHotCategorical(logits=logits),
        "logits",
        support=constraints.boolean,
        measure="mass",
        filler=torch.tensor([1.0, 0.0, 0.0]),
    ),
    "dirichlet": family(
        dist.Dirichlet,
        "concentration",
        support=constraints.unit_interval,
        concentration=lambda r: 0.5 + softplus(r),
        filler=1 / 3,
    ),
    "jumps": family(lambda loc: Jumps(loc, 1.0), "loc"),
    "exposure": replace(
        counts(lambda rate, exposure: dist.Poisson(rate * exposure)), needs=POSITIVE
    ),
}


@pytest.mark.parametrize("name", SOUND)
def test_sound_families_pass(name):
    laws = check_family(SOUND[name])
    assert {"finite", "normalised", "draws"} <= set(laws)
    assert ("moments" in laws) == (name != "cauchy")


class Jumps(dist.Normal):
    """Half Normal, half uniform from 0.2 to 1.3, on the reals: two edges inside."""

    support = constraints.real

    def sample(self, sample_shape=()):
        normal = super().sample(sample_shape)
        uniform = 0.2 + 1.1 * torch.rand_like(normal)
        return normal.where(torch.rand_like(normal) < 0.5, uniform)

    def log_prob(self, value):
        inside = ((value > 0.2) & (value < 1.3)).to(value) / 1.1
        return (0.5 * (super().log_prob(value).exp() + inside)).log()

    mean = property(lambda self: (self.loc + 0.75) / 2)
    variance = property(
        lambda self: (
            (self.scale**2 + self.loc**2 + 0.75**2 + 1.1**2 / 12) / 2 - ((self.loc + 0.75) / 2) ** 2
        )
    )


class OffByAConstant(dist.Normal):
    def log_prob(self, value):
        return super().log_prob(value) + 3e-4


class WiderDraws(dist.Normal):
    def sample(self, sample_shape=()):
        return self.loc + 1.1 * (super().sample(sample_shape) - self.loc)


class WrongMean(dist.Normal):
    @property
    def mean(self):
        return self.loc + 0.05


class WrongVariance(dist.Poisson):
    @property
    def variance(self):
        return self.rate**0.5


class HeavierZero(dist.Poisson):
    def log_prob(self, value):
        return super().log_prob(value) + 0.02 * (value == 0)


class Transposed(dist.MultivariateNormal):
    def sample(self, sample_shape=()):
        noise = torch.randn(self._extended_shape(sample_shape)).to(self.loc)
        return self.loc + (noise.unsqueeze(-2) @ self.scale_tril).squeeze(-2)


class LogOfProbability(dist.Bernoulli):
    """Far out a probability is rounded to 0 or 1, and 0 times its log is NaN."""

    def log_prob(self, value):
        p = torch.sigmoid(self.logits)
        return value * p.log() + (1 - value) * (1 - p).log()


def needy(log_rate, exposure):
    return dist.Poisson(exposure * log_rate.exp())


def without_scale(raw):
    return torch.exp(10 * raw)  # 0 in float32 at -20


FAULTS = [
    ("shapes", family(lambda loc: dist.Normal(loc.sum(-1), 1.0), "loc")),
    ("shapes", family(lambda loc: dist.Normal(loc.unsqueeze(0), 1.0), "loc")),
    ("shapes", family(lambda mean: dist.Normal(mean, 1.0), "loc")),
    ("shapes", replace(Normal((2, 3)), distribution=lambda loc, scale: dist.Normal(loc[0], 1.0))),
    ("rows", family(lambda loc: dist.Normal(loc - loc.mean(0), 1.0), "loc")),
    ("dtype", family(lambda loc: dist.Normal(loc.float(), 1.0), "loc")),
    ("dtype", family(lambda loc: dist.Normal(loc, torch.ones(3).double()), "loc")),
    ("support", family(lambda loc: dist.Normal(loc, 1.0), "loc", support=constraints.positive)),
    ("support", replace(Binomial(3, total=4), support=constraints.boolean)),
    # Covariates that are declared and not taken, taken and not declared, of one row for all.
    ("shapes", replace(Poisson(3), needs={"depth": constraints.positive})),
    ("shapes", replace(Poisson(3, exposure=True), needs={}, distribution=needy)),
    (
        "shapes",
        replace(
            SOUND["exposure"],
            distribution=lambda rate, exposure: dist.Poisson(rate * exposure.unsqueeze(0)),
        ),
    ),
    (
        "rows",
        replace(
            SOUND["exposure"],
            distribution=lambda rate, exposure: dist.Poisson(rate * exposure.mean()),
        ),
    ),
    (
        "dtype",
        replace(
            SOUND["exposure"],
            distribution=lambda rate, exposure: dist.Poisson(rate * exposure.double()),
        ),
    ),
    ("support", replace(SOUND["log-normal"], support=constraints.real)),  # wider than it is
    ("support", replace(Poisson(3), support=constraints.nonnegative)),
    ("support", replace(Binomial(3, total=4), support=constraints.integer_interval(0, 5))),
    ("features", replace(LogNormal(3), features=lambda x: (x - 2).log())),
    ("features", replace(Poisson(3), features=lambda x: x - x.mean(0))),
    ("features", replace(Poisson(3), features=lambda x: x.mean(-1))),
    # Outside the support; on its edge, where the density is 0 or without end.
    ("filler", replace(LogNormal(3), filler=0.0)),
    ("filler", replace(Bernoulli(3), filler=0.5)),
    ("filler", replace(Delta(3), filler=torch.nan)),
    ("filler", replace(SOUND["gamma"], filler=0.0)),
    ("filler", replace(SOUND["beta"], filler=torch.tensor([0.5, 0.5, 1.0]))),
    ("filler", replace(SOUND["one-hot"], filler=0.0)),
    ("measure", replace(Bernoulli(3), measure="density")),
    ("measure", replace(Normal(3), measure="mass")),
    ("gradients", family(lambda loc: dist.Normal(loc.detach(), 1.0), "loc")),
    ("gradients", family(lambda loc, idle: dist.Normal(loc, 1.0), "loc", "idle")),
    ("finite", replace(Bernoulli(3), distribution=lambda logits: LogOfProbability(logits=logits))),
    ("finite", family(dist.Normal, "loc", "scale", scale=without_scale)),
    ("floor", replace(Normal(3), transforms={"scale": softplus})),
    ("floor", replace(MultivariateNormal(2), min_scale=0.01)),
    ("floor", replace(LowRankMultivariateNormal(2, rank=1), transforms={"scale": softplus})),
    ("floor", replace(StudentT(3), transforms={"scale": softplus})),
    ("floor", replace(LogNormal(3), transforms={"scale": softplus})),
    ("normalised", family(lambda loc: OffByAConstant(loc, 1.0), "loc")),
    ("normalised", counts(HeavierZero)),
    ("moments", family(lambda loc: WrongMean(loc, 1.0), "loc")),
    ("moments", counts(WrongVariance)),
    ("draws", family(lambda loc: WiderDraws(loc, 1.0), "loc")),
    ("draws", replace(MultivariateNormal(2), distribution=Transposed)),
    # In more than two dims the draws place the points, so that wrong ones show in the total.
    ("normalised", replace(MultivariateNormal(4), distribution=Transposed)),
]


@pytest.mark.parametrize(("law", "piece"), FAULTS)
def test_a_broken_family_is_refused_by_the_law_it_breaks(law, piece):
    refused(check_family, piece, law)


def test_the_message_has_numbers():
    piece = family(lambda loc: OffByAConstant(loc, 1.0), "loc")
    message = refused(check_family, piece, "normalised")
    assert message.startswith("mine breaks the law")
    assert "a total of 1.0003; expected 1" in message  # exp(3e-4)


# ------------------------------------------------------------------------------------ priors


class Prior(nn.Module):
    """A Normal in the plane that learns its loc; each fault below changes one line."""

    def __init__(self):
        super().__init__()
        self.event_shape = Size([2])
        self.loc = nn.Parameter(torch.tensor([1.0, -1.0]))
        self.register_buffer("scale", torch.tensor([0.5, 2.0]))

    def forward(self):
        return dist.Normal(self.loc, self.scale).to_event(1)


class Mixed(MixtureOfNormals):
    """Draws forget the weights: the fault of scoring by one set of parameters, drawing by another.

    No comparison of log-densities would see it, nor a local test: the modes are far apart.
    """

    def sample(self, sample_shape=Size()):  # noqa: B008
        even = torch.full_like(self.log_weights, 0.5).log()
        return MixtureOfNormals(even, self.loc, self.scale, self.batch_shape).sample(sample_shape)

    def expand(self, batch_shape, _instance=None):
        return Mixed(self.log_weights, self.loc, self.scale, Size(batch_shape))


class ForgetfulMixture(GaussianMixture):
    def forward(self):
        d = super().forward()
        return Mixed(d.log_weights, d.loc, d.scale)


class NumpyNormal(dist.Normal):
    def sample(self, sample_shape=()):
        shape = self._extended_shape(sample_shape)
        noise = torch.from_numpy(np.random.standard_normal(tuple(shape))).to(self.loc)
        return self.loc + self.scale * noise

    def expand(self, batch_shape, _instance=None):
        return NumpyNormal(self.loc.expand(batch_shape), self.scale.expand(batch_shape))


class TakesContext(Prior):
    def forward(self, x):
        return super().forward()


class GivesATensor(Prior):
    def forward(self):
        return self.loc


class NoEvent(Prior):
    def forward(self):
        return dist.Normal(self.loc, self.scale)


class DeclaresAnother(Prior):
    def __init__(self):
        super().__init__()
        self.event_shape = Size([3])


class PlainTensor(Prior):
    def __init__(self):
        super().__init__()
        del self.scale
        self.scale = torch.tensor([0.5, 2.0])


class InAList(Prior):
    """A tensor hidden in a list is neither moved, nor saved, nor trained."""

    def __init__(self):
        super().__init__()
        self.held = [torch.tensor([0.5, 2.0])]

    def forward(self):
        return dist.Normal(self.loc, self.held[0]).to_event(1)


class Single(Prior):
    def forward(self):
        return dist.Normal(self.loc.float(), self.scale.float()).to_event(1)


class NotSaved(Prior):
    def __init__(self):
        super().__init__()
        del self.scale
        self.register_buffer("scale", torch.tensor([0.5, 2.0]), persistent=False)


class SharesItself(Prior):
    def __deepcopy__(self, memo):
        return self


class Locked(Prior):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


class Detached(Prior):
    def forward(self):
        return dist.Normal(self.loc.detach(), self.scale).to_event(1)


class Numpys(Prior):
    def forward(self):
        return NumpyNormal(self.loc, self.scale).to_event(1)


class Wider(Prior):
    def forward(self):
        return WiderDraws(self.loc, self.scale).to_event(1)


class Off(Prior):
    def forward(self):
        return OffByAConstant(self.loc, self.scale).to_event(1)


class Outside(Prior):
    def forward(self):
        d = dist.Normal(self.loc, self.scale).to_event(1)
        d.base_dist.support = constraints.positive
        return d


def forgetful(components, features):
    loc = torch.zeros(components, features)
    loc[0] = 6.0
    weights = torch.ones(components)
    weights[0] = 2.0 * components
    return ForgetfulMixture(loc, 1.0, weights)


BROKEN = [
    ("alone", TakesContext),
    ("alone", GivesATensor),
    ("shapes", NoEvent),
    ("shapes", DeclaresAnother),
    ("support", Outside),
    ("seed", Numpys),
    ("tensors", PlainTensor),
    ("tensors", InAList),
    ("dtype", Single),
    ("deepcopy", SharesItself),
    ("deepcopy", Locked),
    ("state_dict", NotSaved),
    ("gradients", Detached),
    ("normalised", Off),
    ("draws", Wider),
    ("draws", lambda: forgetful(2, 1)),
    ("draws", lambda: forgetful(2, 2)),
    ("draws", lambda: forgetful(2, 5)),
]


def test_a_sound_prior_passes_and_is_left_as_found():
    prior = Prior().eval()
    before = {n: v.clone() for n, v in prior.state_dict().items()}
    state = torch.get_rng_state()
    assert check_prior(prior)[-4:] == ("gradients", "normalised", "draws", "moments")
    assert all(torch.equal(v, before[n]) for n, v in prior.state_dict().items())
    assert torch.equal(state, torch.get_rng_state()) and not prior.training
    assert prior.loc.grad is None


@pytest.mark.parametrize(("law", "build"), BROKEN)
def test_a_broken_prior_is_refused_by_the_law_it_breaks(law, build):
    refused(check_prior, build(), law)


class Scaled(MixtureOfNormals):
    """Its exp(log_prob) sums to `total`."""

    total = 1.0

    def log_prob(self, value):
        return super().log_prob(value) + math.log(self.total)

    def expand(self, batch_shape, _instance=None):
        d = Scaled(self.log_weights, self.loc, self.scale, Size(batch_shape))
        d.total = self.total
        return d


class Constant(GaussianMixture):
    """One Normal that lacks a constant."""

    def __init__(self, features, total):
        super().__init__(torch.zeros(1, features), 1.0)
        self.total = total

    def forward(self):
        d = super().forward()
        d = Scaled(d.log_weights, d.loc, d.scale)
        d.total = self.total
        return d


@pytest.mark.parametrize("total", [1e-3, 0.7, 1.3, 5.0, 10.0, 1e3])
@pytest.mark.parametrize("features", [1, 2, 3, 5, 10])
def test_a_missing_constant_is_seen_however_large(features, total):
    refused(check_prior, Constant(features, total), "normalised")


def test_a_full_covariance_without_its_constant_is_refused():
    class Kernel(dist.MultivariateNormal):
        def log_prob(self, value):  # without (2π)^(-D/2)
            return super().log_prob(value) + 1.5 * math.log(2 * math.pi)

    refused(check_family, replace(MultivariateNormal(3), distribution=Kernel), "normalised")


@pytest.mark.parametrize("features", [50, 100])
def test_what_too_few_points_cannot_decide_is_said_aloud(features):
    with pytest.warns(UserWarning, match=r"'normalised', 'draws' .* not decided. Got .*Try fewer"):
        laws = check_prior(Constant(features, 1.0))
    assert laws[-1] == "dtype"
    with pytest.warns(UserWarning, match="not decided"):  # nor is a missing constant
        check_prior(Constant(features, 0.1))


class SampleOnly(dist.TorchDistribution):
    arg_constraints = {}
    support = constraints.real_vector

    def __init__(self, net, batch_shape=Size()):  # noqa: B008
        self.net = net
        super().__init__(batch_shape, Size([2]), validate_args=False)

    def expand(self, batch_shape, _instance=None):
        return SampleOnly(self.net, Size(batch_shape))

    def sample(self, sample_shape=Size()):  # noqa: B008
        with torch.no_grad():
            noise = torch.randn(Size(sample_shape) + self.batch_shape + Size([2]))
            return self.net(noise.to(self.net.weight))

    def log_prob(self, value):
        raise NotImplementedError


class Implicit(nn.Module):
    def __init__(self):
        super().__init__()
        self.event_shape = Size([2])
        self.net = nn.Linear(2, 2)

    def forward(self):
        return SampleOnly(self.net)


def test_a_prior_that_can_only_be_sampled_is_excused_from_what_needs_a_density():
    laws = check_prior(Implicit())
    assert laws == (
        *("alone", "shapes", "support", "seed", "tensors", "deepcopy", "state_dict", "dtype"),
    )


@pytest.mark.parametrize(
    "build",
    [
        lambda a: dist.Uniform(a.new_zeros(2) - softplus(a), a.new_ones(2)).to_event(1),
        lambda a: dist.Dirichlet(3 * softplus(a) * a.new_ones(3)),
        lambda a: dist.Categorical(logits=torch.stack([a, a.detach(), a.detach()])),
        lambda a: dist.StudentT(3 + a, a.new_zeros(3)).to_event(1),
        lambda a: dist.Gumbel(a, a.new_ones(2)).to_event(1),
        lambda a: dist.Cauchy(a, a.new_ones(2)).to_event(1),
    ],
    ids=["uniform", "dirichlet", "categorical", "student", "gumbel", "cauchy"],
)
def test_sound_priors_of_other_shapes_pass(build):
    class Learned(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Parameter(torch.zeros(()))
            self.event_shape = build(self.a).event_shape

        def forward(self):
            return build(self.a)

    assert {"gradients", "normalised", "draws"} <= set(check_prior(Learned()))


@pytest.mark.parametrize("shift", [0.0, -7.0])
def test_right_draws_are_not_refused(shift):
    # They break "draws" once in 3e5 seeds at most, rare events (one in 1e3) included.
    rare = family(
        lambda logits: dist.Bernoulli(logits=logits + shift),
        "logits",
        support=constraints.boolean,
        measure="mass",
    )
    for seed in range(8):
        check_family(rare, seed=seed)


def test_nodes_integrate_what_is_known():
    # Ten times the observed error at these sizes: lattices are exact to rounding, and the tail of
    # a Cauchy beyond the lattice's 1e5 scales holds 1e-5 of it.
    for d, tolerance in (
        (dist.Normal(torch.tensor([0.0, 5.0]).double(), 1.0), 1e-12),
        (dist.Cauchy(torch.zeros(1).double(), 1.0), 1e-4),
        (dist.MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double() + 1), 1e-12),
    ):
        found = nodes(d, d.sample((1000,)))
        total, error = found.mean(torch.ones_like(found.weight))
        assert (total - 1).abs().max() < tolerance + error.max() and error.max() < 1e-3


@pytest.mark.parametrize(
    "d",
    [
        dist.Normal(torch.zeros(3).double(), 1.0),
        dist.MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double()),
        dist.MultivariateNormal(torch.zeros(3).double(), torch.eye(3).double()),
        dist.Bernoulli(torch.full((3,), 0.5).double()),
        dist.Poisson(torch.ones(3).double()),
    ],
    ids=["line", "plane", "space", "listed", "counts"],
)
def test_nodes_are_where_the_distribution_is(d):
    draws = d.sample((1000,))
    # Whatever is made without a device is made on another one, and cannot be used with d.
    with torch.device("meta"):
        found = nodes(d, draws)
        total, error = found.mean(found.weight.new_ones(found.weight.shape))
    assert (total - 1).abs().max() <= EDGE + error.max()


# ---------------------------------------------------------------------------------- programs

CELLS, LATENT = 5, 2


def data(rows: int = 12) -> torch.Tensor:
    return torch.bernoulli(torch.full((rows, CELLS), 0.5))


def build(prior=None, likelihood=None, guide=None, net=None, part=None):
    net = net or MLP(8)
    return (part or VAE)(
        prior or StandardNormal(LATENT),
        Conditional(net, likelihood or Bernoulli(CELLS), given=LATENT),
        Conditional(net, guide or Normal(LATENT), given=CELLS),
    )


def normed(in_features, out_features):
    return nn.Sequential(
        nn.Linear(in_features, 8),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(8, out_features),
    )


class ZeroStart(nn.Sequential):
    """A last layer that starts at zero: the layers before it move from the second step only."""

    def __init__(self, in_features, out_features):
        last = nn.Linear(8, out_features)
        nn.init.zeros_(last.weight)
        super().__init__(nn.Linear(in_features, 8), nn.ReLU(), last)


ALL = (
    "latents",
    "registered",
    "moves",
    "modes",
    "log weights",
    "seed",
    "random state",
    "rows",
    "predictive",
    "one row",
    "deepcopy",
    "state_dict",
)
PROGRAMS = {
    "vae": (lambda: build(), {}),
    "batch norm": (lambda: build(net=normed), {}),
    "zero start": (lambda: build(net=ZeroStart), {}),
    "full covariance": (
        lambda: build(guide=MultivariateNormal(2), likelihood=Normal(CELLS, scale=PerFeature())),
        {},
    ),
    "mixture": (lambda: build(prior=GaussianMixture(torch.eye(2), learned=True)), {}),
    "adversary": (lambda: build(), {"objective": Adversarial()}),
    "frozen prior": (
        lambda: build(prior=GaussianMixture(torch.eye(2), learned=True)),
        {"objective": Adversarial()},
    ),
    "point guide": (lambda: build(guide=Delta(2)), {"objective": Adversarial()}),
    "implicit prior": (lambda: build(prior=Implicit()), {"objective": Adversarial()}),
    "pyro's bound": (lambda: build(), {"objective": pyro.infer.TraceMeanField_ELBO()}),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_sound_programs_pass(name):
    make, options = PROGRAMS[name]
    if name == "implicit prior":  # nothing trains its net: it has to be declared fixed
        refused(check_program, make(), "moves", data(), **options)
    program = make()
    if name == "implicit prior":
        program.prior.requires_grad_(False)
    assert check_program(program, data(), **options) == ALL


def test_foreign_programs_pass():
    world = LinearGaussian.random(2, CELLS, seed=0)
    x, _ = world.sample(6, seed=1)
    laws = check_program(Program(world.model, world.guide), x)
    untrained = [n for n in ALL if n not in ("moves", "deepcopy")]
    assert list(laws) == untrained

    def model(x):
        rate = pyro.param("rate", torch.tensor(1.0), constraint=constraints.positive)
        with pyro.plate("cells", x.shape[1], dim=-1), pyro.plate("rows", len(x), dim=-2):
            z = pyro.sample("latent", dist.Gamma(2.0, rate))
            pyro.sample("obs", dist.Normal(z, 0.5), obs=x)

    def guide(x):
        loc = pyro.param("loc", torch.tensor(0.0))
        with pyro.plate("cells", x.shape[1], dim=-1), pyro.plate("rows", len(x), dim=-2):
            pyro.sample("latent", dist.LogNormal(loc + 0.1 * x, 1.0))

    assert list(check_program(Program(model, guide), x)) == [n for n in ALL if n != "deepcopy"]


def subsampling_model(x):
    with pyro.plate("data", len(x), subsample_size=5) as rows:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x[rows])


def subsampling_guide(x):
    slope = pyro.param("slope", torch.tensor(0.3))
    with pyro.plate("data", len(x), subsample_size=5) as rows:
        pyro.sample("z", dist.Normal(slope * x[rows], 1.0))


def labelled_model(x):
    share = pyro.param("share", torch.tensor([0.3, 0.7]), constraint=constraints.simplex)
    loc = pyro.param("loc", torch.tensor([-1.0, 1.0]))
    with pyro.plate("data", len(x)):
        y = pyro.sample("y", dist.Categorical(share), infer={"enumerate": "parallel"})
        pyro.sample("x", dist.Normal(loc[y], 1.0), obs=x)


def empty_guide(x):
    pass


def labelled_guide(x):
    slope = pyro.param("slope", torch.zeros(2))
    with pyro.plate("data", len(x)):
        logits = x.unsqueeze(-1) * slope
        pyro.sample("y", dist.Categorical(logits=logits), infer={"enumerate": "parallel"})


def shared_model(x):
    centre = pyro.sample("centre", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(centre, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def shared_guide(x):
    centre = pyro.sample("centre", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0))
    slope = pyro.param("slope", torch.tensor(0.1))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(slope * x + centre, 1.0))


FOREIGN = [
    (subsampling_model, subsampling_guide, ["log weights", *ALL[5:10]]),
    (labelled_model, empty_guide, list(ALL[5:10])),
    (labelled_model, labelled_guide, []),
    (shared_model, shared_guide, ["rows"]),  # and its log weights are refused, as they should be
]


@pytest.mark.parametrize(("model", "guide", "excused"), FOREIGN)
def test_what_a_program_has_not_is_not_asked_of_it(model, guide, excused):
    sums = model is labelled_model
    objective = pyro.infer.TraceEnum_ELBO(max_plate_nesting=1) if sums else ELBO()
    laws = check_program(Program(model, guide), torch.randn(12), objective=objective)
    assert list(laws) == [n for n in ALL if n not in (*excused, "deepcopy")]


def test_a_program_is_left_as_found():
    vae = build(net=normed)
    vae.decoder.eval()
    x = data()
    pyro.param("other", torch.tensor(3.0))
    before = {n: v.clone() for n, v in vae.state_dict().items()}
    modes = [m.training for m in vae.modules()]
    state = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    check_program(vae, x, seed=3)
    assert torch.equal(state[0], torch.get_rng_state())
    assert state[1:] == (random.getstate(), np.random.get_state()[1].tolist())
    assert all(torch.equal(v, before[n]) for n, v in vae.state_dict().items())
    assert modes == [m.training for m in vae.modules()]
    assert list(pyro.get_param_store().keys()) == ["other"]


class Own(VAE):
    """A sound program of the user's own making, from the parts of a VAE."""

    def model(self, x):
        register(self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.prior())
            return pyro.sample("x", self.likelihood(z), obs=x)

    def likelihood(self, z):
        return self.decoder(z)


class RegistersNothing(Own):
    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.prior())
            return pyro.sample("x", self.decoder(z), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            return pyro.sample("z", self.encoder(x))


class RegistersHalf(RegistersNothing):
    def model(self, x):
        pyro.module(f"decoder {id(self)}", self.decoder)
        return super().model(x)


class FixedName(RegistersNothing):
    """The classic: the copy trains the first program's nets."""

    def model(self, x):
        pyro.module("vae", self)
        return super().model(x)


class IdlePart(Own):
    def __init__(self, *parts):
        super().__init__(*parts)
        self.idle = nn.Linear(2, 2)


class MeanCode(Own):
    def likelihood(self, z):
        return self.decoder(z - z.mean(0))


class Neighbour(Own):
    def likelihood(self, z):
        return self.decoder(z + 0.1 * z.roll(1, 0))


class Running(Own):
    """Only later rows see earlier ones."""

    def likelihood(self, z):
        return self.decoder(z.cumsum(0))


class CentredGuide(Own):
    def guide(self, x):
        return super().guide(x - x.mean(0))


class OtherName(Own):
    def guide(self, x):
        register(self)
        with pyro.plate("data", len(x)):
            return pyro.sample("code", self.encoder(x))


class Unobserved(Own):
    def model(self, x):
        register(self)
        with pyro.plate("data", len(x)):
            return pyro.sample("z", self.prior())


class Overflows(Own):
    """Sound in train mode only."""

    def likelihood(self, z):
        d = self.decoder(z)
        if self.training:
            return d
        return dist.Normal(d.mean * 1e38, 1e-3).to_event(1)


class FixedPlate(Own):
    def model(self, x):
        register(self)
        with pyro.plate("data", 12):
            z = pyro.sample("z", self.prior())
            return pyro.sample("x", self.decoder(z), obs=x)


class Squeezes(Own):
    def likelihood(self, z):
        rows, features = z.squeeze().shape  # of one row, a single dim is left
        return self.decoder(z.reshape(rows, features))


class Broadcasts(Own):
    """A likelihood of one cell, which torch lets broadcast over the five of a datum."""

    def likelihood(self, z):
        return dist.Normal(self.decoder(z).mean.mean(-1, keepdim=True), 1.0).to_event(1)


class NotFinite(Own):
    def likelihood(self, z):
        return self.decoder(z * torch.nan if self.training else z)


class HoldsAGenerator(Own):
    def __init__(self, *parts):
        super().__init__(*parts)
        self.stream = (k for k in range(3))


class NumpyNoise(Own):
    def likelihood(self, z):
        return self.decoder(z + 0.1 * float(np.random.standard_normal()))


class Counts(Own):
    """State kept between calls: the second call differs from the first."""

    calls = 0

    def likelihood(self, z):
        self.calls += 1
        return self.decoder(z + 1e-2 * self.calls)


class TouchesRandom(Own):
    def likelihood(self, z):
        random.random()
        return self.decoder(z)


class SwitchesMode(Own):
    def likelihood(self, z):
        self.decoder.train()
        return self.decoder(z)


class SharesOnCopy(Own):
    def __deepcopy__(self, memo):
        return self


class HoldsALambda(Own):
    def get_extra_state(self):
        return lambda: None

    def set_extra_state(self, state):
        pass


def unlearned_norm(in_features, out_features):
    return nn.Sequential(
        nn.BatchNorm1d(in_features, track_running_stats=False), nn.Linear(in_features, out_features)
    )


WRONG = [
    ("latents", OtherName),
    ("latents", Unobserved),
    ("registered", RegistersNothing),
    ("registered", RegistersHalf),
    ("moves", IdlePart),
    ("moves", NotFinite),
    ("log weights", Overflows),
    ("predictive", FixedPlate),
    ("predictive", Broadcasts),
    ("one row", Squeezes),
    ("seed", NumpyNoise),
    ("seed", Counts),
    ("random state", TouchesRandom),
    ("modes", SwitchesMode),
    ("rows", MeanCode),
    ("rows", Neighbour),
    ("rows", Running),
    ("rows", CentredGuide),
    ("deepcopy", FixedName),
    ("deepcopy", SharesOnCopy),
    ("deepcopy", HoldsAGenerator),
    ("state_dict", HoldsALambda),
]


def test_the_program_that_the_faults_are_put_into_is_sound():
    assert check_program(build(part=Own), data()) == ALL


@pytest.mark.parametrize(("law", "part"), WRONG)
def test_a_broken_program_is_refused_by_the_law_it_breaks(law, part):
    refused(check_program, build(part=part), law, data())


def test_a_norm_without_an_eval_mode_leaks():
    message = refused(check_program, build(net=unlearned_norm), "rows", data())
    assert "changing with the other rows" in message


@pytest.mark.parametrize("net", [unlearned_norm, normed])
def test_a_point_guide_that_leaks_is_seen_too(net):
    vae = build(guide=Delta(LATENT))
    vae.encoder = Conditional(net, Delta(LATENT), given=CELLS)
    if net is normed:
        assert check_program(vae, data(), objective=Adversarial()) == ALL
    else:
        message = refused(check_program, vae, "rows", data(), objective=Adversarial())
        assert "the guide's 'z'" in message


@pytest.mark.parametrize("registered", [False, True])
def test_nets_in_closures_are_found_by_what_the_traces_depend_on(registered):
    decoder = Conditional(MLP(4), Bernoulli(CELLS), given=LATENT)
    encoder = Conditional(MLP(4), Normal(LATENT), given=CELLS)

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(LATENT), 1.0).to_event(1))
            pyro.sample("x", decoder(z), obs=x)

    def guide(x):
        if registered:
            pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", encoder(x))

    program = Program(model, guide)  # modules= is not given: no name is known
    if registered:
        assert "registered" in check_program(program, data())
    else:
        message = refused(check_program, program, "registered", data())
        assert "one of shape (4, 5)" in message  # the encoder's first weight


def test_a_batch_norm_that_nobody_switches_leaks():
    # Program does not know of the net, so it stays in train mode: modules= is the remedy.
    decoder = Conditional(normed, Bernoulli(CELLS), given=LATENT)

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(LATENT), 1.0).to_event(1))
            pyro.sample("x", decoder(z), obs=x)

    def guide(x):
        scale = pyro.param("scale", torch.ones(LATENT), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(LATENT), scale).to_event(1))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Program says so too
        program = Program(model, guide)
    with pytest.raises(ConformanceError):
        check_program(program, data())
    check_program(Program(model, guide, modules=[decoder]), data())


def test_one_row_of_data_cannot_show_a_leak():
    with pytest.raises(ValueError, match="Got one row"):
        check_program(build(), data(1))


class Itself(dist.Delta):
    """A point whose draw is the tensor that was given, no function of it."""

    def rsample(self, sample_shape=()):
        return self.v

    def expand(self, batch_shape, _instance=None):
        return self


def test_a_draw_that_is_itself_a_parameter_is_missed_too():
    prior, codes = Implicit(), torch.zeros(12, LATENT, requires_grad=True)

    def model(x):
        pyro.module("prior", prior)
        with pyro.plate("data", len(x)):
            pyro.sample("z", prior())
            pyro.sample("x", dist.Normal(pyro.param("m", torch.tensor(0.0)), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", Itself(codes, event_dim=1))

    program, objective = Program(model, guide), Adversarial(critic=MLP(4))
    refused(check_program, program, "registered", torch.randn(12), objective=objective)
