"""The whole of diagnose, on any program: parts, budget, findings, table, report."""

import dataclasses
import warnings

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
    Bernoulli,
    Columns,
    Conditional,
    ConditionalFlow,
    Delta,
    Diagnosis,
    GaussianMixture,
    History,
    MultivariateNormal,
    NegativeBinomial,
    Normal,
    Poisson,
    Program,
    Shared,
    StandardNormal,
    VampPrior,
    diagnose,
    fit,
    refine,
    report,
    to_datatree,
)
from ppl_vae.data import LinearGaussian
from ppl_vae.diagnose import stages
from ppl_vae.diagnose.finding import Finding
from ppl_vae.diagnose.findings import findings
from ppl_vae.diagnostics import calibration, typicality
from ppl_vae.posterior import PosteriorCheck

PARTS = (
    "calibration", "typicality", "prior_check", "posterior_check", "information", "gaps", "ais",
    "sandwich", "reference", "agreement",
)  # fmt: skip
ROWS = 40


@pytest.fixture(autouse=True)
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every part, but little of it: the laws of each are tested where it is built."""
    for name, size in {
        "SIMULATED": 60, "DRAWS": 20, "REFINED": 5, "ANNEALED": 3, "TEMPERATURES": 10,
        "CHAINS": 4, "LEAPFROG": 2,
        "SAMPLED": 2, "NUTS": 2, "TRANSITIONS": 100,
    }.items():  # fmt: skip
        monkeypatch.setattr(stages, name, size)
    monkeypatch.setattr(
        stages,
        "gaps",
        lambda p, x, **kwargs: original_gaps(p, x, steps=10, num_samples=50, **kwargs),
    )


original_gaps = stages.gaps


def normals(rows: int = ROWS) -> torch.Tensor:
    return torch.randn(rows, 1) * torch.ones(1, 4) + 0.5 * torch.randn(rows, 4)


def vae(prior: object, family: object, guide: object, cells: int = 4, **given: object) -> VAE:
    return VAE(prior, Conditional(MLP(6), family, given=2), Conditional(MLP(6), guide, given=cells))


def mixture() -> tuple[VAE, object]:
    return vae(
        GaussianMixture(torch.randn(3, 2), learned=True), Normal(4, scale=Shared()), Normal(2)
    ), normals()


def full_covariance() -> tuple[VAE, object]:
    return vae(StandardNormal(2), Normal(4, scale=Shared()), MultivariateNormal(2)), normals()


def flow() -> tuple[VAE, object]:
    decoder = Conditional(MLP(6), Normal(4, scale=Shared()), given=2)
    return VAE(StandardNormal(2), decoder, ConditionalFlow(MLP(6), 2, given=4)), normals()


def counts() -> tuple[VAE, object]:
    x = torch.poisson(2 * torch.rand(ROWS, 1) + torch.ones(1, 4))
    return vae(StandardNormal(2), NegativeBinomial(4), Normal(2)), x


def gaps_in_columns() -> tuple[VAE, object]:
    table = Columns({"n": Poisson(()), "y": Normal(()), "b": Bernoulli(())})
    x = torch.stack([torch.poisson(torch.full((ROWS,), 3.0)), torch.randn(ROWS),
                     (torch.rand(ROWS) < 0.4).float()], 1)  # fmt: skip
    x[::4, 1] = torch.nan
    program = VAE(
        StandardNormal(2),
        Conditional(MLP(6), table, given=2),
        Conditional(MLP(6), Normal(2), given={"x": 3, "mask": 3}),
    )
    return program, x


def conditional() -> tuple[VAE, object]:
    program = VAE(
        StandardNormal(2),
        Conditional(MLP(6), Normal(4, scale=Shared()), given={"z": 2, "dose": 1}),
        Conditional(MLP(6), Normal(2), given={"x": 4, "dose": 1}),
    )
    return program, {"x": normals(), "dose": torch.randn(ROWS, 1)}


def vamp() -> tuple[VAE, object]:
    x = normals()
    return vae(VampPrior(x[:5]), Normal(4, scale=Shared()), Normal(2)), x


def adversarial() -> tuple[VAE, object]:
    return vae(StandardNormal(2), Normal(4, scale=Shared()), Normal(2)), normals()


def foreign() -> tuple[Program, object]:
    """Two plain Pyro functions, two latents, other names."""

    def story(y: torch.Tensor) -> None:
        slope = pyro.param("slope", torch.ones(4))
        with pyro.plate("people", len(y)):
            level = pyro.sample("level", dist.Normal(0.0, 1.0))
            rate = pyro.sample("rate", dist.Gamma(2.0, 2.0))
            mean = level[:, None] * slope + rate[:, None]
            pyro.sample("answers", dist.Normal(mean, 0.5).to_event(1), obs=y)

    def guess(y: torch.Tensor) -> None:
        weight = pyro.param("weight", torch.tensor(0.5))
        with pyro.plate("people", len(y)):
            pyro.sample("level", dist.Normal(weight * y.mean(-1), 0.5))
            pyro.sample("rate", dist.LogNormal(torch.zeros(len(y)), 0.5))

    return Program(story, guess), normals()


PROGRAMS = {
    "mixture prior": mixture,
    "full covariance": full_covariance,
    "flow guide": flow,
    "counts": counts,
    "missing cells": gaps_in_columns,
    "conditional": conditional,
    "VampPrior": vamp,
    "AAE": adversarial,
    "two Pyro functions": foreign,
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_part_runs_on_every_program(name: str) -> None:
    torch.manual_seed(0)
    program, x = PROGRAMS[name]()
    objective = Adversarial(critic=MLP(6)) if name == "AAE" else ELBO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of toys' scales and frozen priors
        history, _ = fit(program, x, objective=objective, epochs=2, seed=0, progress=False)
    state = torch.random.get_rng_state()
    found = diagnose(
        program, x, name=name, history=history, num_samples=40, budget=float("inf"), progress=False
    )
    assert torch.equal(state, torch.random.get_rng_state())
    assert not found.left_out
    assert all(getattr(found, part) is not None for part in PARTS)
    assert set(found.seconds) == {"evidence, codes and match", *(s.name for s in stages.STAGES)}
    checks = [f.check for f in found.findings]
    assert len(checks) == 12 and all(f.verdict and f.value for f in found.findings)
    said = str(found)
    assert all(c.split(":")[0] in said for c in checks)
    assert ("As expected" in said) == (name == "AAE" and found.calibration.p_value <= 0.05)
    if name == "two Pyro functions":
        assert found.units == ("level", "rate") and "level" in found.calibration.tests
    if name == "missing cells":
        assert found.prior_check.tests["y"].num_data == 30


def exact(rows: int = 200) -> tuple[Program, torch.Tensor]:
    world = LinearGaussian.random(2, 4, seed=0)
    return Program(world.model, world.guide), world.sample(rows, seed=1)[0]


def test_a_right_program_gets_a_good_report_and_a_wrong_one_a_bad_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stages, "SIMULATED", 400)
    monkeypatch.setattr(stages, "DRAWS", 100)
    monkeypatch.setattr(
        stages, "gaps", lambda p, x, **kwargs: original_gaps(p, x, steps=60, **kwargs)
    )
    monkeypatch.setattr(stages, "TEMPERATURES", 40)
    monkeypatch.setattr(stages, "CHAINS", 16)
    monkeypatch.setattr(stages, "LEAPFROG", 5)
    program, x = exact()
    right = diagnose(program, x, num_samples=100, budget=float("inf"), progress=False)
    # Four tests at 0.05 on one fixed seed, no false alarm among them.
    assert {f.check: f.grade for f in right.findings if f.grade != "good"} == {}
    world = LinearGaussian.random(2, 4, seed=0)
    other = LinearGaussian(world.weight, world.bias + 1.0, world.scale)
    narrow = Program(other.model, other.broken_guide(scale=0.3, shift=1.0))
    wrong = diagnose(narrow, x, num_samples=100, budget=float("inf"), progress=False)
    bad = {f.check.split(":")[0] for f in wrong.findings if f.grade == "bad"}
    assert {"KL to p(z|x)", "calibration", "gap", "prior predictive", "typicality"} <= bad
    assert all(f.advice for f in wrong.findings if f.grade in ("bad", "look"))


def test_the_budget_is_kept_and_said() -> None:
    program, x = exact(60)
    none = diagnose(program, x, num_samples=30, budget=0, progress=False)
    assert set(none.left_out) == {s.name for s in stages.STAGES}
    assert all(getattr(none, part) is None for part in PARTS)
    assert "with 0 s left" in str(none) and "Left out: gaps" in str(none)
    whole = diagnose(program, x, num_samples=30, budget=float("inf"), progress=False)
    # What a part gives does not hang on which others there was time for.
    some = diagnose(program, x, num_samples=30, budget=1e9, progress=False)
    assert np.array_equal(whole.gaps.remainder, some.gaps.remainder)
    assert np.array_equal(whole.ais.log_weights, some.ais.log_weights)
    for budget in (-1, "long", True, float("nan")):
        with pytest.raises(ValueError, match="expected seconds"):
            diagnose(program, x, budget=budget)


def test_what_has_no_meaning_is_left_out_with_its_reason() -> None:
    torch.manual_seed(0)
    decoder = Conditional(MLP(4), Normal(4, scale=Shared()), given=2)
    point = VAE(StandardNormal(2), decoder, Conditional(MLP(4), Delta(2), given=4))
    found = diagnose(point, normals(), num_samples=30, budget=float("inf"), progress=False)
    assert found.calibration is not None and found.typicality is None and found.gaps is None
    assert "no density" in found.left_out["gaps"] and found.ais is not None
    assert found.findings[0].grade == "unknown" and "Not defined" in found.findings[0].verdict
    # Of a refined guide: its rows are its own.
    program, x = exact(30)
    better = refine(program, x, steps=3, progress=False)
    kept = diagnose(better, x, num_samples=30, budget=float("inf"), progress=False)
    assert "certain data alone" in kept.left_out["calibration and typicality"]
    assert kept.information is not None and kept.ais is not None


def test_rows_given_twice_count_once_in_the_match() -> None:
    program, x = exact(40)
    twice = diagnose(program, torch.cat([x, x]), num_samples=20, budget=0, progress=False)
    assert twice.match.num_data == 40 and len(twice.codes) == 80
    assert sorted(twice.chosen) == list(range(40))
    alike = diagnose(program, x[:1].repeat(30, 1), num_samples=20, budget=0, progress=False)
    assert alike.match is None and alike.codes is not None


def test_the_report_has_a_section_for_each_finding(tmp_path) -> None:
    program, x = exact(60)
    found = diagnose(program, x, num_samples=30, budget=float("inf"), progress=False)
    page = report(tmp_path / "page.html", found, progress=False).read_text(encoding="utf-8")
    assert all(f'<section id="{f.section}">' in page for f in found.findings)
    assert 'id="findings"' in page and "Left out" not in page
    odd = Finding("<b>", "1", "2", "bad", "<script>", "[/x]", "notes")
    spoilt = dataclasses.replace(found, findings=(odd,))
    page = report(tmp_path / "odd.html", spoilt, progress=False).read_text(encoding="utf-8")
    assert "<script>" not in page and "[/x]" in str(spoilt)


def test_collapse_is_said_while_training() -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 3)  # nothing to say
    program = vae(StandardNormal(2), Normal(3, scale=Shared()), Normal(2), cells=3)
    with pytest.warns(UserWarning, match="posterior collapse") as said:
        history, _ = fit(
            program,
            x,
            epochs=80,
            optimizer=(torch.optim.Adam, {"lr": 0.02}),
            progress=False,
            seed=0,
        )
    assert sum("collapse" in str(w.message) for w in said) == 1
    assert history["kl"][-1] < 0.05
    found = diagnose(program, x, num_samples=50, budget=0, progress=False)
    codes = next(f for f in found.findings if f.section == "active-units")
    assert codes.grade == "bad" and "Collapsed" in codes.verdict


def test_a_diagnosis_is_a_tree_that_can_be_kept(tmp_path) -> None:
    import arviz_plots
    import matplotlib.pyplot
    import xarray as xr

    program, x = exact(60)
    found = diagnose(program, x, num_samples=30, budget=float("inf"), progress=False)
    tree = to_datatree(found)
    assert set(tree.children) == {
        "codes", "prior", "evidence", "terms", "gaps", "ais", "typicality", "prior_sbc",
        "prior_check", "observed_data", "findings",
    }  # fmt: skip
    assert np.array_equal(tree["evidence"]["khat"], found.evidence.khat, equal_nan=True)
    assert list(tree["codes"]["unit"].values) == ["z[0]", "z[1]"]
    # Parts of some data know which.
    row = int(tree["gaps"]["row"][2])
    assert float(tree["gaps"]["remainder"].sel(row=row)) == found.gaps.remainder[2]
    tree.to_netcdf(tmp_path / "found.nc")
    with xr.open_datatree(tmp_path / "found.nc") as back:
        assert back.load().identical(tree)
    arviz_plots.plot_ecdf_pit(tree, stats={"ecdf_pit": {"n_simulations": 100}})
    matplotlib.pyplot.close("all")
    bare = to_datatree(diagnose(program, x, num_samples=30, budget=0, progress=False))
    assert set(bare.children) == {
        "codes", "prior", "evidence", "terms", "observed_data", "findings"
    }  # fmt: skip


def words(d: Diagnosis, check: str) -> Finding:
    return next(f for f in findings(d) if f.check.startswith(check))


def test_words_follow_the_numbers() -> None:
    program, x = exact(60)
    d = diagnose(program, x, num_samples=30, budget=float("inf"), progress=False)
    rng = np.random.default_rng(0)
    even = rng.integers(0, 101, 1000)

    def ranked(**odd: np.ndarray) -> Finding:
        ranks = {"z[0]": even, "log p(x|z)": even, "log q(z|x)": even, "distance": even}
        tests = calibration({**ranks, **odd}, num_draws=100)
        return words(dataclasses.replace(d, calibration=tests), "calibration")

    assert ranked().grade == "good" and not ranked().advice
    ends = np.where(even < 50, even // 2, 100 - (100 - even) // 2)
    # The truth at both ends of the draws: they are too narrow; in the middle: too wide. Ranked
    # low, it lies below the draws.
    said = {
        "too narrow": ends, "too wide": 25 + even // 2, "lies too high": even // 2,
        "lies too low": 50 + even // 2,
    }  # fmt: skip
    for verdict, ranks in said.items():
        found = ranked(**{"z[0]": ranks})
        assert found.grade == "bad" and verdict in found.verdict and "refine" in found.advice
    found = ranked(**{"log p(x|z)": 50 + even // 2})
    assert "explain x worse" in found.verdict and "MultivariateNormal" not in found.advice
    lines = d.lines  # whose guide has correlations already; of one that has none:
    d = dataclasses.replace(d, lines=(*lines[:-1], lines[-1]._replace(family="Normal((2,))")))
    found = ranked(**{"log p(x|z)": 50 + even // 2})
    assert "MultivariateNormal" in found.advice
    # What is named is what was rejected, not what few data let stray.
    stray = calibration({"z[0]": [10, 20, 30, 55, 60], "z[1]": even - even // 12}, num_draws=100)
    found = words(dataclasses.replace(d, calibration=stray), "calibration")
    assert stray.p_values["z[0]"] > 0.05 >= stray.p_values["z[1]"] and "z[1]" in found.verdict
    assert "explain x better" in ranked(**{"log p(x|z)": even // 2}).verdict
    assert "too narrow" in ranked(**{"log q(z|x)": even // 2}).verdict
    assert "too wide" in ranked(**{"log q(z|x)": 50 + even // 2}).verdict

    rows = [{"epoch": 1.0, "loss": 1.0, "reconstruction": -1.0, "critic_loss": 0.7}]
    adversarial = dataclasses.replace(d, history=History(rows))
    mmd = d.match.mmd._replace(mmd2=0.1, null_mean=0.001, null_high=0.002, se=0.01)
    far = dataclasses.replace(d.match, mmd=mmd)
    for one, advice in ((d, "VampPrior"), (adversarial, "Adversarial(weight=")):
        found = words(dataclasses.replace(one, match=far), "q(z) against p(z)")
        assert found.grade == "bad" and advice in found.advice and "MMD² 0.079" in found.value
    tests = calibration({"z[0]": ends}, num_draws=100)
    found = words(dataclasses.replace(adversarial, calibration=tests), "calibration")
    assert "As expected" in found.verdict and "refit_guide" in found.advice

    rows = d.chosen[: len(d.ais.se)]
    for shift, grade in ((0.0, "good"), (0.5, "look"), (3.0, "bad"), (-3.0, "unknown")):
        own = d.evidence.log_evidence[rows] + shift
        found = words(
            dataclasses.replace(d, ais=d.ais._replace(log_evidence=own, se=0 * own), sandwich=None),
            "AIS",
        )
        assert (shift, found.grade) == (shift, grade)
    top = d.gaps.evidence.log_evidence
    cures = {"amortisation": "encoder", "correlation": "MultivariateNormal", "remainder": "Flow"}
    for name, cure in cures.items():
        reached = list(cures).index(name)  # before it nothing is gained, after it all
        elbo = np.stack([top - 2 * (k <= reached) for k in range(3)])
        split = d.gaps._replace(elbo=elbo)
        found = words(dataclasses.replace(d, gaps=split), f"gap: {name}")
        assert found.grade == "bad" and cure in found.advice

    third = d.gaps._replace(elbo=np.stack([top - 0.09 * (3 - k) for k in range(3)]))
    assert words(dataclasses.replace(d, gaps=third), "gap").grade == "look"  # 0.27 in all
    nothing = d.gaps._replace(elbo=np.stack([top] * 3), ceiling=top + 5)
    assert words(dataclasses.replace(d, gaps=nothing), "gap").grade == "unknown"

    def told(c2st: list[float], rhat: float = 1.0, divergences: int = 0) -> Finding:
        of = dict.fromkeys(("mean_error", "sd_ratio"), np.ones((len(c2st), 2)))
        near = dataclasses.replace(d.agreement, c2st=np.array(c2st), **of)
        reference = dataclasses.replace(
            d.reference, rhat=np.full(len(c2st), rhat), divergences=divergences
        )
        return words(dataclasses.replace(d, agreement=near, reference=reference), "NUTS")

    assert told([0.5, 0.55]).grade == "good" and told([0.5, 0.7]).grade == "look"
    assert told([0.5, 0.5, 0.99]).grade == "bad"  # the worst, not the median
    assert told([0.5, np.nan]).grade == "good" and "1 without" in told([0.5, np.nan]).verdict
    assert told([np.nan]).grade == "unknown" and told([0.5], rhat=1.5).grade == "unknown"
    assert "divergences" in told([0.5], divergences=2).verdict

    own = np.linspace(-3, 3, 500)
    for data, said, grade in (
        (own, "is like", "good"), (own - 2, "less density", "bad"), (own + 2, "more", "bad"),
        (3 * own, "varies more", "bad"), (own / 3, "varies less", "bad"),
        (own[::20], "few", "unknown"),
    ):  # fmt: skip
        found = words(dataclasses.replace(d, typicality=typicality(data, own)), "typicality")
        assert said in found.verdict and found.grade == grade

    def checked(effect: float, ratio: float) -> Finding:
        c = PosteriorCheck({"T": 1.0}, {"T": np.zeros(9)}, {"T": effect}, {"T": 0.5}, {"T": ratio})
        return words(dataclasses.replace(d, posterior_check=c), "posterior predictive")

    assert checked(0.1, 1.1).grade == "good" and checked(0.3, 1.0).grade == "look"
    assert checked(0.9, 1.0).grade == "bad" and "too low" in checked(0.9, 1.0).verdict
    assert "too high" in checked(-0.9, 1.0).verdict and "too little" in checked(0, 3.0).verdict
    assert "too much" in checked(0, 0.3).verdict and checked(0, 0.3).grade == "bad"

    for ranks, said in (
        (even // 2, "lower"), (50 + even // 2, "higher"), (ends, "more"), (25 + even // 2, "less"),
    ):  # fmt: skip
        tests = calibration({"x[0]": even, "x[1]": ranks}, num_draws=100)
        found = words(dataclasses.replace(d, prior_check=tests), "prior predictive")
        assert "x[1]" in found.verdict and said in found.verdict and found.grade == "bad"
    tests = calibration({"x[0]": even[:20]}, num_draws=100)
    found = words(dataclasses.replace(d, prior_check=tests), "prior predictive")
    assert found.grade == "unknown" and "would hide" in found.verdict


def test_counts_that_are_alike_are_data_of_their_own() -> None:
    # Gamma-Poisson: q is exact, and x takes few values.
    def model(x: torch.Tensor) -> None:
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Gamma(2.0, 1.0))
            pyro.sample("x", dist.Poisson(z), obs=x)

    def guide(x: torch.Tensor) -> None:
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Gamma(2.0 + x, torch.tensor(2.0)))

    torch.manual_seed(0)
    x = dist.Poisson(dist.Gamma(2.0, 1.0).sample((1000,))).sample()
    found = diagnose(Program(model, guide), x, num_samples=30, budget=0, progress=False)
    assert found.match.num_data == 1000 and found.match.p_value > 1e-3


def test_a_sorted_covariate_is_no_misfit() -> None:
    def model(x: torch.Tensor, exposure: torch.Tensor) -> None:
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Gamma(2.0, 1.0))
            pyro.sample("x", dist.Poisson(z * exposure), obs=x)

    def guide(x: torch.Tensor, exposure: torch.Tensor) -> None:
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Gamma(2.0 + x, 1.0 + exposure))

    torch.manual_seed(0)
    exposure = torch.linspace(0.1, 20, 300)
    x = dist.Poisson(dist.Gamma(2.0, 1.0).sample((300,)) * exposure).sample()
    # Fewer simulated than there are data: the first of a sorted table would not do.
    found = diagnose(
        Program(model, guide), (x, exposure), num_samples=30, budget=1e9, progress=False
    )
    assert found.typicality.p_value > 1e-3


def test_small_units_have_not_collapsed() -> None:
    def model(x: torch.Tensor) -> None:
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 0.05))
            pyro.sample("x", dist.Normal(z, 0.02), obs=x)

    def guide(x: torch.Tensor) -> None:
        precision = 1 / 0.05**2 + 1 / 0.02**2
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal(x / 0.02**2 / precision, precision**-0.5))

    x = 0.054 * torch.randn(200, generator=torch.Generator().manual_seed(0))
    found = diagnose(Program(model, guide), x, num_samples=50, budget=0, progress=False)
    assert found.active.count == 1 and words(found, "active units").grade == "good"


def test_a_part_that_fails_is_said_and_the_rest_is_kept() -> None:
    def model(y: torch.Tensor) -> None:
        if bool((y < 0).any()):
            raise RuntimeError("my check")
        with pyro.plate("rows", len(y)):
            u = pyro.sample("u", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(u, 1.0), obs=y)

    def guide(y: torch.Tensor) -> None:
        with pyro.plate("rows", len(y)):
            pyro.sample("u", dist.Normal(y / 2, 0.7))

    y = torch.randn(40, generator=torch.Generator().manual_seed(0)).abs()
    program = Program(model, guide)
    with pytest.warns(UserWarning, match="failed .RuntimeError: my check"):
        found = diagnose(program, y, num_samples=30, budget=float("inf"), progress=False)
    assert "my check" in found.left_out["calibration and typicality"]
    assert found.evidence is not None and found.posterior_check is not None
