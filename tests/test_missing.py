"""Missing cells: fillers that do not count, exact conditionals, finite gradients, refusals."""

import math

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from torch import Size, nn

from ppl_vae import (
    ELBO,
    MLP,
    VAE,
    Bernoulli,
    Binomial,
    Conditional,
    ImportanceWeighted,
    MultivariateNormal,
    Normal,
    Program,
    Shared,
    StandardNormal,
    diagnose,
    fit,
    held_out_cells,
    impute,
    log_evidence,
    log_weights,
    refit_guide,
    report,
    to_datatree,
)
from ppl_vae.distributions import Marginal
from ppl_vae.programs.inputs import program_batch

FEATURES = 5
NAN = float("nan")


def program(family, *, knows_mask: bool = True, seed: int = 0) -> VAE:
    torch.manual_seed(seed)
    given = {"x": FEATURES, "mask": FEATURES} if knows_mask else FEATURES
    return VAE(
        StandardNormal(2),
        Conditional(MLP(8), family, given=2),
        Conditional(MLP(8), Normal(2), given=given),
    )


def hidden(rows: int = 12, seed: int = 0) -> torch.Tensor:
    """True where a cell is hidden: the first row is complete, the second empty."""
    mask = torch.rand(rows, FEATURES, generator=torch.Generator().manual_seed(seed)) < 0.4
    mask[0], mask[1] = False, True
    return mask


# ---- what stands where a cell is hidden changes nothing

FAMILIES = [
    Normal(FEATURES),
    Normal(FEATURES, scale=Shared()),
    MultivariateNormal(FEATURES),
    Bernoulli(FEATURES),
    Binomial(FEATURES, total=3),
]


def data(family, rows: int = 12) -> torch.Tensor:
    torch.manual_seed(1)
    raw = {n: torch.randn(rows, *s) for n, s in family.shapes.items()}
    return family(**raw, **family.shared).sample()


def loss_and_gradients(vae, x, mask, objective):
    torch.manual_seed(3)
    loss = objective(vae.model, vae.guide, x, mask)
    gradients = torch.autograd.grad(loss, list(vae.parameters()), allow_unused=True)
    return loss, [g for g in gradients if g is not None]


@pytest.mark.parametrize("family", FAMILIES, ids=repr)
@pytest.mark.parametrize("knows_mask", [True, False])
def test_the_filler_changes_neither_loss_nor_gradients(family, knows_mask):
    vae, x, mask = program(family, knows_mask=knows_mask), data(family), ~hidden()
    first, gradients = loss_and_gradients(vae, x, mask, ELBO())
    assert first.isfinite()
    assert gradients
    for filler in (NAN, 1e30, -7.0):
        other, others = loss_and_gradients(vae, x.where(mask, filler), mask, ELBO())
        assert torch.equal(first, other)
        for a, b in zip(gradients, others, strict=True):
            assert a.isfinite().all()
            assert torch.equal(a, b)


@pytest.mark.parametrize("family", FAMILIES, ids=repr)
def test_nothing_hidden_is_the_plain_program(family):
    vae, x = program(family), data(family)
    torch.manual_seed(3)
    plain = ELBO()(vae.model, vae.guide, x)
    masked, _ = loss_and_gradients(vae, x, torch.ones_like(x, dtype=torch.bool), ELBO())
    # float32 sums of 60 cells of size 10 in another order
    assert torch.allclose(plain, masked, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES, ids=repr)
def test_all_hidden_leaves_the_divergence(family):
    vae, x = program(family), data(family)
    none = torch.zeros_like(x, dtype=torch.bool)
    loss, _ = loss_and_gradients(vae, x, none, ELBO(analytic_kl=True))
    kl = torch.distributions.kl_divergence(vae.posterior(x, none), vae.prior())
    assert torch.allclose(loss.float(), kl.sum(), rtol=1e-5)


def test_a_gap_is_a_gap_by_nan_by_mask_or_by_numpys_mask():
    family = Normal(FEATURES)
    x, mask = data(family), ~hidden()
    forms = [
        x.where(mask, NAN),
        {"x": x, "mask": mask},
        {"x": x.where(mask, NAN), "mask": mask.float()},
        np.ma.masked_array(x.numpy(), mask=~mask.numpy()),
    ]
    losses = [
        fit(program(family), form, epochs=2, batch_size=5, seed=0, progress=False).history["loss"]
        for form in forms
    ]
    for other in losses[1:]:
        assert np.array_equal(losses[0], other)


@pytest.mark.parametrize("objective", [ELBO(), ImportanceWeighted(5)], ids=["ELBO", "MIWAE"])
def test_compiled_as_eager(objective):
    family = MultivariateNormal(FEATURES) if isinstance(objective, ELBO) else Normal(FEATURES)
    x = data(family, 32).where(~hidden(32), NAN)
    losses = [
        fit(
            program(family), x, objective=objective, epochs=2, batch_size=16, seed=0,
            progress=False, compile=compiled,
        ).history["loss"]
        for compiled in (False, True)
    ]  # fmt: skip
    assert np.allclose(losses[0], losses[1], rtol=1e-4)


# ---- marginals


def test_marginals_of_normals_are_scipys(float64):
    from scipy import stats

    loc, factor = torch.randn(4), torch.randn(4, 4)
    covariance = factor @ factor.T + torch.eye(4)
    x, seen = torch.randn(4), torch.tensor([True, False, True, False])
    exact = stats.multivariate_normal(loc[seen], covariance[seen][:, seen]).logpdf(x[seen])
    full = dist.MultivariateNormal(loc, covariance)
    assert abs(float(Marginal(full, seen).log_prob(x)) - exact) < 1e-12
    low = dist.LowRankMultivariateNormal(loc, factor[:, :2], torch.rand(4) + 0.5)
    exact = stats.multivariate_normal(
        loc[seen], low.covariance_matrix[seen][:, seen]
    ).logpdf(x[seen])  # fmt: skip
    assert abs(float(Marginal(low, seen).log_prob(x)) - exact) < 1e-12


def test_completed_draws_follow_the_conditional(float64):
    torch.manual_seed(0)
    factor = torch.randn(4, 4)
    covariance = factor @ factor.T + torch.eye(4)
    loc, x, seen = torch.randn(4), torch.randn(4), torch.tensor([True, False, True, False])
    full = Marginal(dist.MultivariateNormal(loc, covariance), seen)
    s, h = seen.nonzero()[:, 0], (~seen).nonzero()[:, 0]
    gain = covariance[h][:, s] @ covariance[s][:, s].inverse()
    mean = loc[h] + gain @ (x - loc)[s]
    left = covariance[h][:, h] - gain @ covariance[s][:, h]
    assert torch.allclose(full.completed(x, full.mean)[h], mean, atol=1e-12)
    draws = 40_000
    moved = full.completed(x, full.expand(Size([draws])).sample())
    assert torch.equal(moved[:, s], x[s].expand(draws, 2))
    # Six standard errors of a mean and of a (co)variance, of 5 numbers: false alarm 1e-8.
    off = (moved[:, h].mean(0) - mean).abs() / (left.diagonal() / draws).sqrt()
    assert off.max() < 6
    wrong = (moved[:, h].T.cov() - left).abs()
    assert (wrong < 6 * (2 / draws) ** 0.5 * left.diagonal().max()).all()


def test_a_family_without_marginals_is_refused():
    joint = dist.Dirichlet(torch.ones(3))
    with pytest.raises(ValueError, match="Dirichlet; expected independent cells"):
        Marginal(joint, torch.ones(3, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"mask of torch\.float32"):
        Marginal(dist.Normal(torch.zeros(3), 1.0).to_event(1), torch.ones(3))


# ---- the linear-Gaussian world: evidence and conditionals are exact

NOISE = 0.6


class ExactGuide(nn.Module):
    """p(z | x_seen) of z ~ N(0, I), x | z ~ N(W z + b, NOISE²)."""

    inputs = ("x", "mask")
    event_shape = Size([2])

    def __init__(self, weight, bias):
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, x, mask):
        weight = self.weight * mask[..., None]
        precision = torch.eye(2) + weight.mT @ weight / NOISE**2
        covariance = precision.inverse()
        centred = (x - self.bias) * mask
        loc = (covariance @ (weight.mT @ centred[..., None]))[..., 0] / NOISE**2
        return dist.MultivariateNormal(loc, covariance)


@pytest.fixture
def world(float64):
    torch.manual_seed(0)
    decoder = Conditional(MLP(), Normal(FEATURES, scale=NOISE), given=2)
    linear = decoder.net[0]
    weight, bias = linear.weight.detach(), linear.bias.detach()
    weight.mul_(3)
    vae = VAE(StandardNormal(2), decoder, ExactGuide(weight, bias)).double()
    x = torch.randn(12, 2) @ weight.T + bias + NOISE * torch.randn(12, FEATURES)
    covariance = weight @ weight.T + NOISE**2 * torch.eye(FEATURES)
    return vae, x, bias, covariance


def test_evidence_is_that_of_what_is_seen(world):
    vae, x, bias, covariance = world
    seen = ~hidden()
    weights = log_weights(vae, x.where(seen, NAN), 7, seed=0)
    for i, row in enumerate(seen):
        exact = 0.0
        if row.any():
            marginal = dist.MultivariateNormal(bias[row], covariance[row][:, row])
            exact = float(marginal.log_prob(x[i, row]))
        assert (weights[:, i] - exact).abs().max() < 1e-9  # every weight: the guide is exact


def test_imputations_are_the_conditionals(world):
    vae, x, bias, covariance = world
    seen = ~hidden()
    draws = 4000
    found = impute(vae, x.where(seen, NAN), draws, num_draws=draws, level=0.8, seed=0)
    assert np.array_equal(found.hidden, ~seen.numpy())
    assert np.array_equal(found.point[seen], x[seen])
    assert np.array_equal(found.draws[:, seen], np.broadcast_to(x[seen], (draws, int(seen.sum()))))
    for i, row in enumerate(seen):
        if row.all():
            continue
        gain = covariance[~row][:, row] @ covariance[row][:, row].inverse()
        mean = (bias[~row] + gain @ (x[i] - bias)[row]).numpy()
        left = covariance[~row][:, ~row] - gain @ covariance[row][:, ~row]
        sd = left.diagonal().sqrt().numpy()
        # Some 30 cells, three numbers each, at 6 standard errors: false alarm 2e-7. The spread of
        # the points is that of E[x|z], below sd; that of a quantile √(p(1−p)/S) / density.
        assert (np.abs(found.point[i, ~row] - mean) < 6 * sd / draws**0.5).all()
        at = 1.2815515655446004  # Φ⁻¹(0.9)
        room = 6 * sd * (0.09 / draws) ** 0.5 / (math.exp(-(at**2) / 2) / (2 * math.pi) ** 0.5)
        assert (np.abs(found.lower[i, ~row] - (mean - at * sd)) < room).all()
        assert (np.abs(found.upper[i, ~row] - (mean + at * sd)) < room).all()
        drawn = found.draws[:, i][:, ~row.numpy()]
        room = 6 * (2 / draws) ** 0.5 * left.max().item()
        assert (np.abs(np.cov(drawn.T) - left.numpy()) < room).all()


def test_a_wide_guide_is_weighed(world):
    """With weights that vary the imputations are still the conditionals; without, they are not."""
    vae, x, bias, covariance = world

    class Wide(ExactGuide):
        def forward(self, x, mask):
            exact = super().forward(x, mask)
            return dist.MultivariateNormal(exact.loc + 0.7, 2 * exact.covariance_matrix)

    wide = VAE(vae.prior, vae.decoder, Wide(vae.encoder.weight, vae.encoder.bias)).double()
    seen = ~hidden()
    exact = impute(vae, x.where(seen, NAN), 4000, seed=0)
    weighed = impute(wide, x.where(seen, NAN), 4000, seed=0)
    unweighed = wide.likelihood(wide.posterior(x, seen).mean).mean
    gap = ~seen
    # Thirty cells at six standard errors, about sd / √ESS of the one and sd / √4000 of the other.
    sd = exact.draws.std(0)
    room = 6 * sd * (1 / weighed.ess[:, None] + 1 / 4000) ** 0.5
    assert (np.abs(exact.point - weighed.point) < room)[gap].all()
    assert (unweighed - torch.as_tensor(exact.point))[gap].abs().max() > 0.4
    assert (weighed.ess < 0.9 * 4000).all()


def test_seeds_and_memory(world):
    vae, x, *_ = world
    gappy = x.where(~hidden(), NAN)
    one, two = (impute(vae, gappy, 100, seed=4) for _ in range(2))
    assert np.array_equal(one.draws, two.draws)
    state = torch.get_rng_state()
    impute(vae, gappy, 100, seed=4)
    assert torch.equal(state, torch.get_rng_state())


# ---- downstream


def test_everything_downstream_takes_gaps(tmp_path):
    x = data(Normal(FEATURES), 40).where(~hidden(40), NAN)
    vae = program(Normal(FEATURES, scale=Shared()))
    history, _ = fit(vae, x, epochs=2, seed=0, progress=False, validation=0.2)
    assert np.isfinite(history["validation_elbo"]).all()
    found = diagnose(vae, x, num_samples=50, history=history, budget=0)
    assert np.isnan(found.data).sum() == int(x.isnan().sum())
    assert any("missing" in note for note in found.notes)
    page = report(tmp_path / "gaps.html", found)
    assert "nan" not in page.read_text().lower().replace("nanmax", "")
    tree = to_datatree(vae, x, num_samples=5, seed=0)
    assert np.isnan(tree["observed_data"]["x_0"].to_numpy()).sum() == int(x[:, 0].isnan().sum())
    assert np.isfinite(tree["posterior_predictive"]["x_0"].to_numpy()).all()
    fresh = refit_guide(vae, x, epochs=2, progress=False)
    assert np.isfinite(log_evidence(fresh, x, 50, seed=0).log_evidence).all()
    assert np.isfinite(impute(fresh, x, 50, seed=0).point).all()


def test_nothing_missing_is_refused():
    vae, x = program(Normal(FEATURES)), data(Normal(FEATURES))
    with pytest.raises(ValueError, match="without a missing cell"):
        impute(vae, x)
    with pytest.raises(ValueError, match="num_samples=1"):
        impute(vae, x.where(~hidden(), NAN), 1)
    with pytest.raises(ValueError, match="level=90"):
        impute(vae, x.where(~hidden(), NAN), level=90)


def test_the_encoder_sees_zero_and_the_mask():
    seen_by = []

    class Spy(nn.Module):
        inputs = ("x", "mask")
        event_shape = Size([2])

        def forward(self, x, mask):
            seen_by.append((x, mask))
            return dist.Normal(x[..., :2], 1.0).to_event(1)

    vae = VAE(StandardNormal(2), Conditional(MLP(), Normal(FEATURES), given=2), Spy())
    x = torch.full((3, FEATURES), 4.0)
    x[1, 2] = NAN
    batch = program_batch(vae, x)
    vae.guide(*batch.args, **batch.kwargs)
    given, mask = seen_by[-1]
    assert given[1, 2] == 0
    assert mask[1].tolist() == [1, 1, 0, 1, 1]
    vae.guide(torch.zeros(3, FEATURES))  # nothing said of gaps: all is seen
    assert seen_by[-1][1].all()


def test_a_program_of_plain_functions_may_hide_cells_too():
    import pyro

    def model(x, mask):
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            cells = dist.Normal(z[..., None].expand(*z.shape, 3), 1.0).to_event(1)
            pyro.sample("x", Marginal(cells, mask), obs=x)

    def guide(x, mask):
        with pyro.plate("rows", len(x)):
            loc = (x * mask).sum(-1) / (1 + mask.sum(-1))
            pyro.sample("z", dist.Normal(loc, (1 + mask.sum(-1)) ** -0.5))

    x, seen = torch.randn(4, 3), torch.rand(4, 3) < 0.6
    found = impute(Program(model, guide), (x, seen), 200, seed=0)
    assert np.array_equal(found.hidden, ~seen.numpy())
    assert (found.ess > 199).all()  # that guide is exact


def test_cells_held_out_are_covered_as_promised(world):
    """Under the true program and its exact guide, 80 % intervals hold 80 % of the cells."""
    vae, _, bias, covariance = world
    torch.manual_seed(5)
    x = dist.MultivariateNormal(bias, covariance).sample(Size([400]))
    x[:, 0][torch.rand(400) < 0.3] = NAN  # some are missing already: they cannot be scored
    found = held_out_cells(vae, x, share=0.2, level=0.8, num_samples=1000, seed=1)
    cells = found.cells.sum()
    covered = (found.coverage * found.cells).sum() / cells
    # Cells of a row depend on each other, two or so at a time: five standard errors of half the
    # cells, and 1000 draws move a quantile by 0.013.
    assert abs(covered - 0.8) < 5 * (0.16 / (cells / 2)) ** 0.5 + 0.013
    assert found.cells[0] < 0.9 * found.cells[1]
    assert found.error.shape == (FEATURES,)
    assert found.imputation.hidden.sum() == cells + int(x.isnan().sum())
    with pytest.raises(ValueError, match="share=20"):
        held_out_cells(vae, x, share=20)


# ---- what a strict reader broke


@pytest.mark.parametrize("kind", ["full", "low rank"])
def test_a_marginal_in_float32_keeps_its_digits_at_the_floor(kind):
    """Σ has the squared condition number of its factor: 1e6 here, the family's own floor."""
    torch.manual_seed(0)
    ones = torch.ones(4, 1)
    if kind == "full":
        factor = 1e-3 * torch.eye(4)
        factor[:, 0] = 1.0
        d = dist.MultivariateNormal(torch.zeros(4), scale_tril=factor, validate_args=False)
        double = dist.MultivariateNormal(torch.zeros(4).double(), scale_tril=factor.double())
    else:
        d = dist.LowRankMultivariateNormal(torch.zeros(4), ones, 1e-6 * torch.ones(4))
        double = dist.LowRankMultivariateNormal(
            torch.zeros(4).double(), ones.double(), 1e-6 * torch.ones(4).double()
        )
    x = double.sample(Size([20])).float()
    seen = torch.ones_like(x, dtype=torch.bool)
    exact = double.log_prob(x.double())
    # The quadratic form amplifies the rounding of x by the condition number, in both alike.
    if kind == "full":
        assert (Marginal(d, seen).log_prob(x) - exact).abs().max() < 1e-3
    assert Marginal(d, seen).completed(x, d.sample(Size([20]))).isfinite().all()


def test_fillers_of_gaps_are_no_truth(world):
    vae, x, *_ = world
    shifted = x + 100.0
    plain = held_out_cells(vae, shifted, share=0.5, num_samples=50, seed=0)
    gappy = shifted.clone()
    gappy[2, 0] = NAN
    found = held_out_cells(vae, gappy, share=0.5, num_samples=50, seed=0)
    # The range of the column is that of what is known, and not from the filler 0 up.
    assert found.error[0] > 0.5 * plain.error[0]


def test_points_are_finite_where_means_are_not():
    from ppl_vae import StudentT

    x = torch.randn(12, FEATURES).where(~hidden(), NAN)
    found = impute(program(StudentT(FEATURES, df=1.0)), x, 50, seed=0)
    assert np.isfinite(found.point).all()


def blind(family) -> VAE:
    """A program whose x does not depend on z: p(x | x_seen) is p(x), known without a draw."""
    vae = program(family)
    with torch.no_grad():
        vae.decoder.net[-1].weight.zero_()
    return vae


def test_points_of_classes_are_those_of_their_probabilities():
    # Classes of 0.34, 0.33, 0.33: among five draws of the class the first leads in less than half
    # of the cells; its probability is known, and leads in all.
    from ppl_vae import Categorical, Columns, Ordinal

    logits = torch.tensor([0.34, 0.33, 0.33]).log()
    one = blind(Categorical(FEATURES, classes=3))
    mixed = {str(d): Ordinal((), classes=3) if d % 2 else Bernoulli(()) for d in range(FEATURES)}
    two = blind(Columns(mixed))
    with torch.no_grad():
        one.decoder.net[-1].bias.copy_(logits.repeat(FEATURES))
        # P(1) = 0.51 of a Bernoulli, P(x ≤ 0) = 0.49 of three ordered classes: the median is 1.
        two.decoder.net[-1].bias.copy_(torch.logit(torch.tensor([0.51, 0.343, 0.51, 0.343, 0.51])))
    gaps = torch.full((200, FEATURES), NAN)
    assert (impute(one, gaps, 5, seed=0).point == 0).all()
    assert (impute(two, gaps, 5, seed=0).point == 1).all()


def test_points_of_a_table_are_those_of_its_columns():
    from dataclasses import replace

    from ppl_vae import Categorical, Columns, LogNormal, Ordinal, Poisson

    def meanless(loc, scale):
        return dist.TransformedDistribution(dist.Normal(loc, scale), dist.transforms.ExpTransform())

    parts = {"real": Normal(()), "class": Categorical((), classes=3), "count": Poisson(())}
    parts |= {"grade": Ordinal((), classes=3), "own": replace(LogNormal(()), distribution=meanless)}
    vae = blind(Columns(parts))
    law = vae.likelihood(torch.zeros(2)).parts
    gaps = torch.full((20, FEATURES), NAN)
    gaps[0] = torch.tensor([0.5, 2.0, 3.0, 1.0, 0.7])
    found = impute(vae, gaps, 30, seed=0)
    # Equal numbers, whose weights are 1 together, but for rounding in float64.
    for column in (0, 2):
        assert found.point[1:, column] == pytest.approx(law[column].mean.item(), rel=1e-12)
    assert (found.point[1:, 1] == int(law[1].probs.argmax())).all()
    grade = int((law[3].log_prob(torch.arange(3.0)).exp().cumsum(0) < 0.5).sum())
    assert (found.point[1:, 3] == grade).all()
    assert np.isfinite(found.point).all() and len(np.unique(found.point[1:, 4])) > 1  # of draws
    for end in (found.lower, found.upper):
        assert np.array_equal(end[0], gaps[0]) and np.isnan(end[1:, 1]).all()
        assert np.isfinite(np.delete(end, 1, axis=1)).all()


def test_a_table_of_normals_is_imputed_as_the_normal():
    from ppl_vae import Columns

    one = program(Normal(FEATURES))
    table = program(Columns({str(d): Normal(()) for d in range(FEATURES)}))
    table.load_state_dict(one.state_dict())
    turned = torch.arange(2 * FEATURES).reshape(2, FEATURES).T.flatten()  # loc and scale in turn
    with torch.no_grad():
        for p in table.decoder.net[-1].parameters():
            p.copy_(p[turned])
    x = data(Normal(FEATURES)).where(~hidden(), NAN)
    points = [impute(p, x, 30, seed=0).point for p in (one, table)]
    # The same draws of z, weights and means: float32 sums of 5 cells in another order.
    assert np.allclose(*points, rtol=1e-4, atol=1e-5)


def test_classes_that_cannot_be_listed_have_no_point():
    from dataclasses import replace

    from ppl_vae import Poisson

    vae = program(replace(Poisson(FEATURES), level="nominal"))
    with pytest.raises(ValueError, match="expected one whose classes can be listed"):
        impute(vae, torch.full((3, FEATURES), NAN), 5, seed=0)


def test_the_order_of_a_dict_is_of_no_account():
    torch.manual_seed(0)
    vae = VAE(
        StandardNormal(2),
        Conditional(MLP(8), Normal(FEATURES), given={"z": 2, "a": 1, "b": 1}),
        Conditional(MLP(8), Normal(2), given={"x": FEATURES, "b": 1}),
    )
    parts = {"x": torch.randn(20, FEATURES), "a": torch.randn(20, 1), "b": torch.randn(20, 1)}
    turned = dict(reversed(parts.items()))
    fresh = refit_guide(vae, parts, epochs=2, progress=False)
    one, two = (log_weights(fresh, data, 5, seed=0) for data in (parts, turned))
    assert torch.equal(one, two)


def test_guides_of_guides_take_the_data_of_the_first():
    from ppl_vae import Categorical, refine
    from ppl_vae.posterior.impute import levels_of

    vae = program(Categorical(FEATURES, classes=3))
    x = torch.randint(0, 3, (12, FEATURES)).float().where(~hidden(), NAN)
    fresh = refit_guide(vae, x, epochs=2, progress=False)
    better = refine(fresh, x, steps=2, progress=False)
    assert levels_of(better) == "nominal"
    assert np.isin(impute(better, x, 20, seed=0).point, [0, 1, 2]).all()
    with pytest.raises(ValueError, match="refined already"):
        refine(better, x, steps=2)
    with pytest.raises(ValueError, match="refined for these very cells"):
        held_out_cells(better, x)
    with pytest.raises(ValueError, match="Got data without missing cells for a guide"):
        log_weights(fresh, x.nan_to_num(), 5)


def test_masks_go_by_the_names_of_columns():
    import pandas as pd

    x = pd.DataFrame(torch.randn(20, FEATURES).numpy(), columns=list("abcde"))
    mask = x.notna()
    vae = program(Normal(FEATURES))
    with pytest.raises(ValueError, match=r"Got the columns \['b', 'a'.*in the mask"):
        log_weights(vae, {"x": x, "mask": mask[["b", "a", "c", "d", "e"]]}, 5)


def test_a_single_cell_may_be_missing_too():
    vae = VAE(
        StandardNormal(1),
        Conditional(MLP(), Normal(()), given=1),
        Conditional(MLP(), Normal(1), given={"x": (), "mask": ()}),
    )
    x = torch.tensor([0.1, NAN, 0.3])
    assert log_weights(vae, x, 5, seed=0).isfinite().all()


def test_features_that_know_of_no_gaps_are_told():
    from ppl_vae import Features, LogNormal

    family = LogNormal(FEATURES)
    x = torch.rand(12, FEATURES) + 0.1
    vae = VAE(
        StandardNormal(1),
        Conditional(MLP(), family, given=1),
        Conditional(Features(MLP(), family), Normal(1), given=FEATURES),
    )
    log_weights(vae, x, 2)
    with pytest.raises(ValueError, match="Features know of none"):
        log_weights(vae, x.where(~hidden(), NAN), 2)
    with pytest.raises(ValueError, match=r"Features\(mask=True\); expected x and then its mask"):
        VAE(
            StandardNormal(1),
            Conditional(MLP(), family, given=1),
            Conditional(
                Features(MLP(), family, mask=True),
                Normal(1),
                given={"mask": FEATURES, "x": FEATURES},
            ),
        )
