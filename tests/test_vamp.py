"""The VampPrior: the guide's own mixture, with an encoder that is borrowed and not owned."""

import copy
import pickle

import pyro.distributions as dist
import pytest
import torch

from ppl_vae import (
    MLP,
    VAE,
    Bernoulli,
    Categorical,
    Columns,
    Conditional,
    Delta,
    Features,
    MultivariateNormal,
    Normal,
    Poisson,
    VampPrior,
    fit,
    log_evidence,
    log_weights,
    refine,
    refit_guide,
)
from ppl_vae.testing import check_program

X = (torch.rand(30, 6, generator=torch.Generator().manual_seed(0)) > 0.5).float()


def parts(family=None):
    torch.manual_seed(0)
    encoder = Conditional(MLP(8), family or Normal(2), given=6)
    return encoder, Conditional(MLP(8), Bernoulli(6), given=2)


@pytest.mark.parametrize("family", [Normal(2), MultivariateNormal(2)], ids=repr)
def test_the_density_is_that_of_the_mixture(family) -> None:
    encoder, _ = parts(family)
    prior = VampPrior(X[:5], encoder)
    z = torch.randn(7, 2)
    components = encoder(X[:5])
    by_hand = (
        torch.stack([components.log_prob(v) for v in z]).logsumexp(1) - torch.tensor(5.0).log()
    )
    torch.testing.assert_close(prior().log_prob(z), by_hand)
    # Mean of 20,000 draws: within 4.5 SE of the mixture's mean, false in 1 of 74,000 runs a unit.
    drawn = prior().sample((20_000,))
    loc = components.mean.mean(0)
    assert bool(((drawn.mean(0) - loc).abs() < 4.5 * drawn.std(0) / 20_000**0.5).all())


def test_the_encoder_is_counted_and_saved_once() -> None:
    encoder, decoder = parts()
    vae = VAE(VampPrior(X[:5], encoder), decoder, encoder)
    assert len(list(vae.parameters())) == len(vae.state_dict()) == 9
    for twin in (copy.deepcopy(vae), pickle.loads(pickle.dumps(vae))):
        assert twin.prior.borrowed[0] is twin.encoder
        z = torch.zeros(3, 2)
        assert torch.equal(twin.prior().log_prob(z), vae.prior().log_prob(z))
    vae.double()
    assert vae.prior().log_prob(torch.zeros(3, 2).double()).dtype == torch.float64


def test_an_encoder_of_another_program_is_refused() -> None:
    encoder, decoder = parts()
    stranger, _ = parts()
    with pytest.raises(ValueError, match="borrows a Conditional which is no part of this program"):
        VAE(VampPrior(X[:5], stranger), decoder, encoder)
    vae = VAE(VampPrior(X[:5], encoder), decoder, encoder)
    vae.encoder = stranger
    with pytest.raises(ValueError, match="borrows"):
        fit(vae, X, epochs=1, progress=False)


@pytest.mark.parametrize("learned", [True, False])
def test_it_trains_with_the_rest(learned) -> None:
    encoder, decoder = parts()
    vae = VAE(VampPrior(X[:5], encoder, learned=learned), decoder, encoder)
    before = vae.prior.pseudo_inputs.detach().clone()
    fit(vae, X, epochs=2, seed=0, progress=False)
    assert torch.equal(vae.prior.pseudo_inputs, before) is not learned
    assert log_evidence(vae, X, 50, seed=0).log_evidence.shape == (30,)
    # KL(q ‖ p) is that of the moving mixture.
    assert isinstance(vae.prior(), dist.TorchDistribution)


@pytest.mark.parametrize("family", [Normal(2), MultivariateNormal(2)], ids=repr)
def test_its_guide_is_refined_and_refitted(family) -> None:
    encoder, decoder = parts(family)
    vae = VAE(VampPrior(X[:5], encoder), decoder, encoder)
    better = refine(vae, X, steps=2, progress=False)
    fresh = refit_guide(vae, X, net=MLP(4), epochs=1, batch_size=1024, progress=False)
    for program in (better, fresh):
        assert log_weights(program, X, 20, seed=0).isfinite().all()


@pytest.mark.parametrize(
    ("family", "learned"),
    [
        (Normal(6), True),
        (Columns(dict.fromkeys("abcdef", Normal(()))), True),
        (Poisson(6), False),
        (Categorical(6, classes=2), False),
    ],
)
def test_pseudo_inputs_are_learned_where_features_are_the_data_and_else_fixed(
    family, learned
) -> None:
    encoder = Conditional(Features(MLP(8), family), Normal(2), given=6)
    fit(VAE(VampPrior(X[:5], learned=learned), parts()[1], encoder), X, epochs=1, progress=False)


def test_a_program_with_it_passes_the_kit() -> None:
    encoder, decoder = parts()
    check_program(VAE(VampPrior(X[:5], encoder), decoder, encoder), X)


@pytest.mark.parametrize(
    ("pseudo", "says"),
    [
        (torch.zeros(0, 6), "expected K finite data"),
        (torch.full((2, 6), torch.nan), "not all fini"),
    ],
)
def test_pseudo_inputs_are_data(pseudo, says) -> None:
    with pytest.raises(ValueError, match=says):
        VampPrior(pseudo, parts()[0])
    with pytest.raises(ValueError, match="Got a str as encoder"):
        VampPrior(X[:2], "encoder")


# ----------------------------------------------------------------- an encoder that comes later


def test_without_an_encoder_it_says_so_until_it_borrows_one() -> None:
    prior = VampPrior(X[:5])
    encoder, decoder = parts()
    assert prior.borrowed == () and not hasattr(prior, "event_shape")
    for ask in (prior, lambda: prior.event_shape):
        with pytest.raises((ValueError, AttributeError), match="without an encoder.*Try VAE"):
            ask()
    with pytest.raises(AttributeError, match="no attribute 'other'"):
        prior.other  # noqa: B018
    prior.borrow(encoder)
    assert prior.borrowed == (encoder,) and prior.event_shape == (2,)
    z = torch.randn(3, 2)
    assert torch.equal(prior().log_prob(z), VampPrior(X[:5], encoder)().log_prob(z))
    assert len(list(VAE(prior, decoder, encoder).parameters())) == 9


def test_it_keeps_the_encoder_that_it_has() -> None:
    encoder, stranger = parts()[0], parts()[0]
    prior = VampPrior(X[:5], encoder)
    prior.borrow(encoder)  # its own: nothing changes
    with pytest.raises(ValueError, match="has another one; expected to keep it"):
        prior.borrow(stranger)
    assert prior.borrowed == (encoder,)


@pytest.mark.parametrize("names", [("x",), ("x", "mask"), ("mask", "x")], ids=str)
def test_pseudo_inputs_have_no_missing_cell(names) -> None:
    torch.manual_seed(0)
    encoder = Conditional(MLP(8), Normal(2), given=dict.fromkeys(names, 6))
    seen = {"x": X[:5], "mask": torch.ones(5, 6)}
    components = encoder(*[seen[n] for n in names])
    z = torch.randn(7, 2)
    by_hand = (
        torch.stack([components.log_prob(v) for v in z]).logsumexp(1) - torch.tensor(5.0).log()
    )
    torch.testing.assert_close(VampPrior(X[:5], encoder)().log_prob(z), by_hand)


@pytest.mark.parametrize(
    ("encoder", "says"),
    [
        (Conditional(MLP(), Delta(2), given=6), "mixture of points has none"),
        (Conditional(MLP(), Normal(2), given={"x": 6, "dose": 1}), "has no covariates"),
        (Conditional(MLP(), Normal(2), given={"y": 6}), "expected x, or x and mask"),
        (Conditional(MLP(), Normal(2), given=7), r"\(5, 6\) for an encoder of data \(7,\)"),
        *[
            (Conditional(Features(MLP(), f), Normal(2), given=6), "learned .*Try .*learned=False")
            for f in (Poisson(6), Categorical(6, classes=2))
        ],
    ],
)
def test_an_encoder_that_cannot_be_mixed_is_refused(encoder, says) -> None:
    prior = VampPrior(X[:5])
    for borrow in (prior.borrow, lambda e: VampPrior(X[:5], e)):
        with pytest.raises(ValueError, match=says) as caught:
            borrow(encoder)
        assert "Try" in str(caught.value)
    assert prior.borrowed == ()


def test_points_of_a_module_of_ones_own_are_refused_when_they_are_seen() -> None:
    class Point(torch.nn.Module):
        event_shape = torch.Size([6])

        def forward(self, x):
            return dist.Delta(x, event_dim=1)

    with pytest.raises(ValueError, match="mixture of points"):
        VampPrior(X[:5], Point())()


def test_pseudo_inputs_may_be_images() -> None:
    encoder = Conditional(MLP(8), Normal(2), given=(2, 3))
    assert VampPrior(X[:5].reshape(5, 2, 3), encoder)().event_shape == (2,)
