"""The noun: one flat batch for the net, contexts that broadcast, and shapes that are declared."""

import copy
import dataclasses

import pytest
import torch
from torch import Size, nn

from ppl_vae import (
    MLP,
    Bernoulli,
    Conditional,
    DistributionModule,
    Family,
    MultivariateNormal,
    Normal,
    PerFeature,
    Shared,
    StandardNormal,
)
from ppl_vae.conditional import event_size


class Seen(nn.Module):
    """A linear net that remembers the shape it was given."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.shape = tuple(x.shape)
        return self.linear(x)


def batch_normed(in_features: int, out_features: int) -> nn.Module:
    return nn.Sequential(nn.BatchNorm1d(in_features), nn.Linear(in_features, out_features))


# --------------------------------------------------------------------------------- the net's view


@pytest.mark.parametrize(
    ("given", "context", "seen"),
    [
        (3, (3,), (1, 3)),
        (3, (7, 3), (7, 3)),
        (3, (5, 7, 3), (35, 3)),
        ((4, 5), (7, 4, 5), (7, 20)),
        ((1, 4, 5), (2, 3, 1, 4, 5), (6, 20)),
        ((), (7,), (7, 1)),
        ((), (), (1, 1)),
        (3, (0, 3), (0, 3)),
    ],
)
def test_the_net_sees_flat_rows(given, context, seen):
    part = Conditional(Seen, Normal((2, 3)), given=given)
    d = part(torch.randn(context))
    batch = context[: len(context) - len(part.given[0])]
    assert part.net.shape == seen
    assert (d.batch_shape, d.event_shape) == (batch, (2, 3))
    assert d.sample().shape == (*batch, 2, 3)


def test_batch_norm_sees_one_flat_batch():
    # (5, 16, 16): a raw BatchNorm1d(16) takes it for 5 rows of 16 channels and 16 positions, and
    # normalises over the wrong axis without a word. Here the statistics are those of 80 rows.
    x = torch.randn(5, 16, 16) * torch.arange(1.0, 17.0)
    part = Conditional(batch_normed, Normal(4, scale=1.0), given=16)
    loc = part(x).mean
    rows = x.reshape(80, 16)
    normed = (rows - rows.mean(0)) / (rows.var(0, unbiased=False) + 1e-5).sqrt()
    expected = part.net[1](normed).reshape(5, 16, 4)
    # float32: sums of 80 terms of size 1 after normalising.
    assert torch.allclose(loc, expected, atol=1e-5)
    norm = part.net[0]
    assert torch.allclose(norm.running_mean, 0.1 * rows.mean(0), atol=1e-5)
    wrong = nn.BatchNorm1d(16)(x)
    assert not torch.allclose(wrong.reshape(80, 16), normed, atol=0.1)


def test_rows_of_any_batch_are_the_rows_one_by_one():
    part = Conditional(MLP(8), MultivariateNormal(2), given=[3, (2, 2)])
    a, b = torch.randn(4, 5, 3), torch.randn(4, 5, 2, 2)
    y = torch.randn(4, 5, 2)
    together = part(a, b).log_prob(y)
    alone = torch.stack(
        [part(a[i, j], b[i, j]).log_prob(y[i, j]) for i in range(4) for j in range(5)]
    )
    # float32 matrix products of 8 terms in another order.
    assert torch.allclose(together.flatten(), alone, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------- several contexts


@pytest.mark.parametrize(
    ("z", "c", "batch"),
    [((4,), (4,), (4,)), ((3, 1), (4,), (3, 4)), ((), (4,), (4,)), ((6, 4), (), (6, 4))],
)
def test_contexts_broadcast(z, c, batch):
    part = Conditional(MLP(8), Bernoulli(5), given=[2, 3])
    zs, cs = torch.randn(*z, 2), torch.randn(*c, 3)
    d = part(zs, cs)
    assert d.batch_shape == batch
    full = part(zs.expand(*batch, 2), cs.expand(*batch, 3))
    assert torch.equal(d.mean, full.mean)


def test_contexts_are_joined_in_order():
    part = Conditional(MLP(), Normal(1, scale=1.0), given=[2, (1, 3)])
    z, c = torch.randn(4, 2), torch.randn(4, 1, 3)
    joined = torch.cat([z, c.flatten(1)], -1)
    assert torch.equal(part(z, c).mean, part.net(joined))


# --------------------------------------------------------------------------------- convolutions


class Convolution(nn.Module):
    """What `flatten=False` is for."""

    def __init__(self, shape: Size, out_features: int) -> None:
        super().__init__()
        channels, height, width = shape
        self.convolve = nn.Conv2d(channels, 2, 3, padding=1)
        self.head = nn.Linear(2 * height * width, out_features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.shape = tuple(x.shape)
        return self.head(self.convolve(x).flatten(1))


@pytest.mark.parametrize("batch", [(), (7,), (3, 2), (0,)])
def test_images_keep_their_shape(batch):
    part = Conditional(Convolution, Normal(2), given=(3, 4, 5), flatten=False)
    x = torch.randn(*batch, 3, 4, 5)
    assert part(x).batch_shape == batch
    assert part.net.shape == (torch.Size(batch).numel(), 3, 4, 5)


# ----------------------------------------------------------------------------- families and nets


def test_a_scalar_event():
    part = Conditional(MLP(4), Normal(()), given=2)
    d = part(torch.randn(7, 2))
    assert (d.batch_shape, d.event_shape, d.log_prob(torch.zeros(7)).shape) == ((7,), (), (7,))
    # A scalar event is a vector event of one, without its dim.
    assert part.out_features == Conditional(MLP(4), Normal(1), given=2).out_features


def test_swapping_the_family_changes_one_argument():
    for family in (Bernoulli(6), Normal(6), Normal(6, scale=Shared()), MultivariateNormal(6)):
        part = Conditional(MLP(8), family, given=2)
        assert isinstance(part, DistributionModule)
        assert part(torch.randn(3, 2)).sample().shape == (3, 6)
        assert part.event_shape == family.event_shape


def test_outputs_of_the_net_are_the_parameters_in_their_order():
    part = Conditional(MLP(), Normal((2, 2)), given=3)
    with torch.no_grad():
        part.net[0].weight.zero_()
        part.net[0].bias.copy_(torch.arange(8.0))
    d = part(torch.randn(5, 3))
    assert torch.equal(d.mean[0], torch.arange(4.0).reshape(2, 2))
    expected = 1e-3 + nn.functional.softplus(torch.arange(4.0, 8.0)).reshape(2, 2)
    assert torch.equal(d.stddev[4], expected)


def test_shared_parameters_belong_to_the_conditional_and_not_to_the_record():
    family = Normal(3, scale=PerFeature(0.5))
    a, b = (Conditional(MLP(), family, given=2) for _ in range(2))
    assert set(a.state_dict()) == {"shared.scale", "net.0.weight", "net.0.bias"}
    with torch.no_grad():
        a.shared["scale"] += 1
    assert not torch.equal(a.shared["scale"], b.shared["scale"])
    assert torch.equal(b.shared["scale"], family.shared["scale"])


def test_gradients_reach_the_net_and_the_shared_parameters():
    part = Conditional(MLP(4), Normal(3, scale=Shared()), given=2)
    part(torch.randn(5, 2)).log_prob(torch.randn(5, 3)).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in part.parameters())


def test_it_moves_and_copies_as_a_module():
    part = Conditional(MLP(4), Normal(3, scale=PerFeature()), given=2)
    d = copy.deepcopy(part).double()(torch.randn(5, 2).double())
    assert d.mean.dtype == d.stddev.dtype == torch.float64
    assert "Normal((3,)" in repr(part) and "given=[(2,)]" in repr(part)


def test_a_prior_is_the_same_noun():
    assert isinstance(StandardNormal(2), DistributionModule)


def test_a_family_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Normal(3).name = "other"  # type: ignore[misc]
    assert isinstance(Normal(3), Family) and repr(Bernoulli((2, 2))) == "Bernoulli((2, 2))"


@pytest.mark.parametrize(
    ("hidden", "sizes"),
    [((), [(5, 3)]), ((7,), [(7, 3), (5, 7)]), ((7, 8), [(7, 3), (8, 7), (5, 8)])],
)
def test_mlp_sizes(hidden, sizes):
    net = MLP(*hidden)(3, 5)
    assert [tuple(p.shape) for p in net.parameters() if p.dim() == 2] == sizes
    assert sum(isinstance(m, nn.ReLU) for m in net) == len(hidden)
    assert net(torch.randn(2, 4, 3)).shape == (2, 4, 5)


def test_mlp_builds_a_new_net_each_time_with_its_activation():
    build = MLP(4, activation=nn.Tanh)
    a, b = build(2, 3), build(2, 3)
    assert not torch.equal(a[0].weight, b[0].weight)
    assert isinstance(a[1], nn.Tanh) and repr(build) == "MLP(4)"


# ------------------------------------------------------------------------------------- refusals

CASES = {
    "too few contexts": (lambda p: p(torch.zeros(4, 2)), "1 contexts; expected 2"),
    "event size": (lambda p: p(torch.zeros(4, 2), torch.zeros(4, 5)), r"\(4, 5\).*\(\*batch, 3\)"),
    "too few dims": (lambda p: p(torch.tensor(1.0), torch.zeros(3)), r"shape \(\)"),
    "no common batch": (lambda p: p(torch.zeros(4, 2), torch.zeros(5, 3)), r"\(4,\), \(5,\)"),
    "no tensor": (lambda p: p([0.0, 0.0], torch.zeros(3)), "list as context"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_context_that_does_not_fit_is_refused(name):
    part = Conditional(MLP(4), Bernoulli(5), given=[2, 3])
    run, says = CASES[name]
    with pytest.raises(ValueError, match=says) as caught:
        run(part)
    assert "expected" in str(caught.value) and "Try" in str(caught.value)


def test_a_net_of_the_wrong_width_is_refused():
    part = Conditional(lambda i, o: nn.Linear(i, o + 1), Bernoulli(5), given=2)
    with pytest.raises(ValueError, match=r"shape \(4, 6\) from the net.*\(4, 5\)"):
        part(torch.zeros(4, 2))


@pytest.mark.parametrize("shape", [0, -1, 2.0, True, (3, 0), "ab"])
def test_an_event_shape_that_is_none_is_refused(shape):
    with pytest.raises(ValueError, match="expected positive integers"):
        event_size(shape)


def test_images_with_two_contexts_cannot_keep_their_shape():
    with pytest.raises(ValueError, match="flatten=False with 2 contexts"):
        Conditional(Convolution, Normal(2), given=[(3, 4, 5), 2], flatten=False)
