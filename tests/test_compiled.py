"""The compiled step is the program: same losses, same gradients, same History, or it is refused.

Most tests run the traced graph operation by operation, which is what the compiler is given; the
two that compile are marked by name. What must not be frozen into a graph is in test_frozen.py.
"""

import copy
import math
import os
import subprocess
import sys
import warnings
from contextlib import contextmanager

import numpy as np
import pyro
import pyro.distributions as dist
import pyro.infer
import pyro.optim
import pytest
import torch
from pyro import poutine
from pyro.nn import PyroModule, PyroParam
from torch import nn

from ppl_vae import (
    ELBO,
    MLP,
    MMD,
    VAE,
    Adversarial,
    Bernoulli,
    CompiledSVI,
    Conditional,
    GaussianMixture,
    Hinge,
    ImportanceWeighted,
    MultivariateNormal,
    NonFiniteError,
    Normal,
    Program,
    StandardNormal,
    VampPrior,
    Wasserstein,
    fit,
)
from ppl_vae.data.batches import Batch
from ppl_vae.training import compiled as module
from ppl_vae.training.frozen import Watch
from ppl_vae.training.fused import fused_update
from ppl_vae.training.inductor import compiled, trace, why_not

X = (torch.rand(70, 6, generator=torch.Generator().manual_seed(0)) > 0.5).double()


@pytest.fixture
def no_compiler(monkeypatch):
    """Run graphs operation by operation."""
    monkeypatch.setattr(module, "compiled", lambda graph, _: module.interpreted(graph))


def bernoulli_vae(prior=None, guide=None, net=None):
    torch.manual_seed(0)
    net = net or MLP(8)
    return VAE(
        prior or StandardNormal(2),
        Conditional(net, Bernoulli(6), given=2),
        Conditional(net, guide or Normal(2), given=6),
    )


def with_layer(layer, bias=False):
    # Under BatchNorm a bias has the gradient 0: its rounding errors Adam would take for steps.
    return lambda i, o: nn.Sequential(
        nn.Linear(i, 8, bias=bias), layer(), nn.ReLU(), nn.Linear(8, o)
    )


def vamp():
    torch.manual_seed(0)
    encoder = Conditional(MLP(8), Normal(2), given=6)
    decoder = Conditional(MLP(8), Bernoulli(6), given=2)
    return VAE(VampPrior(X[:5], encoder), decoder, encoder)


def nets():
    torch.manual_seed(0)
    return nn.Linear(2, 6), nn.Linear(6, 4)


def pair(masked=False, covariate=False):
    """Two functions in the manner of Pyro's tutorials."""
    decoder, encoder = nets()

    def model(x, extra=None):
        pyro.module("decoder", decoder)
        spread = pyro.param(
            "spread", torch.tensor(1.5, dtype=x.dtype), constraint=dist.constraints.positive
        )
        with pyro.plate("rows", len(x)):
            z = pyro.sample("latent", dist.Normal(x.new_zeros(2), spread).to_event(1))
            seen = extra > 0 if masked else True
            shift = extra[:, None] if covariate else 0.0
            with poutine.mask(mask=seen):
                pyro.sample("obs", dist.Bernoulli(logits=decoder(z) + shift).to_event(1), obs=x)

    def guide(x, extra=None):
        pyro.module("encoder", encoder)
        with pyro.plate("rows", len(x)):
            loc, raw = encoder(x).chunk(2, -1)
            pyro.sample("latent", dist.Normal(loc, raw.exp()).to_event(1))

    return Program(model, guide)


def pyro_module():
    class Decoder(PyroModule):
        def __init__(self):
            super().__init__()
            self.linear = PyroModule[nn.Linear](2, 6)
            self.spread = PyroParam(torch.tensor(1.5), dist.constraints.positive)

        def forward(self, x):
            with pyro.plate("rows", len(x)):
                z = pyro.sample("z", dist.Normal(x.new_zeros(2), self.spread).to_event(1))
                pyro.sample("x", dist.Bernoulli(logits=self.linear(z)).to_event(1), obs=x)

    class Encoder(PyroModule):
        def __init__(self):
            super().__init__()
            self.net = PyroModule[nn.Linear](6, 4)

        def forward(self, x):
            with pyro.plate("rows", len(x)):
                loc, raw = self.net(x).chunk(2, -1)
                pyro.sample("z", dist.Normal(loc, raw.exp()).to_event(1))

    torch.manual_seed(0)
    return Program(Decoder(), Encoder())


def nested():
    """Two latents, one of them in a plate within the data plate."""
    decoder, encoder = nets()

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("rows", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            with pyro.plate("cells", 6, dim=-2):
                w = pyro.sample("w", dist.Normal(decoder(z).T, 1.0))
                pyro.sample("x", dist.Normal(w, 0.5), obs=x.T)

    def guide(x):
        pyro.module("encoder", encoder)
        with pyro.plate("rows", len(x), dim=-1):
            loc, raw = encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, raw.exp()).to_event(1))
            with pyro.plate("cells", 6, dim=-2):
                pyro.sample("w", dist.Normal(0.5 * x.T, 1.0))

    return Program(model, guide)


CENTRES = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
EXTRA = torch.linspace(-1.0, 1.0, len(X)).double()
PROGRAMS = {
    "vae": (bernoulli_vae, X),
    "batch norm": (lambda: bernoulli_vae(net=with_layer(lambda: nn.BatchNorm1d(8))), X),
    "dropout": (lambda: bernoulli_vae(net=with_layer(lambda: nn.Dropout(0.3))), X),
    "full covariance": (lambda: bernoulli_vae(guide=MultivariateNormal(2)), X),
    "mixture": (lambda: bernoulli_vae(prior=GaussianMixture(CENTRES, learned=True)), X),
    "vamp": (vamp, X),
    "functions": (pair, X),
    "masked rows": (lambda: pair(masked=True), (X, EXTRA)),
    "covariate": (lambda: pair(covariate=True), (X, EXTRA)),
    "PyroModule": (pyro_module, X),
    "nested": (nested, X),
}
OBJECTIVES = {
    "ELBO": ELBO(),
    "3 particles, warm-up": ELBO(num_particles=3, kl_weight=2.0, warmup=4),
    "analytic KL": ELBO(analytic_kl=True),
    "importance weighted": ImportanceWeighted(3),
    "adversarial": Adversarial(critic=MLP(8)),
    "three critic steps, noise that falls": Adversarial(
        MLP(8), loss=Hinge(), critic_steps=3, instance_noise=0.5, noise_epochs=5
    ),
    "gradient penalty": Adversarial(MLP(8), loss=Wasserstein()),
    "generator by itself": Adversarial(
        MLP(8),
        generator_optimizer=(torch.optim.SGD, {"lr": 0.01, "momentum": 0.9}),
        generator_schedule=(torch.optim.lr_scheduler.StepLR, {"step_size": 3}),
    ),
    "prior that learns": Adversarial(MLP(8), learn_prior=True),
    "MMD": MMD(),
    "Trace_ELBO": pyro.infer.Trace_ELBO(num_particles=2),
    "TraceMeanField_ELBO": pyro.infer.TraceMeanField_ELBO(),
}
WITH_BIAS = "bias before batch norm"  # whose parameters do not agree, but whose losses do
PROGRAMS[WITH_BIAS] = (
    lambda: bernoulli_vae(net=with_layer(lambda: nn.BatchNorm1d(8), bias=True)),
    X,
)
RARE = {"analytic KL", "Trace_ELBO", "TraceMeanField_ELBO"}  # of these, three programs
ADVERSARIES = {  # of these, others
    "three critic steps, noise that falls": ("vae", "batch norm"),
    "gradient penalty": ("vae", "masked rows"),
    "generator by itself": ("batch norm", "functions"),
    "prior that learns": ("mixture", "vamp"),
    "MMD": ("batch norm", "vamp", "functions"),
}
PAIRS = [
    (name, objective)
    for name in PROGRAMS
    if name != WITH_BIAS
    for objective in OBJECTIVES
    if objective not in RARE or name in ("vae", "full covariance", "functions")
    if objective not in ADVERSARIES or name in ADVERSARIES[objective]
    if objective != "adversarial" or name not in ("covariate", "PyroModule", "nested", "mixture")
]


@contextmanager
def default(dtype):
    """Build in a dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def built(name, dtype):
    """A fresh program and its data."""
    pyro.clear_param_store()
    build, data = PROGRAMS[name]
    with default(dtype):
        program = build()
    return program, tuple(v.to(dtype) for v in (data if isinstance(data, tuple) else (data,)))


def history(name, objective, compile, epochs=10, batch_size=14, dtype=torch.float64, **arguments):
    """50 steps of whole batches; with a batch_size of 16 the last of an epoch is short."""
    program, data = built(name, dtype)
    with default(dtype), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of frozen priors and sampled KLs
        warnings.filterwarnings("error", message="Training goes on without")
        found = fit(
            program,
            data,
            objective=objective,
            epochs=epochs,
            batch_size=batch_size,
            seed=0,
            progress=False,
            compile=compile,
            **arguments,
        )
    return found.history, {k: v.clone() for k, v in found.state.tensors().items()}


def assert_same(a, b, rtol):
    (first, tensors), (second, others) = a, b
    assert first.columns == second.columns
    for column in first.columns:
        if column != "seconds":
            np.testing.assert_allclose(second[column], first[column], rtol=rtol, err_msg=column)
    for key, value in tensors.items():
        torch.testing.assert_close(others[key], value, rtol=rtol, atol=rtol, msg=key)


@pytest.mark.parametrize(("name", "objective"), PAIRS)
def test_fifty_steps_of_the_graph_are_fifty_steps_of_the_program(
    name, objective, no_compiler
) -> None:
    """float64, 1e-9: rounding is 1e-15 and Adam makes of it what it likes, some decades more."""
    how = OBJECTIVES[objective]
    assert_same(history(name, how, False), history(name, how, True), rtol=1e-9)


@pytest.mark.parametrize(
    ("name", "objective"), [("batch norm", "ELBO"), ("vamp", "adversarial"), ("functions", "ELBO")]
)
def test_short_last_batches_run_as_a_graph_of_their_own(name, objective, no_compiler) -> None:
    how = OBJECTIVES[objective]
    eager, found = (history(name, how, c, epochs=3, batch_size=16) for c in (False, True))
    assert_same(eager, found, rtol=1e-9)


def test_a_bias_that_batch_norm_takes_away_is_no_difference(no_compiler) -> None:
    eager, found = (history(WITH_BIAS, ELBO(), c)[0]["loss"] for c in (False, True))
    np.testing.assert_allclose(found, eager, rtol=1e-9)


@pytest.mark.parametrize("name", [n for n in PROGRAMS if n != WITH_BIAS])
def test_gradients_of_the_graph_are_those_of_the_program(name, no_compiler) -> None:
    """float32, one step, largest difference 1e-5 of the largest gradient of each parameter."""
    program, values = built(name, torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state = fit(program, values, epochs=1, batch_size=70, seed=0, progress=False).state
    batch = Batch(values, {})
    (phase,) = state.phases
    program.train()
    leaves = list(state.params.values())
    loss = module.CompiledLoss(program, phase, state.objective_state, leaves, batch, Watch(program))
    with torch.random.fork_rng():
        _, *expected = loss._evaluate([], *values)
    found = loss(batch)
    assert len(found.gradients) == len(expected) > 0
    for a, b in zip(found.gradients, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0.0, atol=1e-5 * float(b.abs().max()) + 1e-30)


@pytest.mark.parametrize(
    "optimizer",
    [
        (torch.optim.Adam, {"lr": 0.01}),
        (torch.optim.Adam, {"lr": 0.01, "amsgrad": True, "weight_decay": 0.1}),
        (torch.optim.AdamW, {"lr": 0.01}),
        (torch.optim.SGD, {"lr": 1e-4}),
        (torch.optim.SGD, {"lr": 1e-4, "momentum": 0.9, "nesterov": True}),
        (torch.optim.RMSprop, {"lr": 0.01}),
        pyro.optim.Adam({"lr": 0.01}),
        pyro.optim.ClippedAdam({"lr": 0.01}),
    ],
    ids=lambda o: o[0].__name__ if isinstance(o, tuple) else type(o).__name__,
)
@pytest.mark.parametrize("clip_norm", [None, 0.1])
def test_optimisers_take_the_steps_that_they_take_eagerly(
    optimizer, clip_norm, no_compiler
) -> None:
    def run(compile):
        schedule = None
        if isinstance(optimizer, tuple):
            schedule = (torch.optim.lr_scheduler.ExponentialLR, {"gamma": 0.8})
        own = copy.deepcopy(optimizer)
        return history(
            "vae", ELBO(), compile, 4, optimizer=own, clip_norm=clip_norm, schedule=schedule
        )

    assert_same(run(False), run(True), rtol=1e-9)


def test_moments_of_dead_units_do_not_turn_denormal(no_compiler) -> None:
    leaf = nn.Parameter(torch.ones(4))
    adam = torch.optim.Adam([leaf], lr=1e-3)
    leaf.grad = torch.tensor([1.0, 1e-30, 1.0, 0.0])
    adam.step()
    moment = adam.state[leaf]["exp_avg"]
    moment[1] = 1e-40
    update = fused_update([adam], [leaf])
    update.flush()
    assert moment[0] == pytest.approx(0.1) and moment[1] == 0


def test_a_bad_step_is_undone_and_named_as_eagerly(no_compiler) -> None:
    def run(compile):
        program, x = built("batch norm", torch.float64)
        with pytest.raises(NonFiniteError) as caught:
            # So large a rate that the loss overflows, after the first step.
            fit(
                program,
                x,
                epochs=10,
                batch_size=16,
                seed=0,
                progress=False,
                compile=compile,
                optimizer=(torch.optim.SGD, {"lr": 1e3}),
            )
        return str(caught.value), {k: v.clone() for k, v in program.state_dict().items()}

    (eager, first), (found, second) = run(False), run(True)
    assert found == eager and not eager.startswith("Step 1,")  # the same noise, the same numbers
    for key, value in first.items():
        torch.testing.assert_close(second[key], value, rtol=1e-9, atol=0.0, msg=key)


def test_an_update_that_leaves_the_finite_is_undone_and_named(no_compiler) -> None:
    """Loss and gradient are finite, the parameters after them would not be."""

    def run(compile):
        program, x = built("vae", torch.float32)
        rate = {"lr_lambda": lambda epoch: 3e41 if epoch else 1.0}
        with pytest.raises(NonFiniteError, match="not finite after the update") as caught:
            fit(
                program,
                x,
                epochs=3,
                batch_size=14,
                seed=0,
                progress=False,
                compile=compile,
                optimizer=(torch.optim.SGD, {"lr": 1e-3}),
                schedule=(torch.optim.lr_scheduler.LambdaLR, rate),
            )
        assert all(p.isfinite().all() for p in program.parameters())
        return str(caught.value).split(":")[0]

    assert run(True) == run(False) == "Step 6, phase 'elbo'"


def test_denormal_moments_are_looked_for_every_two_hundred_steps(no_compiler, monkeypatch) -> None:
    calls = []
    monkeypatch.setattr("ppl_vae.training.fused.FusedUpdate.flush", lambda self: calls.append(0))
    history("vae", ELBO(), True, epochs=90)  # 450 steps
    assert len(calls) == 2


def test_a_resumed_compiled_run_ends_as_one_that_was_not_interrupted(tmp_path, no_compiler) -> None:
    whole = history("dropout", ELBO(), True, epochs=6)
    history("dropout", ELBO(), True, epochs=3, checkpoint=tmp_path / "run")
    resumed = history("dropout", ELBO(), True, epochs=6, checkpoint=tmp_path / "run")
    assert_same(whole, resumed, rtol=0.0)


def both(model, guide, steps, optim=None, loss=None, seed=3):
    """The losses and the store of SVI and of CompiledSVI; `steps` are the arguments of each."""
    found = []
    for kind in (pyro.infer.SVI, CompiledSVI):
        pyro.clear_param_store()
        torch.manual_seed(seed)
        own = copy.deepcopy(optim) if optim is not None else pyro.optim.Adam({"lr": 0.01})
        svi = kind(model, guide, own, loss or pyro.infer.Trace_ELBO())
        losses = [s(svi) if callable(s) else svi.step(*s[0], **s[1]) for s in steps]
        losses = [v for v in losses if v is not None]
        store = {k: v.detach().clone() for k, v in pyro.get_param_store().items()}
        found.append((np.array(losses), store))
    return (*found, svi)


def assert_as_svi(model, guide, steps, **arguments):
    (losses, store), (found, others), svi = both(model, guide, steps, **arguments)
    np.testing.assert_allclose(found, losses, rtol=1e-9)
    assert store.keys() == others.keys()
    for key, value in store.items():
        torch.testing.assert_close(others[key], value, rtol=1e-9, atol=1e-9, msg=key)
    return svi


def bare(logits, factor=None):
    """Two functions with parameters of their own: W, shape (6, 2), and b, shape (6, 5)."""

    def model(x, *args, **kwargs):
        w = pyro.param("w", lambda: torch.linspace(-1, 1, 12).double().reshape(6, 2))
        b = pyro.param("b", lambda: torch.full((6, 5), 0.1).double())
        if factor is not None:
            pyro.factor("f", factor(b))
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            shown = logits(z, w, *args, **kwargs)
            pyro.sample("x", dist.Bernoulli(logits=shown).to_event(1), obs=x)

    def guide(x, *args, **kwargs):
        a = pyro.param("a", lambda: torch.zeros(2).double())
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal(x[:, :2] + a, 1.0).to_event(1))

    return model, guide


def product(z, w):
    return z @ w.T


STEPS = [((X[:16],), {})] * 8


@pytest.mark.parametrize("optim", ["Adam", "SGD"])
@pytest.mark.parametrize(
    "form",
    [
        bare(lambda z, w: torch.einsum("nk,dk->nd", z, w)),
        bare(lambda z, w: (z[:, :, None] * w.T).sum(1)),
        bare(product, lambda b: -3 * b.sum()),
    ],
    ids=["einsum", "broadcast", "expanded"],
)
def test_gradients_of_any_layout_in_memory(form, optim, no_compiler) -> None:
    """Fused kernels walk through memory; a sum's gradient has one number for all."""
    kind = getattr(pyro.optim, optim)
    assert assert_as_svi(*form, STEPS, optim=kind({"lr": 0.01})).compiled == 7


@pytest.mark.parametrize(
    "optim",
    [
        pyro.optim.Adam({"lr": 0.01}, {"clip_norm": 0.1}),
        pyro.optim.SGD({"lr": 0.01}, {"clip_value": 0.01}),
        pyro.optim.ExponentialLR(
            {"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.01}, "gamma": 0.5}
        ),
        pyro.optim.Adam(lambda name: {"lr": 0.1 if name == "a" else 0.01}),
    ],
    ids=["clip_norm", "clip_value", "scheduler", "rates by name"],
)
def test_optimisers_of_pyro_with_all_that_they_take(optim, no_compiler) -> None:
    def end_epoch(svi):
        if hasattr(svi.optim, "gamma") or isinstance(svi.optim, pyro.optim.PyroLRScheduler):
            svi.optim.step()

    steps = [*STEPS[:4], end_epoch, *STEPS[:4]]
    form = bare(product, lambda b: -3 * b.sum())
    assert assert_as_svi(*form, steps, optim=optim).compiled == 7


def test_a_rate_that_is_changed_for_one_parameter(no_compiler) -> None:
    def still(svi):
        held = pyro.get_param_store()._params["w"]
        svi.optim.optim_objs[held].param_groups[0]["lr"] = 0.0

    assert_as_svi(*bare(product), [*STEPS[:4], still, *STEPS[:4]])


def test_a_net_under_two_names_moves_once(no_compiler) -> None:
    torch.manual_seed(0)
    net = nn.Linear(6, 2).double()

    def named(name, function):
        def called(x):
            pyro.module(name, net)
            function(x)

        return called

    start = {k: v.clone() for k, v in net.state_dict().items()}
    model, guide = bare(product)

    def reset(svi):
        net.load_state_dict(start)

    def guided(x):
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal(net(x), 1.0).to_event(1))

    assert_as_svi(named("one", model), named("other", guided), [reset, *STEPS])


def test_arguments_by_name_in_any_order_and_layout(no_compiler) -> None:
    first, second = EXTRA[:16, None], EXTRA[16:32, None]

    def logits(z, w, *, a=0.0, b=0.0):
        return z @ w.T + a - 2 * b

    wide = torch.cat([X, X], 1)[:16]
    svi = CompiledSVI(*bare(logits), pyro.optim.Adam({"lr": 0.01}), pyro.infer.Trace_ELBO())
    assert svi._run((wide[:, :6],), {})[1].args[0].is_contiguous()  # as the compiler takes it
    steps = [
        *STEPS[:2],
        ((X[:16],), {"a": first, "b": second}),
        ((X[:16],), {"b": second, "a": first}),
        ((X[:16],), {"a": first}),
        ((X[:16],), {"b": first}),
        ((wide[:, :6],), {"a": first, "b": second}),
        ((X[:16].T.contiguous().T,), {"a": first, "b": second}),
    ]
    assert assert_as_svi(*bare(logits), steps).compiled == 7


def test_floats_vary_and_flags_choose(no_compiler) -> None:
    def logits(z, w, weight, flip=False, name=None):
        assert name in (None, "x")
        return (-1 if flip else 1) * weight * (z @ w.T)

    steps = [
        ((X[:16], 0.1 * k), {"flip": k % 3 == 0, "name": "x" if k % 2 else None}) for k in range(16)
    ]
    svi = assert_as_svi(*bare(logits), steps)
    assert svi.compiled == 12 and len(svi.runs) == 4


def test_more_flags_than_are_worth_a_step_of_their_own(no_compiler) -> None:
    def logits(z, w, count):
        return (z @ w.T) / (1 + count)

    steps = [((X[:16], k), {}) for k in range(12)] + [((X[:16], 3), {})]
    with pytest.warns(UserWarning, match="more than 8 combinations") as said:
        svi = assert_as_svi(*bare(logits), steps)
    assert len(said) == 1
    assert len(svi.runs) == 9 and svi.compiled == 1


def test_more_shapes_than_are_worth_a_graph_of_their_own(no_compiler) -> None:
    with pytest.warns(UserWarning, match="more than 8 shapes") as said:
        svi = assert_as_svi(*bare(product), [((X[:k],), {}) for k in range(1, 15)])
    assert len(said) == 1 and svi.compiled == 9


@pytest.mark.parametrize("kind", ["AutoNormal", "AutoDiagonalNormal", "AutoDelta"])
def test_autoguides_that_are_set_up(kind, no_compiler) -> None:
    """They make their plates anew at every call, which changes nothing."""

    def model(x):
        with pyro.plate("cells", 6):
            mean = pyro.sample("mean", dist.Normal(x.new_zeros(()), 1.0))
            with pyro.plate("rows", len(x), dim=-2):
                pyro.sample("x", dist.Normal(mean, 1.0), obs=x)

    guides = []

    def guide(x):
        return guides[-1](x)

    def begin(svi):
        guides.append(getattr(pyro.infer.autoguide, kind)(model))
        guides[-1](X[:16])

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Got a guide with parameters for each row|.*Auto")
        svi = assert_as_svi(model, guide, [begin, *STEPS])
    assert svi.compiled == 7


def test_a_loss_can_be_asked_for_without_a_step(no_compiler) -> None:
    def ask(svi):
        with torch.random.fork_rng():
            return svi.evaluate_loss(X[:16])

    assert_as_svi(*bare(product), [ask, *STEPS, ask])


@pytest.mark.parametrize("what", ["load", "set", "clear", "frozen", "layer"])
def test_compiled_svi_follows_what_is_done_between_steps(what, no_compiler, tmp_path) -> None:
    """As scripts do: restore the best state, start again, freeze a net, exchange a layer."""
    torch.manual_seed(0)
    start = nn.Linear(2, 6).double()
    holder = nn.Module()
    model, guide = bare(lambda z, w: z @ w.T + holder.net(z))

    def owner(x):
        pyro.module("holder", holder, update_module_params=True)
        model(x)

    def begin(svi):
        holder.net = copy.deepcopy(start)

    def act(svi):
        store = pyro.get_param_store()
        if what == "load":
            store.load(str(tmp_path / "store"))
        elif what == "set":
            store["a"] = torch.ones(2).double()
        elif what == "clear":
            store.clear()
        elif what == "frozen":
            holder.net.requires_grad_(False)
        else:
            holder.net = copy.deepcopy(start)
            del store["holder$$$net.weight"], store["holder$$$net.bias"]

    def save(svi):
        pyro.get_param_store().save(str(tmp_path / "store"))

    steps = [begin, *STEPS[:3], save, *STEPS[:3], act, *STEPS[:6]]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* was not registered in the param store")
        with pytest.warns(UserWarning, match="without the compiler: Python state has changed"):
            assert_as_svi(owner, guide, steps)


def test_a_step_that_has_paid_for_itself_is_compiled_again(no_compiler, monkeypatch) -> None:
    monkeypatch.setattr("ppl_vae.training.engine.AGAIN", 3)

    def act(svi):
        pyro.get_param_store()["a"] = torch.ones(2).double()

    svi = assert_as_svi(*bare(product), [*STEPS[:5], act, *STEPS[:5]])
    assert svi.compiled == 8  # of ten: the first of either kind is eager


def test_what_is_outside_a_support_is_refused_as_eagerly(no_compiler) -> None:
    off = X[:16].clone()
    off[3, 2] = 3.0

    def refused(svi):
        with pytest.raises(ValueError, match="within the support"):
            svi.step(off)

    # The steps after it draw what they would have drawn: the refused one was undone.
    svi = assert_as_svi(*bare(product), [*STEPS[:4], refused, *STEPS[:3]])
    assert svi.compiled == 6


def test_what_a_program_does_not_want_checked_is_not(no_compiler) -> None:
    """validate_args=False, as Pyro's tutorials have it on grey pixels."""

    def model(x):
        w = pyro.param("w", lambda: torch.ones(6, 2).double())
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            grey = dist.Bernoulli(logits=z @ w.T, validate_args=False)
            pyro.sample("x", grey.to_event(1), obs=x)

    _, guide = bare(product)
    assert assert_as_svi(model, guide, [((0.3 * X[:16],), {})] * 5).compiled == 4


def test_a_parameter_that_some_batches_do_not_reach(no_compiler) -> None:
    def model(x):
        w = pyro.param("w", lambda: torch.ones(6, 2).double())
        b = pyro.param("b", lambda: torch.zeros(6).double())
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            shown = z @ w.T + (b if len(x) > 10 else 0.0)
            pyro.sample("x", dist.Bernoulli(logits=shown).to_event(1), obs=x)

    _, guide = bare(product)
    short = ((X[:5],), {})
    assert_as_svi(model, guide, [short, *STEPS[:3]])
    with pytest.warns(UserWarning, match="batches of another shape move other parameters"):
        assert_as_svi(model, guide, [*STEPS[:3], short, *STEPS[:3]])


@pytest.mark.parametrize("what", ["tensor", "array", "output", "spectral norm"])
def test_nets_that_hold_more_than_parameters(what, no_compiler) -> None:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.linear = nn.Linear(2, 6).double()
            if what == "spectral norm":
                self.linear = nn.utils.parametrizations.spectral_norm(self.linear)
            self.held = {"array": np.zeros(6), "tensor": torch.zeros(6)}.get(what)

        def forward(self, z):
            found = self.linear(z)
            if what == "output":
                self.held = found
            return found if what != "tensor" else found + self.held

    holder = nn.Module()
    model, guide = bare(lambda z, w: z @ w.T + holder.net(z))

    def owner(x):
        pyro.module("holder", holder)
        model(x)

    def begin(svi):
        holder.net = Net()

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Training goes on without .* state changes as it")
        svi = assert_as_svi(owner, guide, [begin, *STEPS])
    assert svi.compiled == (0 if what == "output" else 7)


def test_random_numbers_may_be_drawn_between_steps(no_compiler) -> None:
    """As who shuffles does; the comparisons at steps 1 and 10 leave the generators alone."""
    order = []

    def shuffled(svi):
        order.append(tuple(np.random.permutation(16)))
        return svi.step(X[list(order[-1])])

    def seeded(svi):
        np.random.seed(0)

    svi = assert_as_svi(*bare(product), [seeded, *[shuffled] * 15])
    assert svi.compiled == 14 and order[:15] == order[15:] and len(set(order)) == 15


@pytest.mark.parametrize(
    "what", ["call", "step hook", "gradient hook", "later hook", "cleared", "accumulated"]
)
def test_whatever_else_decides_on_an_update_is_heard(what, no_compiler) -> None:
    class Halved(type(pyro.optim.Adam({"lr": 0.01}))):
        def __call__(self, params, *args, **kwargs):
            for p in (p for p in params if p.grad is not None):
                p.grad = 0.5 * p.grad.sign()
            super().__call__(params, *args, **kwargs)

    kind = Halved if what == "call" else pyro.optim.PyroOptim
    optim = kind(torch.optim.Adam, {"lr": 0.01})
    model, guide = bare(product)

    def still(p):
        p.grad.zero_()

    def hooked(x):
        model(x)
        held = pyro.get_param_store()._params["w"]
        if what == "gradient hook" and not held._backward_hooks:
            held.register_hook(lambda g: 3 * g.sign())

    def act(svi):
        held = pyro.get_param_store()._params["w"]
        if what == "step hook":
            zero = svi.optim.optim_objs[held]
            zero.register_step_pre_hook(lambda o, *_: o.param_groups[0].update(lr=0.0))
        elif what == "later hook":
            held.register_hook(lambda g: 3 * g.sign())
        elif what == "accumulated":
            held.register_post_accumulate_grad_hook(
                lambda p: None if p.grad.zero_().any() else None
            )
        elif what == "cleared":
            svi.optim.optim_objs.clear()

    steps = [*STEPS[:1], act, *STEPS[:4], act, *STEPS[:4]]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Training goes on without the compiler: .*hook")
        warnings.filterwarnings("ignore", message="Training goes on without the compiler: .*frozen")
        assert_as_svi(hooked, guide, steps, optim=optim)


def test_a_compiled_svi_keeps_what_it_was_made_of() -> None:
    svi = CompiledSVI(*bare(product), pyro.optim.Adam({"lr": 0.01}), pyro.infer.Trace_ELBO())
    with pytest.raises(AttributeError, match="Got another optim; expected .* Try a new one"):
        svi.optim = pyro.optim.Adam({"lr": 1.0})


def latent(prior, guide=None, extra=None):
    """A model with one latent whose prior is given as a function of c, which falls."""

    def model(x):
        c = pyro.param("c", lambda: torch.full((2,), 0.03).double())
        if extra is not None:
            extra(c)
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", prior(c))
            pyro.sample("x", dist.Normal(z @ torch.ones(2, 6).double(), 1.0).to_event(1), obs=x)

    def normal(x):
        a = pyro.param("a", lambda: torch.ones(2).double())
        with pyro.plate("rows", len(x)):
            pyro.sample("z", (guide or dist.Normal)(x[:, :2] + a, 0.1).to_event(1))

    return model, normal


def falling(c):
    """A factor that drives c below 0, where a Gamma's concentration must not be."""
    pyro.factor("f", -9 * c.sum() + 0 * dist.Gamma(c, 1.0).log_prob(torch.ones(2)).sum())


OUTSIDE = dist.Normal(torch.zeros(2).double(), 1.0).expand([2]).to_event(1)


@pytest.mark.parametrize(
    "form",
    [
        latent(lambda c: OUTSIDE),
        latent(lambda c: dist.MultivariateNormal(c, covariance_matrix=torch.eye(2).double())),
        latent(lambda c: dist.MultivariateNormal(c, precision_matrix=torch.eye(2).double())),
        latent(lambda c: dist.Uniform(-9 * torch.ones(2).double(), 9.0).to_event(1)),
        latent(lambda c: dist.Normal(c, 1.0).to_event(1).mask(False)),
        latent(lambda c: dist.StudentT(3.0, c, 1.0).to_event(1)),
    ],
    ids=["expanded outside", "covariance", "precision", "uniform", "masked", "Student t"],
)
def test_distributions_that_ask_what_is_in_them(form, no_compiler) -> None:
    assert assert_as_svi(*form, STEPS).compiled == 7


@pytest.mark.parametrize(
    "form",
    [
        latent(lambda c: OUTSIDE, extra=falling),
        latent(lambda c: dist.Exponential(1.0 + 0 * c).to_event(1)),
    ],
    ids=["factor", "support of a latent"],
)
def test_what_turns_invalid_is_refused_at_the_step_it_does(form, no_compiler) -> None:
    errors = []
    for kind in (pyro.infer.SVI, CompiledSVI):
        pyro.clear_param_store()
        torch.manual_seed(3)
        svi = kind(*form, pyro.optim.SGD({"lr": 1e-3}), pyro.infer.Trace_ELBO())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for step in range(200):
                try:
                    svi.step(X[:16])
                except ValueError as error:
                    errors.append((step, str(error)[:40]))
                    break
    assert len(errors) == 2 and errors[0] == errors[1] and errors[0][0] > 1, errors


def test_a_step_that_fails_as_a_graph_is_taken_eagerly(no_compiler) -> None:
    """A mask as an index: its shape is the data's."""
    chosen = torch.tensor([True, True, False, False, False, False])

    def logits(z, w):
        return (z @ w.T) + w[chosen].sum(0).sum() * torch.ones(int(chosen.shape[0])).double()

    def act(svi):
        chosen[:] = torch.tensor([True] * 5 + [False])

    def back(svi):
        chosen[:] = torch.tensor([True, True] + [False] * 4)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Training goes on without the compiler")
        assert_as_svi(*bare(logits), [back, *STEPS[:4], act, *STEPS[:4]])


def test_parameters_of_two_dtypes(no_compiler) -> None:
    model, guide = bare(product)

    def mixed(x):
        model(x)
        pyro.factor("g", -pyro.param("single", torch.ones(3)).square().sum())

    assert assert_as_svi(mixed, guide, STEPS).compiled == 7


def test_fit_keeps_its_state_where_the_last_epoch_changes_something(
    no_compiler, monkeypatch
) -> None:
    monkeypatch.setattr("ppl_vae.training.engine.AGAIN", 3)
    holder = {"scale": 1.0}

    def rate(epoch):
        holder["scale"] = 1.0 if epoch < 3 else 2.0
        return 1.0

    model, guide = bare(lambda z, w: holder["scale"] * (z @ w.T))
    pyro.clear_param_store()
    found = fit(
        Program(model, guide),
        X,
        epochs=3,
        batch_size=14,
        validation=X[:14],
        patience=3,
        seed=0,
        compile=True,
        progress=False,
        schedule=(torch.optim.lr_scheduler.LambdaLR, {"lr_lambda": rate}),
    )
    assert {"a", "w"} <= found.state.params.keys() and found.state.compiled == 14


def test_estimators_with_gradients_of_their_own_are_not_traced(no_compiler) -> None:
    class Regularised(pyro.infer.Trace_ELBO):
        def loss_and_grads(self, model, guide, *args, **kwargs):
            loss = super().loss_and_grads(model, guide, *args, **kwargs)
            (10 * pyro.get_param_store()._params["w"].square().sum()).backward()
            return loss

    with pytest.warns(UserWarning, match="Regularised has a gradient of its own making"):
        assert_as_svi(*bare(product), STEPS, loss=Regularised())


def test_compiled_svi_takes_our_objectives(no_compiler) -> None:
    for how in (ELBO(), ImportanceWeighted(3)):
        losses = []
        for compile in ("auto", False):
            pyro.clear_param_store()
            torch.manual_seed(3)
            svi = CompiledSVI(*bare(product), pyro.optim.Adam({"lr": 0.01}), how)
            svi.step(X[:16])
            for run in svi.runs.values():
                run.engine.wanted = compile == "auto"
            losses.append([svi.step(x) for x in (*[X[:16]] * 5, X[:10], X[:16])])
            assert svi.compiled == (7 if compile else 0)
        np.testing.assert_allclose(losses[1], losses[0], rtol=1e-9)


def test_compiled_svi_follows_a_program_that_is_moved(no_compiler) -> None:
    program, _ = built("vae", torch.float32)
    svi = CompiledSVI(program.model, program.guide, pyro.optim.SGD({"lr": 1e-3}), ELBO())
    assert [svi.step(X.float()) for _ in range(3)] and svi.compiled == 2
    program.double()
    with pytest.warns(UserWarning, match="without the compiler: .* tensors of the program were"):
        assert np.isfinite(svi.step(X))
    assert svi.compiled == 2


def test_compiled_svi_refuses_what_it_cannot_do() -> None:
    program, _ = built("functions", torch.float64)
    with pytest.raises(ValueError, match="Got a Adam as optim; expected a PyroOptim"):
        adam = torch.optim.Adam(nn.Linear(1, 1).parameters())
        CompiledSVI(program.model, program.guide, adam, ELBO())
    optim = pyro.optim.Adam({"lr": 0.01})
    svi = CompiledSVI(program.model, program.guide, optim, Adversarial())
    refused = pytest.raises(
        ValueError, match=r"phases \['generator', 'critic'\]; expected a loss of"
    )
    with pytest.warns(UserWarning, match=r"\['spread'\]; they do not move"), refused:
        svi.step(X)
    with pytest.raises(ValueError, match="Got the function 'both' as loss; expected an estimator"):
        CompiledSVI(program.model, program.guide, optim, both)
    with pytest.raises(ValueError, match="Got the scheduler PyroLRScheduler as optimizer"):
        own = pyro.optim.ExponentialLR(
            {"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.01}, "gamma": 0.5}
        )
        fit(program, X, epochs=1, optimizer=own, progress=False)


def test_noise_that_nothing_uses_is_drawn_all_the_same() -> None:
    def function(guards, x):
        torch.rand(3)
        return (x + torch.randn(4),)

    graph = trace(function, [X[0, :4]])
    assert graph.outputs == 1
    torch.manual_seed(0)
    (expected,) = function([], X[0, :4])
    after = torch.rand(())
    torch.manual_seed(0)
    with torch.no_grad():
        (found,) = graph.module(X[0, :4])[:1]
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert torch.rand(()) == after


def test_compile_is_true_false_or_auto() -> None:
    with pytest.raises(ValueError, match="Got compile='yes'; expected True, False or \"auto\""):
        fit(bernoulli_vae(), X.float(), epochs=1, progress=False, compile="yes")


needs_compiler = pytest.mark.skipif(why_not() is not None, reason=f"no compiler: {why_not()}")


@needs_compiler
@pytest.mark.parametrize(
    ("name", "objective"), [("vae", "ELBO"), ("masked rows", "importance weighted")]
)
def test_inductor_gives_the_programs_numbers(name, objective) -> None:
    """Others go through the compiler in benchmarks/compiled_pairs.py."""
    how = OBJECTIVES[objective]
    assert_same(history(name, how, False), history(name, how, True), rtol=1e-9)
    assert torch.distributions.Distribution._validate_args  # which torch's compiler turns off


@needs_compiler
def test_the_compiler_draws_what_nothing_uses() -> None:
    def function(guards, x):
        torch.rand(3)
        torch.nn.functional.dropout(x, 0.5)
        return (x + torch.randn(4),)

    graph = trace(function, [X[0, :4]])
    torch.manual_seed(0)
    (expected,) = function([], X[0, :4])
    after = torch.rand(())
    torch.manual_seed(0)
    (found,) = compiled(graph, [X[0, :4]])(X[0, :4])
    torch.testing.assert_close(found, expected)
    assert torch.rand(()) == after


def test_without_a_compiler_everything_works_and_one_warning_says_so() -> None:
    script = """
import warnings, torch
import ppl_vae.training.engine as engine
from ppl_vae import *
engine.WORTH = 1
x = (torch.rand(64, 6) > 0.5).float()
def build():
    decoder = Conditional(MLP(4), Bernoulli(6), given=2)
    return VAE(StandardNormal(2), decoder, Conditional(MLP(4), Normal(2), given=6))
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    fit(build(), x, epochs=3, seed=0, progress=False)
print(len(said), said[0].message)
try:
    fit(build(), x, epochs=3, seed=0, progress=False, compile=True)
except ValueError as error:
    print(error)
"""
    environment = {**os.environ, "CXX": "/nowhere/g++"}
    found = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert "1 Training goes on without the compiler: there is no C++ compiler" in found
    assert "Got compile=True, but the step cannot be compiled: there is no C++ compiler" in found


def test_a_step_too_large_for_a_compiler_is_refused(monkeypatch):
    from ppl_vae.training import compiled

    monkeypatch.setattr(compiled, "OPERATIONS", 300)
    vae = VAE(
        StandardNormal(2),
        Conditional(MLP(4), Bernoulli(6), given=2),
        Conditional(MLP(4), Normal(2), given=6),
    )
    settings = {"epochs": 3, "batch_size": 8, "seed": 0, "progress": False, "compile": True}
    with pytest.raises(ValueError, match=r"it has \d+ operations.*ImportanceWeighted takes them"):
        fit(vae, torch.zeros(16, 6), objective=ELBO(num_particles=4), **settings)


def svi_model(x, y=None):
    x = torch.as_tensor(x) if not isinstance(x, list) else x[0]
    loc = pyro.param("loc", torch.zeros(()))
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Normal(loc, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def svi_guide(x, y=None):
    x = torch.as_tensor(x) if not isinstance(x, list) else x[0]
    slope = pyro.param("slope", torch.tensor(0.1))
    with pyro.plate("rows", len(x)):
        pyro.sample("z", dist.Normal(slope * x, 1.0))


ROWS_OF_SVI = torch.linspace(-1, 1, 16)
UNUSUAL = {
    "a list": (([ROWS_OF_SVI],), {}),
    "an array": ((ROWS_OF_SVI.numpy(),), {}),
    "a dict beside": ((ROWS_OF_SVI,), {"y": {"mask": ROWS_OF_SVI}}),
}


@pytest.mark.parametrize(("args", "kwargs"), UNUSUAL.values(), ids=UNUSUAL)
def test_what_is_no_data_of_a_graph_is_a_step_of_svi(args, kwargs):
    def losses(kind):
        pyro.clear_param_store()
        torch.manual_seed(0)
        svi = kind(svi_model, svi_guide, pyro.optim.Adam({"lr": 0.1}), pyro.infer.Trace_ELBO())
        found = [svi.step(*args, **kwargs) for _ in range(4)]
        return [*found, svi.evaluate_loss(*args, **kwargs)], repr(svi)

    with pytest.warns(UserWarning, match=r"no tensor and no number.*Steps are SVI's own") as said:
        ours, shown = losses(CompiledSVI)
    assert len(said) == 1
    assert ours == losses(pyro.infer.SVI)[0]
    assert shown == "CompiledSVI(Trace_ELBO, 4 steps, none compiled)"


def test_data_in_a_closure_is_a_step_of_svi():
    with pytest.warns(UserWarning, match="no tensor comes first among the arguments"):
        svi = CompiledSVI(
            lambda: svi_model(ROWS_OF_SVI),
            lambda: svi_guide(ROWS_OF_SVI),
            pyro.optim.Adam({"lr": 0.1}),
            pyro.infer.Trace_ELBO(),
        )
        assert math.isfinite(svi.step())


def test_one_tensor_may_be_two_arguments():
    pyro.clear_param_store()
    svi = CompiledSVI(svi_model, svi_guide, pyro.optim.Adam({"lr": 0.1}), pyro.infer.Trace_ELBO())
    for _ in range(3):
        svi.step(ROWS_OF_SVI, ROWS_OF_SVI)
    assert svi.compiled == 2


def test_a_float_keeps_its_digits_beside_data_of_half_of_them():
    seen = []

    def guide(x, beta):
        seen.append(beta)
        svi_guide(x.float())

    svi = CompiledSVI(
        lambda x, beta: svi_model(x.float()),
        guide,
        pyro.optim.Adam({"lr": 0.1}),
        pyro.infer.Trace_ELBO(),
    )
    svi.step(ROWS_OF_SVI.bfloat16(), 2.01)
    assert all(float(beta) == pytest.approx(2.01, abs=1e-6) for beta in seen)
