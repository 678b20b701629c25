"""`fit` against Pyro's own loop, its checkpoints, its history, its promises."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import (
    SVI,
    RenyiELBO,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
)
from pyro.nn import PyroModule, PyroParam
from torch import nn

from ppl_vae import (
    ELBO,
    MLP,
    MMD,
    VAE,
    Adversarial,
    Bernoulli,
    Conditional,
    Delta,
    GaussianMixture,
    MultivariateNormal,
    Normal,
    Program,
    Shared,
    StandardNormal,
    diagnose,
    fit,
)

QUIET = {"progress": False}


def bernoulli_vae():
    return VAE(
        StandardNormal(2),
        Conditional(MLP(16), Bernoulli(6), given=2),
        Conditional(MLP(16), Normal(2), given=6),
    )


def mixture_vae():
    return VAE(
        GaussianMixture(torch.randn(3, 2), learned=True),
        Conditional(MLP(16), Normal(6, scale=Shared()), given=2),
        Conditional(MLP(16), MultivariateNormal(2), given=6),
    )


def tutorial():
    """Two plain functions in the manner of Pyro's VAE tutorial: other site names, pyro.module."""
    decoder = nn.Sequential(nn.Linear(2, 16), nn.Softplus(), nn.Linear(16, 6))
    encoder = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Softplus(), nn.Linear(16, 4))

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("rows", len(x)):
            latent = pyro.sample("latent", dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1))
            pyro.sample("obs", dist.Bernoulli(logits=decoder(latent)).to_event(1), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        width = pyro.param("width", torch.ones(2), constraint=dist.constraints.positive)
        with pyro.plate("rows", len(x)):
            loc, raw = encoder(x).chunk(2, -1)
            pyro.sample("latent", dist.Normal(loc, width * raw.exp()).to_event(1))

    return Program(model, guide, modules=[decoder, encoder])


PROGRAMS = {"bernoulli": bernoulli_vae, "mixture": mixture_vae, "tutorial": tutorial}


def fresh(name, seed=0):
    pyro.clear_param_store()
    torch.manual_seed(seed)
    return PROGRAMS[name]()


def data(name, rows=100):
    noise = torch.Generator().manual_seed(1)
    x = torch.randn(rows, 6, generator=noise)
    return x if name == "mixture" else (x > 0).float()


def parameters(program):
    store = {n: p for n, p in pyro.get_param_store().named_parameters()}
    return [
        p.detach().clone() for p in (*program.parameters(), store.get("width")) if p is not None
    ]


def buffers(program):
    return [b.clone() for b in program.buffers()]


def equal(a, b):
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def by_hand(program, x, loss, epochs, seed, batch_size, optimizer=None):
    svi = SVI(program.model, program.guide, optimizer or pyro.optim.Adam({"lr": 1e-3}), loss)
    torch.manual_seed(seed)
    order = torch.Generator().manual_seed(seed)
    return [
        sum(svi.step(x[i]) for i in torch.randperm(len(x), generator=order).split(batch_size))
        / len(x)
        for _ in range(epochs)
    ]


@pytest.mark.parametrize("name", PROGRAMS)
def test_fit_is_svi_bit_for_bit(name):
    x = data(name)
    program = fresh(name)
    history, _ = fit(program, x, epochs=4, batch_size=32, seed=5, **QUIET)
    ours = parameters(program) + buffers(program)
    program = fresh(name)
    losses = by_hand(program, x, Trace_ELBO(), 4, 5, 32)
    assert history["loss"].tolist() == losses
    assert equal(ours, parameters(program) + buffers(program))


@pytest.mark.parametrize(
    "estimator",
    [
        Trace_ELBO(num_particles=3),
        TraceMeanField_ELBO(),
        TraceGraph_ELBO(),
        RenyiELBO(alpha=0.5, num_particles=4),
        TraceEnum_ELBO(max_plate_nesting=1, strict_enumeration_warning=False),
    ],
    ids=lambda e: type(e).__name__,
)
def test_any_of_pyros_elbos_is_an_objective_bit_for_bit(estimator):
    x = data("bernoulli")
    program = fresh("bernoulli")
    history, _ = fit(program, x, objective=estimator, epochs=2, batch_size=32, seed=5, **QUIET)
    ours = parameters(program)
    program = fresh("bernoulli")
    assert history["loss"].tolist() == by_hand(program, x, estimator, 2, 5, 32)
    assert equal(ours, parameters(program))
    assert "elbo" not in history and "kl" not in history


def test_a_pyro_optimizer_is_taken():
    x, arguments = data("tutorial"), {"lr": 1e-2}
    program = fresh("tutorial")
    fit(program, x, optimizer=pyro.optim.ClippedAdam(arguments), epochs=2, seed=5, **QUIET)
    ours = parameters(program)
    program = fresh("tutorial")
    by_hand(program, x, Trace_ELBO(), 2, 5, 128, pyro.optim.ClippedAdam(arguments))
    assert equal(ours, parameters(program))


@pytest.mark.parametrize("objective", [ELBO(), Adversarial(critic=MLP(8))], ids=["elbo", "adv"])
def test_objectives_are_losses_for_svi(objective):
    x, program = data("bernoulli"), fresh("bernoulli")
    before = parameters(program)
    losses = by_hand(program, x, objective, 2, 0, 50)
    assert np.isfinite(losses).all()
    assert not any(torch.equal(a, b) for a, b in zip(before, parameters(program), strict=True))
    if isinstance(objective, ELBO):
        program = fresh("bernoulli")
        # SVI reads the value through a float32 addition here, hence only nearly.
        assert losses == pytest.approx(by_hand(program, x, Trace_ELBO(), 2, 0, 50), rel=1e-6)


def test_two_plain_functions_are_diagnosed():
    x, program = data("tutorial"), fresh("tutorial")
    history, _ = fit(program, x, epochs=2, **QUIET)
    found = diagnose(program, x, history=history, num_samples=20, budget=0)
    assert found.latents == ("latent",) and found.observed == ("obs",)
    assert np.isfinite(found.evidence.log_evidence).all()
    assert found.reconstructions.shape == (100, 6)


def test_parts_add_up_and_analytic_kl_agrees():
    x, program = data("bernoulli"), fresh("bernoulli")
    still = (torch.optim.SGD, {"lr": 0.0})
    sampled, _ = fit(program, x, objective=ELBO(200), optimizer=still, epochs=1, seed=0, **QUIET)
    analytic, _ = fit(
        program,
        x,
        objective=ELBO(200, analytic_kl=True),
        optimizer=still,
        epochs=1,
        seed=0,
        **QUIET,
    )
    for history in (sampled, analytic):
        assert history["elbo"] == pytest.approx(history["reconstruction"] - history["kl"], rel=1e-6)
        assert history["loss"] == pytest.approx(-history["elbo"], rel=1e-6)
    # 100 data x 200 draws of log q - log p, each of sd about 1: SE 0.007, five of them.
    assert sampled["kl"] == pytest.approx(analytic["kl"], abs=0.035)


@pytest.mark.parametrize("weight", [0.0, 0.3, 2.0])
def test_the_kl_weight_weighs_the_kl_and_the_elbo_is_logged_beside(weight):
    x, still = data("bernoulli"), (torch.optim.SGD, {"lr": 0.0})
    for analytic in (False, True):
        program = fresh("bernoulli")
        objective = ELBO(kl_weight=weight, analytic_kl=analytic)
        row = next(
            iter(
                fit(program, x, objective=objective, optimizer=still, epochs=1, seed=0, **QUIET)[0]
            )
        )
        assert row["loss"] == pytest.approx(-row["reconstruction"] + weight * row["kl"], rel=1e-5)
        assert row["elbo"] == pytest.approx(row["reconstruction"] - row["kl"], rel=1e-5)


def test_warmup_rises_over_its_epochs_and_patience_waits_for_it():
    x, program = data("bernoulli"), fresh("bernoulli")
    still = (torch.optim.SGD, {"lr": 0.0})
    history, _ = fit(
        program,
        x,
        objective=ELBO(warmup=2),
        optimizer=still,
        epochs=5,
        batch_size=50,
        seed=0,
        validation=0.2,
        patience=1,
        **QUIET,
    )
    ratio = (history["loss"] + history["reconstruction"]) / history["kl"]
    # Two steps an epoch, at weights 0, 1/4; 1/2, 3/4; then 1. Batches weigh by their kl: nearly so.
    assert ratio[:3] == pytest.approx([0.125, 0.625, 1.0], abs=0.05)
    # Nothing moves, so the score never betters: epoch 1 sets it, and epoch 3, the first after the
    # warm-up, ends the run.
    assert len(history) == 3


def test_the_best_state_may_come_during_warmup():
    x = data("bernoulli", 60)

    def run(epochs):
        program = fresh("bernoulli")
        history, _ = fit(
            program,
            x,
            objective=ELBO(warmup=3),
            optimizer=(torch.optim.Adam, {"lr": 1e-2}),
            schedule=(torch.optim.lr_scheduler.ExponentialLR, {"gamma": 20.0}),  # soon far too fast
            epochs=epochs,
            validation=0.3,
            patience=5,
            seed=0,
            **QUIET,
        )
        return history["validation_elbo"], program

    scores, kept = run(4)
    best = int(scores.argmax()) + 1
    assert best < 3
    _, stopped = run(best)
    for a, b in zip(kept.parameters(), stopped.parameters(), strict=True):
        assert torch.equal(a, b)


def test_early_stopping_restores_the_best_state():
    x, program = data("bernoulli", 60), fresh("bernoulli")
    history, state = fit(
        program,
        x,
        optimizer=(torch.optim.Adam, {"lr": 0.05}),
        epochs=200,
        validation=0.3,
        patience=5,
        seed=0,
        **QUIET,
    )
    scores = history["validation_elbo"]
    assert len(history) == scores.argmax() + 1 + 5 < 200
    again, _ = fit(
        program,
        x,
        optimizer=(torch.optim.SGD, {"lr": 0.0}),
        epochs=1,
        validation=0.3,
        seed=0,
        **QUIET,
    )
    assert again["validation_elbo"][0] == scores.max()
    assert state.steps == len(history)


def test_seed_decides_everything_and_leaves_the_stream_alone():
    x = data("bernoulli")
    runs = []
    for noise in (1, 2):
        program = fresh("bernoulli")
        torch.manual_seed(noise)
        stream = torch.get_rng_state()
        fit(program, x, epochs=2, seed=3, validation=0.1, **QUIET)
        assert torch.equal(stream, torch.get_rng_state())
        runs.append(parameters(program))
    assert equal(*runs)
    program = fresh("bernoulli")
    fit(program, x, epochs=2, seed=4, validation=0.1, **QUIET)
    assert not equal(runs[0], parameters(program))


def test_validation_consumes_no_training_noise():
    x, held = data("tutorial"), data("tutorial", 30)
    program = fresh("tutorial")
    fit(program, x, epochs=2, seed=3, **QUIET)
    without = parameters(program) + buffers(program)
    program = fresh("tutorial")
    history, _ = fit(program, x, epochs=2, seed=3, validation=held, **QUIET)
    assert equal(without, parameters(program) + buffers(program))
    assert np.isfinite(history["validation_elbo"]).all()


def test_clipping_bounds_the_step():
    x, program = data("bernoulli"), fresh("bernoulli")
    before = parameters(program)
    fit(
        program,
        x,
        optimizer=(torch.optim.SGD, {"lr": 1.0}),
        clip_norm=0.01,
        epochs=1,
        batch_size=100,
        **QUIET,
    )
    moved = torch.cat([(a - b).flatten() for a, b in zip(before, parameters(program), strict=True)])
    # The gradient of the sum is 100 times that of the mean, which is clipped to 0.01.
    assert moved.norm() == pytest.approx(1.0, rel=1e-4)


def test_the_schedule_is_stepped_once_an_epoch():
    program = fresh("bernoulli")
    rates = (torch.optim.lr_scheduler.ExponentialLR, {"gamma": 0.5})
    history, _ = fit(program, data("bernoulli"), schedule=rates, epochs=3, batch_size=20, **QUIET)
    assert history["learning_rate"].tolist() == [1e-3, 5e-4, 2.5e-4]


def test_history_is_a_tidy_table():
    program = fresh("bernoulli")
    history, _ = fit(program, data("bernoulli").numpy(), epochs=3, validation=0.1, **QUIET)
    table = history.to_pandas()
    assert list(table.columns) == list(history.columns) and len(table) == 3
    assert {"elbo", "kl", "validation_elbo", "grad_norm", "learning_rate", "seconds"} <= set(table)
    assert np.isfinite(table.to_numpy()).all()


def test_tuples_and_dicts_reach_model_and_guide():
    def model(x, c):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(c, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x, c):
        a = pyro.param("a", torch.tensor(0.1))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(a * (x + c), 0.7))

    x, c = torch.randn(50), torch.randn(50)
    losses = []
    for given in ((x, c), {"c": c, "x": x}):
        pyro.clear_param_store()
        losses.append(
            fit(Program(model, guide), given, epochs=2, seed=0, **QUIET)[0]["loss"].tolist()
        )
    assert losses[0] == losses[1]


def test_a_program_in_eval_mode_is_trained_in_train_mode_and_given_back():
    program = fresh("tutorial")
    program.eval()
    before = buffers(program)
    fit(program, data("tutorial"), epochs=1, **QUIET)
    assert not program.training and not equal(before, buffers(program))


def test_two_programs_with_pyro_parameters_do_not_share_them():
    class Gain(PyroModule):
        def __init__(self, start):
            super().__init__()
            self.gain = PyroParam(torch.tensor(start), constraint=dist.constraints.positive)
            self.linear = nn.Linear(2, 6)

        def forward(self, z):
            return self.gain * self.linear(z)

    def build(start):
        return VAE(
            StandardNormal(2),
            Conditional(lambda i, o: Gain(start), Bernoulli(6), given=2),
            Conditional(MLP(), Normal(2), given=6),
        )

    x = data("bernoulli")
    first, second = build(3.0), build(5.0)
    fit(first, x, epochs=1, seed=0, **QUIET)
    fit(second, x, epochs=1, seed=0, **QUIET)
    assert abs(float(first.decoder.net.gain.detach()) - 3.0) < 0.2
    assert abs(float(second.decoder.net.gain.detach()) - 5.0) < 0.2
    assert float(second.decoder.net.gain.detach()) != 5.0


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize(
    "objective", [ELBO(warmup=3), Adversarial(critic=MLP(8))], ids=["elbo", "adv"]
)
def test_a_resumed_fit_ends_bit_equal(name, objective, tmp_path):
    x = data(name)
    adversarial = isinstance(objective, Adversarial)
    arguments = {
        "objective": objective,
        "batch_size": 32,
        "seed": 5,
        "validation": 0.1,
        "patience": None if adversarial else 50,
        "schedule": (torch.optim.lr_scheduler.ExponentialLR, {"gamma": 0.9}),
        **QUIET,
    }
    prior_stays = adversarial and name == "mixture"

    def run(program, **more):
        if prior_stays:
            with pytest.warns(UserWarning, match="prior"):
                return fit(program, x, **arguments, **more)
        return fit(program, x, **arguments, **more)

    whole = fresh(name)
    history, state = run(whole, epochs=6)
    expected = parameters(whole) + buffers(whole) + parameters(state.objective_state)
    path = tmp_path / "run.safetensors"
    run(fresh(name), epochs=3, checkpoint=path)
    other = fresh(name, seed=99)  # start values that must not matter
    resumed, state = run(other, epochs=6, checkpoint=path)
    assert equal(expected, parameters(other) + buffers(other) + parameters(state.objective_state))
    wall = ("seconds",)
    for a, b in zip(history, resumed, strict=True):
        assert {k: v for k, v in a.items() if k not in wall} == {
            k: v for k, v in b.items() if k not in wall
        }
    assert [p.name for p in tmp_path.iterdir()] == ["run.safetensors"]


KILLED = """
import sys, torch
torch.set_num_threads(1)  # as in the tests: the same sums in the same order
from test_fit import fresh, data
from ppl_vae import fit
program = fresh("tutorial")
x, path = data("tutorial"), sys.argv[1]
fit(program, x, epochs=100000, batch_size=32, seed=5, checkpoint=path, compile=False,
    progress=False)
"""


def test_a_killed_fit_resumes_bit_equal(tmp_path):
    path = tmp_path / "run.safetensors"
    here = os.path.dirname(__file__)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([here, os.getcwd()])}
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], env=environment)
    deadline = time.monotonic() + 60
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)  # some epochs more, killed at any point of one
    process.send_signal(signal.SIGKILL)
    process.wait()
    x = data("tutorial")
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        import json

        done = len(json.loads(file.metadata()["ppl_vae"])["history"])
    resumed = fresh("tutorial", seed=99)
    fit(resumed, x, epochs=done + 3, batch_size=32, seed=5, checkpoint=path, **QUIET)
    ours = parameters(resumed) + buffers(resumed)
    whole = fresh("tutorial")
    fit(whole, x, epochs=done + 3, batch_size=32, seed=5, **QUIET)
    assert equal(ours, parameters(whole) + buffers(whole))


def test_a_failing_write_keeps_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "run.safetensors"
    fit(fresh("bernoulli"), data("bernoulli"), epochs=1, seed=0, checkpoint=path, **QUIET)
    before = path.read_bytes()

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        fit(fresh("bernoulli"), data("bernoulli"), epochs=2, seed=0, checkpoint=path, **QUIET)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_a_program_is_pickled_and_copied_after_training(tmp_path):
    import copy

    program = fresh("bernoulli")
    fit(program, data("bernoulli"), epochs=1, seed=0, **QUIET)
    twin = copy.deepcopy(program)
    torch.save(program, tmp_path / "program.pt")
    loaded = torch.load(tmp_path / "program.pt", weights_only=False)
    before = parameters(program)
    for other in (twin, loaded):
        fit(other, data("bernoulli"), epochs=1, seed=0, **QUIET)
        assert not any(torch.equal(a, b) for a, b in zip(before, other.parameters(), strict=True))
    assert equal(before, parameters(program))


def test_collected_programs_leave_the_store():
    import gc

    for _ in range(3):
        fit(bernoulli_vae(), data("bernoulli"), epochs=1, **QUIET)
    gc.collect()
    assert len(pyro.get_param_store()) == 0


def test_a_delta_guide_is_a_warned_map_fit():
    program = VAE(
        StandardNormal(2),
        Conditional(MLP(16), Bernoulli(6), given=2),
        Conditional(MLP(16), Delta(2), given=6),
    )
    with pytest.warns(UserWarning, match="maximum a posteriori"):
        history, _ = fit(program, data("bernoulli"), epochs=2, validation=0.1, **QUIET)
    assert "elbo" not in history and "kl" not in history
    assert np.isfinite(history["reconstruction"]).all()


@pytest.mark.parametrize("idiom", ["subsample", "subsample_size"])
def test_a_subsampling_plate_is_reported_per_datum(idiom):
    """Pyro's two idioms: the loss speaks of the whole data set, the history of one datum."""
    x = torch.randn(100, generator=torch.Generator().manual_seed(0))

    def plate(x):
        given = {"subsample": x} if idiom == "subsample" else {"subsample_size": 20}
        return pyro.plate("rows", 100, **given)

    def model(x):
        with plate(x) as rows:
            seen = rows if idiom == "subsample" else x[rows]
            z = pyro.sample("z", dist.Normal(torch.zeros(len(seen)), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=seen)

    def guide(x):
        a = pyro.param("a", torch.tensor(0.5))
        with plate(x) as rows:
            seen = rows if idiom == "subsample" else x[rows]
            pyro.sample("z", dist.Normal(a * seen, 0.7))

    program = Program(model, guide)
    batch_size = 32 if idiom == "subsample" else 100  # 32 leaves a short last batch
    still = (torch.optim.SGD, {"lr": 0.0})
    history, _ = fit(program, x, epochs=40, batch_size=batch_size, optimizer=still, seed=0, **QUIET)
    assert history["loss"] == pytest.approx(-history["elbo"], rel=1e-5)
    exact = (  # E_q log p(x|z) - KL(q || p) with q = N(x/2, 0.49), in closed form
        -0.5 * np.log(2 * np.pi)
        - 0.5 * ((x / 2) ** 2 + 0.49)
        - 0.5 * (0.49 + (x / 2) ** 2 - 1 - np.log(0.49))
    ).mean()
    # 40 epochs of 20 data or more: sd of one term about 0.7, so an SE of 0.025; four of them.
    assert history["elbo"].mean() == pytest.approx(float(exact), abs=0.1)


def of_batches(picked):
    """z and x of rows that a plate picks from each batch."""

    def model(x):
        with pyro.plate("rows", len(x), subsample_size=picked) as rows:
            z = pyro.sample("z", dist.Normal(torch.zeros(len(rows)), 1.0))
            pyro.sample("x", dist.Normal(z + 10.0, 1.0), obs=x[rows])

    def guide(x):
        a = pyro.param("a", torch.tensor(0.5))
        with pyro.plate("rows", len(x), subsample_size=picked) as rows:
            pyro.sample("z", dist.Normal(a * x[rows], 0.7))

    return Program(model, guide)


@pytest.mark.parametrize("objective", [ELBO(), Adversarial(), MMD(weight=0.0)])
def test_a_plate_that_picks_rows_of_a_short_batch_is_reported_per_datum(objective):
    """The loss of a short last batch is that of its rows, not of as many as the others have."""
    x = torch.zeros(140)
    history, _ = fit(
        of_batches(20), x, objective=objective, epochs=30, batch_size=100,
        optimizer=(torch.optim.SGD, {"lr": 0.0}), seed=0, validation=x, **QUIET,
    )  # fmt: skip
    other = {"ELBO": "elbo", "Adversarial": "adversarial", "MMD": "reconstruction"}
    column = history[other[type(objective).__name__]]
    if isinstance(objective, Adversarial):
        column = history["reconstruction"] - objective.weight * column
    assert history["loss"] == pytest.approx(-column, rel=1e-5)
    # E (x - 10 - z)^2 / 2 + log(2 pi) / 2 with z of N(0, 0.49); sd 7.0 of each of 1200.
    exact = -0.5 * np.log(2 * np.pi) - 0.5 * (100 + 0.49)
    assert history["reconstruction"].mean() == pytest.approx(exact, abs=4 * 7.01 / 1200**0.5)


def test_batches_of_fewer_rows_than_a_plate_picks_are_refused():
    x, picked = torch.zeros(300), of_batches(20)
    with pytest.raises(ValueError, match="300 rows of data in batches of 290.*picks 20.*Try 290"):
        fit(picked, x, epochs=1, batch_size=290, **QUIET)
    with pytest.raises(ValueError, match="Got 10 rows for a plate that picks more.*20 vs 10"):
        fit(picked, x, epochs=1, batch_size=10, **QUIET)
    with pytest.raises(ValueError, match="410 rows of validation in batches of 400"):
        fit(picked, x, epochs=1, batch_size=100, validation=torch.zeros(410), **QUIET)


def test_more_epochs_done_than_asked_for_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    fit(fresh("bernoulli"), data("bernoulli"), epochs=3, seed=0, checkpoint=path, **QUIET)
    with pytest.raises(ValueError, match="has 3 epochs done; expected at most epochs=2"):
        fit(fresh("bernoulli"), data("bernoulli"), epochs=2, seed=0, checkpoint=path, **QUIET)
