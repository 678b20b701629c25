"""What has no density gets no number, what would fail silently is said aloud, a bad step is undone.

- `log_weights` refuses, and names the site: a point or sampled-only distribution, a latent shared
  by all data, whatever else gives no datum a weight of its own.
- The same programs train where that is legal, and their History has no `elbo` and no `kl`.
- A loss that is not finite stops training before the step is taken.
"""

import functools
import itertools
import math
import re
import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyro
import pyro.distributions as dist
import pyro.infer
import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from ppl_vae import (
    MLP,
    VAE,
    Adversarial,
    Bernoulli,
    Binomial,
    Columns,
    Conditional,
    Delta,
    Family,
    FitResult,
    GaussianMixture,
    History,
    LogNormal,
    NoDensityError,
    NonFiniteError,
    Normal,
    PerFeature,
    Predicted,
    Program,
    Shared,
    StandardNormal,
    diagnose,
    fit,
    log_evidence,
    log_weights,
    refit_guide,
)
from ppl_vae.data import resolution
from ppl_vae.data.batches import Batch
from ppl_vae.data.resolution import gaps
from ppl_vae.training import floors

X = (torch.rand(24, 6, generator=torch.Generator().manual_seed(0)) > 0.5).float()
REALS = torch.linspace(-1.0, 1.0, 24)


class SampledOnly(dist.TorchDistribution):
    """Draws, and no density: a simulator's prior."""

    arg_constraints: dict = {}
    support = torch.distributions.constraints.real_vector
    has_rsample = False

    def expand(self, batch_shape, _instance=None):
        return SampledOnly(torch.Size(batch_shape), self.event_shape, validate_args=False)

    def sample(self, sample_shape=torch.Size()):  # noqa: B008
        return torch.randn(sample_shape + self.batch_shape + self.event_shape)

    def log_prob(self, value):
        raise NotImplementedError


class SampledPrior(nn.Module):
    event_shape = torch.Size([2])

    def forward(self):
        return SampledOnly(torch.Size(), self.event_shape, validate_args=False)


def a_vae(prior: nn.Module | None = None, guide=Normal, likelihood=None, net=None) -> VAE:
    likelihood = Bernoulli(6) if likelihood is None else likelihood
    net = MLP(4) if net is None else net
    return VAE(
        StandardNormal(2) if prior is None else prior,
        Conditional(net, likelihood, given=2),
        Conditional(net, guide(2), given=6),
    )


def trained(program: nn.Module, data: object = X, **arguments: object) -> FitResult:
    given = {"epochs": 2, "batch_size": 10, "seed": 0, "progress": False, **arguments}
    return fit(program, data, **given)


# ---- programs without log weights


def shared_model(x):
    level = pyro.sample("level", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(x)):
        latent = pyro.sample("latent", dist.Normal(level, 1.0))
        pyro.sample("obs", dist.Normal(latent, 1.0), obs=x)


def shared_guide(x):
    pyro.sample("level", dist.Normal(pyro.param("mean", torch.tensor(0.1)), 1.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("latent", dist.Normal(x / 2, 1.0))


def model(x):
    with pyro.plate("rows", len(x)):
        latent = pyro.sample("latent", dist.Normal(0.0, 1.0))
        pyro.sample("obs", dist.Normal(latent, 1.0), obs=x)


def guide(x):
    slope = pyro.param("slope", torch.tensor(0.5))
    with pyro.plate("rows", len(x)):
        pyro.sample("latent", dist.Normal(slope * x, 1.0))


def sequential_model(x):
    for i in pyro.plate("rows", len(x)):
        latent = pyro.sample(f"latent_{i}", dist.Normal(0.0, 1.0))
        pyro.sample(f"obs_{i}", dist.Normal(latent, 1.0), obs=x[i])


def sequential_guide(x):
    slope = pyro.param("slope", torch.tensor(0.5))
    for i in pyro.plate("rows", len(x)):
        pyro.sample(f"latent_{i}", dist.Normal(slope * x[i], 1.0))


def auxiliary_guide(x):
    slope = pyro.param("slope", torch.tensor(0.5))
    with pyro.plate("rows", len(x)):
        noise = pyro.sample("noise", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
        pyro.sample("latent", dist.Normal(slope * x + noise, 1.0))


def unplated_guide(x):
    """One site of event shape (N,), outside any plate: its log-prob is a sum over the data."""
    slope = pyro.param("slope", torch.tensor(0.5))
    pyro.sample("latent", dist.Normal(slope * x, 1.0).to_event(1))


def subsampling_model(x):
    with pyro.plate("rows", len(x), subsample_size=4) as rows:
        latent = pyro.sample("latent", dist.Normal(0.0, 1.0))
        pyro.sample("obs", dist.Normal(latent, 1.0), obs=x[rows])


def subsampling_guide(x):
    slope = pyro.param("slope", torch.tensor(0.5))
    with pyro.plate("rows", len(x), subsample_size=4) as rows:
        pyro.sample("latent", dist.Normal(slope * x[rows], 1.0))


def grid_model(x):
    with pyro.plate("rows", 24, dim=-2), pyro.plate("columns", 24, dim=-1):
        latent = pyro.sample("latent", dist.Normal(0.0, 1.0))
        pyro.sample("obs", dist.Normal(latent, 1.0), obs=x)


def grid_guide(x):
    slope = pyro.param("slope", torch.tensor(0.5))
    with pyro.plate("rows", 24, dim=-2), pyro.plate("columns", 24, dim=-1):
        pyro.sample("latent", dist.Normal(slope * x, 1.0))


GRID = REALS[:, None] * REALS

UNDEFINED = {
    "Delta guide": (lambda: a_vae(guide=Delta), X, "'z' is a point .Delta. and has no density"),
    "sampled-only prior": (lambda: a_vae(SampledPrior()), X, "'z' can only be sampled"),
    "global latent": (
        lambda: Program(shared_model, shared_guide),
        REALS,
        "'level' is outside the data plate: it is shared by all data",
    ),
    "sequential plate": (
        lambda: Program(sequential_model, sequential_guide),
        REALS,
        r"plate \['rows'\] is sequential",
    ),
    "auxiliary site": (
        lambda: Program(model, auxiliary_guide),
        REALS,
        r"the guide draws \['noise'\], which the model lacks",
    ),
    "guide outside its plate": (
        lambda: Program(model, unplated_guide),
        REALS,
        "'latent' is outside the data plate",
    ),
    "two plates of one size": (
        lambda: Program(grid_model, grid_guide),
        GRID,
        r"\['rows', 'columns'\] both have the batch's size 24",
    ),
}


@pytest.mark.parametrize("name", UNDEFINED)
@pytest.mark.parametrize("function", [log_weights, log_evidence])
def test_no_density_no_weights(name: str, function: Callable) -> None:
    build, data, says = UNDEFINED[name]
    program = build()
    with pytest.raises(NoDensityError, match=says) as refusal:
        function(program, data, 10)
    assert "xpected" in str(refusal.value) and "Try" in str(refusal.value)


def finite(history: History) -> bool:
    return all(np.isfinite(history[column]).all() for column in history.columns)


# Pyro itself refuses to train a guide whose site has another event than the model's.
TRAINED = ("global latent", "sequential plate", "auxiliary site", "two plates of one size")


@pytest.mark.filterwarnings("ignore:.*no elbo and no kl column:UserWarning")
@pytest.mark.parametrize("name", TRAINED)
def test_history_without_log_weights_has_no_elbo(name: str) -> None:
    build, data, _ = UNDEFINED[name]
    history, _ = trained(build(), data, batch_size=24, validation=data)
    assert {"elbo", "kl", "validation_elbo", "validation_kl"}.isdisjoint(history.columns)
    assert {"loss", "reconstruction", "validation_loss"} <= set(history.columns)
    assert finite(history)
    assert {"elbo", "kl"}.isdisjoint(history.to_pandas().columns)


def test_delta_under_elbo_is_said_to_be_map_and_has_no_elbo() -> None:
    program = a_vae(guide=Delta)
    with pytest.warns(UserWarning, match="'z' is a point .* maximum a posteriori, not a bound"):
        history, _ = trained(program, validation=X)
    assert {"elbo", "kl", "validation_elbo", "validation_kl"}.isdisjoint(history.columns)
    assert {"loss", "reconstruction", "validation_reconstruction"} <= set(history.columns)
    assert finite(history)


@pytest.mark.parametrize("name", ["Delta guide", "sampled-only prior"])
def test_adversarial_needs_no_density(name: str) -> None:
    build, data, _ = UNDEFINED[name]
    history, _ = trained(build(), data, objective=Adversarial(critic=MLP(4)), validation=X)
    assert not [column for column in history.columns if column.endswith(("elbo", "kl"))]
    assert {"reconstruction", "adversarial", "critic_loss", "critic_accuracy"} <= set(
        history.columns
    )
    assert finite(history)


def test_sampled_only_prior_has_no_elbo_to_train_on() -> None:
    with pytest.raises(ValueError, match="'z' can only be sampled.*Try objective=Adversarial"):
        trained(a_vae(SampledPrior()))


def test_a_latent_shared_by_all_data_has_no_critic() -> None:
    with pytest.raises(
        ValueError, match="'level' is outside.*one code per datum|one code.*'level'"
    ):
        trained(Program(shared_model, shared_guide), REALS, objective=Adversarial())


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("sampled-only prior", "the prior of 'z' can only be drawn from.*Try a prior with"),
        ("global latent", "'level'.*shared by all data.*Try training the program's own guide"),
    ],
)
def test_no_fresh_guide_where_there_is_no_posterior_to_fit(name: str, says: str) -> None:
    build, data, _ = UNDEFINED[name]
    with pytest.raises(NoDensityError, match=says):
        refit_guide(build(), data, epochs=1, progress=False)


@pytest.mark.parametrize("name", ["Delta guide", "sampled-only prior"])
def test_the_diagnosis_says_why_there_is_no_evidence(name: str) -> None:
    build, data, says = UNDEFINED[name]
    found = diagnose(build(), data, num_samples=10, budget=0)
    assert found.evidence is None and found.terms is None
    assert found.undefined is not None
    assert re.search(says, found.undefined)


def test_a_subsampling_plate_uses_some_rows_only_and_gets_no_weights() -> None:
    program = Program(subsampling_model, subsampling_guide)
    with pytest.raises(
        ValueError,
        match="plate 'rows' subsamples.*every row.*Try a model of the same networks whose",
    ):
        log_weights(program, REALS, 10)


@pytest.mark.filterwarnings("ignore:.*no elbo and no kl column:UserWarning")
def test_a_guide_site_outside_its_plate_trains_nothing_silently() -> None:
    def bare_guide(x):
        slope = pyro.param("slope", torch.tensor(0.5))
        pyro.sample("latent", dist.Normal(slope * x, 1.0))  # neither in a plate nor an event

    for odd, says in ((unplated_guide, "event_dims disagree"), (bare_guide, "invalid log_prob")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a shared latent is weighed wrongly by batches
            with pytest.raises(ValueError, match=says):
                trained(Program(model, odd), REALS)
        with pytest.raises(ValueError, match="'latent' is outside the data plate|invalid log_prob"):
            log_weights(Program(model, odd), REALS, 10)


# ---- programs that look odd and have weights all the same


@pytest.mark.parametrize("plate", [None, "rows"])
def test_the_data_plate_is_the_one_that_follows_the_batch(plate) -> None:
    """z_i ~ N(0, 1), x_ij ~ N(z_i, 1): with the exact guide each weight is log p(x_i)."""

    def rows_model(x):
        columns, rows = pyro.plate("columns", 6, dim=-1), pyro.plate("rows", len(x), dim=-2)
        with rows:
            latent = pyro.sample("latent", dist.Normal(0.0, 1.0))
            with columns:
                pyro.sample("obs", dist.Normal(latent, 1.0), obs=x)

    def rows_guide(x):
        mean = x.sum(1, keepdim=True) / 7
        with pyro.plate("rows", len(x), dim=-2):
            pyro.sample("latent", dist.Normal(mean, math.sqrt(1 / 7)))

    x = REALS.reshape(6, 4) @ torch.linspace(-1, 1, 24).reshape(4, 6)
    marginal = dist.MultivariateNormal(torch.zeros(6), torch.eye(6) + 1)
    weights = log_weights(Program(rows_model, rows_guide, plate=plate), x, 10)
    assert weights.shape == (10, 6)
    assert torch.allclose(weights, marginal.log_prob(x).expand(10, 6), atol=1e-5)


def test_enumerated_sites_are_summed_out_as_by_hand() -> None:
    """Two dependent discrete sites and a continuous one: every weight against the sum of 2 × 3."""
    first, second = torch.tensor([0.3, 0.7]), torch.tensor([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])
    parallel = {"enumerate": "parallel"}

    def discrete_model(x):
        with pyro.plate("rows", len(x)):
            a = pyro.sample("a", dist.Categorical(first), infer=parallel)
            b = pyro.sample("b", dist.Categorical(second[a]), infer=parallel)
            z = pyro.sample("z", dist.Normal(b - 1.0, 0.5))
            pyro.sample("x", dist.Normal(z + a, 0.5), obs=x)

    def continuous_guide(x):
        slope = pyro.param("slope", torch.tensor(0.5))
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal(slope * x, 1.0))

    program = Program(discrete_model, continuous_guide)
    x = REALS[:5]
    weights = log_weights(program, x, 7, seed=3)
    torch.manual_seed(3)
    q = dist.Normal(0.5 * x.repeat(7), 1.0)
    z = q.sample()
    terms = [
        first[a].log()
        + second[a, b].log()
        + dist.Normal(b - 1.0, 0.5).log_prob(z)
        + dist.Normal(z + a, 0.5).log_prob(x.repeat(7))
        for a, b in itertools.product(range(2), range(3))
    ]
    by_hand = (torch.logsumexp(torch.stack(terms), 0) - q.log_prob(z)).reshape(7, 5)
    assert torch.allclose(weights, by_hand, atol=1e-5)
    with pytest.raises(ValueError, match=r"\['a', 'b'\] marked for enumeration.*TraceEnum_ELBO"):
        trained(program, x, batch_size=5)
    history, _ = trained(
        program, x, batch_size=5, objective=pyro.infer.TraceEnum_ELBO(max_plate_nesting=1)
    )
    assert finite(history) and {"elbo", "kl"}.isdisjoint(history.columns)


# ---- warnings


def test_a_constant_column_under_a_learned_scale_is_said_aloud() -> None:
    x = torch.randn(24, 6)
    x[:, 4] = 7.0
    for scale in (PerFeature(), Predicted()):
        with pytest.warns(UserWarning, match=r"1 of 6 cells \(4\) of the data are constant.*Try"):
            trained(a_vae(likelihood=Normal(6, scale=scale)), x)
    trained(a_vae(likelihood=Normal(6, scale=0.5)), x)  # a known scale has no such trouble
    trained(a_vae(likelihood=Normal(6, scale=Shared())), x)  # nor one that others hold up
    number = VAE(
        StandardNormal(2),
        Conditional(MLP(4), Normal(()), given=2),
        Conditional(MLP(4), Normal(2), given=()),
    )
    with pytest.warns(UserWarning, match="1 of 1 cells .* are constant"):
        trained(number, torch.full((24,), 7.0))


def test_a_standardised_table_with_ties_trains_in_silence() -> None:
    x = (torch.randn(200, 6, generator=torch.Generator().manual_seed(0)) * 5).round()
    x[:, 4] = (x[:, 4] > 0).float()  # of standard deviation 1/2, which is its resolution
    for scale in (Shared(), PerFeature(), Predicted()):
        trained(a_vae(likelihood=Normal(6, scale=scale)), (x - x.mean(0)) / x.std(0), epochs=8)


def test_a_scale_finer_than_the_values_is_said_aloud_after_training() -> None:
    x = torch.randn(24, 6)
    x[:, 3] = (x[:, 3] > 0).float()  # gap 1, resolution 0.5
    still = {"optimizer": (torch.optim.SGD, {"lr": 0.0})}
    fine, stuck = (
        r"at 1 of 6 cells \(3\), .* 0\.5 .*min_scale (5e\+02|50) times",
        r"0.01 at 5 of 6 cells",
    )
    for floor, near, says in ((1e-3, 0.3, [fine]), (0.01, 0.0101, [fine, stuck])):
        program = a_vae(likelihood=Normal(6, scale=PerFeature(near), min_scale=floor))
        with pytest.warns(UserWarning) as said:
            trained(program, x, **still)
        for warning, pattern in zip(said, says, strict=True):
            assert re.search(pattern, str(warning.message))
    trained(a_vae(likelihood=Normal(6, scale=PerFeature(0.45))), x, **still)


def test_columns_are_watched_each_by_its_own_family() -> None:
    x = torch.randn(24, 6, generator=torch.Generator().manual_seed(0))
    x[:, 1] = (x[:, 1] > 0).float()  # of a Normal: gap 1, resolution 0.5
    x[:, 2] = (x[:, 2] > 0).float()  # of a Bernoulli, which has no scale
    x[:, 3] = x[:, 3].exp().round(decimals=1) + 1  # ties of a log-normal say nothing of its scale
    still = {"optimizer": (torch.optim.SGD, {"lr": 0.0})}

    def table(near: float, floor: float = 1e-3) -> Family:
        one, other = Normal((), scale=PerFeature(near)), Bernoulli(())
        ends = [LogNormal((), scale=PerFeature(near)), one]
        last = Normal((), scale=PerFeature(0.9), min_scale=floor)
        return Columns({str(d): f for d, f in enumerate([one, one, other, *ends, last])})

    for family, pattern in (
        (table(0.3), r"at 1 of 6 cells \(1\), .* 0\.5 .*min_scale 5e\+02 times"),
        (table(0.6, floor=0.89), r"floor 0\.89 at 1 of 6 cells \(5\)"),
    ):
        with pytest.warns(UserWarning, match=pattern) as said:
            trained(a_vae(likelihood=family), x, **still)
        assert len(said) == 1
    trained(a_vae(likelihood=table(0.6)), x, **still)
    x[:, 0] = x[:, 2] = 1.0
    with pytest.warns(UserWarning, match=r"1 of 6 cells \(0\) of the data are constant"):
        trained(a_vae(likelihood=table(0.6)), x, **still)


def test_a_scale_that_collapses_on_a_column_of_few_values_is_said_aloud() -> None:
    x = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
    x[:, 3] = x[:, 0].sign()
    program = a_vae(likelihood=Normal(6, scale=PerFeature()), net=MLP(32))
    with pytest.warns(UserWarning, match=r"below the resolution|floor") as said:
        trained(program, x, epochs=150, batch_size=100, optimizer=(torch.optim.Adam, {"lr": 2e-2}))
    assert "at 1 of 6 cells (3)" in str(said[0].message) and len(said) == 1


class NewTensors(TorchDispatchMode):
    """Notes the most numbers of a tensor that is made, views aside."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        held = {a.untyped_storage().data_ptr() for a in pytree.tree_leaves(args) if is_tensor(a)}
        for t in pytree.tree_leaves(out):
            if is_tensor(t) and t.untyped_storage().data_ptr() not in held:
                self.largest = max(self.largest, t.numel())
        return out


def is_tensor(value: object) -> bool:
    return isinstance(value, torch.Tensor)


def test_the_looks_at_data_and_floors_copy_no_data_and_sort_suspects_only(monkeypatch) -> None:
    x = torch.randn(2**15, 64, generator=torch.Generator().manual_seed(0))
    x[:, 3] = (x[:, 3] > 0).float()
    x[:, 5] = x[:, 5].round(decimals=1)
    program = VAE(
        StandardNormal(2),
        Conditional(MLP(4), Normal(64, scale=PerFeature(0.3)), given=2),
        Conditional(MLP(4), Normal(2), given=64),
    )
    sorted_columns = []
    monkeypatch.setattr(floors, "gaps", lambda x: sorted_columns.append(x.shape[1]) or gaps(x))
    with NewTensors() as made, pytest.warns(UserWarning, match=r"1 of 64 cells \(3\).* 0\.5 "):
        floors.warn_of_data(program, Batch((x,), {}))
        floors.warn_of_floor(program, Batch((x,), {}))
    assert sorted_columns == [1]  # a scale of 0.3 is coarse for all but the column of 0 and 1
    # Pieces of 1024 rows and the one column: 2^16 of the 2^21 numbers.
    assert made.largest <= 2**16


@pytest.mark.parametrize("event", [(), (5,), (4, 5)])
def test_suspect_cells_have_the_gaps_that_all_rows_have(event) -> None:
    generator = torch.Generator().manual_seed(len(event))
    x = torch.randn(3000, *event, generator=generator)
    x = (x * 4).round() / 4 if event == () else x
    if event:
        x[..., 0] = 2.0
        x[..., 1] = (x[..., 1] * 10).round() / 10
        x[..., 2] = (x[..., 2] > 0).float()
        x[2990:, ..., 2] = 0.25  # a gap that few rows show
    columns = x.sort(dim=0).values.double().diff(dim=0)
    tied = (columns == 0).any(0)
    finest = torch.where(columns > 0, columns, torch.inf).amin(0) / 2
    assert np.array_equal(resolution(x.numpy()), finest.numpy())
    for scale in (1e-3, 0.04, 0.1, 0.2, 1.0):
        learned = torch.full(event, scale, dtype=torch.float64)
        near = learned < 2e-3
        got, repeat = floors._gaps(x, learned, near, on_reals=torch.tensor(True))
        fine = finest.isfinite() & tied & (learned < floors.PEAK * finest)
        assert torch.equal(got.isfinite() & repeat & (learned < floors.PEAK * got), fine)
        assert torch.equal(got[near | fine], finest[near | fine])


def test_heavy_tails_are_no_divergence() -> None:
    def student(df: float) -> Family:
        """Without a variance; below one degree of freedom without a mean, and of stddev NaN."""
        return replace(
            Normal(6), name="StudentT(6)", distribution=functools.partial(dist.StudentT, df)
        )

    x = dist.StudentT(2.0).sample((24, 6))
    for df in (2.0, 0.9):
        trained(a_vae(likelihood=student(df)), x)


def test_data_far_from_where_networks_start_are_said_aloud() -> None:
    x = torch.randn(24, 6) * torch.tensor([1, 1, 200, 1, 1, 1]) + torch.tensor([0, 0, 0, 0, 0, 90])
    with pytest.warns(UserWarning, match=r"2 of 6 cells \(2, 5\) .* root mean square.*Try stand"):
        trained(a_vae(likelihood=Normal(6)), x)
    trained(a_vae(likelihood=Normal(6)), (x - x.mean(0)) / x.std(0))
    counts = torch.full((24, 6), 50.0)  # no reals: a count is what it is
    trained(a_vae(likelihood=Binomial(6, total=100)), counts)


def test_a_scale_on_its_floor_is_said_aloud_after_training() -> None:
    program = a_vae(likelihood=Normal(6, scale=Shared(0.0101), min_scale=0.01))
    with pytest.warns(UserWarning, match=r"sits on its floor 0.01 at 6 of 6 cells.*Try a larger"):
        trained(program, torch.randn(24, 6), optimizer=(torch.optim.SGD, {"lr": 0.0}))


def test_a_last_step_that_diverges_is_said_aloud() -> None:
    program = a_vae(likelihood=Normal(6))
    with pytest.warns(UserWarning, match="The last step left .* not finite.*Try a smaller learn"):
        trained(
            program,
            torch.randn(24, 6),
            epochs=1,
            batch_size=24,
            optimizer=(torch.optim.Adam, {"lr": 1e30}),
        )


def test_nets_in_closures_that_have_modes_are_missed_aloud() -> None:
    net = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))

    def net_guide(x):
        pyro.module("net", net)
        with pyro.plate("rows", len(x)):
            pyro.sample("latent", dist.Normal(net(x[:, None])[:, 0], 1.0))

    with pytest.warns(UserWarning, match=r"\['net'\] hold BatchNorm.*modules=\[net\]"):
        Program(model, net_guide)
    program = Program(model, net_guide, modules=[net])
    trained(program, REALS, batch_size=8)
    assert int(net[1].num_batches_tracked) == 2 * 3

    class Owner(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def guide(self, x):
            return net_guide(x)

    with pytest.warns(UserWarning, match=r"'owner'\] hold BatchNorm"):
        Program(model, Owner().guide, modules=[nn.Linear(1, 1)])


def test_a_net_that_is_not_registered_beside_one_that_is() -> None:
    net, known = nn.Linear(1, 1), nn.Linear(1, 1)

    def half_guide(x):
        pyro.module("known", known)
        with pyro.plate("rows", len(x)):
            pyro.sample("latent", dist.Normal(net(known(x[:, None]))[:, 0], 1.0))

    with pytest.warns(UserWarning, match=r"not registered with Pyro: \['net'\].*Try pyro.module"):
        trained(Program(model, half_guide), REALS)
    net.requires_grad_(False)  # meant to stay
    trained(Program(model, half_guide), REALS)


def test_a_prior_does_not_learn_under_adversarial_and_that_is_said() -> None:
    centres = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
    program = a_vae(GaussianMixture(centres, learned=True))
    before = {k: v.clone() for k, v in program.prior.state_dict().items()}
    with pytest.warns(
        UserWarning, match=r"'prior.loc', 'prior.logits', 'prior.scale'\]; they do not move.*Try"
    ):
        trained(program, objective=Adversarial(critic=MLP(4)))
    assert all(torch.equal(v, before[k]) for k, v in program.prior.state_dict().items())
    trained(a_vae(GaussianMixture(centres)), objective=Adversarial(critic=MLP(4)))
    trained(program)  # under the ELBO it learns
    assert not torch.equal(program.prior.loc, before["loc"])


def test_missing_values_in_a_foreign_program_are_its_own_affair_and_said_aloud() -> None:
    x = REALS.clone()
    x[5] = torch.nan

    def masking_model(x):
        with pyro.plate("rows", len(x)):
            latent = pyro.sample("latent", dist.Normal(0.0, 1.0))
            seen = dist.Normal(latent, 1.0).mask(x.isfinite())
            pyro.sample("obs", seen, obs=x.nan_to_num())

    def masking_guide(x):
        guide(x.nan_to_num())

    with pytest.warns(UserWarning, match="argument 0, first.*fill and mask"):
        history, _ = trained(Program(masking_model, masking_guide), x)
    assert finite(history)
    pyro.clear_param_store()
    with pytest.warns(UserWarning, match="NaN or infinity in data, argument 0, first in row 5;"):
        with pytest.raises(NonFiniteError, match=r"site 'obs' of the model .*1 of \d+ not finite"):
            trained(Program(model, masking_guide), x)
    pyro.clear_param_store()
    with pytest.warns(UserWarning, match="argument 'x'"), pytest.raises(NonFiniteError):
        trained(Program(model, masking_guide), {"x": x})


# ---- a step that is not finite


class Poisoned(nn.Module):
    """A net with BatchNorm that spoils its outputs from the given training call on."""

    def __init__(self, i: int, o: int, good: int, spoil: Callable) -> None:
        super().__init__()
        self.norm, self.linear = nn.BatchNorm1d(i), nn.Linear(i, o)
        self.good, self.spoil, self.calls = good, spoil, 0

    def forward(self, h):
        self.calls += self.training
        out = self.linear(self.norm(h))
        return self.spoil(out, self.linear) if self.calls > self.good else out


def nan_scale(out, linear):
    loc, scale = out.chunk(2, dim=-1)
    return torch.cat([loc, scale * torch.nan], -1)


def infinite_loc(out, linear):
    loc, scale = out.chunk(2, dim=-1)
    return torch.cat([loc / 0, scale], -1)


def bad_gradient(out, linear):
    return out + (linear.weight.sum() * 0).sqrt()  # the square root has no slope at 0


SPOILS = {
    "NaN scale": (nan_scale, r"site 'x' of the model \(value in \[.*scale nowhere finite"),
    "infinite loc": (infinite_loc, r"site 'x' of the model \(value in \[.*loc nowhere finite"),
    "gradient": (bad_gradient, r"every site is finite, but the gradient of \S*weight"),
}


def poisoned(where: str, good: int, spoil: Callable) -> VAE:
    torch.manual_seed(1)

    def bad(i, o):
        return Poisoned(i, o, good, spoil)

    def sound(i, o):
        return Poisoned(i, o, 10**9, spoil)

    return VAE(
        StandardNormal(2),
        Conditional(bad if where == "decoder" else sound, Normal(6), given=2),
        Conditional(bad if where == "encoder" else sound, Normal(2), given=6),
    )


def same(a: nn.Module, b: nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(v, theirs[k]) for k, v in ours.items())


# 24 rows in batches of 8 are 3 steps an epoch: the fourth step is the bad one.
@pytest.mark.parametrize("validate", [True, False], ids=["validated", "unvalidated"])
@pytest.mark.parametrize("name", SPOILS)
def test_a_bad_step_is_named_and_not_taken(name: str, validate: bool) -> None:
    spoil, says = SPOILS[name]
    x = torch.randn(24, 6)
    with pyro.validation_enabled(validate):
        good = poisoned("decoder", 3, spoil)
        trained(good, x, epochs=1, batch_size=8)
        bad = poisoned("decoder", 3, spoil)
        with pytest.raises(
            NonFiniteError, match=f"Step 4, phase 'elbo': got .*expected.*{says}.*Try"
        ):
            trained(bad, x, epochs=2, batch_size=8)
    assert same(bad, good)
    assert int(bad.decoder.net.norm.num_batches_tracked) == 3
    assert all(p.grad is None or not p.grad.any() for p in bad.parameters())


def test_a_bad_guide_is_named() -> None:
    x = torch.randn(24, 6)
    good, bad = (poisoned("encoder", 3, nan_scale) for _ in range(2))
    trained(good, x, epochs=1, batch_size=8)
    with pytest.raises(NonFiniteError, match="site 'z' of the guide .*scale nowhere finite"):
        trained(bad, x, epochs=2, batch_size=8)
    assert same(bad, good)


def test_a_bad_generator_step_is_not_taken() -> None:
    x = torch.randn(24, 6)
    # The critic's phase runs the decoder, too: two calls a step.
    good, bad = (poisoned("decoder", 6, nan_scale) for _ in range(2))
    objective = Adversarial(critic=MLP(4))
    trained(good, x, epochs=1, batch_size=8, objective=objective)
    with pytest.raises(NonFiniteError, match="Step 4, phase 'generator': .*site 'x' of the model"):
        trained(bad, x, epochs=2, batch_size=8, objective=objective)
    assert same(bad, good)


class PoisonedCritic(nn.Module):
    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.linear, self.calls = nn.Linear(i, o), 0

    def forward(self, h):
        self.calls += self.training
        out = self.linear(h)
        return out * torch.nan if self.calls > 10 else out  # a step calls it three times


def test_a_bad_critic_step_takes_the_generator_step_with_it() -> None:
    x = torch.randn(24, 6)
    good, bad = (poisoned("decoder", 10**9, nan_scale) for _ in range(2))
    objective = Adversarial(critic=PoisonedCritic)
    trained(good, x, epochs=1, batch_size=8, objective=objective)
    with pytest.raises(NonFiniteError, match="Step 4, phase 'critic'"):
        trained(bad, x, epochs=2, batch_size=8, objective=objective)
    assert same(bad, good)


def test_a_huge_learning_rate_stops_at_the_first_step_that_shows_it() -> None:
    x = torch.randn(24, 6)
    huge = {"batch_size": 24, "optimizer": (torch.optim.SGD, {"lr": 1e25})}
    good, bad = (poisoned("decoder", 10**9, nan_scale) for _ in range(2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the one step has diverged
        trained(good, x, epochs=1, **huge)
    with pytest.raises(NonFiniteError, match=r"Step 2, .*site '[zx]' of the .* \[-?\d|nowhere"):
        trained(bad, x, epochs=5, **huge)
    assert same(bad, good)


def test_parameters_that_live_in_the_store_alone_are_kept_too() -> None:
    steps = []

    def failing_guide(x):
        slope = pyro.param("slope", torch.tensor(0.5))
        # A look at what is registered runs with gradients too, and is taken back.
        steps.append(slope.requires_grad and torch.is_grad_enabled())
        spoilt = slope * torch.nan if sum(steps) > 3 else slope
        with pyro.plate("rows", len(x)):
            pyro.sample("latent", dist.Normal(spoilt * x, 1.0))

    def healthy_guide(x):
        guide(x)

    trained(Program(model, healthy_guide), REALS, epochs=1, batch_size=8)
    good = pyro.param("slope").detach().clone()
    pyro.clear_param_store()
    with pytest.raises(NonFiniteError, match="Step 4, .*site 'latent' of the guide"):
        trained(Program(model, failing_guide), REALS, epochs=2, batch_size=8)
    assert torch.equal(pyro.param("slope").detach(), good)


def test_the_checkpoint_on_disk_is_the_last_good_one(tmp_path) -> None:
    x = torch.randn(24, 6)
    good, bad = (poisoned("decoder", 3, nan_scale) for _ in range(2))
    trained(good, x, epochs=1, batch_size=8, checkpoint=tmp_path / "good")
    with pytest.raises(NonFiniteError):
        trained(bad, x, epochs=2, batch_size=8, checkpoint=tmp_path / "bad")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad", "good"]
    resumed = poisoned("decoder", 10**9, nan_scale)
    trained(resumed, x, epochs=1, batch_size=8, checkpoint=tmp_path / "bad")
    assert same(resumed, good)
