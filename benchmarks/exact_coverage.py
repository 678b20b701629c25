"""How often what is stated holds the truth, in worlds where the truth is known, in float64.

All through programs, 1000 runs a row, seeds fixed, no run left out:

- evidence: the 95 % interval of log p(x), of one datum of one world a run;
- PIT and ranks: the 95 % band of `prior_check` and `calibrate`, on the exact model and guide, of
  100 data a run. Counts are discrete, and so is the chance to stay in a band: `attainable` is it,
  summed up by a Markov chain of its own;
- regions: the 95 % regions of the exact guide, of highest density and central, from its ranks: a
  datum a run;
- gaps: the brackets of each datum. 1000 data in one call are 1000 runs, as draws and local steps
  of a datum are its own; the brackets of a mean are of 100 means of 10 data, and one of all;
- information: the brackets of 200 data, guides and draws in numpy, as `mutual_information` gives
  them to `information`; and of some tens of runs of the program itself.

Evidence, bands and regions must hold the truth in 93-97 %, gaps and information, which are
brackets, in 95 % or more; a full run that breaks this ends with an error. C2ST claims no truth. Ten
minutes on one core.

Usage: python benchmarks/exact_coverage.py [--quick]
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from numpy.typing import NDArray
from record import record
from scipy.optimize import minimize
from scipy.stats import binom, norm
from torch import Tensor

from ppl_vae import Program, log_weights
from ppl_vae.data import LinearGaussian
from ppl_vae.diagnostics import (
    Evidence,
    Information,
    Uniformity,
    evidence,
    information,
    log_mean_interval,
)
from ppl_vae.posterior import Gaps, calibrate, gaps, mutual_information, prior_check

LEVEL, RUNS, QUICK_RUNS = 0.95, 1000, 20
DATA, DRAWS = 100, 39  # of a test of ranks
CODES = 200  # data behind one bracket of the information
PROGRAM_RUNS = 40  # of `mutual_information` in each of nine worlds
MEANS = 10  # data behind one mean gap
SLACK = 1e-9  # nats: rounding, where truth and end are both 0
PAIR = torch.tensor([[2.0, 2.0], [0.0, 0.5]]).double()  # a decoder: z given x has correlation −0.8

CONTAINED, BRACKETED = (0.93, 0.97), (0.95, 1.0)
Row = dict[str, Any]
Floats = NDArray[np.float64]


def row(section: str, of: str, held: Any, must: tuple[float, float] | None, **more: Any) -> Row:
    """One line of the table: the share that held the truth, with its binomial error."""
    share, runs = float(np.mean(held)), len(held)
    line = {
        "section": section,
        "of": of,
        "held": round(share, 4),
        "error": round(math.sqrt(max(share * (1 - share), 1e-4) / runs), 4),
        "runs": runs,
        "must": list(must) if must else None,
        **more,
    }
    wanted = f"of {must[0]} to {must[1]}" if must else ""
    print(f"{section:20s} {of:55s} {share:.4f} ± {line['error']:.4f} {wanted}", flush=True)
    return line


def evidences(runs: int) -> Iterator[Row]:
    """A world, a datum and a guide's draws of their own in each run."""
    guides = {"scale 1.2": (1.2, 0.0), "scale 1.5": (1.5, 0.0), "shift 0.5": (1.0, 0.5)}
    for latent, draws in ((2, 400), (4, 1000), (8, 2000)):
        for name, (scale, shift) in guides.items():
            held, stated, held_of_stated = [], [], []
            for run in range(runs):
                world = LinearGaussian.random(latent, latent + 2, seed=3 * run)
                x, _ = world.sample(1, seed=3 * run + 1)
                program = Program(world.model, world.broken_guide(scale, shift))
                weights = log_weights(program, x, draws, seed=3 * run + 2).numpy()
                low, high = log_mean_interval(weights, LEVEL)
                truth = world.log_evidence(x).numpy()
                held.append(bool(low[0] <= truth[0] <= high[0]))
                found = evidence(weights, level=LEVEL)
                stated.append(bool(found.quantified[0]))
                if stated[-1]:
                    held_of_stated.append(bool(found.lower[0] <= truth[0] <= found.upper[0]))
            yield row(
                "evidence",
                f"D = {latent}, S = {draws}, {name}",
                held,
                CONTAINED,
                stated=round(float(np.mean(stated)), 4),
                held_of_stated=round(float(np.mean(held_of_stated)), 4),
            )


def attainable(found: Uniformity) -> float:
    """The chance that uniform values stay in the band, by the Markov chain of their counts."""
    n = found.num_data
    counts = np.arange(n + 1)
    mass, before = (counts == 0).astype(float), 0.0
    for t, low, high in zip(found.points, found.low, found.high, strict=True):
        share = (t - before) / (1 - before)
        step = binom.pmf(counts[:, None] - counts, n - counts, share)  # to, from
        mass = np.nan_to_num(step) @ mass
        mass[(counts < round(low * n)) | (counts > round(high * n))] = 0
        before = t
    return float(mass.sum())


def inside(found: Uniformity) -> bool:
    return bool(((found.low <= found.ecdf) & (found.ecdf <= found.high)).all())


def count_model(x: Tensor) -> Tensor:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(1).double(), 1.0).to_event(1))
        rate = (0.3 + 0.5 * z).exp().expand(-1, 3)
        return pyro.sample("x", dist.Poisson(rate).to_event(1), obs=x)


def count_guide(x: Tensor) -> Tensor:
    with pyro.plate("data", len(x)):
        return pyro.sample("z", dist.Normal(x[:, :1].log1p(), 1.0).to_event(1))


def counts(number: int, seed: int) -> Tensor:
    """Draw from `count_model`, by numpy alone."""
    rng = np.random.default_rng(seed)
    rate = np.exp(0.3 + 0.5 * rng.standard_normal((number, 1)))
    return torch.from_numpy(rng.poisson(rate, (number, 3)).astype(float))


def pits(runs: int) -> Iterator[Row]:
    """The band of one discrepancy, of data that have the law of the model."""
    world = LinearGaussian.random(2, 4, seed=0)
    linear, poisson = Program(world.model, world.guide), Program(count_model, count_guide)
    cells: dict[str, tuple[Program, Callable[[int], Tensor], Callable[[Floats], Floats]]] = {
        "Normal, a cell": (linear, lambda s: world.sample(DATA, seed=s)[0], lambda x: x[:, 0]),
        "Normal, the largest": (
            linear,
            lambda s: world.sample(DATA, seed=s)[0],
            lambda x: x.max(axis=1),
        ),
        "Poisson, a cell": (poisson, lambda s: counts(DATA, s), lambda x: x[:, 0]),
        "Poisson, the share of 0": (
            poisson,
            lambda s: counts(DATA, s),
            lambda x: (x == 0).mean(axis=1),
        ),
    }
    for name, (program, sample, function) in cells.items():
        found = []
        for k in range(runs):
            x, chosen = sample(2 * k), {"T": function}
            seed = 2 * k + 1
            checked = prior_check(program, x, chosen, num_draws=DRAWS, level=LEVEL, seed=seed)
            found.append(checked.tests["T"])
        yield row(
            "PIT",
            name,
            [inside(f) for f in found],
            CONTAINED,
            attainable=round(attainable(found[0]), 4),
        )


def coverages(runs: int) -> Iterator[Row]:
    """Ranks of log q(z|x) under the exact guide, and regions of its draws."""
    for latent in (2, 4):
        world = LinearGaussian.random(latent, latent + 2, seed=latent)
        x, _ = world.sample(3, seed=1)
        program = Program(world.model, world.guide)
        found = [
            calibrate(program, x, num_data=DATA, num_draws=DRAWS, level=LEVEL, seed=10 * k).tests[
                "log q(z|x)"
            ]
            for k in range(runs)
        ]
        yield row(
            "ranks of log q(z|x)",
            f"D = {latent}",
            [inside(f) for f in found],
            CONTAINED,
            attainable=round(attainable(found[0]), 4),
        )
        # Of 39 draws the regions between the k-th of them have a coverage of k/40 exactly.
        tests = calibrate(program, x, num_data=runs, num_draws=DRAWS, seed=1).tests
        score = tests["log q(z|x)"]
        dense = 1 - score.ecdf[score.points.searchsorted(0.05)]
        yield row("regions", f"D = {latent}, highest density", held_by(dense, runs), CONTAINED)
        for unit in range(latent):
            z = tests[f"z[{unit}]"]
            low, high = z.ecdf[z.points.searchsorted([0.025, 0.975 - 1e-9])]
            yield row(
                "regions", f"D = {latent}, z[{unit}] central", held_by(high - low, runs), CONTAINED
            )


def held_by(share: float, runs: int) -> NDArray[np.bool_]:
    return np.arange(runs) < round(share * runs)


class Split(NamedTuple):
    """A program and data of which the gaps are known."""

    program: Program
    x: Tensor
    amortisation: Floats
    correlation: Floats
    remainder: Floats


def linear_split(latent: int, rows: int, scale: float, shift: float, *, orthogonal: bool) -> Split:
    """Independent coordinates, `scale` times as wide as the best of them, `shift` of its sd off.

    The best independent Normal has p(z|x)'s mean and the variances 1 / Λ_dd (Bishop 2006, eq.
    10.12); its KL is (Σ log Λ_dd − log |Λ|) / 2 for every x. Without correlations it is exact.
    """
    weight = torch.block_diag(*[PAIR] * (latent // 2))
    if orthogonal:
        weight = torch.linalg.qr(weight)[0]
    world = LinearGaussian(weight, weight.new_zeros(latent), 1.0)
    x, _ = world.sample(rows, seed=1)
    precision = world.posterior(x).precision_matrix[0]
    sd = precision.diagonal() ** -0.5

    def guide(x: Tensor) -> Tensor:
        loc = world.posterior(x).loc + shift * sd
        with pyro.plate("data", len(x)):
            return pyro.sample("z", dist.Normal(loc, scale * sd).to_event(1))

    own = latent * (scale**2 - 1 - 2 * math.log(scale)) / 2  # of the scales, and then of the means:
    own += float(0.5 * shift**2 * sd @ precision @ sd)
    best = float(0.5 * (precision.diagonal().log().sum() - precision.logdet()))
    one = np.ones(rows)
    return Split(Program(world.model, guide), x, own * one, best * one, 0 * one)


def count_split(rows: int) -> Split:
    """x ~ Poisson(e^z), z ~ N(0, 1), twice in each datum: p(z|x) is skewed, and no Normal is it.

    ELBO(N(m, s²)) = x m − e^(m + s²/2) − log x! − KL(N(m, s²) ‖ N(0, 1)) is concave in (m, s).
    """

    def model(x: Tensor) -> Tensor:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2).double(), 1.0).to_event(1))
            return pyro.sample("x", dist.Poisson(z.exp()).to_event(1), obs=x)

    def guide(x: Tensor) -> Tensor:
        with pyro.plate("data", len(x)):
            return pyro.sample("z", dist.Normal(0.7 * x.log1p(), 0.8).to_event(1))

    rng = np.random.default_rng(3)
    x = rng.poisson(np.exp(rng.standard_normal((rows, 2))))
    kinds = np.arange(x.max() + 1)
    grid = np.linspace(-12, 12, 24_001)
    factorials = np.array([math.lgamma(k + 1) for k in kinds])
    log_joint = kinds[:, None] * grid - np.exp(grid) - factorials[:, None] + norm.logpdf(grid)
    log_p = np.log(np.exp(log_joint).sum(1) * (grid[1] - grid[0]))

    def negative(at: Floats, k: float) -> float:
        m, log_s = at
        s2 = math.exp(2 * log_s)
        return math.exp(m + s2 / 2) - k * m + 0.5 * (s2 + m**2 - 1) - log_s + math.lgamma(k + 1)

    def best(k: float) -> float:
        start = [0.7 * math.log1p(k), -0.5]
        return -float(minimize(negative, start, args=(k,), method="BFGS", tol=1e-10).fun)

    top = np.array([best(float(k)) for k in kinds])
    own = np.array([-negative(np.array([0.7 * math.log1p(k), math.log(0.8)]), k) for k in kinds])
    # Coordinates are independent given x: correlations gain nothing.
    a, r = ((values[x]).sum(1) for values in (top - own, log_p - top))
    return Split(Program(model, guide), torch.from_numpy(x.astype(float)), a, 0 * a, r)


def splits(runs: int) -> Iterator[Row]:
    """The brackets of the data of one call, alone and in means."""
    cells = {
        "D = 2, half as wide, shifted": (linear_split(2, runs, 0.5, 0.3, orthogonal=False), 500),
        "the same, 25 steps": (linear_split(2, runs, 0.5, 0.3, orthogonal=False), 25),
        "D = 4, 1.3 times as wide": (linear_split(4, runs, 1.3, 0.0, orthogonal=False), 500),
        "D = 4, the best of its family": (linear_split(4, runs, 1.0, 0.0, orthogonal=False), 500),
        "D = 2, no correlation, shifted": (linear_split(2, runs, 1.0, 0.5, orthogonal=True), 500),
        "Poisson counts, D = 2": (count_split(runs), 500),
    }
    whole = []
    for name, (world, steps) in cells.items():
        few = min(steps, 20) if runs < RUNS else steps
        found = gaps(world.program, world.x, steps=few, seed=5, level=LEVEL, progress=False)
        truths = {
            "amortisation": world.amortisation,
            "approximation": world.correlation + world.remainder,
            "correlation": world.correlation,
            "remainder": world.remainder,
        }
        groups = np.arange(runs // MEANS * MEANS).reshape(-1, MEANS)
        means = [part(found, rows).mean_brackets._asdict() for rows in groups]
        alone = {n: holds(b, truths[n]) for n, b in found.brackets._asdict().items()}
        estimate = float(np.abs(found.amortisation - world.amortisation).mean())
        for kind, truth in truths.items():
            low, high = found.brackets._asdict()[kind]
            width = float(np.mean(high - low))
            yield row(
                "gaps",
                f"{name}: {kind}",
                alone[kind],
                BRACKETED,
                truth=round(float(truth.mean()), 3),
                width=round(width, 3) if math.isfinite(width) else None,
            )
            held = [
                bool(holds(b[kind], truth[rows].mean()))
                for b, rows in zip(means, groups, strict=True)
            ]
            yield row("gaps, means", f"{name}: {kind}", held, BRACKETED)
            whole.append(bool(holds(found.mean_brackets._asdict()[kind], truth.mean())))
        yield row(
            "gaps",
            f"{name}: all at once",
            np.all([*alone.values()], axis=0),
            BRACKETED,
            error_of_amortisation=round(estimate, 4),
            quantified=round(float(found.evidence.quantified.mean()), 4),
        )
    yield row("gaps, means", "of all data, any kind, in any world", whole, BRACKETED)


def part(found: Gaps, rows: NDArray[np.int64]) -> Gaps:
    own = found.evidence
    some = Evidence(*(v[rows] if isinstance(v, np.ndarray) else v for v in own))
    elbo, se = found.elbo[:, rows], found.elbo_se[:, rows]
    return Gaps(elbo, se, some, found.ceiling[rows], found.level)


def holds(bracket: tuple[Any, Any], truth: Any) -> Any:  # noqa: ANN401
    low, high = bracket
    return (low <= truth + SLACK) & (truth - SLACK <= high)


class Codes:
    """q(z|x) = N(A x + shift, scale² C) where p(z|x) = N(A x, C): q(z) is a Normal, too."""

    def __init__(self, latent: int, strength: float, scale: float, shift: float) -> None:
        world = LinearGaussian.random(latent, latent + 2, seed=latent)
        self.world = LinearGaussian(strength * world.weight, 0 * world.bias, 0.5)
        weight = self.world.weight.numpy()
        covariance = np.linalg.inv(np.eye(latent) + weight.T @ weight / 0.25)
        self.slope = covariance @ weight.T / 0.25
        self.factor = scale * np.linalg.cholesky(covariance)
        self.shift = shift
        spread = weight @ weight.T + 0.25 * np.eye(latent + 2)
        own = self.factor @ self.factor.T
        codes = self.slope @ spread @ self.slope.T + own
        log_det = np.linalg.slogdet(codes)[1]
        self.information = 0.5 * (log_det - np.linalg.slogdet(own)[1])
        self.marginal_kl = 0.5 * (np.trace(codes) + latent * shift**2 - latent - log_det)

    def run(self, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """log q(z_i|x_j) and log p(z_i)."""
        latent = len(self.factor)
        weight = self.world.weight.numpy()
        z = rng.standard_normal((CODES, latent))
        x = z @ weight.T + 0.5 * rng.standard_normal((CODES, len(weight)))
        loc = x @ self.slope.T + self.shift
        draws = loc + rng.standard_normal((CODES, latent)) @ self.factor.T
        white, centre = (np.linalg.solve(self.factor, v.T).T for v in (draws, loc))
        log_q = norm.logpdf(0) * latent - np.log(np.diag(self.factor)).sum()
        log_q = log_q - 0.5 * np.square(white[:, None] - centre).sum(-1)
        return log_q, norm.logpdf(draws).sum(1)

    def program(self) -> Program:
        """The same as Pyro functions."""
        world, slope = self.world, torch.from_numpy(self.slope)
        factor = torch.from_numpy(self.factor)

        def guide(x: Tensor) -> Tensor:
            loc = x @ slope.T + self.shift
            with pyro.plate("data", len(x)):
                return pyro.sample("z", dist.MultivariateNormal(loc, scale_tril=factor))

        return Program(world.model, guide)


def informations(runs: int) -> Iterator[Row]:
    """Both brackets, from arrays and through programs."""
    through: list[bool] = []
    guides = {
        "exact": (1.0, 0.0),
        "scale 1.5": (1.5, 0.0),
        "scale 0.5": (0.5, 0.0),
        "shift 0.5": (1.0, 0.5),
    }
    for latent in (1, 2, 4):
        for strength in (0.1, 0.5):
            for k, (name, guide) in enumerate(guides.items()):
                codes = Codes(latent, strength, *guide)
                rng = np.random.default_rng([latent, int(10 * strength), k])
                found = [information(*codes.run(rng), level=LEVEL) for _ in range(runs)]
                of = f"D = {latent}, decoder × {strength}, {name}"
                yield from informed(of, codes, found)
                if strength == 0.5 and name != "shift 0.5":
                    program = codes.program()
                    for run in range(min(runs, PROGRAM_RUNS)):
                        x, _ = codes.world.sample(DATA, seed=2 * run)
                        got = mutual_information(program, x, seed=2 * run + 1)
                        through.append(holds(got.bracket, codes.information))
                        through.append(holds(got.marginal_kl_bracket, codes.marginal_kl))
    yield row("information", "both, of programs in nine of these worlds", through, BRACKETED)


def informed(of: str, codes: Codes, found: list[Information]) -> Iterator[Row]:
    held = {
        "I(x; z)": [bool(holds(f.bracket, codes.information)) for f in found],
        "KL(q(z) ‖ p(z))": [bool(holds(f.marginal_kl_bracket, codes.marginal_kl)) for f in found],
    }
    truths = (codes.information, codes.marginal_kl)
    for (kind, values), truth in zip(held.items(), truths, strict=True):
        yield row("information", f"{of}: {kind}", values, BRACKETED, truth=round(float(truth), 3))
    both = np.all([*held.values()], axis=0)
    yield row("information, both", of, both, None)


SECTIONS = (evidences, pits, coverages, splits, informations)


def main() -> None:
    """Run every section, write the table down, and say what is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="20 runs a row, and nothing is asked")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)  # what is computed is small
    started = time.perf_counter()
    rows = [line for section in SECTIONS for line in section(QUICK_RUNS if quick else RUNS)]
    broken = [
        f"{r['section']}, {r['of']}: {r['held']}"
        for r in rows
        if r["must"] and not quick and not r["must"][0] <= r["held"] <= r["must"][1]
    ]
    sections = dict.fromkeys(r["section"] for r in rows)
    figures = {
        "level": LEVEL,
        "processor_s": round(time.process_time(), 1),
        "broken": "; ".join(broken) or "none",
        "smallest_and_largest_share": {
            s: [f(r["held"] for r in rows if r["section"] == s) for f in (min, max)]
            for s in sections
        },
        "rows": rows,
    }
    record(__file__, figures, seed=0, started=started, quick=quick)
    if broken:
        raise SystemExit(f"Outside of what is promised: {'; '.join(broken)}")


if __name__ == "__main__":
    main()
