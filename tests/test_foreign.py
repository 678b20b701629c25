"""Pyro functions that somebody else wrote: what goes wrong in silence there is said aloud.

- Names in Pyro's store belong to nobody: sharing one, or losing it, is noticed.
- Whatever the draws and densities depend on is registered, or named.
- Sites that training sums out are drawn from their exact conditional afterwards.
- Guides and plates that `fit` cannot serve are refused in a sentence.
"""

import copy
import math

import pyro
import pyro.distributions as dist
import pyro.infer
import pytest
import torch
from pyro.infer import TraceEnum_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule, PyroParam
from torch import nn

from ppl_vae import (
    ELBO,
    Adversarial,
    Program,
    aggregate_match,
    diagnose,
    fit,
    log_weights,
    posterior_predictive,
    prior_predictive,
    refit_guide,
    to_datatree,
)

X = torch.linspace(-1.0, 1.0, 40)
MEANS = torch.tensor([-2.0, 0.0, 3.0])


@pytest.fixture(autouse=True)
def _own_store():
    with pyro.get_param_store().scope():
        yield


def model(x):
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def guide_of(name):
    def guide(x):
        slope = pyro.param(name, torch.tensor(0.5))
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal(slope * x, 1.0))

    return guide


def trained(program, x=X, **arguments):
    return fit(program, x, epochs=2, seed=0, progress=False, **arguments)


def test_a_bare_name_that_two_programs_share_is_said_aloud() -> None:
    trained(Program(model, guide_of("slope")))  # dropped at once, as in a cell that is run again
    with pytest.warns(
        UserWarning, match=r"\['slope'\].*another program before.*goes on from there"
    ):
        trained(Program(model, guide_of("slope")))
    trained(Program(model, guide_of("another")))  # no warning: a name of its own


def test_a_program_that_holds_another_may_share_its_names() -> None:
    first = Program(model, guide_of("slope"))
    trained(first)
    trained(Program(model, guide_of("slope"), modules=[first]))


def test_programs_that_share_a_name_on_purpose_are_both_used() -> None:
    first, second = Program(model, guide_of("slope")), Program(model, guide_of("slope"))
    trained(first)
    with pytest.warns(UserWarning, match="changes that program too"):
        trained(second)
    assert torch.equal(log_weights(first, X, 5, seed=0), log_weights(second, X, 5, seed=0))


@pytest.mark.parametrize("copied", [False, True])
def test_a_program_whose_parameters_left_the_store_is_refused(copied) -> None:
    program = Program(model, guide_of("slope"))
    trained(program)
    before = log_weights(program, X, 10, seed=0)
    used = copy.deepcopy(program) if copied else program
    assert torch.equal(log_weights(used, X, 10, seed=0), before)
    pyro.clear_param_store()
    for use in (lambda: log_weights(used, X, 10), lambda: diagnose(used, X, budget=0)):
        with pytest.raises(ValueError, match="trained with 'slope' of Pyro's store, which is gone"):
            use()
    with pytest.raises(ValueError, match="patience under Adversarial"):  # a refused fit
        trained(used, objective=Adversarial(), validation=X, patience=1)
    with pytest.raises(ValueError, match="which is gone"):
        log_weights(used, X, 10)
    trained(used)  # a fit starts anew
    log_weights(used, X, 10)


def test_a_store_that_is_saved_and_loaded_brings_the_parameters_back(tmp_path) -> None:
    program = Program(model, guide_of("slope"))
    trained(program)
    before = log_weights(program, X, 10, seed=0)
    pyro.get_param_store().save(str(tmp_path / "store"))
    pyro.clear_param_store()
    pyro.get_param_store().load(str(tmp_path / "store"))
    assert torch.equal(log_weights(program, X, 10, seed=0), before)


def test_another_program_of_that_name_after_a_clear_is_not_taken_for_the_first() -> None:
    first, second = Program(model, guide_of("slope")), Program(model, guide_of("slope"))
    trained(first)
    pyro.clear_param_store()
    trained(second)
    log_weights(second, X, 10)
    with pytest.raises(ValueError, match="'slope' .* is now that of another program"):
        log_weights(first, X, 10)


def test_a_refitted_guide_of_a_lost_model_is_refused() -> None:
    def learned_model(x):
        spread = pyro.param("spread", torch.tensor(2.0), constraint=dist.constraints.positive)
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, spread))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    program = Program(learned_model, guide_of("slope"))
    trained(program)
    fresh = refit_guide(program, X, epochs=1, seed=0, progress=False)
    log_weights(fresh, X, 10)
    pyro.clear_param_store()
    with pytest.raises(ValueError, match="of Pyro's store, which is gone"):
        log_weights(fresh, X, 10)


def test_a_part_that_is_called_decoder_makes_no_vae() -> None:
    part = nn.Linear(1, 1)
    part.family = "linear"  # whatever its owner means by that
    owner = nn.Module()
    owner.decoder = part
    program = Program(model, guide_of("slope"), modules=[owner])
    program.decoder = part
    fresh = refit_guide(program, X, epochs=1, batch_size=1024, progress=False)
    assert log_weights(fresh, X, 5, seed=0).isfinite().all()


def test_nets_that_pyro_module_registers_survive_a_cleared_store() -> None:
    net = nn.Linear(1, 1)

    def guide(x):
        pyro.module("net", net)
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal(net(x[:, None])[:, 0], 1.0))

    program = Program(model, guide)
    trained(program)
    before = log_weights(program, X, 10, seed=0)
    pyro.clear_param_store()
    assert torch.equal(log_weights(program, X, 10, seed=0), before)


class Holder:
    """An owner that a walk over closures does not look into."""


@pytest.mark.parametrize("side", ["model", "guide"])
def test_tensors_that_ask_for_gradients_and_are_not_registered_are_named(side) -> None:
    holder = Holder()
    holder.net = nn.Linear(1, 1)

    def hidden_model(x):
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(holder.net(z[:, None])[:, 0], 1.0), obs=x)

    def hidden_guide(x):
        pyro.param("unused", torch.tensor(0.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal(holder.net(x[:, None])[:, 0], 1.0))

    pair = (hidden_model, guide_of("a")) if side == "model" else (model, hidden_guide)
    program = Program(*pair)
    with pytest.warns(UserWarning, match=r"not registered with Pyro: \['shape \(1, 1\)', 'shape"):
        trained(program)
    holder.net.requires_grad_(False)
    trained(program)


def test_a_guide_with_parameters_for_each_row_is_refused() -> None:
    with pytest.raises(ValueError, match=r"AutoNormal.*each row.*\['z'\].*expected a guide that"):
        trained(Program(model, AutoNormal(model)))


def test_an_autoguide_of_shared_latents_trains() -> None:
    def shared(x):
        centre = pyro.sample("centre", dist.Normal(0.0, 10.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(centre, 1.0), obs=x)

    guide = AutoNormal(shared, init_scale=0.1)
    # Its Delta only renames an auxiliary draw: no word of a point estimate.
    with pytest.warns(UserWarning, match="'centre' is outside the data plate") as said:
        fit(
            Program(shared, guide),
            X + 3.0,
            optimizer=(torch.optim.Adam, {"lr": 0.1}),
            epochs=150,
            seed=0,
            progress=False,
        )
    assert len(said) == 1
    # The posterior mean is 40 · 3 / 40.01; an Adam of rate 0.1 wanders by about that much.
    assert guide.median()["centre"].item() == pytest.approx(3.0, abs=0.3)


def test_a_forgotten_to_event_is_named() -> None:
    def flat(x):
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z[:, None].expand(-1, 3), 1.0), obs=x)

    with pytest.raises(ValueError, match=r"does not fit its plates.*site x.*Try .to_event\(1\)"):
        trained(Program(flat, lambda x: guide_of("a")(x[:, 0])), torch.randn(40, 3))


def clusters(x):
    with pyro.plate("rows", len(x)):
        k = pyro.sample(
            "k", dist.Categorical(torch.tensor([0.2, 0.3, 0.5])), infer={"enumerate": "parallel"}
        )
        z = pyro.sample("z", dist.Normal(MEANS[k], 1.0))
        pyro.sample("x", dist.Normal(z + MEANS[k], 1.0), obs=x)


def test_summed_out_sites_are_drawn_from_their_exact_conditional() -> None:
    program = Program(clusters, guide_of("slope"))
    trained(program, objective=TraceEnum_ELBO(max_plate_nesting=1))
    draws = posterior_predictive(program, X, 500, seed=0)
    z, k = draws.latents["z"][..., None], draws.latents["k"]
    weights = torch.log(torch.tensor([0.2, 0.3, 0.5]))
    scores = dist.Normal(MEANS, 1.0).log_prob(z) + weights
    exact = (scores + dist.Normal(z + MEANS, 1.0).log_prob(X[:, None])).softmax(-1)
    # 20,000 independent indicators, whose variances are known. Sums weighted by x and by z see a k
    # that is drawn for another row or draw: |deviation| < 4.5 sd in 3 classes and 3 sums fails
    # falsely in 1 of 16,000 runs.
    deviation = nn.functional.one_hot(k.long(), 3).float() - exact
    for weight in (torch.ones_like(z), X[:, None], z):
        sd = (weight**2 * exact * (1 - exact)).sum((0, 1)).sqrt()
        assert bool(((weight * deviation).sum((0, 1)).abs() < 4.5 * sd).all())
    means = draws.means["x"]
    torch.testing.assert_close(means, draws.latents["z"] + MEANS[k.long()])


@pytest.mark.parametrize("marked", ["model and guide", "guide"])
@pytest.mark.parametrize("first", [0.5, 1.0], ids=["even", "known label"])
@pytest.mark.parametrize("code", [dist.Categorical, dist.OneHotCategorical])
def test_a_site_that_the_guide_sums_out_is_drawn_from_its_exact_conditional_too(
    marked, first, code
) -> None:
    parallel = {"enumerate": "parallel"}

    def mean_of(k):
        return MEANS[k.long()] if code is dist.Categorical else (k * MEANS[:2]).sum(-1)

    def two(x):
        infer = parallel if "model" in marked else {}
        with pyro.plate("rows", len(x)):
            k = pyro.sample("k", code(torch.tensor([0.3, 0.7])), infer=infer)
            pyro.sample("z", dist.Normal(mean_of(k), 1.0))
            pyro.sample("x", dist.Normal(mean_of(k), 1.0), obs=x)

    def two_guide(x):
        with pyro.plate("rows", len(x)):
            logits = torch.tensor([first, 1 - first]).log()
            pyro.sample("k", code(logits=logits), infer=parallel)
            pyro.sample("z", dist.Normal(0.5 * x, 1.0))

    program = Program(two, two_guide)
    draws = posterior_predictive(program, X, 500, seed=0)
    z, k = draws.latents["z"], draws.latents["k"]
    torch.testing.assert_close(draws.means["x"], mean_of(k))
    k = k if code is dist.Categorical else k.argmax(-1)
    with pytest.warns(UserWarning, match=r"\['k'\] are summed out.*nothing is said of how they"):
        assert aggregate_match(program, X, permutations=20).units.keys() == {"z"}
    if first == 1.0:  # the log weights leave the other value out
        assert not k.any()
        return
    one, zero = dist.Normal(MEANS[1], 1.0), dist.Normal(MEANS[0], 1.0)
    logit = one.log_prob(z) + one.log_prob(X) - zero.log_prob(z) - zero.log_prob(X)
    exact = (logit + math.log(0.7 / 0.3)).sigmoid()
    for weight in (torch.ones_like(z), X, z):  # as above, 3 sums: 1 of 49,000 runs
        sd = (weight**2 * exact * (1 - exact)).sum().sqrt()
        assert (weight * (k - exact)).sum().abs() < 4.5 * sd


def test_a_plate_that_is_named_by_its_size_is_refused_in_a_sentence() -> None:
    def renamed(x):
        with pyro.plate(f"rows{len(x)}", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def renamed_guide(x):
        with pyro.plate(f"rows{len(x)}", len(x)):
            pyro.sample("z", dist.Normal(0.5 * x, 1.0))

    says = r"'rows40' is not there in a batch of 2 rows; its name must not change"
    for plate in (None, "rows40"):
        program = Program(renamed, renamed_guide, plate=plate)
        for use in (log_weights, posterior_predictive):
            with pytest.raises(ValueError, match=says):
                use(program, X, 10)


def test_programs_with_summed_out_sites_are_diagnosed_and_reach_arviz() -> None:
    program = Program(clusters, guide_of("slope"))
    trained(program, objective=TraceEnum_ELBO(max_plate_nesting=1))
    found = diagnose(program, X, num_samples=100, budget=0)
    assert found.evidence is not None and found.undefined is None
    assert found.codes.shape == (40, 1)  # the index of a category is no coordinate
    tree = to_datatree(program, X, num_samples=30)
    assert set(tree["posterior"].data_vars) == {"z", "k"}


def test_predictive_draws_refuse_a_plate_that_picks_its_rows() -> None:
    def subsampling(x):
        with pyro.plate("rows", len(x), subsample_size=10) as rows:
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[rows])

    def guide(x):
        slope = pyro.param("slope", torch.tensor(0.5))
        with pyro.plate("rows", len(x), subsample_size=10) as rows:
            pyro.sample("z", dist.Normal(slope * x[rows], 1.0))

    program = Program(subsampling, guide)
    for draw in (
        lambda: posterior_predictive(program, X, 2),
        lambda: prior_predictive(program, 2, like=X),
    ):
        with pytest.raises(
            ValueError,
            match="'rows' subsamples its rows.*Try a model of the same networks whose plate",
        ):
            draw()


@pytest.mark.parametrize("dims", [(-1, -2), (-2, -1)])
def test_two_latents_in_nested_plates_weigh_as_by_hand(dims) -> None:
    """z per datum, w per datum and item, both plates at either dim: log w from the densities."""
    data_dim, item_dim = dims
    last = data_dim == -1

    def along(value):  # (N,) onto the data plate's dim
        return value if last else value[:, None]

    def whole(value):  # (N, 3) onto both plates
        return value.T if last else value

    def nested(x):
        rows = pyro.plate("rows", len(x), dim=data_dim)
        items = pyro.plate("items", 3, dim=item_dim)
        with rows:
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            with items:
                w = pyro.sample("w", dist.Normal(z, 2.0))
                pyro.sample("x", dist.Normal(w, 0.5), obs=whole(x))

    kept = {}

    def guide(x):
        slope = pyro.param("slope", torch.tensor(0.5))
        rows = pyro.plate("rows", len(x), dim=data_dim)
        with rows:
            kept["z"] = pyro.sample("z", dist.Normal(slope * along(x.mean(1)), 1.5))
            with pyro.plate("items", 3, dim=item_dim):
                kept["w"] = pyro.sample("w", dist.Normal(slope * whole(x), 0.7))

    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    weights = log_weights(Program(nested, guide), x, 4, seed=0, rows=28)
    z = kept["z"].reshape(28)
    w = kept["w"].T if last else kept["w"]
    assert w.shape == (28, 3)
    again = x.repeat(4, 1)
    by_hand = dist.Normal(0.0, 1.0).log_prob(z)
    by_hand = by_hand + dist.Normal(z[:, None], 2.0).log_prob(w).sum(1)
    by_hand = by_hand + dist.Normal(w, 0.5).log_prob(again).sum(1)
    by_hand = by_hand - dist.Normal(0.5 * again.mean(1), 1.5).log_prob(z)
    by_hand = by_hand - dist.Normal(0.5 * again, 0.7).log_prob(w).sum(1)
    torch.testing.assert_close(weights.reshape(28), by_hand, rtol=1e-5, atol=1e-5)


def test_batches_of_shared_latents_are_said_to_be_weighed_wrongly() -> None:
    """Posterior of a mean of 200 data: sd 1 / √200.01, and √10 of that from batches of 20."""
    x = torch.randn(200, generator=torch.Generator().manual_seed(1)) + 2.0

    def spread_of(program_model, **arguments):
        pyro.clear_param_store()

        def guide(x):
            spread = pyro.param("spread", torch.tensor(0.3), constraint=dist.constraints.positive)
            pyro.sample("centre", dist.Normal(pyro.param("loc", torch.tensor(2.0)), spread))

        fit(
            Program(program_model, guide),
            x,
            objective=ELBO(num_particles=10),
            optimizer=(torch.optim.Adam, {"lr": 0.03}),
            schedule=(torch.optim.lr_scheduler.ExponentialLR, {"gamma": 0.97}),
            epochs=100,
            seed=0,
            progress=False,
            **arguments,
        )
        return pyro.param("spread").item()

    def unscaled(x):
        centre = pyro.sample("centre", dist.Normal(0.0, 10.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(centre, 1.0), obs=x)

    def scaled(x):
        centre = pyro.sample("centre", dist.Normal(0.0, 10.0))
        with pyro.plate("rows", 200, subsample=x):
            pyro.sample("x", dist.Normal(centre, 1.0), obs=x)

    with pytest.warns(UserWarning) as said:
        too_wide = spread_of(unscaled, batch_size=20)
    assert any(
        "'centre'" in str(w.message) and "3.2 times too wide" in str(w.message) for w in said
    )
    with pytest.warns(UserWarning) as said:
        right = spread_of(scaled, batch_size=20)
    assert not any("too wide" in str(w.message) for w in said)
    # The rate falls to a twentieth: 15 % is several times what is left of Adam's wandering.
    assert right == pytest.approx(200**-0.5, rel=0.15)
    assert too_wide == pytest.approx(20**-0.5, rel=0.15)


def shared_mean(x):
    centre = pyro.sample("centre", dist.Normal(0.0, 5.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(centre, 1.0), obs=x)


def guess(x):
    pyro.sample("centre", dist.Normal(pyro.param("loc", torch.tensor(1.0)), 0.5))


def test_every_draw_has_its_own_shared_latents() -> None:
    program = Program(shared_mean, guess)
    prior = prior_predictive(program, 2000, like=X, seed=0)
    # x ~ N(0, 26): the sd of 2000 draws is within 4.5 / √4000 = 7 % of √26 in all but 1 of 150,000.
    assert prior.data["x"].std().item() == pytest.approx(26**0.5, rel=0.07)
    assert prior.latents["centre"].shape == (2000,)
    drawn = posterior_predictive(program, X, 2000, seed=0)
    assert drawn.latents["centre"].shape == (2000,) and drawn.data["x"].shape == (2000, 40)
    assert drawn.latents["centre"].std().item() == pytest.approx(0.5, rel=0.08)
    between = drawn.data["x"].mean(1).std().item()  # √(0.25 + 1/40)
    assert between == pytest.approx(0.275**0.5, rel=0.08)
    tree = to_datatree(program, X, num_samples=300, seed=0)
    assert tree["posterior"]["centre"].dims == ("chain", "draw")
    rows = tree["prior_predictive"]["x"][0]
    assert rows.std("row").mean() == pytest.approx(1.0, rel=0.05)  # within a draw
    assert rows.mean("row").std() == pytest.approx(
        (25 + 1 / 40) ** 0.5, rel=0.19
    )  # between: 4.5 sd


class Net(PyroModule):
    """A model or guide of a class that two programs use."""

    def __init__(self, of) -> None:
        super().__init__()
        self.of = of
        self.shift = PyroParam(torch.tensor(0.5))

    def forward(self, x):
        with pyro.plate("rows", len(x)):
            if self.of == "guide":
                pyro.sample("z", dist.Normal(self.shift * x, 1.0))
            else:
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def test_two_programs_of_one_pyro_module_class_do_not_mix() -> None:
    first, second = (Program(Net("model"), Net("guide")) for _ in range(2))
    trained(first)
    before = log_weights(first, X, 10, seed=0)
    trained(second, 5.0 * X)
    twin = copy.deepcopy(first)
    assert torch.equal(log_weights(first, X, 10, seed=0), before)
    assert torch.equal(log_weights(twin, X, 10, seed=0), before)
    trained(twin, -X)
    assert torch.equal(log_weights(first, X, 10, seed=0), before)
    pyro.clear_param_store()
    assert torch.equal(log_weights(first, X, 10, seed=0), before)


def test_a_net_of_another_name_is_refused_in_every_use() -> None:
    def program():
        net = nn.Linear(1, 1)

        def guide(x):
            pyro.module("net", net)
            with pyro.plate("rows", len(x)):
                pyro.sample("z", dist.Normal(net(x[:, None])[:, 0], 1.0))

        return Program(model, guide)

    first, second = program(), program()
    trained(first)
    with pytest.raises(ValueError, match="other tensors under the names.*'net"):
        log_weights(second, X, 10)


def test_a_column_that_broadcasts_against_its_plate_is_refused() -> None:
    def labelled(x, y):
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)
            pyro.sample("y", dist.Bernoulli(logits=z), obs=y)

    guide = guide_of("slope")
    program = Program(labelled, lambda x, y: guide(x))
    y = (X > 0).float()
    trained(program, (X, y))
    with pytest.raises(ValueError, match=r"does not fit its plates.*\"y\".*Try .*y\[:, 0\]"):
        log_weights(program, (X, y[:, None]), 10)


def test_estimators_that_would_train_something_else_are_refused() -> None:
    program = Program(clusters, guide_of("slope"))
    with pytest.raises(ValueError, match=r"\['k'\] marked for enumeration under Trace_ELBO"):
        trained(program, objective=pyro.infer.Trace_ELBO())
    with pytest.raises(ValueError, match="ReweightedWakeSleep, which has no single loss"):
        trained(Program(model, guide_of("slope")), objective=pyro.infer.ReweightedWakeSleep())


def test_weights_of_shared_latents_lead_to_what_there_is() -> None:
    with pytest.raises(ValueError, match="Try posterior_predictive"):
        log_weights(Program(shared_mean, guess), X, 10)
