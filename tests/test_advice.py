"""What diagnose advises can be followed, and fits the objective that the program was trained by."""

import copy
import dataclasses
import html

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import ppl_vae
from ppl_vae import (
    ELBO,
    MLP,
    MMD,
    VAE,
    Adversarial,
    Conditional,
    Delta,
    Diagnosis,
    ImportanceWeighted,
    Normal,
    Program,
    SampledPrior,
    StandardNormal,
    diagnose,
    fit,
    gaps,
    refine,
    refit_guide,
    report,
)
from ppl_vae.diagnose.findings import findings
from ppl_vae.programs.memory import objective_of
from ppl_vae.programs.traces import NoDensityError
from ppl_vae.report import words

torch.manual_seed(0)
X = torch.cat([torch.randn(60, 2) + 3, torch.randn(60, 2) - 3])[torch.randperm(120)]
FOLLOWED = {
    "refit_guide(program, x)": lambda p: refit_guide(p, X, epochs=1, progress=False),
    "refine(program, x)": lambda p: refine(p, X, steps=2, progress=False),
    "gaps(program, x)": lambda p: gaps(p, X[:20], steps=2, progress=False),
}


@pytest.fixture(autouse=True)
def own_store():
    with pyro.get_param_store().scope():
        yield


class Nets(nn.Module):
    def __init__(self, marked):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(2, 4), nn.Linear(4, 2)
        self.name = f"nets, marked: {marked}"
        self.infer = {"enumerate": "parallel"} if marked else {}

    def model(self, x):
        pyro.module(self.name, self)
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.OneHotCategorical(torch.ones(2) / 2))
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            y, z = torch.broadcast_tensors(y, z)
            loc = self.decoder(torch.cat([y, z], -1))
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    def guide(self, x):
        pyro.module(self.name, self)
        with pyro.plate("data", len(x)):
            h = self.encoder(x)
            pyro.sample("y", dist.OneHotCategorical(logits=h[:, :2]), infer=self.infer)
            pyro.sample("z", dist.Normal(h[:, 2:], 0.5).to_event(1))


def classes(marked=True):
    nets = Nets(marked)
    return Program(nets.model, nets.guide, modules=[nets])


def ring():
    return SampledPrior(lambda n: nn.functional.normalize(torch.randn(n, 2), dim=-1), 2)


def vae(prior=None, guide=None):
    return VAE(
        prior or StandardNormal(2),
        Conditional(MLP(8), Normal(2, scale=1.0), given=2),
        Conditional(MLP(8), guide or Normal(2), given=2),
    )


PROGRAMS = {
    "classes, summed out": classes,
    "classes, drawn": lambda: classes(marked=False),
    "a prior that is only drawn from": lambda: vae(ring()),
    "a guide that is a point": lambda: vae(guide=Delta(2)),
    "a VAE": vae,
}


def looked_at(program, **given) -> Diagnosis:
    return diagnose(program, X, num_samples=40, budget=2, progress=False, **given)


@pytest.mark.parametrize("objective", [Adversarial(MLP(8)), MMD()], ids=["critic", "kernel"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_advice_can_be_followed(name, objective) -> None:
    program = PROGRAMS[name]()
    fit(program, X, objective=objective, epochs=2, seed=0, progress=False)
    said = " ".join(f.advice for f in looked_at(program).findings)
    for advice, follow in FOLLOWED.items():
        if advice in said:
            follow(program)


def test_advice_of_a_fresh_guide_is_given_where_there_is_one_and_nowhere_else() -> None:
    for name, build in PROGRAMS.items():
        program = build()
        fit(program, X, objective=MMD(), epochs=1, seed=0, progress=False)
        found = looked_at(program)
        try:
            refit_guide(program, X, epochs=1, progress=False)
        except NoDensityError as error:
            assert found.no_fresh_guide and found.no_fresh_guide in str(error), name
            assert not any("refit_guide" in f.advice for f in found.findings), name
            assert "refit_guide" not in str(error), name
        else:
            assert found.no_fresh_guide is None, name
            assert any("refit_guide" in f.advice for f in found.findings), name


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("classes, summed out", "the latents ['y'] are discrete"),
        ("a prior that is only drawn from", "the prior of 'z' can only be drawn from"),
    ],
)
def test_reports_say_why_there_is_no_fresh_guide(name, why, tmp_path) -> None:
    program = PROGRAMS[name]()
    fit(program, X, objective=MMD(), epochs=1, seed=0, progress=False)
    file, found = tmp_path / "one.html", looked_at(program)
    report(file, found, looked_at(vae(), name="other"), progress=False)
    text = html.unescape(file.read_text())
    assert f"none can be fitted to program ({why})" in text
    assert found.evidence is None or f"There is no fresh guide: {why}" in text


@pytest.mark.parametrize(
    ("objective", "by"),
    [
        (ELBO(), "ELBO"),
        (ImportanceWeighted(2), "ELBO"),
        (MMD(), "MMD"),
        (Adversarial(MLP(8)), "Adversarial"),
        (pyro.infer.Trace_ELBO(), "another objective"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else value,
)
def test_a_program_knows_its_objective_without_a_history(objective, by, tmp_path) -> None:
    program = vae()
    assert objective_of(program) is None
    history, _ = fit(program, X, objective=objective, epochs=2, seed=0, progress=False)
    found = looked_at(copy.deepcopy(program))
    assert found.trained_by == by and found.matched == (by in ("MMD", "Adversarial"))
    assert looked_at(program, history=history).trained_by == by
    assert by == "another objective" or words.BY[by] in words.fitted(found)
    report(tmp_path / "one.html", found, progress=False)
    assert not any("not known" in note for note in found.notes)
    fresh = refit_guide(program, X, epochs=1, progress=False)
    assert looked_at(fresh).trained_by == "ELBO"  # whatever the program was


def test_an_objective_that_is_not_known_is_said_to_be_so() -> None:
    found = looked_at(vae())
    assert found.trained_by is None
    assert any("objective the program was trained is not known" in note for note in found.notes)


def test_classes_that_are_summed_out_are_said_not_to_be_judged() -> None:
    program = classes()
    fit(program, X, objective=Adversarial(MLP(8)), epochs=1, seed=0, progress=False)
    said = {f.check: f.verdict for f in looked_at(program).findings}
    for check in ("q(z) against p(z)", "holes in q(z)"):
        assert "Of y, summed out, nothing is said." in said[check]
    with pytest.warns(UserWarning, match=r"\['y'\] are summed out"):
        ppl_vae.prior_coverage(program, X)
    drawn = classes(marked=False)
    assert ppl_vae.aggregate_match(drawn, X, permutations=20).units.keys() >= {"y[0]", "z[1]"}


def test_few_nats_of_active_units_are_near_collapse() -> None:
    d = looked_at(vae())
    low = d.terms._replace(kl_prior=0 * d.terms.kl_prior + 0.02)
    for count, said in ((2, "z tells 0.020 nats of x or less"), (0, "Collapsed")):
        active = dataclasses.replace(d.active, count=count)
        both = dataclasses.replace(d, terms=low, active=active, information=None)
        (found,) = [f for f in findings(both) if f.check == "active units"]
        assert found.grade == "bad" and said in found.verdict


def test_errors_do_not_send_one_round_in_a_circle() -> None:
    """What an error says to try is not refused by an error that says to try the first."""
    program = classes()
    with pytest.raises(ValueError, match="Try objective=pyro.infer.TraceEnum_ELBO"):
        fit(program, X, objective=ImportanceWeighted(2), epochs=1, progress=False)
    fit(program, X, objective=pyro.infer.TraceEnum_ELBO(), epochs=1, progress=False)
    with pytest.raises(ValueError, match=r"given=\['c'\].*arguments of model and guide"):
        fit(vae(), {"x": X}, objective=Adversarial(given=("c",)), epochs=1, progress=False)


def test_nan_in_the_data_of_a_program_of_ones_own_is_named() -> None:
    net = nn.Linear(2, 2)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        pyro.module("net", net)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(net(x), 0.7).to_event(1))

    program = Program(model, guide)
    for rows, row in ((2000, 1500), (200, 3)):  # beyond the first batch, and within
        x = torch.randn(rows, 2)
        x[row, 1] = torch.nan
        for run in (
            lambda x: fit(program, x, epochs=1, seed=0, progress=False),
            lambda x: ppl_vae.log_evidence(program, x, 30),
            lambda x: ppl_vae.aggregate_match(program, x),
        ):
            with (
                pytest.warns(
                    UserWarning, match=rf"NaN.*argument 0, first in row {row}, cell \(1,\)"
                ),
                pytest.raises(ValueError, match="NaN or infinity.*have to fill and mask") as error,
            ):
                run(x)
            assert "standardising" not in str(error.value) and "tensor(" not in str(error.value)
