"""What a network sees of x: features by family, zero where a cell is missing."""

import pytest
import torch

from ppl_vae import (
    MLP,
    VAE,
    Binomial,
    Categorical,
    Columns,
    Conditional,
    DiscretisedLogistic,
    Features,
    LogNormal,
    Normal,
    Ordinal,
    Poisson,
    Program,
    Standardised,
    StandardNormal,
    fit,
    impute,
    refit_guide,
)

TABLE = Columns(
    {
        "pay": Standardised(LogNormal(()), scale=100.0),
        "age": Standardised(Normal(()), loc=40.0, scale=10.0),
        "work": Categorical((), classes=3),
        "grade": Ordinal((), classes=5),
        "visits": Poisson(()),
    }
)
ROW = torch.tensor([[100.0, 50.0, 2.0, 1.0, 0.0]])
SEEN = [0.0, 1.0, 0.0, 0.0, 1.0, 0.25, 0.0]


def test_each_column_as_its_family_has_it():
    assert torch.allclose(TABLE.as_features(ROW), torch.tensor([SEEN]))
    assert torch.equal(Normal(3).as_features(torch.ones(2, 3)), torch.ones(2, 3))
    quarters = Binomial((2, 2), total=4).as_features(torch.ones(5, 2, 2))
    assert torch.equal(quarters, torch.full((5, 4), -0.5))
    ends = DiscretisedLogistic(2, levels=256).as_features(torch.tensor([0.0, 255.0]))
    assert torch.equal(ends, torch.tensor([-1.0, 1.0]))
    assert Categorical((2, 2), classes=3).as_features(torch.zeros(5, 2, 2)).shape == (5, 12)


def test_what_is_missing_is_zero_and_never_nan():
    x = torch.zeros(1, 5)  # as a program passes what is missing: outside the support of a logarithm
    mask = torch.tensor([[False, True, False, True, True]])
    found = TABLE.as_features(x, mask)
    assert found.isfinite().all()
    assert found[0].tolist() == [0.0, -4.0, 0.0, 0.0, 0.0, 0.0, 0.0]


def test_what_follows_x_is_passed_on():
    net = Features(MLP(4), TABLE, mask=True)(5 + 5 + 2, 3)
    rows = torch.cat([ROW, torch.ones(1, 5), torch.tensor([[7.0, 8.0]])], -1)
    assert torch.allclose(net[0](rows)[0], torch.tensor([*SEEN, *[1.0] * 5, 7.0, 8.0]))
    assert net(rows).shape == (1, 3)
    with pytest.raises(ValueError, match="Got 5 inputs; expected 10 or more, x and its mask first"):
        Features(MLP(4), TABLE, mask=True)(5, 3)


def a_table(rows: int = 60) -> torch.Tensor:
    torch.manual_seed(0)
    raw = {n: torch.randn(rows, *s) for n, s in TABLE.shapes.items()}
    return TABLE(**raw, **TABLE.shared).sample()


def trained(x: torch.Tensor, *, compiled: bool):
    """A program of a table with gaps, and its losses."""
    torch.manual_seed(1)
    vae = VAE(
        StandardNormal(2),
        Conditional(MLP(8), TABLE, given=2),
        Conditional(Features(MLP(8), TABLE, mask=True), Normal(2), given={"x": 5, "mask": 5}),
    )
    settings = {"epochs": 2, "batch_size": 20, "seed": 0, "progress": False}
    return vae, fit(vae, x, compile=compiled, **settings).history["loss"]


def test_a_table_with_gaps_from_data_to_imputation():
    x = a_table()
    x[torch.rand(x.shape) < 0.2] = torch.nan
    vae, losses = trained(x, compiled=False)
    found = impute(vae, x, 50, seed=0)
    inside = TABLE.support.check(torch.as_tensor(found.point))
    assert inside[:, :4].all()  # a mean of counts is no count
    assert TABLE.support.check(torch.as_tensor(found.draws)).all()
    _, compiled = trained(x, compiled=True)
    assert compiled == pytest.approx(losses, rel=1e-4)


def test_a_fresh_guide_sees_features_unasked():
    vae = VAE(
        StandardNormal(2),
        Conditional(MLP(8), TABLE, given=2),
        Conditional(Features(MLP(8), TABLE, mask=True), Normal(2), given={"x": 5, "mask": 5}),
    )
    x = ROW.repeat(20, 1)
    gappy = x.clone()
    gappy[:5, 0] = torch.nan
    for data, width in ((x, len(SEEN)), (gappy, len(SEEN) + 5)):
        fresh = refit_guide(vae, data, epochs=1, progress=False)
        first = next(m for m in fresh.modules() if isinstance(m, torch.nn.Linear))
        assert first.in_features == width
    foreign = refit_guide(Program(vae.model, vae.guide, modules=[vae]), x, epochs=1, progress=False)
    assert next(m for m in foreign.modules() if isinstance(m, torch.nn.Linear)).in_features == 5
