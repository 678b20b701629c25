"""Parts of one's own: what they must return, and what is said where they do not."""

import numpy as np
import pandas as pd
import pyro.distributions as dist
import pytest
import torch
from torch import Size, nn
from torch.distributions import constraints
from torch.nn.functional import softplus

from ppl_vae import (
    MLP,
    VAE,
    Bernoulli,
    Conditional,
    ContinuousBernoulli,
    Delta,
    Family,
    Normal,
    Poisson,
    StandardNormal,
    fit,
    log_weights,
    propose_columns,
)

X = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))


class Own(nn.Module):
    """p(x|z) by a function of what a layer gives."""

    event_shape = Size([4])

    def __init__(self, give):
        super().__init__()
        self.layer, self.give = nn.Linear(2, 4), give

    def forward(self, z):
        return self.give(self.layer(z))


def vae(decoder) -> VAE:
    decoder = decoder if isinstance(decoder, nn.Module) else Conditional(MLP(4), decoder, given=2)
    return VAE(StandardNormal(2), decoder, Conditional(MLP(4), Normal(2), given=4))


def train(program, x=X, **arguments):
    return fit(program, x, epochs=1, seed=0, progress=False, **arguments)


@pytest.mark.parametrize(
    ("give", "says"),
    [
        (lambda loc: loc, "Got a Tensor from a Own; expected a Pyro distribution. Try return"),
        (lambda loc: torch.distributions.Normal(loc, 1.0), "Got a Normal .* a Pyro distribution"),
        (lambda loc: dist.Normal(loc, 1.0), r"batch shape \(20, 4\) .*Try .to_event\(\)"),
        (lambda loc: dist.Normal(loc[:, 1:], 1.0).to_event(1), r"event shape \(3,\) .* shape \(4,"),
    ],
    ids=["tensor", "torch's own", "no event", "another event"],
)
def test_a_part_returns_a_distribution_of_its_events(give, says):
    with pytest.raises(ValueError, match=says):
        train(vae(Own(give)))


def test_a_part_may_have_a_family_of_its_own_kind():
    decoder = Own(lambda loc: dist.Normal(loc, 1.0).to_event(1))
    decoder.family = "mine"
    train(vae(decoder))


def test_a_likelihood_of_points_is_refused():
    with pytest.raises(ValueError, match=r"Got a Delta as likelihood.*Try Normal\(..., scale="):
        vae(Delta(4))


class Shares(nn.Module):
    """p(z|c) between 0 and 1, which nothing says before it is called."""

    inputs = ("c",)
    event_shape = Size([2])

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 2)

    def forward(self, c):
        return dist.Beta(1 + softplus(self.layer(c)), 2.0).to_event(1)


def test_the_guide_follows_a_support_that_only_a_call_can_tell():
    program = VAE(
        Shares(), Conditional(MLP(4), Normal(4), given=2), Conditional(MLP(4), Normal(2), given=4)
    )
    data = {"x": X, "c": X[:, :1]}
    train(program, data)
    z = program.guide(**data)
    assert ((z > 0) & (z < 1)).all()
    # Jacobian included: that of z = σ(u), log z(1 − z).
    u = z.logit()
    expected = program.encoder(X).log_prob(u) - (z * (1 - z)).log().sum(-1)
    assert torch.allclose(program.posterior(**data).log_prob(z), expected, atol=1e-4)
    assert log_weights(program, data, 5).isfinite().all()


def test_sentences_come_without_pyros_table_of_shapes():
    shape = Size([4])
    dirichlet = Family(
        name="Dirichlet(4)",
        event_shape=shape,
        shapes={"concentration": shape},
        distribution=dist.Dirichlet,
        transforms={"concentration": softplus},
        support=constraints.unit_interval,
        measure="density",
        filler=0.25,
    )
    x = X.softmax(-1)
    x[0, 0] = torch.nan
    with pytest.raises(ValueError, match="Got missing cells under Dirichlet") as refusal:
        train(vae(dirichlet), x)
    assert "Trace Shapes" not in str(refusal.value)


@pytest.mark.parametrize(
    ("family", "x", "says"),
    [
        (Bernoulli(4), 255.0 * (X > 0), r"Try 0 for 0 and 1 for 255: \(x > 0\)"),
        (ContinuousBernoulli(4), (X.sigmoid() * 254).round(), "Try x / 255"),
        (ContinuousBernoulli(4), X.abs() + 1.5, r"Try x / \d"),
    ],
)
def test_units_are_proposed(family, x, says):
    with pytest.raises(ValueError, match=says):
        train(vae(family), x)


def test_an_exposure_of_0_is_none():
    program = vae(Poisson(4, exposure=True))
    with pytest.raises(ValueError, match="Got 0 in the covariate 'exposure'; expected positive"):
        train(program, {"x": X.abs().round(), "exposure": torch.zeros(20, 1)})


@pytest.mark.parametrize(("rows", "says"), [(2, "Try more data"), (3, "Try 0.2"), (6, "Try 0.1")])
def test_the_share_proposed_for_validation_is_one_that_will_do(rows, says):
    with pytest.raises(ValueError, match=says):
        train(vae(Normal(4)), X[:rows], validation=0.01)
    if rows > 2:
        train(vae(Normal(4)), X[:rows], validation=float(says.split()[-1]))


def test_numbers_beside_none_are_numbers():
    column = pd.Series([1.5, None, 2.25, 7.0], dtype=object)
    assert repr(propose_columns(pd.DataFrame({"a": column}))).startswith("a: Standardised(Normal")
    with pytest.raises(ValueError, match="'b' without a single value"):
        propose_columns(pd.DataFrame({"b": [np.nan] * 3}))
