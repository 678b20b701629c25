"""What Python decides anew at each step must not be frozen into a compiled one.

Each trap is a program that a trace would get wrong in silence. Under compile=True it is refused,
under "auto" training goes on eagerly in one warning, with the numbers that the program itself
gives.
"""

import itertools
import random
import time
import types

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from ppl_vae import ELBO, Program, fit
from ppl_vae.training import compiled as module
from ppl_vae.training import engine
from ppl_vae.training.frozen import changes, snapshot

X = torch.linspace(-1.0, 1.0, 32)


def model(x):
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def shifting(shift):
    """A guide that is moved by whatever Python says at this call."""

    def guide(x):
        slope = pyro.param("slope", torch.tensor(0.5))
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal(slope * x + shift(), 1.0))

    return guide


class Counter:
    """An object with a number that grows."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> float:
        self.calls += 1
        return 0.01 * self.calls


def closure_counter():
    calls = 0

    def shift():
        nonlocal calls
        calls += 1
        return 0.01 * calls

    return shift


def list_counter():
    calls = []

    def shift():
        calls.append(0)
        return 0.01 * len(calls)

    return shift


def late_switch():
    calls = [0]

    def shift():
        calls[0] += 1
        return 1.0 if calls[0] > 1000 else 0.0

    return shift


def own_generator():
    generator = torch.Generator()
    return lambda: torch.randn((), generator=generator)


def tensor_replaced():
    holder = types.SimpleNamespace(mean=torch.tensor(0.0))

    def shift():
        holder.mean = 0.9 * holder.mean + 0.1
        return holder.mean

    return shift


def numpy_generator():
    generator = np.random.default_rng(0)
    return lambda: float(generator.normal())


TRAPS = {
    "a counter in a closure": (closure_counter, "Python state changes"),
    "a counter in an object": (Counter, "Python state changes"),
    "a list that grows": (list_counter, "Python state changes"),
    "a switch at step 1000": (late_switch, "Python state changes"),
    "random": (lambda: lambda: random.random(), "Python state changes"),
    "numpy.random": (lambda: lambda: np.random.rand(), "Python state changes"),
    "a generator of numpy's": (numpy_generator, "Python state changes"),
    "a generator of torch's": (own_generator, "Python state changes"),
    "a tensor replaced": (tensor_replaced, "Python state changes"),
    "a clock": (lambda: lambda: time.perf_counter() % 1, "not do the same at every run"),
    "an iterator": (
        lambda: (lambda c: lambda: next(c))(itertools.cycle([0.0, 0.5])),
        "not do the same at every run",
    ),
}


def trained(guide, **arguments):
    pyro.clear_param_store()
    return fit(
        Program(model, guide), X, epochs=4, batch_size=8, seed=0, progress=False, **arguments
    )


@pytest.fixture
def no_compiler(monkeypatch):
    """Leave the graph as it is: what is tested comes before the compiler."""
    monkeypatch.setattr(module, "compiled", lambda graph, _: module.interpreted(graph))
    monkeypatch.setattr(engine, "WORTH", 1)


@pytest.mark.parametrize("trap", TRAPS)
def test_a_trap_is_refused_and_auto_falls_back(trap, no_compiler) -> None:
    build, says = TRAPS[trap]
    with pytest.raises(ValueError, match=f"compile=True, but .*{says}.*Try compile=False"):
        trained(shifting(build()), compile=True)
    with pytest.warns(UserWarning, match=f"goes on without the compiler: .*{says}") as said:
        found = trained(shifting(build()), compile="auto")
    assert len(said) == 1 and len(found.history) == 4


def test_a_program_without_traps_is_compiled_without_a_word(no_compiler) -> None:
    eager = trained(shifting(lambda: 0.1), compile=False).history["loss"]
    found = trained(shifting(lambda: 0.1), compile="auto")
    assert found.state.compiled and "16 steps, compiled" in repr(found)
    np.testing.assert_allclose(found.history["loss"], eager)


def test_a_decision_on_data_is_refused(no_compiler) -> None:
    def guide(x):
        slope = pyro.param("slope", torch.tensor(0.5))
        if x.mean().item() > 0:
            slope = 2 * slope
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal(slope * x, 1.0))

    with pytest.raises(ValueError, match="compile=True, but the step cannot be compiled"):
        trained(guide, compile=True)
    eager = trained(guide, compile=False).history["loss"]
    with pytest.warns(UserWarning, match="goes on without the compiler"):
        found = trained(guide, compile="auto").history["loss"]
    assert list(found) == list(eager)  # nothing was consumed by trying


@pytest.mark.parametrize("attribute", ["weight", "training"])
def test_an_attribute_that_is_set_between_epochs_is_noticed(attribute, no_compiler) -> None:
    """As an annealing callback does: here the schedule sets it after the second epoch."""

    def run(compile):
        net = nn.Dropout(0.0)
        net.weight = 0.0

        def guide(x):
            slope = pyro.param("slope", torch.tensor(0.5))
            shift = net.weight if attribute == "weight" else float(not net.training)
            with pyro.plate("rows", len(x)):
                pyro.sample("z", dist.Normal(slope * x + shift, 1.0))

        def rate(epoch):
            if epoch == 2:
                setattr(net, attribute, 1.0 if attribute == "weight" else False)
            return 1.0

        schedule = (torch.optim.lr_scheduler.LambdaLR, {"lr_lambda": rate})
        pyro.clear_param_store()
        program = Program(model, guide, modules=[net])
        return fit(
            program,
            X,
            epochs=4,
            batch_size=8,
            seed=0,
            progress=False,
            compile=compile,
            schedule=schedule,
        ).history["loss"]

    eager = run(False)
    assert abs(eager[3] - eager[1]) > 0.1  # it matters
    with pytest.warns(UserWarning, match=f"Python state has changed .*{attribute}"):
        np.testing.assert_allclose(run("auto"), eager, rtol=1e-6)


def test_what_no_look_at_python_sees_the_comparison_with_eager_does(no_compiler) -> None:
    """Hidden in C: a switch in a file, say. Steps 10, 100, … are taken both ways."""
    switch = bytearray(1)  # not looked into

    class Hidden:
        __slots__ = ("calls",)

        def __init__(self):
            self.calls = memoryview(switch)

    hidden = Hidden()

    def shift():
        return 0.5 * hidden.calls[0]

    def rate(epoch):
        switch[0] = epoch >= 2
        return 1.0

    with pytest.warns(UserWarning, match="gave the loss .* at step 11 where the program itself"):
        trained(
            shifting(shift),
            compile="auto",
            schedule=(torch.optim.lr_scheduler.LambdaLR, {"lr_lambda": rate}),
        )


def test_snapshots_look_into_what_a_program_reaches() -> None:
    holder = types.SimpleNamespace(deep={"list": [1, (2.0, "three")]})

    def inner():
        return holder

    def outer():
        return inner()

    before = snapshot(outer)
    assert changes(before, snapshot(outer)) == []
    holder.deep["list"][1] = (2.5, "three")
    (change,) = changes(before, snapshot(outer))
    assert "2.0, then 2.5" in change


def test_steps_may_not_be_frozen_by_the_objective() -> None:
    """β's ramp is a tensor of the clock; test_compiled.py compares its 50 steps with eager."""
    assert snapshot(ELBO(warmup=3)) == snapshot(ELBO(warmup=3))
