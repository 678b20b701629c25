"""Normalizing flows as prior and guide: an exact density, a state left as found, the graph."""

import copy
import math
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from ppl_vae import (
    ELBO,
    MLP,
    VAE,
    Adversarial,
    Bernoulli,
    Conditional,
    ConditionalFlow,
    Convolutions,
    FlowPrior,
    Implicit,
    NeuralSpline,
    Normal,
    SampledPrior,
    StandardNormal,
    StudentTPrior,
    UniformBox,
    VampPrior,
    fit,
)
from ppl_vae.data import swiss_roll
from ppl_vae.nets.flow import validation_kept
from ppl_vae.testing import check_prior, check_program
from ppl_vae.training import compiled as module
from ppl_vae.training.inductor import why_not
from test_priors import evidence_by_sampling_is_the_integral

with validation_kept():
    zuko = pytest.importorskip("zuko", reason="flows need zuko: pip install 'ppl_vae[flows]'")

SMALL = NeuralSpline(1, hidden=(8,), bins=4)
X = (torch.rand(64, 6, generator=torch.Generator().manual_seed(0)) > 0.5).float()


def affine(features, context):
    return zuko.flows.MAF(features, context, hidden_features=(8,))


def flow_guide(flow=SMALL, features=2):
    return ConditionalFlow(MLP(8), features, given=6, flow=flow, context=4)


def program(prior=None, encoder=None):
    decoder = Conditional(MLP(8), Bernoulli(6), given=2)
    return VAE(
        prior or StandardNormal(2), decoder, encoder or Conditional(MLP(8), Normal(2), given=6)
    )


# ------------------------------------------------------------------------------------ the density


@pytest.mark.parametrize("flow", [SMALL, affine], ids=["spline", "affine"])
@pytest.mark.parametrize("features", [1, 2, 5])
def test_a_flow_prior_passes_the_kit(flow, features) -> None:
    kept = check_prior(FlowPrior(features, flow))
    assert kept[-3:] == ("gradients", "normalised", "draws")


@pytest.mark.parametrize("flow", [SMALL, affine], ids=["spline", "affine"])
@pytest.mark.usefixtures("float64")
def test_the_density_is_the_change_of_variables(flow) -> None:
    prior, z = FlowPrior(3, flow), torch.randn(4, 3)
    inner = prior.flow()
    for value in z:  # by autograd, one row at a time, from the flow's map alone
        jacobian = torch.autograd.functional.jacobian(inner.transform, value)
        noise = inner.transform(value)
        exact = -0.5 * noise.square().sum() - 1.5 * math.log(2 * math.pi)
        exact = exact + torch.linalg.slogdet(jacobian).logabsdet
        assert abs(prior().log_prob(value) - exact) < 1e-10  # sums of a few float64 terms


def test_a_conditional_flow_is_a_flow_of_each_row() -> None:
    guide = flow_guide()
    x, z = torch.randn(3, 5, 6), torch.randn(3, 5, 2)
    together = guide(x).log_prob(z)
    alone = [guide(a).log_prob(b) for a, b in zip(x.reshape(15, 6), z.reshape(15, 2), strict=True)]
    # float32: products of 8 terms in another order, through splines.
    torch.testing.assert_close(together.flatten(), torch.stack(alone), rtol=1e-4, atol=1e-4)
    d = guide(x)
    assert (d.batch_shape, d.event_shape) == ((3, 5), (2,))
    assert d.expand((4, 3, 5)).rsample((7,)).shape == (7, 4, 3, 5, 2)
    assert d.sample().requires_grad is False and d.rsample().requires_grad is True


def test_draws_of_a_conditional_flow_follow_its_density() -> None:
    # The kit's laws of p(z|c), which a guide is as much as a prior given covariates.
    kept = check_prior(flow_guide(), context=torch.randn(3, 6))
    assert kept[-4:] == ("gradients", "normalised", "draws", "rows")


def test_contexts_are_those_of_a_conditional() -> None:
    named = ConditionalFlow(MLP(8), 2, given={"x": 6, "mask": 6}, flow=SMALL)
    assert named.inputs == ("x", "mask") and named.given == [torch.Size([6])] * 2
    assert named(torch.randn(5, 6), torch.ones(6)).batch_shape == (5,)
    with pytest.raises(ValueError, match=r"shape \(5, 4\); expected \(\*batch, 6\)"):
        named(torch.zeros(5, 4), torch.ones(5, 6))
    image = (1, 7, 6)
    folded = ConditionalFlow(Convolutions(4), 2, given=image, flow=SMALL, flatten=False)
    assert folded(torch.randn(5, *image)).batch_shape == (5,) and folded.inputs is None


@pytest.mark.usefixtures("float64")
def test_evidence_agrees_with_quadrature() -> None:
    prior = FlowPrior(1, SMALL)
    with torch.no_grad():  # gentle kinks: sums over equal steps converge with their squares
        for parameter in prior.parameters():
            parameter *= 0.3
    # Errors of single data are above 1e-3: one of 1e-6 is none.
    evidence_by_sampling_is_the_integral(prior, tolerance=1e-6)


# ------------------------------------------------------------------------------------ in programs


def vamp(encoder):
    return program(VampPrior(X[:3], encoder), encoder)


PROGRAMS = {
    "flow prior": lambda: program(FlowPrior(2, SMALL)),
    "flow guide": lambda: program(None, flow_guide()),
    "affine guide": lambda: program(None, flow_guide(affine)),
    "flow guide in a box": lambda: program(UniformBox(2), flow_guide()),
    "vamp of flows": lambda: vamp(flow_guide()),
    "student": lambda: program(StudentTPrior(2)),
    "box": lambda: program(UniformBox(2)),
}
SAMPLED = {
    "sampled prior": lambda: program(SampledPrior(swiss_roll, 2)),
    "implicit guide": lambda: program(None, Implicit(MLP(8), 2, given=6, noise=3)),
}


@pytest.mark.parametrize("name", ["flow prior", "flow guide in a box", "vamp of flows"])
def test_programs_pass_the_kit(name) -> None:
    check_program(PROGRAMS[name](), X)


def losses(build, objective, compile, dtype=torch.float32):
    torch.manual_seed(0)
    vae, x = build().to(dtype), X.to(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of frozen priors
        warnings.filterwarnings("error", message="Training goes on without")
        found = fit(
            vae, x, objective=objective, epochs=2, batch_size=32, seed=0, compile=compile,
            progress=False,
        )  # fmt: skip
    return found.history["loss"]


@pytest.mark.parametrize("name", ["flow prior", "affine guide", "student", "implicit guide"])
def test_the_graph_is_the_program(name, monkeypatch) -> None:
    """float64, 1e-9: rounding is 1e-15, and Adam makes of it what it likes, some decades more."""
    monkeypatch.setattr(module, "compiled", lambda graph, _: module.interpreted(graph))
    how = Adversarial(critic=MLP(8)) if name in SAMPLED else ELBO()
    build = (PROGRAMS | SAMPLED)[name]
    eager, graph = (losses(build, how, c, torch.float64) for c in (False, True))
    np.testing.assert_allclose(graph, eager, rtol=1e-9)


@pytest.mark.slow
@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
@pytest.mark.parametrize("name", ["box", "sampled prior"])
def test_compiled_losses_are_those_of_the_program(name) -> None:
    how = Adversarial(critic=MLP(8)) if name == "sampled prior" else ELBO()
    build = (PROGRAMS | SAMPLED)[name]
    eager, found = (losses(build, how, c) for c in (False, True))
    np.testing.assert_allclose(found, eager, rtol=1e-4)  # float32, four steps of Adam


# ------------------------------------------------------------------------------------------- zuko


def test_building_a_flow_leaves_validation_as_it_was() -> None:
    code = """
import sys, torch, pyro
from torch.distributions import Distribution
from ppl_vae import FlowPrior, NeuralSpline
assert "zuko" not in sys.modules
torch.manual_seed(0)
{}
assert "zuko" in sys.modules
assert Distribution._validate_args is True and pyro.settings.get("validate_distributions_pyro")
"""
    lazy = "FlowPrior(2, lambda f, c: __import__('zuko').flows.MAF(f, c))"
    own = "NeuralSpline()(2, 0)"
    runs = [
        subprocess.Popen([sys.executable, "-c", code.format(c)], stderr=subprocess.PIPE)
        for c in (lazy, own)  # by what builds, and by what imports
    ]
    for run in runs:
        _, said = run.communicate()
        assert run.returncode == 0, said.decode()


def test_with_validation_a_bad_value_is_refused() -> None:
    with pytest.raises(ValueError, match="support"):
        FlowPrior(2, SMALL)().log_prob(torch.full((3, 2), torch.nan))


def test_without_zuko_the_way_to_get_it_is_said(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "zuko.flows", None)
    for build in (lambda: FlowPrior(2), lambda: ConditionalFlow(MLP(4), 2, given=3)):
        with pytest.raises(ValueError, match=r"without zuko.*pip install 'ppl_vae\[flows\]'"):
            build()


def test_saying_what_a_flow_is_draws_no_random_number() -> None:
    # zuko's repr does, and a printed program would be another one.
    vae = program(FlowPrior(2, SMALL), flow_guide())
    before = torch.get_rng_state()
    said = repr(vae)
    assert torch.equal(torch.get_rng_state(), before)
    assert "FlowPrior(2, NSF)" in said and "ConditionalFlow(2, NSF, given=[(6,)])" in said
    assert repr(NeuralSpline(2)) == "NeuralSpline(2, hidden=(64, 64), bins=8)"


def test_a_trained_flow_is_copied_and_saved() -> None:
    vae = program(FlowPrior(2, SMALL), flow_guide())
    fit(vae, X, epochs=1, seed=0, progress=False)
    twin = program(FlowPrior(2, SMALL), flow_guide())
    twin.load_state_dict(vae.state_dict())
    z = torch.randn(5, 2)
    for other in (twin, copy.deepcopy(vae)):
        assert torch.equal(other.prior().log_prob(z), vae.prior().log_prob(z))


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: FlowPrior(0), "0 features"),
        (lambda: FlowPrior((2, 2)), r"\(2, 2\) features"),
        (lambda: FlowPrior(2, affine(2, 0)), "a builder"),
        (lambda: FlowPrior(2, lambda f, c: None), "Got a NoneType from the flow's builder"),
        (lambda: FlowPrior(2, lambda f, c: affine(f + 1, c)), r"events \(3,\); expected"),
        (lambda: FlowPrior(2, lambda f, c: nn.Identity()), "has none; expected a module"),
        (lambda: NeuralSpline(0), "transforms=0"),
        (lambda: NeuralSpline(hidden=64), "hidden=64; expected a tuple"),
        (lambda: ConditionalFlow(MLP(4), 2, given=3, context=0), "expected positive integers"),
    ],
)
def test_what_makes_no_flow_is_refused(build, says) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        build()
    assert "expected" in str(caught.value) and "Try" in str(caught.value)
