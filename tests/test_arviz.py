"""The door to ArviZ: trees of draws, named and saved, its own plots on them, and comparisons."""

import dataclasses
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import arviz_plots
import arviz_stats
import matplotlib.pyplot
import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray as xr
from torch import nn

from ppl_vae import (
    MLP,
    VAE,
    Binomial,
    Columns,
    Conditional,
    Delta,
    Normal,
    Poisson,
    Program,
    Standardised,
    StandardNormal,
    calibrate,
    calibration_tree,
    compare,
    elpd,
    log_evidence,
    refine,
    refit_guide,
    to_datatree,
)
from ppl_vae.data import LinearGaussian
from ppl_vae.diagnostics import calibration, evidence
from ppl_vae.posterior.comparable import kind
from ppl_vae.programs.log_weights import weighted_draws

WORLD = LinearGaussian.random(2, 3, seed=0)
EXACT = Program(WORLD.model, WORLD.guide)
GROUPS = ["posterior", "posterior_predictive", "prior", "prior_predictive", "observed_data"]
GROUPS += ["sample_stats", "evidence"]
# arviz-plots drops a level of a MultiIndex, which xarray is to do otherwise some day.
pytestmark = pytest.mark.filterwarnings("ignore:Deleting a single level of a Multi:FutureWarning")


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    x, _ = WORLD.sample(40, seed=1)
    return pd.DataFrame(x.numpy(), columns=["length", "width/2", "mass"])


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    matplotlib.pyplot.close("all")


def vae(family: object, event: object, guide: object = None) -> VAE:
    torch.manual_seed(0)
    return VAE(
        StandardNormal(2),
        Conditional(MLP(4), family, given=2),
        Conditional(MLP(4), guide or Normal(2), given=event),
    )


def two_latents(x: torch.Tensor, obs: bool = True) -> None:
    """Vectors a and positive numbers b behind counts."""
    with pyro.plate("rows", len(x)):
        a = pyro.sample("a", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        b = pyro.sample("b", dist.Gamma(torch.tensor(2.0), 1.0))
        if obs:
            rate = b[..., None] * (0.3 * a).exp()
            pyro.sample("counts", dist.Poisson(rate).to_event(1), obs=x)


TWO = Program(two_latents, lambda x: two_latents(x, obs=False))
COUNTS = 1.0 + torch.arange(60.0).reshape(20, 3) % 5


# Trees: groups, numbers, names


def test_a_tree_has_all_groups_and_none_that_loo_would_run_on(table: pd.DataFrame) -> None:
    tree = to_datatree(EXACT, table.astype(np.float32), num_samples=20, seed=0)
    assert sorted(tree.children) == sorted(GROUPS)
    assert set(tree["observed_data"].data_vars) == {"length", "width_2", "mass"}
    assert dict(tree["posterior"]["z"].sizes) == {"chain": 1, "draw": 20, "row": 40, "z_dim": 2}
    assert np.array_equal(tree["observed_data"]["mass"], table["mass"].astype(np.float32))
    for ask in (arviz_stats.loo, lambda t: arviz_stats.compare({"a": t, "b": t})):
        with pytest.raises(TypeError, match=r"log likelihood not found|compute ELPD from model a"):
            ask(tree)


@pytest.mark.parametrize(("seed", "num_samples"), [(0, 20), (None, 20), (0, 120)])
def test_the_statistics_are_of_the_draws_beside_them(
    table: pd.DataFrame, seed: int | None, num_samples: int
) -> None:
    x = torch.tensor(table.to_numpy())  # 40 rows: 120 draws are more than one block of 4096
    wide = WORLD.broken_guide(scale=1.3)
    tree = to_datatree(Program(WORLD.model, wide), x, num_samples=num_samples, seed=seed)
    stats = {n: v.values[0] for n, v in tree["sample_stats"].data_vars.items()}
    z = torch.tensor(tree["posterior"]["z"].values[0])
    q = WORLD.posterior(x)
    exact = {
        "log_p_x_given_z": WORLD.decoder(z).log_prob(x),
        "log_p_z": dist.Normal(0.0, 1.0).log_prob(z).sum(-1),
        "log_q_z_given_x": dist.MultivariateNormal(q.loc, scale_tril=1.3 * q.scale_tril).log_prob(
            z
        ),
    }
    for name, value in exact.items():  # float64, numbers below 1e3
        assert np.allclose(stats[name], value, rtol=0, atol=1e-9), name
    total = stats["log_p_x_given_z"] + stats["log_p_z"] - stats["log_q_z_given_x"]
    assert np.allclose(stats["log_weight"], total, rtol=0, atol=1e-9)
    found = evidence(stats["log_weight"])
    for name in ("log_evidence", "se", "khat"):
        assert np.array_equal(tree["evidence"][name], getattr(found, name), equal_nan=True)
    # The data drawn are those of z: their residuals are the noise, sd 0.5. 5 SE of its variance,
    # relative error sqrt(2/n); with other draws of z, the residuals are wider by far.
    drawn = np.stack([tree["posterior_predictive"][f"x_{i}"].values[0] for i in range(3)], -1)
    residual = (drawn - WORLD.decoder(z).mean.numpy()) / 0.5
    assert abs(residual.var() - 1) < 5 * np.sqrt(2 / residual.size)
    # And the noise of x is not that of z once more: correlations below 5 SE.
    white = (z - z.mean(0)).numpy()
    size = white[..., 0].size
    for i in range(2):
        for j in range(3):
            r = np.corrcoef(white[..., i].ravel(), residual[..., j].ravel())[0, 1]
            assert abs(r) < 5 / np.sqrt(size)


INDEXES = {
    "text": ([f"r{i}" for i in range(40)], [f"r{i}" for i in range(40)]),
    "numbers": (range(7, 47), range(7, 47)),
    "floats": (np.arange(40) / 4, np.arange(40) / 4),
    "times": (pd.date_range("2020", periods=40, tz="UTC"), None),
    "repeated": ([0] * 40, range(40)),  # tells no rows apart
    "nested": (pd.MultiIndex.from_product([range(8), range(5)]), range(40)),
}


@pytest.mark.parametrize(("index", "expected"), INDEXES.values(), ids=INDEXES)
def test_the_rows_of_a_tree_have_the_names_of_the_table(
    table: pd.DataFrame, index: object, expected: object
) -> None:
    named = table.set_axis(index)
    tree = to_datatree(EXACT, named, num_samples=3, seed=0)
    expected = index.astype(str) if expected is None else expected
    for group in ("posterior", "posterior_predictive", "prior", "observed_data", "evidence"):
        assert list(tree[group].coords["row"].values) == list(expected)
    first = tree["observed_data"]["mass"].sel(row=expected[0])
    assert float(first) == np.float32(table["mass"][0])


def test_dims_have_the_names_of_the_index_and_of_an_xarray(table: pd.DataFrame) -> None:
    stars = [f"s{i}" for i in range(40)]
    named = table.set_axis(pd.Index(stars, name="star"))
    array = xr.DataArray(
        table.to_numpy(),
        dims=["star", "quantity"],
        coords={"star": stars, "quantity": list(table.columns)},
    )
    first, *others = (
        to_datatree(EXACT, x, num_samples=3, seed=0)
        for x in (named, array, {"x": named}, xr.Dataset({"x": array}), (named,))
    )
    assert first["posterior"]["z"].dims == ("chain", "draw", "star", "z_dim")
    assert first["evidence"]["khat"].dims == ("star",)
    assert set(first["observed_data"].data_vars) == {"length", "width_2", "mass"}
    for tree in others:
        xr.testing.assert_identical(tree, first)
    bare = to_datatree(EXACT, array.drop_vars(["star", "quantity"]).rename(star="dim_0"))
    assert list(bare["observed_data"].data_vars) == ["x_0", "x_1", "x_2"]
    assert list(bare["observed_data"].dims) == ["row"]
    # A name that a variable or a dim has already.
    for taken in ("mass", "z", "draw"):
        tree = to_datatree(EXACT, named.rename_axis(index=taken), num_samples=3, seed=0)
        assert list(tree["observed_data"].coords["row"].values) == stars


def test_programs_take_xarray_as_they_take_arrays(table: pd.DataFrame) -> None:
    x = xr.DataArray(table.to_numpy(), dims=["star", "quantity"])
    plain = log_evidence(EXACT, x.to_numpy(), 30, seed=0).log_evidence
    for data in (x, xr.Dataset({"x": x})):
        assert np.array_equal(log_evidence(EXACT, data, 30, seed=0).log_evidence, plain)


def test_images_are_stacked_and_their_cells_told_apart() -> None:
    pixels = torch.randint(0, 17, (10, 8, 8)).numpy()
    heights = 0.5 * np.arange(8)
    named = xr.DataArray(
        pixels, dims=["digit", "y", "x"], coords={"y": heights, "x": list("abcdefgh")}
    )
    program = vae(Binomial((8, 8), total=16), (8, 8))
    tree = to_datatree(program, named, num_samples=3, seed=0)
    assert dict(tree["prior_predictive"]["x"].sizes) == {"chain": 1, "draw": 3, "cell": 640}
    seen = tree["observed_data"]["x"]
    assert seen.dtype.kind == "i"
    again = seen.set_index(cell=["cell_digit", "cell_y", "cell_x"]).unstack("cell")
    assert np.array_equal(again.values, pixels)
    one = seen[(seen.cell_digit == 3) & (seen.cell_y == 1.5) & (seen.cell_x == "h")]
    assert one.values == pixels[3, 3, 7]
    tree = to_datatree(program, pixels, num_samples=3, seed=0)
    coords = set(tree["observed_data"].coords)
    assert coords == {"cell", "cell_row", "cell_dim_1", "cell_dim_2"}


def test_a_delta_guide_has_no_weights() -> None:
    tree = to_datatree(vae(Poisson(3), 3, Delta(2)), COUNTS, num_samples=3, seed=0)
    assert sorted(tree.children) == sorted(GROUPS[:5])


@pytest.mark.parametrize("second", [(2,), (40,), (50,)])
def test_several_sites_go_beside_each_other(second: tuple[int, ...]) -> None:
    size = second[0]

    def model(x: torch.Tensor, y: torch.Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.tensor(0.0), 1.0))
            pyro.sample("y", dist.Normal(z[..., None].expand(*z.shape, size), 1).to_event(1), obs=y)
            pyro.sample("x", dist.Normal(z[..., None].expand(*z.shape, 40), 1).to_event(1), obs=x)

    def guide(x: torch.Tensor, y: torch.Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.mean(-1), 1.0))

    x, y = torch.randn(8, 40), torch.randn(8, size)
    cells = xr.DataArray(y.numpy(), dims=["who", "gene"], coords={"gene": np.arange(size) + 5})
    tree = to_datatree(Program(model, guide), (x, cells), num_samples=3, seed=0)
    seen = tree["observed_data"]
    assert np.array_equal(seen["x"].values.reshape(8, 40), x) and seen["x"].dims == ("x_cell",)
    if size == 2:
        assert np.array_equal(np.stack([seen["y_5"], seen["y_6"]], -1), y)
    else:
        assert np.array_equal(seen["y"].values.reshape(8, size), y)
        assert set(seen["y"].coords) == {"y_cell", "y_cell_who", "y_cell_gene"}
    if size == 40:  # of one shape: told apart by what they hold
        assert set(seen["x"].coords) == {"x_cell", "x_cell_who", "x_cell_dim_1"}


def test_observed_data_are_those_of_their_site() -> None:
    def model(x: torch.Tensor, y: torch.Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.tensor(0.0), 1.0))
            pyro.sample("y", dist.Normal(z, 1.0), obs=y)
            pyro.sample("x", dist.Normal(z, 1.0), obs=2 * x)

    def guide(x: torch.Tensor, y: torch.Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0))

    x, y = torch.randn(2, 8)
    tree = to_datatree(Program(model, guide), (x, y), num_samples=3, seed=0)
    assert np.array_equal(tree["observed_data"]["x"], 2 * x)
    assert np.array_equal(tree["observed_data"]["y"], y)


@pytest.mark.parametrize("data_dim", [-1, -2])
def test_draws_inside_a_second_plate_go_back_where_they_were(data_dim: int) -> None:
    other_dim = -3 - data_dim

    def across(x: torch.Tensor) -> torch.Tensor:
        return x if data_dim == -2 else x.T  # x is (N, 3)

    def model(x: torch.Tensor) -> None:
        with pyro.plate("data", len(x), dim=data_dim), pyro.plate("cells", 3, dim=other_dim):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 0.1), obs=across(x))

    def guide(x: torch.Tensor) -> None:
        with pyro.plate("data", len(x), dim=data_dim), pyro.plate("cells", 3, dim=other_dim):
            pyro.sample("z", dist.Normal(across(x), 0.1))

    x = 10 * torch.randn(5, 3)
    tree = to_datatree(Program(model, guide), x, num_samples=4, seed=0)
    z = tree["posterior"]["z"].values[0]
    assert z.shape == (4, 5, 3)
    drawn = np.stack([tree["posterior_predictive"][f"x_{i}"].values[0] for i in range(3)], -1)
    assert np.abs(drawn - z).max() < 0.1 * 6 and np.abs(z - x.numpy()).max() < 0.1 * 6  # 6 sd


def test_counts_and_classes_are_whole_numbers_where_all_are_known() -> None:
    program = vae(Columns({"dose": Normal(()), "visits": Poisson(()), "falls": Poisson(())}), 3)
    x = COUNTS.clone()
    x[2, 2] = torch.nan
    tree = to_datatree(program, x, num_samples=3, seed=0)
    kinds = {
        group: [v.dtype.kind for v in tree[group].data_vars.values()]
        for group in ("observed_data", "posterior_predictive", "prior_predictive")
    }
    assert kinds["observed_data"] == ["f", "i", "f"]  # NaN is no integer
    assert kinds["posterior_predictive"] == kinds["prior_predictive"] == ["f", "i", "i"]
    assert np.isnan(tree["observed_data"]["x_2"].values).sum() == 1


# Saved and read again


@pytest.mark.parametrize("name", ["text", "numbers", "floats", "booleans", "times", "images"])
@pytest.mark.parametrize("suffix", ["nc", "zarr"])
def test_a_tree_is_read_as_it_was_saved(
    table: pd.DataFrame, tmp_path: Path, name: str, suffix: str
) -> None:
    if name == "images":
        pixels = xr.DataArray(
            torch.randint(0, 17, (3, 6, 6)).numpy(), dims=["digit", "y", "x"],
            coords={"digit": ["ä", "b", "c"], "y": [True, False] * 3},
        )  # fmt: skip
        tree = to_datatree(vae(Binomial((6, 6), total=16), (6, 6)), pixels, num_samples=30, seed=0)
    else:
        booleans = {"booleans": (pd.Index([True, False], name="ill"), None)}
        index, _ = (INDEXES | booleans)[name]
        tree = to_datatree(EXACT, table.iloc[: len(index)].set_axis(index), num_samples=30, seed=0)
    path = tmp_path / f"tree.{suffix}"
    if suffix == "nc":
        tree.to_netcdf(path)
    else:
        tree.to_zarr(path, zarr_format=2)
    with xr.open_datatree(path) as opened:
        again = opened.load()
    assert sorted(again.children) == sorted(GROUPS)
    xr.testing.assert_identical(again, tree)
    for group, dataset in tree.children.items():
        for variable, values in dataset.variables.items():
            assert again[group].variables[variable].dtype == values.dtype
    assert len(arviz_stats.summary(again, kind="stats")) == len(tree["posterior"]["z"][0, 0]) * 2


# ArviZ's own functions


TREES: dict[str, Callable[[], xr.DataTree]] = {
    "table": lambda: to_datatree(
        EXACT, WORLD.sample(25, seed=1)[0], num_samples=50, columns=["a", "b", "c"], seed=0
    ),
    "counts": lambda: to_datatree(vae(Poisson(3), 3), COUNTS, num_samples=50, seed=0),
    "images": lambda: to_datatree(
        vae(Binomial((6, 6), total=16), (6, 6)),
        xr.DataArray(torch.randint(0, 17, (9, 6, 6)).numpy(), dims=["row", "y", "x"]),
        num_samples=50,
        seed=0,
    ),
    "two latents": lambda: to_datatree(TWO, COUNTS[:, :2], num_samples=50, seed=0),
}
PANELS = {"table": 3, "counts": 3, "images": 1, "two latents": 2}
UNITS = {"table": 2, "counts": 2, "images": 2, "two latents": 3}


@pytest.fixture(scope="module", params=TREES)
def named_tree(request: pytest.FixtureRequest) -> tuple[str, xr.DataTree]:
    return request.param, TREES[request.param]()


def axes() -> list[matplotlib.pyplot.Axes]:
    """Those of the last figure that show something."""
    shown = matplotlib.pyplot.gcf().axes
    return [a for a in shown if a.lines or a.collections]


def test_arviz_summarises_a_tree(named_tree: tuple[str, xr.DataTree]) -> None:
    name, tree = named_tree
    found = arviz_stats.summary(tree, kind="stats", round_to="none")
    assert len(found) == UNITS[name] * tree["posterior"].sizes["row"]
    means = tree["posterior"].to_dataset().mean(("chain", "draw"))
    flat = np.concatenate([v.values.ravel() for v in means.data_vars.values()])
    assert np.allclose(found["mean"].to_numpy(), flat)
    for group in ("sample_stats", "posterior_predictive", "prior"):
        assert len(arviz_stats.summary(tree, group=group, kind="stats")) > 0


def test_arviz_plots_the_predictive_draws_of_a_tree(named_tree: tuple[str, xr.DataTree]) -> None:
    name, tree = named_tree
    few = {"ecdf_pit": {"n_simulations": 100}}  # of the band
    arviz_plots.plot_ppc_dist(tree, kind="ecdf", num_samples=10)
    assert [len(a.lines) for a in axes()] == [11] * PANELS[name]  # 10 draws and the data
    arviz_plots.plot_ppc_dist(tree, group="prior_predictive", kind="ecdf", num_samples=10)
    assert [len(a.lines) for a in axes()] == [10] * PANELS[name]
    arviz_plots.plot_ppc_pit(tree, stats=few)
    assert len(axes()) == PANELS[name]
    arviz_plots.plot_ppc_pit(tree, stats=few, coverage=True)
    if name == "table":
        arviz_plots.plot_ppc_dist(tree, num_samples=10)
        assert len(axes()) == PANELS[name]
    else:  # it takes whole numbers only
        arviz_plots.plot_ppc_rootogram(tree)
        assert len(axes()) == PANELS[name]


def test_arviz_plots_the_latents_of_a_tree(named_tree: tuple[str, xr.DataTree]) -> None:
    name, tree = named_tree
    arviz_plots.plot_forest(tree, coords={"row": [0, 1]})
    assert axes()
    arviz_plots.plot_pair(tree, coords={"row": 0})
    assert len(axes()) == UNITS[name] * (UNITS[name] + 1) / 2
    arviz_plots.plot_prior_posterior(tree, coords={"row": [3]})
    assert len(axes()) == UNITS[name]


def test_the_summary_of_a_tree_is_that_of_the_exact_posterior() -> None:
    tree = TREES["table"]()
    found = arviz_stats.summary(tree, kind="stats", round_to="none")
    exact = WORLD.posterior(WORLD.sample(25, seed=1)[0])
    # 50 means of 50 draws each: z-scores below 5.
    z = (found["mean"].to_numpy().reshape(25, 2) - exact.mean.numpy()) / exact.stddev.numpy()
    assert np.abs(z * 50**0.5).max() < 5


def test_arviz_ranks_counts_at_random_among_equal_ones() -> None:
    """A guide that is the prior predicts data of its own program: their PIT is uniform."""

    def model(x: torch.Tensor) -> None:
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(torch.tensor(0.0), 0.3))
            pyro.sample("x", dist.Poisson(z.exp()), obs=x)

    def guide(x: torch.Tensor) -> None:
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal(torch.tensor(0.0), 0.3))

    torch.manual_seed(3)
    x = torch.poisson((0.3 * torch.randn(1000)).exp())
    tree = to_datatree(Program(model, guide), x, num_samples=400, seed=0)

    def deviation(shown: xr.DataTree) -> float:
        arviz_plots.plot_ppc_pit(shown, stats={"ecdf_pit": {"n_simulations": 20}})
        (ax,) = axes()
        return float(np.abs(ax.lines[0].get_ydata()).max())

    # Kolmogorov-Smirnov at 1e-6: sqrt(log(2e6) / 2000) = 0.085; and ranks among 400 draws, 5 SE of
    # a share near 1/2: 0.125 for one datum, which the ECDF averages over all.
    assert deviation(tree) < 0.1
    floats = tree.copy()
    for group in ("observed_data", "posterior_predictive"):
        floats[group] = xr.DataTree(tree[group].to_dataset().astype(float))
    assert deviation(floats) > 0.2  # half of P(X = x), 0.37 at 0 and at 1


def test_arviz_plots_the_ranks_of_a_calibration(tmp_path: Path) -> None:
    x, _ = WORLD.sample(3, seed=1)
    narrow = Program(WORLD.model, WORLD.broken_guide(scale=0.3))
    for program, calibrated in ((EXACT, True), (narrow, False)):
        found = calibrate(program, x, num_data=300, num_draws=20, seed=0)
        tree = calibration_tree(found)
        assert set(tree["prior_sbc"].data_vars) == set(found.ranks) > {"z[0]", "log p(x|z)"}
        arviz_plots.plot_ecdf_pit(tree, stats={"ecdf_pit": {"n_simulations": 100}})
        arviz_plots.plot_ecdf_pit(tree, coverage=True, stats={"ecdf_pit": {"n_simulations": 100}})
        arviz_plots.plot_ecdf_pit(
            tree, var_names=["z[0]"], stats={"ecdf_pit": {"n_simulations": 100}}
        )
        (ax,) = axes()
        drawn = float(np.abs(ax.lines[0].get_ydata()).max())
        # Kolmogorov-Smirnov at 1e-6: sqrt(log(2e6) / 600) = 0.155. A guide of 0.3 of the width has
        # Φ(z/0.3), z normal, below 0.1 at z < −0.38: for 35 %, a deviation of 0.25.
        assert drawn < 0.155 if calibrated else drawn > 0.2
        ranks = np.floor(tree["prior_sbc"]["z[0]"].values[0] * 21)
        assert np.array_equal(ranks, found.ranks["z[0]"])
        tree.to_netcdf(tmp_path / "tree.nc")
        with xr.open_datatree(tmp_path / "tree.nc") as again:
            xr.testing.assert_identical(again.load(), tree)


def test_ranks_of_fewer_data_have_a_group_and_a_band_of_their_own() -> None:
    rng = np.random.default_rng(0)
    ranks = {"a": rng.integers(0, 11, 60), "b/c": rng.integers(0, 11, 40)}
    tree = calibration_tree(calibration(ranks, num_draws=10))
    assert {n: list(g.data_vars) for n, g in tree.children.items()} == {
        "prior_sbc": ["a"],
        "prior_sbc_40": ["b_c"],
    }
    for group in tree.children:
        arviz_plots.plot_ecdf_pit(tree, group=group, stats={"ecdf_pit": {"n_simulations": 20}})
        assert len(axes()) == 1


# Held-out comparison


def test_programs_are_compared_by_their_held_out_evidence() -> None:
    x, _ = WORLD.sample(100, seed=1)
    other = LinearGaussian(WORLD.weight, WORLD.bias + 1.0, 0.5)
    scores = {
        "shifted": elpd(Program(other.model, other.guide), x, 100, seed=0),
        "true": elpd(EXACT, x, 100, seed=0),
    }
    truth = (WORLD.log_evidence(x) - other.log_evidence(x)).numpy()
    for table in (arviz_stats.compare(scores), compare(scores)):
        assert list(table.index) == ["true", "shifted"]
        # Exact guides: no Monte-Carlo error.
        assert table.loc["true", "elpd"] == pytest.approx(float(WORLD.log_evidence(x).sum()))
        assert table.loc["shifted", "elpd_diff"] == pytest.approx(truth.sum())
        assert table.loc["shifted", "dse"] == pytest.approx(np.sqrt(100 * truth.var()))
        assert table.loc["true", "weight"] > 0.9
    assert (table[["mc_se", "bias"]] == 0).all(axis=None) and not table["warning"].any()
    arviz_plots.plot_compare(table)
    assert "elpd_evidence" in repr(scores["true"])


def test_a_score_carries_the_error_of_its_bound() -> None:
    x, _ = WORLD.sample(50, seed=1)
    wide = Program(WORLD.model, WORLD.broken_guide(scale=1.3))
    score, found = elpd(wide, x, 200, seed=0), log_evidence(wide, x, 200, seed=0)
    assert score.elpd == pytest.approx(found.log_evidence.sum())
    assert score.se == pytest.approx(np.sqrt(50) * found.log_evidence.std(ddof=1))
    assert np.array_equal(score.pareto_k, found.khat, equal_nan=True)
    assert score.warning == bool((~found.quantified).any()) and score.good_k == found.limit
    table = compare({"wide": score, "exact": elpd(EXACT, x, 200, seed=0)})
    assert table.loc["wide", "mc_se"] == pytest.approx(np.sqrt((found.se**2).sum()))
    assert table.loc["wide", "bias"] == pytest.approx(found.bias.sum())
    # The bound falls short by its bias: 5 Monte-Carlo errors.
    short = table.loc["exact", "elpd"] - table.loc["wide", "elpd"]
    assert abs(short - found.bias.sum()) < 5 * table.loc["wide", "mc_se"]


def test_weights_are_right_for_data_of_hundreds_of_cells() -> None:
    """exp(log p) under- or overflows where |log p| > 745: ArviZ alone then weighs all alike."""
    x, _ = WORLD.sample(60, seed=1)
    worlds = {k: LinearGaussian(WORLD.weight, WORLD.bias + 0.1 * k, 0.5) for k in range(3)}
    scores = {str(k): elpd(Program(w.model, w.guide), x, 30, seed=0) for k, w in worlds.items()}
    near = compare(scores)
    assert np.allclose(near["weight"], arviz_stats.compare(scores)["weight"], atol=1e-3)
    for nats in (-2000.0, 2000.0):
        far = {
            name: dataclasses.replace(s, elpd=s.elpd + 60 * nats, elpd_i=at(s, nats))
            for name, s in scores.items()
        }
        table = compare(far)
        assert np.allclose(table["weight"], near["weight"], atol=1e-6)
        assert np.allclose(table["elpd"], near["elpd"] + 60 * nats)
        assert np.allclose(table[["elpd_diff", "dse"]], near[["elpd_diff", "dse"]], atol=1e-6)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            alike = arviz_stats.compare(far)["weight"]
        assert np.allclose(alike, 1 / 3) and not np.allclose(near["weight"], 1 / 3, atol=0.1)


def at(score: object, nats: float) -> xr.DataArray:
    return (score.elpd_i + nats).assign_attrs(score.elpd_i.attrs)


# What may be compared: by ArviZ's own function, too


def program_of(likelihood: Callable, *more: Callable, site: str = "x") -> Program:
    """z ~ N(0, 1) under a guide that is the prior; x, and functions of x."""

    def model(x: torch.Tensor) -> None:
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample(site, likelihood(z), obs=x)
            for k, fn in enumerate(more):
                pyro.sample(f"more_{k}", fn(z), obs=x % 2)

    def guide(x: torch.Tensor) -> None:
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))

    return Program(model, guide)


def normal(z: torch.Tensor) -> dist.Normal:
    return dist.Normal(3.0 + z, 2.0)


def log_normal(z: torch.Tensor) -> dist.LogNormal:
    return dist.LogNormal(0.1 * z, 1.0)


def poisson(z: torch.Tensor) -> dist.Poisson:
    return dist.Poisson((1 + 0.1 * z).exp())


class Nameless(dist.Normal):
    """A distribution that does not say its support."""

    @property
    def support(self) -> None:
        raise NotImplementedError


def nameless(z: torch.Tensor) -> Nameless:
    return Nameless(3.0 + z, 2.0, validate_args=False)


X = COUNTS[:, 0]
OTHER_DATA = "they are not on the same data"
REFUSED: dict[str, tuple[tuple[nn.Module, object], tuple[nn.Module, object], str]] = {
    "a density and a mass": (
        (program_of(normal), X),
        (program_of(poisson), X),
        "one is a density, the other a probability mass",
    ),
    "x and its logarithm": ((program_of(normal), X), (program_of(normal), X.log()), OTHER_DATA),
    "other units": ((program_of(normal), X), (program_of(normal), X / X.std()), OTHER_DATA),
    "other rows": ((program_of(normal), X[:10]), (program_of(normal), X[1:11]), OTHER_DATA),
    "another order": ((program_of(normal), X), (program_of(normal), X.flip(0)), OTHER_DATA),
    "fewer rows": ((program_of(normal), X), (program_of(normal), X[:10]), OTHER_DATA),
    "more sites": (
        (program_of(normal), X),
        (program_of(normal, normal), X),
        r"do not observe the same \(x there and x, more_0 here\)",
    ),
    "another second site": (
        (program_of(poisson, normal), X),
        (program_of(poisson, lambda z: dist.Bernoulli(logits=z)), X),
        "one is a density, the other a probability mass",
    ),
    "no word of a support": (
        (program_of(normal), X),
        (program_of(nameless), X),
        "whether each has a density or a mass at x is not known",
    ),
    "other columns": (
        (vae(Columns({"a": Normal(()), "b": Poisson(())}), 2), COUNTS[:, :2]),
        (vae(Columns({"a": Poisson(()), "b": Normal(())}), 2), COUNTS[:, :2]),
        "a cell is a density in one, a probability mass in the other",
    ),
    "all cells and some": (
        (vae(Poisson(3), 3), COUNTS),
        (vae(Poisson(3), 3), COUNTS.where(torch.arange(60).reshape(20, 3) != 7, torch.nan)),
        OTHER_DATA,
    ),
}


@pytest.mark.filterwarnings("ignore:.*does not define .support:UserWarning")
@pytest.mark.parametrize(("one", "other", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_comparison_is_refused_by_arviz_too(
    one: tuple, other: tuple, reason: str
) -> None:
    scores = {"first": elpd(*one, 30, seed=0), "second": elpd(*other, 30, seed=0)}
    with pytest.raises(ValueError, match="incompatible cross-validation methods.*evidence") as said:
        arviz_stats.compare(scores)
    kinds = {score.kind for score in scores.values()}
    assert len(kinds) == 2 and all(k in str(said.value) and len(k) < 80 for k in kinds)
    with pytest.raises(
        ValueError, match=f"Got 'first' and 'second', .*: .*{reason}.*Expected the same.*Try elpd"
    ):
        compare(scores)


def mixed(real: object) -> VAE:
    return vae(Columns({"a": real, "b": Poisson(())}), 2)


def tables() -> list[tuple[nn.Module, object]]:
    table = pd.DataFrame(COUNTS[:, :2].numpy(), columns=["a", "b"])
    plain = mixed(Normal(()))
    programs = [
        plain,
        mixed(Standardised(Normal(()), loc=3.0, scale=2.0)),
        refit_guide(plain, table, epochs=1, net=MLP(4), progress=False),
        refine(plain, table, steps=2, progress=False),
        Program(plain.model, plain.guide, modules=[plain]),
    ]
    return [(program, table) for program in programs]


def turned(x: torch.Tensor) -> None:
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Bernoulli(logits=z), obs=x % 2)
        pyro.sample("y", dist.Poisson((1 + 0.1 * z).exp()), obs=x)


GAPS = COUNTS.where(torch.arange(60).reshape(20, 3) != 7, torch.nan)
NINE = COUNTS.repeat(1, 3)
THIRDS = COUNTS.double() / 3
ALLOWED: dict[str, Callable[[], list[tuple[nn.Module, object]]]] = {
    "other densities": lambda: [(program_of(normal), X), (program_of(log_normal), X)],
    "other names": lambda: [(program_of(poisson), X), (program_of(poisson, site="n"), X)],
    "sites in another order": lambda: [
        (program_of(poisson, lambda z: dist.Bernoulli(logits=z)), X),
        (Program(turned, program_of(poisson).guide), X),
    ],
    "dtypes": lambda: [(vae(Normal(3), 3), THIRDS), (vae(Normal(3), 3).double(), THIRDS)],
    "zeros of two signs": lambda: [(program_of(normal), 0 * X), (program_of(normal), -0.0 * X)],
    "shapes": lambda: [
        (vae(Binomial((3, 3), total=5), (3, 3)), NINE.reshape(-1, 3, 3)),
        (vae(Poisson(9), 9), NINE),
    ],
    "missing cells": lambda: [
        (vae(Poisson(3), 3), GAPS),
        (vae(Binomial(3, total=9), 3), {"x": COUNTS, "mask": GAPS.isfinite()}),
    ],
    "tables, under guides of other kinds": tables,
}


@pytest.mark.parametrize("programs", ALLOWED.values(), ids=ALLOWED)
def test_what_is_a_comparison_is_made(programs: Callable) -> None:
    scores = {str(k): elpd(*pair, 30, seed=0) for k, pair in enumerate(programs())}
    assert len({s.kind for s in scores.values()}) == 1
    table = compare(scores)
    assert set(table.index) == set(scores)
    assert np.allclose(table["elpd"], arviz_stats.compare(scores)["elpd"])


def test_a_table_of_many_columns_has_a_short_kind() -> None:
    program = vae(Columns({str(k): (Normal, Poisson)[k % 2](()) for k in range(30)}), 30)
    score = elpd(program, COUNTS.repeat(1, 10), 30, seed=0)
    assert score.kind.startswith("evidence (mixed ") and len(score.kind) < 60
    assert score.kind == kind(score.elpd_i.attrs["observed"])


def test_evidence_is_compared_with_no_leave_one_out_score() -> None:
    mine = elpd(EXACT, WORLD.sample(20, seed=1)[0], 30, seed=0)
    loo = dataclasses.replace(mine, kind="loo", elpd_i=mine.elpd_i.drop_attrs())
    with pytest.raises(ValueError, match="Got 'loo' for 'pymc'; expected held-out evidence.*Try"):
        compare({"mine": mine, "pymc": loo})


def test_log_p_z_is_what_is_left_where_the_prior_is_bounded() -> None:
    tree = TREES["two latents"]()
    a, b = (torch.tensor(tree["posterior"][n].values[0]) for n in "ab")
    exact = dist.Normal(0.0, 1.0).log_prob(a).sum(-1) + dist.Gamma(2.0, 1.0).log_prob(b)
    # float32: numbers below 100, a unit in the last place of 8e-6.
    assert np.allclose(tree["sample_stats"]["log_p_z"].values[0], exact, atol=1e-4)
    again = weighted_draws(TWO, COUNTS[:, :2], 50, seed=0)
    assert np.array_equal(tree["sample_stats"]["log_weight"].values[0], again.log_weights)
