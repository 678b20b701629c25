"""The page: what it holds, what it leaves out, and how it is written."""

import dataclasses
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from ppl_vae import (
    ELBO,
    MLP,
    VAE,
    Adversarial,
    Binomial,
    Conditional,
    Delta,
    Diagnosis,
    Normal,
    Program,
    Shared,
    StandardNormal,
    diagnose,
    fit,
    refit_guide,
)
from ppl_vae.data import digits
from ppl_vae.programs.describe import Line
from ppl_vae.report import guides, match, mathematics, report, reports, sections, words
from ppl_vae.report.comparison import conclusion
from ppl_vae.training.progress import Bar

SECTIONS = (
    *("fitted", "findings", "training", "reconstructions", "samples", "latent-space"),
    *("three-terms", "evidence", "khat", "active-units", "match", "holes", "notes"),
)
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Reads a page: sections, text, links; and whether every tag is closed in its turn."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.faults: list[str] = []
        self.ids: list[str] = []
        self.sections: list[str] = []
        self.references: list[str] = []
        self.tags: set[str] = set()
        self.words: list[str] = []
        self.feed(html)
        self.close()
        self.text = " ".join(self.words)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attributes)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.tags.add(tag)
        if "id" in found:
            self.ids.append(found["id"])
            if tag == "section":
                self.sections.append(found["id"])
        self.references += [v or "" for k, v in attributes if k in ("src", "href", "xlink:href")]
        self.faults += [f"{k} on {tag}" for k, _ in attributes if k.startswith("on")]

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> out of turn")

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words.append(data)


def read(path: Path) -> Page:
    page = Page(path.read_text(encoding="utf-8"))
    assert page.faults == [] and page.open == []
    assert len(set(page.ids)) == len(page.ids)
    assert not re.search(r"\b[nN]a[nN]\b|\bNone\b|\binf\b", page.text)
    for reference in page.references:
        assert reference.startswith(("#", "data:image/svg+xml;base64,"))
        assert not reference.startswith("#") or reference[1:] in page.ids
    assert not page.tags & {"script", "link", "iframe", "object"}
    return page


@pytest.fixture(scope="module")
def images() -> tuple[np.ndarray, np.ndarray]:
    x, labels = digits()
    return x[:80], labels[:80]


def fitted(images: tuple[np.ndarray, np.ndarray], name: str, objective: object) -> Diagnosis:
    x, labels = images
    torch.manual_seed(0)
    decoder = Conditional(MLP(8), Binomial((8, 8), total=16), given=2)
    vae = VAE(StandardNormal(2), decoder, Conditional(MLP(8), Normal(2), given=(8, 8)))
    history, _ = fit(vae, x, objective=objective, epochs=3, seed=0, validation=x, progress=False)
    fresh = refit_guide(vae, x, net=MLP(8), epochs=2, progress=False)
    return diagnose(
        vae, x, name=name, labels=labels, history=history, fresh=fresh, num_samples=60, budget=0
    )


@pytest.fixture(scope="module")
def vae(images: tuple[np.ndarray, np.ndarray]) -> Diagnosis:
    return fitted(images, "VAE", ELBO())


@pytest.fixture(scope="module")
def aae(images: tuple[np.ndarray, np.ndarray]) -> Diagnosis:
    return fitted(images, "AAE", Adversarial(critic=MLP(8)))


def bare(d: Diagnosis, *kept: str) -> Diagnosis:
    """Without most of what takes long to draw."""
    parts = {"history", "terms", "evidence", "fresh_evidence", "code_means", "match", "active"}
    parts |= {"coverage"}
    return dataclasses.replace(d, **dict.fromkeys(parts - set(kept)))


@pytest.fixture(scope="module")
def written(vae: Diagnosis, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report(tmp_path_factory.mktemp("written") / "page.html", vae)


def test_a_vae_has_every_section(vae: Diagnosis, written: Path) -> None:
    path, page = written, read(written)
    assert tuple(page.sections) == SECTIONS
    assert path.stat().st_size < 1_500_000
    assert f"S = {vae.num_samples} draws" in page.text and "seed 0" in page.text
    assert "torch 2." in page.text
    assert "math" in page.tags and "svg" in page.tags


def test_the_same_diagnosis_gives_the_same_bytes(
    vae: Diagnosis, written: Path, tmp_path: Path
) -> None:
    assert report(tmp_path / "again.html", vae).read_bytes() == written.read_bytes()


def test_two_programs_stand_side_by_side(vae: Diagnosis, aae: Diagnosis, tmp_path: Path) -> None:
    path = report(tmp_path / "page.html", vae, aae)
    page = read(path)
    assert tuple(page.sections) == ("comparison", *SECTIONS)
    assert path.stat().st_size < 3_000_000
    assert "critic" in page.text and "not trained towards p(z|x)" in page.text


def test_a_point_guide_leaves_out_what_needs_a_density(vae: Diagnosis, tmp_path: Path) -> None:
    torch.manual_seed(0)
    decoder = Conditional(MLP(4), Normal(3, scale=Shared()), given=2)
    program = VAE(StandardNormal(2), decoder, Conditional(MLP(4), Delta(2), given=3))
    x = torch.randn(40, 3)
    with pytest.warns(UserWarning, match="maximum a posteriori"):
        history, _ = fit(program, x, epochs=2, seed=0, progress=False)
    d = diagnose(program, x, name="point", history=history, budget=0)
    page = read(report(tmp_path / "page.html", d))
    assert set(SECTIONS) - set(page.sections) == {"three-terms", "evidence", "khat"}
    assert "is a point (Delta) and has no density" in page.text
    assert "Evidence" not in page.text and "k-hat" not in page.text and "ELBO:" in page.text
    plain = dataclasses.replace(bare(d), undefined=d.undefined)
    both = read(report(tmp_path / "both.html", bare(vae, "terms", "evidence"), plain))
    assert "evidence" in both.sections and both.text.count("Not defined here") == 3


def local_and_shared(x: torch.Tensor) -> None:
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(x)):
        z = pyro.sample("latent", dist.Normal(0.0, 1.0))
        pyro.sample("obs", dist.Normal(w * z, 1.0), obs=x)


def guide_of_both(x: torch.Tensor) -> None:
    pyro.sample("w", dist.Normal(pyro.param("loc", torch.tensor(0.5)), 0.1))
    with pyro.plate("rows", len(x)):
        pyro.sample("latent", dist.Normal(0.5 * x, 0.8))


def only_shared(x: torch.Tensor) -> None:
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("obs", dist.Normal(w, 1.0), obs=x)


def guide_of_shared(x: torch.Tensor) -> None:
    pyro.sample("w", dist.Normal(pyro.param("loc", torch.tensor(0.5)), 0.1))


@pytest.mark.parametrize(
    ("model", "guide", "absent"),
    [
        (local_and_shared, guide_of_both, {"three-terms", "evidence", "khat"}),
        (
            only_shared,
            guide_of_shared,
            {"three-terms", "evidence", "khat", "latent-space", "active-units", "match", "holes"},
        ),
    ],
)
def test_a_latent_shared_by_all_data_leaves_out_what_is_per_datum(
    model: object, guide: object, absent: set[str], tmp_path: Path
) -> None:
    x = torch.randn(40)
    program = Program(model, guide)
    with pytest.warns(UserWarning, match="outside the data plate"):
        history, _ = fit(program, x, epochs=2, seed=0, progress=False)
    assert "elbo" not in history and "kl" not in history
    page = read(report(tmp_path / "page.html", diagnose(program, x, history=history, budget=0)))
    assert set(SECTIONS) - set(page.sections) == absent | {"notes"}
    assert "outside the data plate" in page.text


def test_what_others_named_is_escaped(vae: Diagnosis, tmp_path: Path) -> None:
    hostile = '<script>alert(1)</script>"><img src=x onerror=alert(1)>'
    lines = tuple(w._replace(family=hostile, site=hostile) for w in vae.lines)
    d = dataclasses.replace(
        bare(vae, "code_means"), name=hostile, lines=lines, latents=(hostile,),
        observed=(hostile,), notes=(hostile,), labels=np.full(len(vae.data), hostile),
    )  # fmt: skip
    for page in (report(tmp_path / "one.html", d), report(tmp_path / "two.html", d, bare(vae))):
        assert hostile in read(page).text


def test_a_failing_write_keeps_the_old_page_and_leaves_no_part(
    vae: Diagnosis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vae = bare(vae)
    path = tmp_path / "page.html"
    path.write_text("old")

    def fail(*arguments: object, **named: object) -> None:
        raise OSError("no space left")

    for owner, name in ((os, "replace"), (Path, "write_text")):
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, fail)
            with pytest.raises(OSError, match="no space left"):
                report(path, vae)
        assert [p.name for p in tmp_path.iterdir()] == ["page.html"]
        assert path.read_text() == "old"


def test_bad_arguments_get_a_sentence(vae: Diagnosis, tmp_path: Path) -> None:
    cases = (
        ((tmp_path / "no" / "page.html", vae), "mkdir"),
        ((tmp_path, vae), "expected a file"),
        ((vae, vae), "expected the name of a file"),
        ((tmp_path / "page.html",), "expected one or more"),
        ((tmp_path / "page.html", {"vae": vae}), "expected a Diagnosis"),
        ((tmp_path / "page.html", vae, vae), "a name of its own"),
    )
    for arguments, says in cases:
        with pytest.raises(ValueError, match=says) as caught:
            report(*arguments)
        assert "Try" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_all_pages_of_a_comparison_are_written_at_once(vae: Diagnosis, tmp_path: Path) -> None:
    first = bare(vae)
    second = dataclasses.replace(first, name="The other / one")
    page = reports(tmp_path, first, second)
    names = {"vae.html", "the-other-one.html", "report.html"}
    assert {p.name for p in tmp_path.iterdir()} == names and page.name == "report.html"
    assert page.read_bytes() == report(tmp_path / "again.html", first, second).read_bytes()
    assert (tmp_path / "vae.html").read_bytes() == report(page, first).read_bytes()
    for clash in ("vae?", "Report"):
        with pytest.raises(ValueError, match="different ones"):
            reports(tmp_path, first, dataclasses.replace(first, name=clash))


def test_words_follow_the_numbers(vae: Diagnosis) -> None:
    def with_match(mmd2: float, accuracy: float, p: float) -> Diagnosis:
        mmd = vae.match.mmd._replace(mmd2=mmd2, null_mean=0.002, null_high=0.003, p_value=p)
        vote = vae.match.classifier._replace(accuracy=accuracy, se=0.01, p_value=p)
        return dataclasses.replace(
            vae, match=dataclasses.replace(vae.match, mmd=mmd, classifier=vote)
        )

    near, some = with_match(0.002, 0.51, 0.4), with_match(0.01, 0.56, 1e-3)
    far = with_match(0.1, 0.8, 1e-9)
    assert "is near" in match.match(near) and "both are what chance does" in match.match(near)
    assert "differ somewhat" in match.match(some) and "variation distance" in match.match(some)
    assert "far apart" in match.match(far) and "never trained" in match.samples(far)
    # A tiny effect, however certain, is still a tiny effect.
    tiny = match.match(with_match(0.0035, 0.51, 1e-12))
    assert "is near" in tiny and "more than chance does" in tiny

    assert "of their means over" in words.active_units(vae)
    units = dataclasses.replace(vae.active, variance=np.array([1.0, 1e-5]), count=1)
    assert "1 unit is not" in words.active_units(dataclasses.replace(vae, active=units))


def test_the_weight_of_the_penalty_is_read_off_the_history(
    images: tuple[np.ndarray, np.ndarray], vae: Diagnosis, aae: Diagnosis, tmp_path: Path
) -> None:
    assert words.penalty_weight(vae) == 1.0
    assert words.penalty_weight(aae) == Adversarial().weight
    half = fitted(images, "half", ELBO(kl_weight=0.5))
    assert words.penalty_weight(half) == 0.5
    assert "<mn>0.5</mn>" in str(mathematics.objective(half, "ELBO", 0.5))
    assert "<mn>1</mn>" not in str(mathematics.objective(vae, "ELBO", 1.0))


def shifted(d: Diagnosis, by: float, **changes: object) -> Diagnosis:
    better = d.fresh_evidence._replace(log_evidence=d.fresh_evidence.log_evidence + by)
    return dataclasses.replace(d, fresh_evidence=better, **changes)


def test_evidences_are_compared_under_fresh_guides_on_the_same_data_only(vae: Diagnosis) -> None:
    # A fresh guide as good as the own one, so that none is said to miss anything.
    vae = dataclasses.replace(vae, fresh_evidence=vae.evidence)
    better = shifted(vae, 5.0, name="other", evidence=None)
    (said,) = conclusion([vae, better])
    # No error, or that of rounding: "5.00" or "5.0000 ± under 0.0001".
    assert re.search("of other is higher than that of VAE by 5.00(00 ± under 0.0001)? nats", said)
    noise = np.random.default_rng(0).standard_normal(len(vae.data))
    assert "do not differ" in conclusion([vae, shifted(vae, noise, name="other", evidence=None)])[0]
    other_data = dataclasses.replace(better, observations={"x": vae.data + 1})
    assert "not on the same data" in conclusion([vae, other_data])[0]
    density = tuple(w._replace(measure="density") for w in vae.lines)
    assert "density" in conclusion([vae, dataclasses.replace(better, lines=density)])[0]
    without = dataclasses.replace(better, fresh_evidence=None)
    assert "refit_guide" in conclusion([vae, without])[0]


def test_a_fresh_guide_that_falls_short_of_the_own_one_is_told(vae: Diagnosis) -> None:
    worse = shifted(dataclasses.replace(vae, fresh_evidence=vae.evidence), -8.0, name="worse")
    assert guides.missed(worse) == pytest.approx(8.0)
    assert any("Fit it for longer" in s for s in guides.evidence(worse))
    fair = dataclasses.replace(vae, fresh_evidence=vae.evidence)
    assert "may be the guides'" in conclusion([fair, worse])[-1]


def test_the_gap_is_at_least_what_the_better_bound_shows(vae: Diagnosis) -> None:
    found = shifted(dataclasses.replace(vae, fresh_evidence=vae.evidence), 4.0)
    own = float(vae.terms.kl_posterior.mean())
    assert guides.least_gap(found) == pytest.approx(own + 4.0)
    assert "at least" in guides.three_terms(found)


def test_infinities_and_unknowns_are_words(vae: Diagnosis, tmp_path: Path) -> None:
    terms = vae.terms._replace(
        kl_prior=np.full(len(vae.data), np.inf), kl_prior_se=np.full(len(vae.data), np.nan)
    )
    khat = np.full(len(vae.data), np.nan)
    evidence = vae.evidence._replace(khat=khat, quantified=np.zeros(len(khat), dtype=bool))
    d = dataclasses.replace(bare(vae), terms=terms, evidence=evidence)
    page = read(report(tmp_path / "page.html", d))
    assert "a KL is infinite" in page.text and "not known for any of the data" in page.text


@pytest.mark.parametrize(
    ("family", "shows"),
    [
        ("StandardNormal(2)", "I"),
        ("StandardNormal(8, loc=0, scale=5)", "<mn>5</mn><mn>2</mn>"),
        ("StandardNormal(8, loc=0, scale=[…])", "<mi>s</mi>"),
        ("GaussianMixture(10 components, 2 features, fixed)", "∑"),
        ("Bernoulli((784,))", "Bernoulli"),
        ("Binomial((8, 8), total=16)", "<mn>16</mn>"),
        ("Normal((2,), scale=Predicted())", "diag"),
        ("Normal((2,), scale=0.5)", "<mn>0.5</mn>"),
        ("Normal((2,), scale=PerFeature(init=1.0))", "diag"),
        ("MultivariateNormal(2)", "⊤"),
        ("Delta((2,))", "<mo>=</mo>"),
        ("Gamma(3,)", "Gamma"),
    ],
)
def test_every_family_has_its_mathematics(family: str, shows: str) -> None:
    given = () if "Standard" in family or "Mixture" in family else ("x",)
    formula = mathematics.drawn(Line("guide", "z", given, family))
    assert shows in formula
    parser = Page(str(formula))
    assert parser.faults == [] and parser.open == []


def test_the_three_terms_add_up_as_they_are_printed(vae: Diagnosis) -> None:
    cell = sections.cells(bare(vae, "terms", "evidence"), Bar(None, 1, 0, ""))["three-terms"]
    mean = {row[0]: float(row[1].split(" ")[0].replace("−", "-")) for row in cell.table.rows}
    reconstruction, rate, elbo, gap, evidence = mean.values()
    # Each is rounded to two digits after the point or more, which for a sum of three is 0.015.
    assert rate < 0 < gap and abs(reconstruction + rate - elbo) < 0.02
    assert abs(elbo + gap - evidence) < 0.02
