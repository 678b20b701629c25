"""Programs with covariates: each part is given what it names, and evidence is exact."""

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Size, nn

from ppl_vae import (
    ELBO,
    MLP,
    VAE,
    Adversarial,
    Conditional,
    Normal,
    StandardNormal,
    data_given,
    diagnose,
    fit,
    held_out_cells,
    impute,
    log_weights,
    posterior_predictive,
    prior_predictive,
    refit_guide,
    report,
    to_datatree,
)
from ppl_vae.programs.describe import describe
from ppl_vae.programs.inputs import program_batch

D, K, C, NOISE = 4, 2, 3, 0.5


def linear(rows: int, columns: int) -> torch.Tensor:
    return torch.randn(rows, columns, dtype=torch.float64)


class Prior(nn.Module):
    """z | c ~ N(A c, I)."""

    inputs = ("c",)
    event_shape = Size([K])

    def __init__(self, a):
        super().__init__()
        self.a = a

    def forward(self, c):
        return dist.Normal(c @ self.a.T, 1.0).to_event(1)


class Decoder(nn.Module):
    """x | z, c ~ N(W z + B c, NOISE²)."""

    inputs = ("c", "z")  # in an order of its own
    event_shape = Size([D])

    def __init__(self, w, b):
        super().__init__()
        self.w, self.b = w, b

    def forward(self, c, z):
        return dist.Normal(z @ self.w.T + c @ self.b.T, NOISE).to_event(1)


class Encoder(nn.Module):
    """The exact p(z | x, c)."""

    inputs = ("x", "c")
    event_shape = Size([K])

    def __init__(self, prior, decoder):
        super().__init__()
        self.a, self.w, self.b = prior.a, decoder.w, decoder.b

    def forward(self, x, c):
        precision = torch.eye(K, dtype=x.dtype) + self.w.T @ self.w / NOISE**2
        natural = c @ self.a.T + (x - c @ self.b.T) @ self.w / NOISE**2
        covariance = precision.inverse()
        return dist.MultivariateNormal(natural @ covariance, covariance)


@pytest.fixture
def world(float64):
    torch.manual_seed(0)
    prior = Prior(linear(K, C))
    decoder = Decoder(linear(D, K), linear(D, C))
    vae = VAE(prior, decoder, Encoder(prior, decoder))
    c = torch.randn(20, C)
    x = prior(c).sample() @ decoder.w.T + c @ decoder.b.T + NOISE * torch.randn(20, D)
    return vae, {"x": x, "c": c}


def test_evidence_is_exact_given_the_covariates(world):
    vae, data = world
    prior, decoder = vae.prior, vae.decoder
    mean = data["c"] @ (decoder.w @ prior.a + decoder.b).T
    covariance = decoder.w @ decoder.w.T + NOISE**2 * torch.eye(D)
    exact = dist.MultivariateNormal(mean, covariance).log_prob(data["x"])
    weights = log_weights(vae, data, 7, seed=0)
    assert (weights - exact).abs().max() < 1e-9


def test_draws_use_the_rows_of_their_covariates(world):
    vae, data = world
    draws = 2000
    drawn = prior_predictive(vae, 20 * draws, like=data, seed=0)
    z = drawn.latents["z"].reshape(draws, 20, K)
    expected = data["c"] @ vae.prior.a.T
    # 40 means of unit variance at six standard errors: false alarm 1e-7.
    assert (z.mean(0) - expected).abs().max() < 6 / draws**0.5
    at_zero = data_given(vae, torch.zeros(20, K), like=data, seed=0)
    assert torch.allclose(at_zero.means["x"], data["c"] @ vae.decoder.b.T)
    assert posterior_predictive(vae, data, 3, seed=0).data["x"].shape == (3, 20, D)


def program(seed: int = 0) -> VAE:
    torch.manual_seed(seed)
    return VAE(
        Conditional(MLP(8), Normal(K), given={"c": C}),
        Conditional(MLP(8), Normal(D), given={"z": K, "c": C}),
        Conditional(MLP(8), Normal(K), given={"x": D, "mask": D, "c": C}),
    )


def test_it_says_what_is_given(world):
    _, data = world
    vae = program()
    assert vae.covariates == {"c": Size([C])}
    lines, _ = describe(vae, program_batch(vae, data))
    assert [(w.role, w.given) for w in lines] == [
        ("prior", ("c",)),
        ("likelihood", ("z", "c")),
        ("guide", ("x", "c")),
    ]


@pytest.mark.filterwarnings("ignore:Got a prior with trainable parameters")
@pytest.mark.parametrize("objective", [ELBO(), Adversarial(critic=MLP(8))], ids=repr)
def test_it_trains(objective, world, tmp_path):
    _, data = world
    data["x"][0, 0] = torch.nan
    vae = program()
    before = [p.clone() for p in vae.parameters()]
    fit(vae, data, objective=objective, epochs=2, seed=0, progress=False)
    moved = [not torch.equal(a, b) for a, b in zip(before, vae.parameters(), strict=True)]
    learned = len(list(vae.prior.parameters()))
    assert all(moved[learned:])
    assert all(moved[:learned]) == isinstance(objective, ELBO)  # an adversary leaves priors alone
    found = diagnose(vae, data, num_samples=30, budget=0)
    report(tmp_path / "page.html", found)
    assert "posterior" in to_datatree(vae, data, num_samples=3, seed=0)


def test_a_refitted_guide_sees_them_too(world):
    vae, data = world
    fresh = refit_guide(vae, data, epochs=300, progress=False)
    gap = log_weights(vae, data, 1, seed=0)[0] - log_weights(fresh, data, 500, seed=0).mean(0)
    assert gap.mean() < 0.2  # without c it would be tens of nats


def test_cells_are_held_out_beside_covariates(world):
    _, data = world
    gappy = data | {"x": data["x"].where(torch.rand(20, D) < 0.7, torch.nan)}
    fresh = refit_guide(program(), gappy, net=MLP(4), epochs=1, batch_size=1024, progress=False)
    found = held_out_cells(fresh, data, share=0.3, num_samples=30, level=0.9, seed=0)
    assert np.isfinite(found.error).all() and np.isfinite(found.coverage).all()
    # The mask comes after c here and before it in the fit: names decide, not places. And a network
    # that does not ask for the mask sees no more than there is.
    again = data["x"].where(~torch.as_tensor(found.imputation.hidden), torch.nan)
    direct = impute(fresh, data | {"x": again}, 30, level=0.9, seed=0)
    assert np.array_equal(found.imputation.point, direct.point)


def test_tables_of_other_rows_are_refused(world):
    vae, data = world
    tables = {name: pd.DataFrame(v.numpy(), index=range(7, 27)) for name, v in data.items()}
    assert torch.equal(log_weights(vae, tables, 5, seed=0), log_weights(vae, data, 5, seed=0))
    turned = tables | {"c": tables["c"][::-1]}
    with pytest.raises(ValueError, match=r"indexes in x, 'x' and 'c'; expected .*c\.loc\[x\.index"):
        log_weights(vae, turned, 5)
    log_weights(vae, turned | {"c": turned["c"].to_numpy()}, 5)  # rows by their places


def test_the_report_writes_what_each_part_is_given(world):
    import re

    from ppl_vae.report.mathematics import identity, objective

    vae, data = world
    found = diagnose(vae, data, num_samples=30, budget=0)

    def read(formula):
        return re.sub("<[^>]+>|&#x2061;| ", "", str(formula))

    terms = "𝔼q[logp(x|z,c)]−KL(q(z|x,c)‖p(z|c))"
    assert read(identity(found)) == f"logp(x|c)={terms}+KL(q(z|x,c)‖p(z|x,c))"
    assert read(objective(found, "ELBO", 1.0)) == terms


def test_under_pyros_own_svi(world):
    _, data = world
    vae = program()
    svi = pyro.infer.SVI(
        vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), pyro.infer.Trace_ELBO()
    )
    losses = [svi.step(**data) for _ in range(30)]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])


def test_a_part_that_names_nothing_known():
    with pytest.raises(ValueError, match="'z' among the encoder's inputs"):
        VAE(
            StandardNormal(K),
            Conditional(MLP(8), Normal(D), given=K),
            Conditional(MLP(8), Normal(K), given={"x": D, "z": K}),
        )
    with pytest.raises(ValueError, match=r"covariate 'c' of shape \(3,\) in one part and \(1,\)"):
        VAE(
            Conditional(MLP(8), Normal(K), given={"c": C}),
            Conditional(MLP(8), Normal(D), given={"z": K, "c": 1}),
            Conditional(MLP(8), Normal(K), given=D),
        )
    with pytest.raises(ValueError, match="expected 'z' among them"):
        VAE(
            StandardNormal(K),
            Conditional(MLP(8), Normal(D), given={"c": C}),
            Conditional(MLP(8), Normal(K), given=D),
        )
