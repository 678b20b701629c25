"""Tables: cells of different families as one event, units, and what is proposed for a DataFrame."""

import numpy as np
import pandas as pd
import pyro.distributions as dist
import pytest
import torch
from scipy import stats

from ppl_vae import (
    MLP,
    VAE,
    Bernoulli,
    Categorical,
    Columns,
    Conditional,
    ContinuousBernoulli,
    Delta,
    DiscretisedLogistic,
    LogNormal,
    LowRankMultivariateNormal,
    MultivariateNormal,
    NegativeBinomial,
    Normal,
    Ordinal,
    PerFeature,
    Poisson,
    Shared,
    Standardised,
    StandardNormal,
    StudentT,
    ZeroInflatedNegativeBinomial,
    fit,
    impute,
    log_evidence,
    posterior_predictive,
    propose_columns,
)
from ppl_vae.distributions import Joint
from ppl_vae.families.zeros import zeros_expected
from ppl_vae.testing import check_family

PARTS = {
    "income": Standardised(Normal((), scale=Shared()), loc=3e4, scale=2e4),
    "capital.gain": Standardised(LogNormal(()), scale=500.0),  # torch allows no dot in names
    "sex": Bernoulli(()),
    "work": Categorical((), classes=3),
    "grade": Ordinal((), classes=4),
    "visits": NegativeBinomial((), exposure=True),
    "calls": Poisson(()),
}
PEOPLE = Columns(PARTS)
LAWS = [
    "shapes",
    "rows",
    "dtype",
    "support",
    "filler",
    "features",
    "measure",
    "gradients",
    "finite",
]


@pytest.mark.parametrize(
    ("family", "measure", "more"),
    [
        (PEOPLE, "mixed", ["normalised", "draws", "moments"]),
        (
            Columns({"a": Normal(()), "b": LogNormal(())}),
            "density",
            ["normalised", "draws", "moments"],
        ),
        (Columns({"a": Categorical((), classes=2)}), "mass", ["normalised", "draws"]),
    ],
)
def test_columns_keep_the_laws(family, measure, more):
    assert list(check_family(family)) == LAWS + more
    assert family.measure == measure


@pytest.mark.parametrize(
    "family",
    [
        Standardised(Normal(3), loc=-5.0, scale=100.0),
        Standardised(StudentT((2, 2), scale=PerFeature()), loc=1.0, scale=0.01),
        Standardised(LogNormal(3), scale=1e4),
        Standardised(Normal(2, scale=3.0), loc=7.0, scale=2.0),
    ],
)
def test_units_keep_the_laws(family):
    assert {"filler", "normalised", "draws", "moments"} <= set(check_family(family))


def draw(rows=6):
    torch.manual_seed(0)
    raw = {n: torch.randn(rows, *s).double() for n, s in PEOPLE.shapes.items()}
    raw |= {n: v.double() for n, v in PEOPLE.shared.items()}
    return raw, torch.rand(rows, 1).double() + 0.5


def test_a_row_is_its_cells(float64):
    raw, size = draw()
    d = PEOPLE(**raw, exposure=size)
    x = d.sample()
    assert isinstance(d, Joint) and x.shape == (6, 7)
    for k, family in enumerate(PARTS.values()):
        own = {n: raw[f"{k}_{n}"] for n in (*family.shapes, *family.shared)}
        own |= dict.fromkeys(family.needs, size[:, 0])
        alone = family(**own).log_prob(x[:, k])
        assert torch.equal(d.cells(x)[:, k], alone)
        for moment in ("mean", "variance"):
            stated = getattr(family(**own), moment)
            assert torch.equal(getattr(d, moment)[:, k].nan_to_num(-1), stated.nan_to_num(-1))
    assert torch.equal(d.log_prob(x), d.cells(x).sum(-1))
    # An exposure for each column: that of the column is taken.
    each = torch.rand(6, 7)
    each[:, 5] = size[:, 0]
    assert torch.equal(PEOPLE(**raw, exposure=each).log_prob(x), d.log_prob(x))
    assert d.expand((2, 6)).log_prob(x).shape == (2, 6)
    assert d.mean[:, 0].isfinite().all() and d.mean[:, 3].isnan().all()  # classes have no mean


def test_support_is_checked_cell_by_cell():
    x = torch.tensor([[3e4, 1.0, 1.0, 2.0, 3.0, 4.0, 0.0]])
    wrong = x.clone()
    wrong[0, [1, 3, 6]] = torch.tensor([0.0, 3.0, 2.5])
    assert PEOPLE.support.check(x).all()
    expected = [True, False, True, False, True, True, False]
    assert PEOPLE.support.check(wrong)[0].tolist() == expected
    vae = VAE(
        StandardNormal(1),
        Conditional(MLP(), Columns({"n": Poisson(()), "y": Normal(())}), given=1),
        Conditional(MLP(), Normal(1), given=2),
    )
    with pytest.raises(ValueError, match=r"2.5 at row 1, column 0 .*n: Poisson"):
        fit(vae, torch.tensor([[1.0, 0.5], [2.5, 0.5]]), epochs=1)
    with pytest.raises(ValueError, match="support"):
        Joint([dist.Poisson(torch.tensor(1.0))]).log_prob(torch.tensor([0.5]))
    with pytest.raises(ValueError):
        Joint([dist.Poisson(torch.tensor(1.0))]).log_prob(torch.tensor([0.0, 0.0]))


@pytest.mark.parametrize(
    "ask",
    [
        lambda vae, x: fit(vae, x, epochs=1, progress=False),
        lambda vae, x: log_evidence(vae, x, 30, seed=0),
        lambda vae, x: impute(vae, x, 30, seed=0),
    ],
    ids=["fit", "log_evidence", "impute"],
)
def test_a_table_has_the_columns_of_its_likelihood_in_their_order(ask):
    vae = VAE(
        StandardNormal(1),
        Conditional(MLP(), Columns({"n": Poisson(()), "y": Normal(())}), given=1),
        Conditional(MLP(), Normal(1), given=2),
    )
    table = pd.DataFrame({"n": [1.0, 2.0, np.nan] * 10, "y": np.linspace(-1, 1, 30)})
    turned, renamed = table[["y", "n"]], table.rename(columns={"y": "z"})
    for odd, got, expected in ((turned, "y", "n"), (renamed, "z", "y")):
        for data in (odd, {"x": odd}):
            with pytest.raises(ValueError, match=f"Got .*'{got}'.*; expected .*'{expected}'.*Try"):
                ask(vae, data)
    for data in (table, table.to_numpy()):  # arrays do not know their names
        ask(vae, data)


def test_of_many_columns_the_first_that_differs_is_named():
    names = [*"abcdefghi"]
    family = Columns(dict.fromkeys(names, Normal(())))
    vae = VAE(
        StandardNormal(1),
        Conditional(MLP(), family, given=1),
        Conditional(MLP(), Normal(1), given=9),
    )
    with pytest.raises(ValueError, match="column 'i' in data where the likelihood has 'h'"):
        fit(vae, pd.DataFrame(np.zeros((3, 9)), columns=[*"abcdefgih"]), epochs=1)


def test_standardising_keeps_the_units_of_the_density(float64):
    loc, raw, x = torch.randn(3, 5).unbind()
    x = 3e4 + 2e4 * x
    scale = 1e-3 + torch.nn.functional.softplus(raw)
    d = Standardised(Normal(()), loc=3e4, scale=2e4)(loc=loc, scale=raw)
    exact = stats.norm(3e4 + 2e4 * loc.numpy(), 2e4 * scale.numpy()).logpdf(x)
    assert np.allclose(d.log_prob(x), exact, rtol=1e-12)
    # It is the affine image of the family, Jacobian included.
    image = dist.TransformedDistribution(
        dist.Normal(loc, scale), dist.transforms.AffineTransform(3e4, 2e4)
    )
    assert torch.allclose(d.log_prob(x), image.log_prob(x), rtol=1e-12)
    x = x.abs()
    d = Standardised(LogNormal(()), scale=500.0)(loc=loc, scale=raw)
    exact = stats.lognorm(scale.numpy(), scale=500 * np.exp(loc.numpy())).logpdf(x)
    assert np.allclose(d.log_prob(x), exact, rtol=1e-12)
    assert Standardised(Normal((), min_scale=0.5), scale=4.0).min_scale == 2.0
    assert Standardised(LogNormal((), min_scale=0.5), scale=4.0).min_scale == 0.5


def a_table(rows=300):
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "age": rng.normal(40, 12, rows).round(1),
            "income": rng.lognormal(10, 1, rows),
            "visits": rng.poisson(2, rows),
            "clicks": rng.negative_binomial(1, 0.1, rows),
            "member": rng.random(rows) > 0.3,
            "flag": rng.integers(0, 2, rows),
            "sex": rng.choice(["f", "m"], rows),
            "side": rng.integers(1, 3, rows),
            "work": rng.choice(["a", "b", "c"], rows),
            "grade": pd.Categorical(rng.choice(list("xyz"), rows), list("zyx"), ordered=True),
            "id": rng.integers(0, 10**6, rows),
        }
    )


def test_families_are_proposed_with_their_reasons():
    found = propose_columns(a_table())
    kinds = {c: repr(f).split("((")[0] for c, f in found.families.items()}
    assert kinds == {
        "age": "Standardised(Normal",
        "income": "Standardised(LogNormal",
        "visits": "Poisson",
        "clicks": "NegativeBinomial",
        "member": "Bernoulli",
        "flag": "Bernoulli",
        "sex": "Bernoulli",
        "side": "Bernoulli",
        "work": "Categorical",
        "grade": "Ordinal",
        "id": "Standardised(Normal",
    }
    said = repr(found)
    assert (
        len(said.splitlines()) == 11 and "grade: Ordinal((), classes=3): 3 classes ordered" in said
    )
    assert "f and m, to be coded f = 0 and m = 1" in found.reasons["sex"]
    table = a_table()
    table.loc[3, ["age", "visits"]] = np.nan  # missing: counts become floats
    again = propose_columns(table)
    assert repr(again.families["visits"]).startswith("Poisson")
    assert repr(Columns(found.families)).startswith("Columns(age: Standardised(Normal")


def test_zeros_beyond_a_negative_binomial_are_proposed_as_such():
    rng = np.random.default_rng(0)
    gains = np.where(rng.random(2000) < 0.9, 0, rng.integers(100, 99_999, 2000))
    debts = rng.integers(100, 99_999, 2000)  # as large, but hardly ever 0
    found = propose_columns(pd.DataFrame({"gains": gains, "debts": debts}))
    kinds = [repr(f).partition("(")[0] for f in found.families.values()]
    assert kinds == ["ZeroInflatedNegativeBinomial", "Standardised"]
    assert "% of them 0 where the others leave room for" in found.reasons["gains"]


@pytest.mark.parametrize(("r", "mean"), [(0.1, 10), (0.3, 20), (2, 3)])
def test_zeros_of_a_negative_binomial_are_seldom_called_too_many(r, mean):
    rng = np.random.default_rng(0)
    many = [rng.negative_binomial(r, r / (r + mean), 1000).astype(float) for _ in range(100)]
    # One in 1000 by design; of 100, three or more come 1.5e-4 of the time.
    assert sum(zeros_expected(x) is not None for x in many) <= 2
    # A quarter of all cells more: each is caught, where there is a hump to tell them from.
    if r == 2:
        assert all(zeros_expected(x * (rng.random(1000) < 0.75)) for x in many[:20])


def trained(family, x, compile=False):
    torch.manual_seed(0)
    vae = VAE(
        StandardNormal(2),
        Conditional(MLP(8), family, given=2),
        Conditional(nets, LowRankMultivariateNormal(2, rank=1), given=x.shape[1]),
    )
    history, _ = fit(vae, x, epochs=2, seed=0, compile=compile, progress=False)
    return vae, history["loss"]


def test_a_proposal_starts_near_the_data():
    table = a_table(60)[["age", "income", "visits", "flag"]].astype(float)
    vae, loss = trained(Columns(propose_columns(table).families), table)
    assert loss[0] < 40  # a standard Normal of raw incomes has 1e8 nats and more
    draws = posterior_predictive(vae, table, num_samples=2, seed=0).data["x"]
    assert draws.shape == (2, 60, 4) and (draws[..., 1] > 0).all()


def test_a_traced_step_is_the_eager_one(monkeypatch):
    from ppl_vae.training import compiled

    # The graph that the compiler is given, run operation by operation.
    monkeypatch.setattr(compiled, "compiled", lambda graph, _: compiled.interpreted(graph))
    tricky = Columns(
        {
            "zeros": ZeroInflatedNegativeBinomial(()),
            "grade": Ordinal((), classes=4),
            "tails": Standardised(StudentT((), df=Shared(4.0)), loc=5.0, scale=10.0),
            "grey": ContinuousBernoulli(()),
            "level": DiscretisedLogistic(()),
            "class": Categorical((), classes=3),
        }
    )
    raw = {n: torch.randn(60, *s) for n, s in tricky.shapes.items()}
    x = tricky(**raw, **tricky.shared).sample()
    losses = [trained(tricky, x, compile)[1] for compile in (False, True)]
    # The same operations in another order, in float32.
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def nets(i, o):
    """An encoder that sees logarithms: incomes of 1e5 would swamp it."""

    class Logs(torch.nn.Module):
        def forward(self, x):
            return torch.log1p(x.abs())

    return torch.nn.Sequential(Logs(), MLP(8)(i, o))


@pytest.mark.parametrize(
    ("action", "got", "attempt"),
    [
        (lambda: Columns({}), "no columns", "Try Columns"),
        (lambda: Columns({"a": Normal(3)}), r"Normal\(\(3,\).*'a'", r"Try Normal\(\(\)\)"),
        (lambda: Columns({"a": Delta(())}), "Delta.*'a'", "Try Normal"),
        (lambda: Columns({"a": "normal"}), "'normal' for the column 'a'", "Try Normal"),
        (lambda: Standardised(Poisson(()), scale=1.0), "Poisson", "Try Normal"),
        (lambda: Standardised(MultivariateNormal(2), scale=1.0), "Multivar", "Try Normal"),
        (lambda: Standardised(Normal(()), scale=0.0), "scale=0.0", "left out"),
        (
            lambda: Standardised(Standardised(Normal(()), scale=2.0), scale=3.0),
            "standardised already",
            "one loc",
        ),
        (lambda: Standardised(Normal(()), loc=np.nan, scale=1.0), "loc=nan", "mean"),
        (lambda: Standardised(LogNormal(()), loc=1.0, scale=1.0), "loc=1.0", "median"),
        (lambda: propose_columns(np.zeros((3, 2))), "a ndarray", "DataFrame"),
        (lambda: propose_columns(pd.DataFrame({"a": [1, 1]})), "'a' with 1", "leaving it out"),
        (
            lambda: propose_columns(pd.DataFrame([[1, 2]], columns=["a", "a"])),
            "'a', 'a'",
            "renaming",
        ),
        (lambda: Joint([]), r"\[\]", "one distribution a cell"),
    ],
)
def test_what_is_refused(action, got, attempt):
    with pytest.raises(ValueError, match=got) as caught:
        action()
    assert "; expected " in str(caught.value)
    with pytest.raises(ValueError, match=attempt):
        action()
