"""What can only be sampled: legal under an adversary, refused wherever a density is asked for."""

import copy

import numpy as np
import pytest
import torch

from ppl_vae import (
    ELBO,
    MLP,
    VAE,
    Adversarial,
    Conditional,
    Implicit,
    NoDensityError,
    Normal,
    SampledPrior,
    StandardNormal,
    UniformBox,
    fit,
    log_evidence,
)
from ppl_vae.data import swiss_roll
from ppl_vae.testing import check_prior, check_program

ALWAYS = ["alone", "shapes", "support", "seed", "tensors", "deepcopy", "state_dict", "dtype"]


def rolled() -> VAE:
    return VAE(
        SampledPrior(swiss_roll, 2),
        Conditional(MLP(8), Normal(4, scale=0.5), given=2),
        Conditional(MLP(8), Normal(2), given=4),
    )


def implicit(prior=None) -> VAE:
    return VAE(
        prior or StandardNormal(2),
        Conditional(MLP(8), Normal(4, scale=0.5), given=2),
        Implicit(MLP(8), 2, given=4, noise=3),
    )


BUILDS = {"prior": rolled, "guide": implicit, "guide in a box": lambda: implicit(UniformBox(2))}


@pytest.mark.parametrize("name", BUILDS)
def test_it_trains_under_an_adversary(name) -> None:
    vae, x = BUILDS[name](), torch.randn(64, 4)
    before = copy.deepcopy(vae.state_dict())
    found = fit(vae, x, objective=Adversarial(critic=MLP(8)), epochs=1, seed=0, progress=False)
    assert np.isfinite(found.history["loss"]).all()
    moved = {k for k, v in vae.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == {k for k in before if not k.startswith("prior")}
    check_program(vae, x, objective=Adversarial(critic=MLP(8)))


@pytest.mark.parametrize("name", BUILDS)
def test_what_needs_a_density_is_refused(name) -> None:
    vae, x = BUILDS[name](), torch.randn(64, 4)
    with pytest.raises(ValueError, match="can only be sampled.*Adversarial"):
        fit(vae, x, objective=ELBO(), epochs=1, progress=False)
    with pytest.raises(NoDensityError, match="can only be sampled"):
        log_evidence(vae, x, 50)
    part = vae.prior() if name == "prior" else vae.encoder(x)
    with pytest.raises(NotImplementedError, match="has none.*Try objective=Adversarial"):
        part.log_prob(torch.zeros(64, 2))


# -------------------------------------------------------------------------------------- the prior


def test_the_kit() -> None:
    assert list(check_prior(SampledPrior(swiss_roll, 2))) == ALWAYS
    assert list(check_prior(SampledPrior(lambda n: torch.randn(n, 2, 3), (2, 3)))) == ALWAYS
    assert list(check_prior(SampledPrior(torch.rand, ()))) == ALWAYS


def test_draws_are_the_samplers_in_the_dtype_of_the_module() -> None:
    torch.manual_seed(1)
    expected = swiss_roll(12)
    torch.manual_seed(1)
    drawn = SampledPrior(swiss_roll, 2)().expand((4,)).sample((3,))
    assert torch.equal(drawn.reshape(12, 2), expected)
    assert SampledPrior(swiss_roll, 2).double()().sample((3,)).dtype == torch.float64
    assert not SampledPrior(swiss_roll, 2).state_dict()


def test_the_roll_is_a_spiral_and_even_along_it() -> None:
    z = swiss_roll(4000)
    radius = z.norm(dim=1)
    angle = (4 * torch.pi * radius / 3) % (2 * torch.pi)
    # float32: 1e-7 of an angle of 12, at a radius of 3.
    on_curve = radius[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
    assert torch.allclose(on_curve, z, atol=1e-4)
    # The square of the radius is uniform on [0, 9]: its mean is off by 4.5 SE once in 1.5e5.
    assert abs(radius.square().mean() - 4.5) < 4.5 * 9 / (12 * 4000) ** 0.5


def test_a_module_may_be_the_sampler() -> None:
    class Generator(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Linear(3, 2)

        def forward(self, n: int) -> torch.Tensor:
            return self.net(torch.randn(n, 3, dtype=self.net.weight.dtype))

    prior = SampledPrior(Generator(), 2)
    assert list(check_prior(prior)) == ALWAYS and len(list(prior.parameters())) == 2


@pytest.mark.parametrize(
    ("sampler", "says"),
    [
        ("roll", "a str as sampler"),
        (lambda n: torch.rand(n, 3), r"Got \(3, 3\) from the sampler.*expected a tensor of shape"),
        (lambda n: torch.rand(5, 2), r"Got \(5, 2\) from the sampler"),
        (lambda n: np.zeros((n, 2)), "Got ndarray from the sampler"),
        (lambda n: torch.full((n, 2), torch.nan), "not all finite"),
        (lambda n: torch.from_numpy(np.random.rand(n, 2)), "at one seed differ.*torch.rand"),
    ],
)
def test_a_sampler_that_is_none_is_refused(sampler, says) -> None:
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match=says) as caught:
        SampledPrior(sampler, 2)
    assert "expected" in str(caught.value) and "Try" in str(caught.value)
    assert torch.equal(torch.get_rng_state(), before)


# -------------------------------------------------------------------------------------- the guide


@pytest.mark.parametrize("batch", [(), (5,), (3, 5)])
def test_an_implicit_guide_has_the_shapes_of_a_conditional(batch) -> None:
    guide = Implicit(MLP(8), (2, 3), given={"x": (4, 4), "mask": (4, 4)}, noise=3)
    assert guide.inputs == ("x", "mask") and guide.given == [torch.Size([4, 4])] * 2
    d = guide(torch.randn(*batch, 4, 4), torch.ones(4, 4))
    assert (d.batch_shape, d.event_shape, d.has_rsample) == (batch, (2, 3), True)
    assert d.rsample((7,)).shape == (7, *batch, 2, 3)
    assert d.expand((6, *batch)).rsample().shape == (6, *batch, 2, 3)


def test_its_noise_is_standard_normal_and_fresh_for_each_draw() -> None:
    guide = Implicit(MLP(), 2, given=3, noise=2)
    with torch.no_grad():  # z = x_1 + ε, in both coordinates
        guide.point.net[0].weight.copy_(torch.tensor([[1.0, 0, 0, 1, 0], [1.0, 0, 0, 0, 1]]))
        guide.point.net[0].bias.zero_()
    x = torch.tensor([[5.0, 0, 0], [-5.0, 0, 0]])
    z = guide(x).sample((20_000,)) - x[:, :1]
    # 4 numbers, each mean N(0, 1/20000), each variance N(1, 2/20000): 4.5 sd, once in 1.5e5.
    assert z.mean(0).abs().max() < 4.5 / 20_000**0.5
    assert (z.var(0) - 1).abs().max() < 4.5 * (2 / 20_000) ** 0.5
    assert (z.reshape(-1, 4).T.corrcoef() - torch.eye(4)).abs().max() < 4.5 / 20_000**0.5
    z = guide(x).rsample()
    z.sum().backward()
    assert all(p.grad is not None for p in guide.parameters())


def test_contexts_that_do_not_fit_are_refused_at_once() -> None:
    guide = Implicit(MLP(4), 2, given=3, noise=2)
    with pytest.raises(ValueError, match=r"shape \(5, 4\); expected \(\*batch, 3\)"):
        guide(torch.zeros(5, 4))
    for noise in (0, True, 2.0):
        with pytest.raises(ValueError, match="noise=.*expected a positive integer"):
            Implicit(MLP(4), 2, given=3, noise=noise)
