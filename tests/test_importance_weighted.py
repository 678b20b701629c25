"""The importance-weighted bound: exact where the guide is, the ELBO at K = 1, tighter with K."""

import math

import pyro
import pytest
import torch

from ppl_vae import (
    ELBO,
    MLP,
    VAE,
    Bernoulli,
    Conditional,
    Delta,
    ImportanceWeighted,
    Normal,
    Program,
    StandardNormal,
    fit,
    log_weights,
)
from ppl_vae.data import LinearGaussian
from ppl_vae.programs.inputs import program_batch

X = (torch.rand(20, 6, generator=torch.Generator().manual_seed(0)) > 0.5).float()


def a_vae(guide=None):
    torch.manual_seed(0)
    decoder = Conditional(MLP(8), Bernoulli(6), given=2)
    return VAE(StandardNormal(2), decoder, Conditional(MLP(8), guide or Normal(2), given=6))


def loss_of(objective, program, x, seed=0):
    batch = program_batch(program, x)
    state = objective.init(program, batch)
    (phase,) = objective.phases(program, state)
    torch.manual_seed(seed)
    return phase.loss(state, *batch.args, **batch.kwargs)


def test_with_the_exact_posterior_the_bound_is_log_p() -> None:
    world = LinearGaussian.random(3, 5, seed=0)
    x, _ = world.sample(20, seed=1)
    loss, parts = loss_of(ImportanceWeighted(4), Program(world.model, world.guide), x)
    exact = world.log_evidence(x).sum()
    torch.testing.assert_close(-loss, exact, rtol=0.0, atol=1e-9)
    torch.testing.assert_close(parts["elbo"], exact, rtol=0.0, atol=1e-9)


def test_one_draw_is_the_elbo() -> None:
    bound, parts = loss_of(ImportanceWeighted(1), a_vae(), X)
    elbo, others = loss_of(ELBO(), a_vae(), X)
    torch.testing.assert_close(bound.double(), elbo.double(), rtol=1e-6, atol=0.0)
    for name in ("elbo", "reconstruction", "kl"):
        torch.testing.assert_close(parts[name], others[name], rtol=1e-5, atol=1e-5)


def test_a_vae_and_its_functions_give_the_same_bound() -> None:
    """Draws side by side in one, rows repeated in the other: equal means within 4.5 SE."""
    vae = a_vae()
    plain = Program(vae.model, vae.guide, modules=[vae])
    means = []
    for program in (vae, plain):
        losses = torch.stack(
            [loss_of(ImportanceWeighted(5), program, X, seed=k)[0].detach() for k in range(100)]
        )
        means.append((losses.mean(), losses.var() / 100))
    (a, u), (b, v) = means
    assert abs(a - b) < 4.5 * (u + v).sqrt()


def test_the_bound_is_that_of_the_log_weights_and_grows_with_k() -> None:
    vae = a_vae()
    weights = log_weights(vae, X, 30_000, seed=0)
    bounds = []
    for count in (1, 5, 50):
        blocks = weights.reshape(-1, count, len(X)).logsumexp(1) - math.log(count)
        losses = torch.stack(
            [-loss_of(ImportanceWeighted(count), vae, X, seed=k)[0].detach() for k in range(60)]
        )
        se = (losses.var() / 60 + blocks.sum(1).var() / len(blocks)).sqrt()
        assert abs(losses.mean() - blocks.sum(1).mean()) < 4.5 * se
        bounds.append(blocks.mean().item())
    assert bounds == sorted(bounds)


def test_gradients_are_those_of_the_bound_by_hand() -> None:
    vae = a_vae()
    loss, _ = loss_of(ImportanceWeighted(3), vae, X)
    found = torch.autograd.grad(loss, list(vae.parameters()))
    torch.manual_seed(0)
    q = vae.encoder(X)
    z = q.rsample((3,))
    log_w = vae.prior().log_prob(z) + vae.decoder(z).log_prob(X) - q.log_prob(z)
    by_hand = -(log_w.logsumexp(0) - math.log(3)).sum()
    torch.testing.assert_close(loss, by_hand)
    for a, b in zip(found, torch.autograd.grad(by_hand, list(vae.parameters())), strict=True):
        torch.testing.assert_close(a, b)


def test_it_trains_and_logs_bound_and_elbo() -> None:
    history, _ = fit(
        a_vae(),
        X,
        objective=ImportanceWeighted(5),
        epochs=3,
        validation=0.2,
        patience=2,
        seed=0,
        progress=False,
    )
    assert {"bound", "elbo", "reconstruction", "kl", "validation_bound"} <= set(history.columns)
    assert (history["bound"] >= history["elbo"]).all()


def test_programs_without_weights_or_gradients_are_refused() -> None:
    with pytest.raises(ValueError, match="without log weights to train on.*point.*ELBO"):
        fit(a_vae(Delta(2)), X, objective=ImportanceWeighted(5), epochs=1, progress=False)

    def model(x):
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", pyro.distributions.Poisson(2.0))
            pyro.sample("x", pyro.distributions.Normal(z, 1.0), obs=x)

    def guide(x):
        rate = pyro.param(
            "rate", torch.tensor(2.0), constraint=pyro.distributions.constraints.positive
        )
        with pyro.plate("rows", len(x)):
            pyro.sample("z", pyro.distributions.Poisson(rate))

    with pytest.raises(ValueError, match=r"draws at \['z'\] carry no gradient"):
        fit(
            Program(model, guide),
            X[:, 0],
            objective=ImportanceWeighted(5),
            epochs=1,
            progress=False,
        )


@pytest.mark.parametrize("count", [0, -1, 2.5, True])
def test_draws_are_counted(count) -> None:
    with pytest.raises(ValueError, match="expected a positive integer"):
        ImportanceWeighted(count)
