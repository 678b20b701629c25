"""Data outside a likelihood's support: named by row and column, with families that take them."""

import numpy as np
import pandas as pd
import pytest
import torch

from ppl_vae import (
    MLP,
    VAE,
    Bernoulli,
    Binomial,
    Categorical,
    Columns,
    Conditional,
    ContinuousBernoulli,
    DiscretisedLogistic,
    Family,
    LogNormal,
    NegativeBinomial,
    Normal,
    Ordinal,
    PerFeature,
    Poisson,
    Shared,
    StandardNormal,
    ZeroInflatedNegativeBinomial,
    diagnose,
    fit,
    impute,
    log_evidence,
    refine,
    refit_guide,
    to_datatree,
)

GREY = np.array([[0.0, 0.3], [1.0, 0.7]])
LEVELS = np.array([[0.0, 255.0], [17.0, 3.0]])
COUNTS = np.array([[0.0, 20.0], [3.0, 1.0]])
REALS = np.array([[0.0, -2.5], [3.0, 1.0]])
POSITIVE = np.array([[0.5, 2.5], [3.0, 1.0]])
HALVES = np.array([[0.0, 2.5], [3.0, 1.0]])

# The family, data that it does not take, where, and what is proposed: each of them takes the data.
CASES: list[tuple[Family, np.ndarray, str, list[tuple[str, Family]]]] = [
    (Bernoulli(2), GREY, "0.3 at row 0, column 1", [
        ("ContinuousBernoulli(...)", ContinuousBernoulli(2)),
        ("Normal(..., scale=Shared())", Normal(2, scale=Shared())),
    ]),
    (Bernoulli(2), LEVELS, "255 at row 0, column 1", [
        ("DiscretisedLogistic(...)", DiscretisedLogistic(2)),
        ("Binomial(..., total=255)", Binomial(2, total=255)),
    ]),
    (Bernoulli(2), COUNTS, "20 at row 0, column 1", [("Poisson(...)", Poisson(2))]),
    (Bernoulli(2), POSITIVE, "0.5 at row 0, column 0", [("LogNormal(...)", LogNormal(2))]),
    (Binomial(2, total=16), COUNTS, "20 at row 0, column 1", [
        ("NegativeBinomial(...)", NegativeBinomial(2)),
        ("Binomial(..., total=20)", Binomial(2, total=20)),
    ]),
    (LogNormal(2), COUNTS, "0 at row 0, column 0", [("Poisson(...)", Poisson(2))]),
    (LogNormal(2), HALVES, "0 at row 0, column 0", [
        ("Normal(..., scale=PerFeature())", Normal(2, scale=PerFeature())),
        ("Columns(...)", Columns({"a": Normal(()), "b": LogNormal(())})),
    ]),
    (Poisson(2), HALVES, "2.5 at row 0, column 1", [
        ("Normal(..., scale=PerFeature())", Normal(2, scale=PerFeature())),
        ("Columns(...)", Columns({"a": Poisson(()), "b": LogNormal(())})),
    ]),
    (Poisson(2), POSITIVE, "0.5 at row 0, column 0", [("LogNormal(...)", LogNormal(2))]),
    (NegativeBinomial(2), REALS, "-2.5 at row 0, column 1", [("Normal(...", Normal(2))]),
    (ZeroInflatedNegativeBinomial(2), GREY, "0.3 at row 0, column 1", [
        ("ContinuousBernoulli(...)", ContinuousBernoulli(2)),
    ]),
    (ContinuousBernoulli(2), COUNTS, "20 at row 0, column 1", [("Poisson(...)", Poisson(2))]),
    (DiscretisedLogistic(2, levels=16), GREY, "0.3 at row 0, column 1", [
        ("ContinuousBernoulli(...)", ContinuousBernoulli(2)),
    ]),
    (Categorical(2, classes=3), COUNTS, "20 at row 0, column 1", [
        ("Categorical(..., classes=21)", Categorical(2, classes=21)),
    ]),
    (Ordinal(2, classes=3), COUNTS, "20 at row 0, column 1", [
        ("Ordinal(..., classes=21)", Ordinal(2, classes=21)),
    ]),
]  # fmt: skip


def program(family: Family) -> VAE:
    return VAE(
        StandardNormal(1),
        Conditional(MLP(), family, given=1),
        Conditional(MLP(), Normal(1), given=2),
    )


@pytest.mark.parametrize(("family", "x", "where", "proposed"), CASES, ids=lambda v: repr(v)[:30])
def test_the_guard_proposes_a_family_that_takes_the_data(family, x, where, proposed):
    with pytest.raises(ValueError) as refusal:
        fit(program(family), x, epochs=1, progress=False)
    message = str(refusal.value)
    assert f"Got {where}" in message
    assert f"the support of {family}" in message
    for words, other in proposed:
        assert words in message
        assert other.support.check(torch.as_tensor(x)).all()
        fit(program(other), x, epochs=1, batch_size=2, progress=False)


def test_the_column_is_called_by_its_name():
    table = pd.DataFrame({"visits": [0.0, 3.0, 1.0], "dose": [2.5, 1.0, 2.0]})
    with pytest.raises(ValueError, match=r"Got 2.5 at row 0, column 'dose' \(1 such values\)"):
        fit(program(Poisson(2)), table, epochs=1)


def test_every_door_has_the_guard():
    vae, x = program(Poisson(2)), HALVES.repeat(10, axis=0)
    for door in (
        lambda: log_evidence(vae, x, 30),
        lambda: diagnose(vae, x, budget=0),
        lambda: to_datatree(vae, x),
        lambda: refit_guide(vae, x),
        lambda: refine(vae, x),
        lambda: impute(vae, x),
    ):
        with pytest.raises(ValueError, match=r"Got 2.5 at row 0, column 1 .* in x; expected"):
            door()


def test_what_is_missing_has_no_support_to_be_in():
    x = np.where(HALVES == 2.5, np.nan, HALVES)
    fit(program(Poisson(2)), x, epochs=1, batch_size=2, progress=False)


@pytest.mark.parametrize("exposure", [0.0, -1.0])
def test_an_exposure_must_be_positive(exposure):
    data = {"x": COUNTS, "exposure": np.array([[1.0], [exposure]])}
    with pytest.raises(ValueError, match=rf"Got {exposure:g} in the covariate 'exposure'"):
        fit(program(NegativeBinomial(2, exposure=True)), data, epochs=1)


def test_the_proposal_is_for_the_column_of_a_table():
    table = Columns({"visits": Poisson(()), "kind": Categorical((), classes=3)})
    x = np.array([[20.0, 3.0], [1.0, 0.0]])
    with pytest.raises(
        ValueError,
        match=r"Got 3 at row 0, column 1 .*for that column Categorical\(..., classes=4\)",
    ):
        fit(program(table), x, epochs=1)


@pytest.mark.parametrize("shape", [(2,), (2, 3)])
def test_an_exposure_of_another_shape_would_broadcast_by_mistake(shape):
    data = {"x": COUNTS, "exposure": np.ones(shape)}
    with pytest.raises(ValueError, match=r"'exposure' of shape .*Try exposure.reshape\(-1, 1\)"):
        fit(program(NegativeBinomial(2, exposure=True)), data, epochs=1)
