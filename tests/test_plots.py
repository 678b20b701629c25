"""Every plot returns a figure that renders, whatever the data are, and touches nothing else."""

import dataclasses
import sys
import warnings
import xml.etree.ElementTree as ElementTree

import matplotlib
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from matplotlib.figure import Figure

from ppl_vae import (
    MLP,
    VAE,
    Bernoulli,
    Conditional,
    Delta,
    Diagnosis,
    History,
    Normal,
    Program,
    Shared,
    StandardNormal,
    diagnose,
    fit,
    plots,
)
from ppl_vae.data import LinearGaussian
from ppl_vae.diagnostics import calibration
from ppl_vae.plots.style import SETTINGS, as_svg
from ppl_vae.programs.describe import Line

ROWS = 40


def world(latents: int = 2, features: int = 5, **arguments: object) -> Diagnosis:
    """A diagnosed linear-Gaussian program with a guide that is a little too wide."""
    exact = LinearGaussian.random(latents, features, seed=0)
    x, _ = exact.sample(ROWS, seed=1)
    program = Program(exact.model, exact.broken_guide(scale=1.3))
    fresh = Program(exact.model, exact.guide)
    return diagnose(program, x, num_samples=40, fresh=fresh, **arguments, budget=0)


@pytest.fixture(scope="module")
def one() -> Diagnosis:
    return world(1)


@pytest.fixture(scope="module")
def table() -> Diagnosis:
    ends = {"loss": 3.0, "elbo": -3.0, "reconstruction": -2.0, "kl": 1.0, "validation_elbo": -3.5}
    rows = [{"epoch": k, **{n: v + 1 / k for n, v in ends.items()}} for k in np.arange(1.0, 13.0)]
    return world(history=History(rows), labels=np.arange(ROWS) % 3)


FIGURES = {
    "history": lambda d: plots.history(d.history),
    "reconstructions": plots.reconstructions,
    "samples": plots.samples,
    "latent_space": plots.latent_space,
    "three_terms": plots.three_terms,
    "evidence": plots.evidence,
    "khat": plots.khat,
    "match": plots.match,
    "active_units": plots.active_units,
    "diagnosis": plots.diagnosis,
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_plot_is_a_figure_that_renders_and_leaves_matplotlib_alone(
    name: str, table: Diagnosis
) -> None:
    before = dict(matplotlib.rcParams)
    had_pyplot = "matplotlib.pyplot" in sys.modules
    figure = FIGURES[name](table)
    assert type(figure) is Figure
    svg = as_svg(figure)
    root = ElementTree.fromstring(svg)
    assert root.tag.endswith("svg") and len(svg) > 5000
    assert dict(matplotlib.rcParams) == before
    if not had_pyplot:
        assert "matplotlib.pyplot" not in sys.modules


def test_settings_of_the_user_change_nothing(table: Diagnosis) -> None:
    plain = as_svg(plots.three_terms(table))
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 30, "lines.linewidth": 9}):
        assert as_svg(plots.three_terms(table)) == plain


@pytest.mark.parametrize("name", ["reconstructions", "samples"])
@pytest.mark.parametrize("shape", [(6, 5), (1, 6, 5), (3, 6, 5), (30,), (2,), (), (2, 4, 4)])
def test_data_of_any_event_shape(name: str, shape: tuple[int, ...], table: Diagnosis) -> None:
    rng = np.random.default_rng(0)
    fields = ("data", "reconstructions", "samples", "generated")
    cells = {f: rng.random((ROWS, *shape)) for f in fields}
    d = dataclasses.replace(table, **cells)
    assert len(as_svg(FIGURES[name](d))) > 3000


@pytest.mark.parametrize("latents", [1, 2, 8])
@pytest.mark.parametrize(
    "labels",
    [
        None,
        np.array(["a $b", "<c>", "_d", "$\\frac$"] * (ROWS // 4)),
        np.linspace(0, 1, ROWS),
        np.arange(ROWS) % 15,
    ],
    ids=["none", "hostile text", "continuous", "15 classes"],
)
def test_latent_spaces_of_any_size_and_labels(
    latents: int, labels: np.ndarray | None, one: Diagnosis
) -> None:
    rng = np.random.default_rng(0)
    fields = ("codes", "code_means", "prior_codes")
    codes = {f: rng.standard_normal((ROWS, latents)) for f in fields}
    units = tuple(f"_${k}" for k in range(latents))
    d = dataclasses.replace(one, **codes, units=units, labels=labels)
    assert len(as_svg(plots.latent_space(d))) > 5000
    if labels is None:
        assert len(as_svg(plots.match(d))) > 5000


def test_the_principal_axes_show_the_widest_directions(one: Diagnosis) -> None:
    rng = np.random.default_rng(0)
    means = rng.standard_normal((ROWS, 4)) * [0.1, 5.0, 0.1, 2.0]
    d = dataclasses.replace(one, code_means=means, prior_codes=means)
    ax = plots.latent_space(d).axes[0]
    shown = ax.collections[-1].get_offsets()
    assert abs(np.corrcoef(shown[:, 0], means[:, 1])[0, 1]) > 0.99
    assert abs(np.corrcoef(shown[:, 1], means[:, 3])[0, 1]) > 0.98
    assert "%" in ax.get_xlabel()


def test_the_steps_are_the_three_terms(table: Diagnosis) -> None:
    bars = plots.three_terms(table).axes[0].patches
    assert bars[0].get_width() == pytest.approx(-table.terms.kl_prior.mean())
    assert bars[1].get_width() == pytest.approx(table.terms.kl_posterior.mean())


def test_what_is_undefined_is_refused_with_the_reason(one: Diagnosis) -> None:
    d = dataclasses.replace(
        one, undefined="the guide is a point", terms=None, evidence=None, fresh_evidence=None,
        codes=None, code_means=None, prior_codes=None, active=None,
    )  # fmt: skip
    for name in ("three_terms", "evidence", "khat", "latent_space", "match", "active_units"):
        with pytest.raises(ValueError, match="the guide is a point"):
            FIGURES[name](d)
    with pytest.raises(ValueError, match="empty history"):
        plots.history(History())


def test_infinite_terms_and_unknown_khat_are_drawn_without_a_warning(table: Diagnosis) -> None:
    infinite = table.terms._replace(kl_prior=np.full(ROWS, np.inf))
    khat = np.resize([np.nan, np.inf, -np.inf], ROWS)
    found = table.evidence._replace(khat=khat)
    d = dataclasses.replace(table, terms=infinite, evidence=found)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert as_svg(plots.three_terms(d)) and as_svg(plots.khat(d))


def test_an_adversarial_and_a_foreign_history() -> None:
    adversarial = [
        {"epoch": k, "loss": 1.0, "reconstruction": -k, "critic_loss": 1.0, "critic_accuracy": 0.6}
        for k in (1.0, 2.0)
    ]
    titles = [ax.get_title(loc="left") for ax in plots.history(History(adversarial)).axes]
    assert titles == ["reconstruction", "critic: q(z) told from p(z)"]
    assert len(plots.history(History([{"epoch": 1.0, "loss": 2.0}])).axes) == 1


LINES = [
    Line("prior", "z", (), "StandardNormal(2)"),
    Line("likelihood", "x", ("z",), "Binomial((8, 8), total=16)"),
    Line("guide", "z", ("x",), "Normal((2,), scale=Predicted())"),
]


def texts(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    return ["".join(t.itertext()) for t in root.iter("{http://www.w3.org/2000/svg}text")]


def dashes(svg: str) -> int:
    return svg.count("stroke-dasharray")


def test_a_critic_stands_in_place_of_the_divergence() -> None:
    vae, aae = plots.diagram(LINES, "ELBO"), plots.diagram(LINES, "Adversarial")
    assert any("KL" in t for t in texts(vae)) and not any("critic" in t for t in texts(vae))
    assert any("critic" in t for t in texts(aae)) and not any("KL" in t for t in texts(aae))
    assert "z ~ q(z)" in texts(aae) and "z ~ p(z)" in texts(aae) and "z ~ q(z|x)" in texts(vae)


def test_a_diagram_of_several_latents_one_of_them_shared_by_all_data(table: Diagnosis) -> None:
    lines = [
        *LINES,
        Line("prior", "w", (), "Normal"),
        Line("likelihood", "counts", ("z", "w"), "Poisson"),
        Line("guide", "w", ("x", "counts"), "Normal"),
    ]
    svg = plots.diagram(dataclasses.replace(table, lines=tuple(lines), shared=("w",)))
    assert svg.count("<circle") == 4 and svg.count("<polygon") == 6  # one arrow for each `given`
    assert dashes(svg) == 3
    assert {"w ~ Normal", "p(counts|z, w)", "q(w|x, counts)"} <= set(texts(svg))


def test_a_diagram_escapes_names_and_needs_a_prior() -> None:
    hostile = [w._replace(family="<script>alert(1)</script>") for w in LINES]
    svg = plots.diagram(hostile, "<b>")
    assert "<script" not in svg and "<b>" not in svg
    ElementTree.fromstring(svg)
    with pytest.raises(ValueError, match="expected a prior and a likelihood"):
        plots.diagram(LINES[1:])


def test_a_point_guide_has_no_divergence_in_its_diagram() -> None:
    lines = [*LINES[:2], Line("guide", "z", ("x",), "Delta((2,))")]
    assert not any("KL(" in t for t in texts(plots.diagram(lines, "ELBO")))


def model(x: torch.Tensor) -> None:
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("obs", dist.Normal(w * z, 1.0), obs=x)


def guide(x: torch.Tensor) -> None:
    pyro.sample("w", dist.Normal(pyro.param("loc", torch.tensor(0.5)), 0.1))
    with pyro.plate("rows", len(x)):
        pyro.sample("z", dist.Normal(0.5 * x, 0.8))


def test_the_sheet_of_programs_that_lack_parts() -> None:
    torch.manual_seed(0)
    x = torch.randn(ROWS)
    shared = diagnose(Program(model, guide), x, num_samples=30, budget=0)
    assert shared.shared == ("w",) and shared.codes.shape == (ROWS, 1)
    decoder = Conditional(MLP(4), Normal(3, scale=Shared()), given=2)
    vae = VAE(StandardNormal(2), decoder, Conditional(MLP(4), Delta(2), given=3))
    with pytest.warns(UserWarning, match="maximum a posteriori"):
        history, _ = fit(vae, torch.randn(ROWS, 3), epochs=2, seed=0, progress=False)
    point = diagnose(vae, torch.randn(ROWS, 3), history=history, num_samples=30, budget=0)
    for d in (shared, point):
        rows = plots.diagnosis(d).subfigs
        panels = {part.get_suptitle() for row in rows for part in row.subfigs}
        assert "Latent space" in panels and not panels & {"The three terms", "k-hat"}


def test_binary_images_of_a_vae_render() -> None:
    torch.manual_seed(0)
    decoder = Conditional(MLP(4), Bernoulli((4, 4)), given=2)
    vae = VAE(StandardNormal(2), decoder, Conditional(MLP(4), Normal(2), given=(4, 4)))
    x = (torch.rand(ROWS, 4, 4) > 0.5).float()
    assert len(as_svg(plots.diagnosis(diagnose(vae, x, num_samples=30, budget=0)))) > 20_000


def test_the_ticks_of_the_three_terms_do_not_touch(table: Diagnosis) -> None:
    means = {"reconstruction": -175.74, "kl_prior": 8.23, "elbo": -183.97, "kl_posterior": 2.66}
    values = {k: np.full(ROWS, v) for k, v in (means | {"log_evidence": -181.31}).items()}
    fig = plots.three_terms(dataclasses.replace(table, terms=table.terms._replace(**values)))
    with matplotlib.rc_context(SETTINGS):  # what is measured outside of it is another font
        fig.draw_without_rendering()
        shown = [label.get_window_extent() for label in fig.axes[0].get_xticklabels()]
    assert len(shown) > 2
    assert all(a.x1 + 8 < b.x0 for a, b in zip(shown, shown[1:], strict=False))  # about a digit


def test_calibration_is_drawn_as_it_was_tested():
    rng = np.random.default_rng(0)
    ranks = {f"z_{k}$": rng.integers(0, 101, 300) for k in range(14)} | {"low": np.zeros(300)}
    found = calibration(ranks, num_draws=100)
    fig = plots.calibration(found)
    titles = [ax.get_title(loc="left") for ax in fig.axes]
    assert len(titles) == 12 and titles[-1] == "low: p < 0.0001"
    assert "p < 0.0001" not in "".join(titles[:-1])
    assert as_svg(fig) == as_svg(plots.calibration(found))
