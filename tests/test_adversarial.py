"""The adversarial objective: what each phase may touch, and whether it does what it is for."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import nn

from ppl_vae import (
    MLP,
    VAE,
    Adversarial,
    Conditional,
    Delta,
    GaussianMixture,
    Normal,
    Program,
    StandardNormal,
    fit,
    posterior_predictive,
)
from ppl_vae.data import Batch
from ppl_vae.diagnostics import classifier_two_sample, mmd2
from ppl_vae.training.step import TrainState, train_step
from ppl_vae.training.updater import Updater

ADAM = (torch.optim.Adam, {"lr": 1e-2})


def normed(inputs, outputs):
    return nn.Sequential(nn.Linear(inputs, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, outputs))


def spectral(inputs, outputs):
    layer = nn.utils.parametrizations.spectral_norm(nn.Linear(inputs, 8))
    return nn.Sequential(layer, nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, outputs))


def program(prior=None):
    return VAE(
        prior or StandardNormal(2),
        Conditional(normed, Normal(4, scale=0.5), given=2),
        Conditional(normed, Normal(2), given=4),
    )


def copies(module):
    return {k: v.clone() for k, v in module.state_dict().items()}


def changed(before, module):
    return {k for k, v in module.state_dict().items() if not torch.equal(before[k], v)}


@pytest.mark.parametrize("critic", [normed, spectral], ids=["batchnorm", "spectral"])
def test_each_phase_moves_its_own_side_only(critic):
    vae, x = program(), torch.randn(64, 4)
    vae.train()
    objective = Adversarial(critic=critic)
    state = objective.init(vae, Batch((x,), {}))
    state.train()
    generator, discriminator = objective.phases(vae, state)

    def step(phase):
        train = TrainState(vae, state, (phase,), {phase.name: Updater(ADAM)}, None)
        train_step(train, Batch((x,), {}))

    for _ in range(2):  # the second step has moments behind it
        sides = copies(vae), copies(state.critics[0].net)
        step(generator)
        assert not changed(sides[1], state.critics[0].net)
        moved = changed(sides[0], vae)
        assert {k for k in sides[0] if not k.startswith("prior")} == moved
        sides = copies(vae), copies(state.critics[0].net)
        step(discriminator)
        assert not changed(sides[0], vae)
        assert changed(sides[1], state.critics[0].net) == set(sides[1]) - {
            k
            for k in sides[1]
            if k.endswith(("_u", "_v")) and k not in changed(sides[1], state.critics[0].net)
        }


def test_the_generators_loss_gives_the_critic_no_gradient():
    # Under SVI both losses share one backward: the critic would be trained to be fooled.
    vae, x = program(), torch.randn(64, 4)
    objective = Adversarial(critic=normed)
    state = objective.init(vae, Batch((x,), {}))
    generator, discriminator = objective.phases(vae, state)
    generator.loss(state, x)[0].backward()
    assert all(p.grad is None for p in state.critics[0].net.parameters())
    assert all(p.grad is not None for p in vae.parameters())
    vae.zero_grad(set_to_none=True)
    discriminator.loss(state, x)[0].backward()
    assert all(p.grad is None for p in vae.parameters())


def test_in_fit_the_prior_stays_and_the_rest_moves():
    vae = program(GaussianMixture(torch.randn(3, 2), learned=True))
    before = copies(vae)
    with pytest.warns(UserWarning, match="prior"):
        fit(vae, torch.randn(64, 4), objective=Adversarial(critic=normed), epochs=2, progress=False)
    assert {k for k in before if not k.startswith("prior")} == changed(before, vae)


class Seen(nn.Module):
    """A critic that keeps what it is shown."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.batches = []

    def forward(self, z):
        self.batches.append(z.detach().clone())
        return self.linear(z)


def real_batch(vae, seed):
    x = torch.zeros(500, 4)
    objective = Adversarial(critic=Seen)
    state = objective.init(vae, Batch((x,), {}))
    _, discriminator = objective.phases(vae, state)
    torch.manual_seed(seed)
    discriminator.loss(state, x)
    return state.critics[0].net.batches[-2]


def test_shifting_the_prior_shifts_the_critics_real_batch():
    vae = program()
    here = real_batch(vae, 0)
    vae.prior = StandardNormal(2, loc=3.0)
    there = real_batch(vae, 0)
    assert torch.allclose(there - here, torch.tensor(3.0), atol=1e-5)
    vae.prior = GaussianMixture(torch.tensor([[-9.0, 0.0], [9.0, 0.0]]), scale=0.1)
    modes = real_batch(vae, 0)
    assert (modes[:, 0].abs() - 9).abs().max() < 1 and 0.4 < (modes[:, 0] > 0).float().mean() < 0.6


def test_real_codes_of_two_latents_are_drawn_jointly():
    def model(x):
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(torch.tensor(0.0), 3.0))
            z1 = pyro.sample("z1", dist.Normal(z2, 0.1))
            pyro.sample("x", dist.Normal(z1, 1.0), obs=x)

    def guide(x):
        a = pyro.param("a", torch.tensor(1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z2", dist.Normal(a * x + 50, 1.0))
            pyro.sample("z1", dist.Normal(a * x - 50, 1.0))

    x = torch.randn(2000)
    both = Program(model, guide)
    objective = Adversarial(critic=Seen)
    state = objective.init(both, Batch((x,), {}))
    _, discriminator = objective.phases(both, state)
    with poutine.block():
        discriminator.loss(state, x)
    real = state.critics[0].net.batches[-2]
    # z1 | z2 of the guide would centre on +50; the truth is 0 ± 3/sqrt(2000) and corr 0.9994.
    assert real.mean(0).abs().max() < 0.4
    assert np.corrcoef(real.T.numpy())[0, 1] > 0.99


def test_a_deterministic_encoder_is_allowed():
    vae = VAE(
        StandardNormal(2),
        Conditional(MLP(8), Normal(4, scale=0.5), given=2),
        Conditional(MLP(8), Delta(2), given=4),
    )
    history, _ = fit(vae, torch.randn(64, 4), objective=Adversarial(), epochs=2, progress=False)
    assert {"reconstruction", "adversarial", "critic_loss", "critic_accuracy"} <= set(
        history.columns
    )
    assert np.isfinite(history.to_pandas().to_numpy()).all()


def sheet(rows, seed):
    """A curved sheet in six dimensions: two coordinates with noise of 0.1."""
    noise = torch.Generator().manual_seed(seed)
    u = torch.randn(rows, 2, generator=noise)
    turn = torch.randn(2, 6, generator=torch.Generator().manual_seed(99))
    x = torch.cat([torch.sin(u @ turn[:, :3]), u @ turn[:, 3:]], -1)
    return x + 0.1 * torch.randn(rows, 6, generator=noise)


def trained_codes(objective, epochs):
    torch.manual_seed(0)
    vae = VAE(
        StandardNormal(2),
        Conditional(MLP(64, 64), Normal(6, scale=0.1), given=2),
        Conditional(MLP(64, 64), Normal(2), given=6),
    )
    rates = (torch.optim.lr_scheduler.CosineAnnealingLR, {"T_max": epochs})
    fit(
        vae,
        sheet(4000, 0),
        objective=objective,
        schedule=rates,
        epochs=epochs,
        batch_size=400,
        seed=0,
        progress=False,
    )
    return posterior_predictive(vae, sheet(2000, 1), 1, seed=0).latents["z"][0].double().numpy()


def test_the_critic_makes_held_out_codes_match_the_prior():
    prior = np.random.default_rng(0).normal(size=(2000, 2))
    control = np.random.default_rng(1).normal(size=(2000, 2)) + 0.2
    bandwidth = float(np.median(np.linalg.norm(prior[:1000] - prior[1000:], axis=1)))
    adversarial = trained_codes(Adversarial(critic=MLP(64, 64), weight=30.0), epochs=80)
    alone = trained_codes(Adversarial(weight=0.0), epochs=20)
    ratio = mmd2(alone, prior, bandwidth) / mmd2(adversarial, prior, bandwidth)
    found = classifier_two_sample(adversarial, prior, seed=0)
    refused = classifier_two_sample(control, prior, seed=0)
    print(f"MMD² ratio {ratio:.0f}; accuracy {found.accuracy:.3f}, control {refused.accuracy:.3f}")
    assert ratio > 10
    assert refused.p_value < 0.01
    # Of 2000 held-out draws the accuracy has an SE of 0.011; the midpoint is about 0.03 above 0.5.
    assert found.accuracy < (0.5 + refused.accuracy) / 2
