"""Draw docs/images/priors.svg, likelihoods.svg and guides.svg: the pieces, as pictures."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

import ppl_vae as pv
from ppl_vae.data import swiss_roll
from ppl_vae.plots.style import DATA, GUIDE, PRIOR

IMAGES = Path(__file__).parent / "images"
DRAWS = 1500

mpl.rcParams |= {"svg.hashsalt": "ppl_vae", "font.size": 8, "axes.titlesize": 8.5}


def sheet(rows: int, columns: int, height: float) -> tuple[Figure, list[Axes]]:
    """A white sheet of small pictures."""
    figure = Figure(figsize=(7.6, height * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns).flat)
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(length=2, labelsize=7)
    return figure, axes


def save(figure: Figure, name: str) -> None:
    """Write a picture that is the same every time."""
    path = IMAGES / f"{name}.svg"
    figure.savefig(path, metadata={"Date": None})
    print(path)


def priors() -> None:
    """Draws of each prior in two dimensions."""
    torch.manual_seed(0)
    angle = torch.arange(10) * 2 * math.pi / 10
    ring = 2.5 * torch.stack([angle.cos(), angle.sin()], -1)
    encoder = pv.Conditional(pv.MLP(16), pv.Normal(2), given=6)
    with torch.no_grad():
        encoder.net[2].weight[:2] *= 5
        encoder.net[2].weight[2:] *= 2
        encoder.net[2].bias[2:] -= 1.5
    flow = pv.FlowPrior(2)
    _learn(flow, lambda n: _moons(n))
    given_c = _Line()
    shown: list[tuple[str, nn.Module, tuple[Tensor, ...]]] = [
        ("StandardNormal(2)", pv.StandardNormal(2), ()),
        ("mixture, a ring", pv.GaussianMixture(ring, scale=0.25), ()),
        ("mixture, learned", pv.GaussianMixture(
            1.5 * torch.randn(5, 2), scale=0.2 + 0.6 * torch.rand(5, 2), learned=True), ()),
        ("VampPrior", pv.VampPrior(torch.randn(12, 6), encoder), ()),
        ("FlowPrior, learned", flow, ()),
        ("StudentTPrior, df = 3", pv.StudentTPrior(2, df=3.0), ()),
        ("UniformBox", pv.UniformBox(2, low=-2.0, high=2.0), ()),
        ("p(z|c), c in colour", given_c, (torch.arange(DRAWS)[:, None] % 3 - 1.0,)),
        ("SampledPrior(swiss_roll)", pv.SampledPrior(swiss_roll, 2), ()),
    ]  # fmt: skip
    figure, axes = sheet(2, 5, 1.6)
    axes[-1].remove()
    for ax, (title, prior, context) in zip(axes, shown, strict=False):
        with torch.no_grad():
            d = prior(*context)
            z = d.sample(() if context else (DRAWS,)).numpy()
        colours = np.array([GUIDE, DATA, "#D55E00"])[np.arange(DRAWS) % 3] if context else PRIOR
        ax.scatter(z[:, 0], z[:, 1], s=2, c=colours, alpha=0.6, linewidths=0, rasterized=True)
        ax.set_title(title)
        reach = max(4.0, float(np.quantile(np.abs(z), 0.995)))
        ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    save(figure, "priors")


class _Line(nn.Module):
    """p(z|c) = N(2c, ½²)."""

    inputs = ("c",)
    event_shape = torch.Size([2])

    def forward(self, c: Tensor) -> torch.distributions.Distribution:
        loc = torch.cat([2 * c, c.square() - 0.5], -1)
        return torch.distributions.Normal(loc, 0.5)


def _moons(n: int) -> Tensor:
    from sklearn.datasets import make_moons

    x, _ = make_moons(n, noise=0.08, random_state=0)
    return torch.as_tensor(2 * (x - [0.5, 0.25]), dtype=torch.float32)


def _learn(prior: nn.Module, draw: Callable[[int], Tensor]) -> None:
    """Fit a density by maximum likelihood."""
    x = draw(4000)
    adam = torch.optim.Adam(prior.parameters(), lr=3e-3)
    for _ in range(500):
        loss = -prior().log_prob(x[torch.randint(len(x), (256,))]).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()


def likelihoods() -> None:
    """One cell of each family."""
    one = torch.tensor
    reals, unit = np.linspace(-5, 5, 400), np.linspace(1e-3, 1 - 1e-3, 300)
    positive = np.linspace(1e-2, 6, 300)
    counts, few = np.arange(16.0), np.arange(6.0)
    shown: list[tuple[str, pv.Family, dict[str, list[float]], np.ndarray, bool]] = [
        ("Bernoulli", pv.Bernoulli(()), {"logits": [-0.8, 1.0]}, np.arange(2.0), True),
        ("Binomial, total 15", pv.Binomial((), total=15), {"logits": [-1.0, 1.0]}, counts, True),
        ("Poisson", pv.Poisson(()), {"log_rate": [0.5, 1.8]}, counts, True),
        ("NegativeBinomial", pv.NegativeBinomial((), dispersion=1.5),
         {"log_mean": [0.5, 1.8]}, counts, True),
        ("ZeroInflated…", pv.ZeroInflatedNegativeBinomial((), dispersion=5.0),
         {"log_mean": [1.0, 2.0], "gate": [-0.5, -0.5]}, counts, True),
        ("Normal", pv.Normal(()), {"loc": [-1.0, 1.5], "scale": [0.5, 0.0]}, reals, False),
        ("StudentT, df 2", pv.StudentT((), df=2.0),
         {"loc": [-1.0, 1.5], "scale": [0.5, 0.0]}, reals, False),
        ("LogNormal", pv.LogNormal(()), {"loc": [0.0, 0.8], "scale": [0.0, -1.0]}, positive, False),
        ("ContinuousBernoulli", pv.ContinuousBernoulli(()), {"logits": [-2.0, 4.0]}, unit, False),
        ("Categorical, 6 classes", pv.Categorical((), classes=6),
         {"logits": [[0.0, 1.0, -1.0, 0.5, 1.2, -0.5], [1.5, 0, 0, -1, 0, 1]]}, few, True),
        ("Ordinal, 6 classes", pv.Ordinal((), classes=6), {"loc": [-1.0, 1.2]}, few, True),
        ("DiscretisedLogistic, 16", pv.DiscretisedLogistic((), levels=16),
         {"loc": [-0.5, 0.6], "scale": [-2.0, -2.0]}, counts, True),
    ]  # fmt: skip
    figure, axes = sheet(3, 4, 1.45)
    for ax, (title, family, raw, x, mass) in zip(axes, shown, strict=True):
        for k, colour in enumerate((PRIOR, GUIDE)):
            d = family(**{n: one(v[k]) for n, v in raw.items()}, **family.shared)
            p = d.log_prob(one(x, dtype=torch.float32)).exp().numpy()
            if mass:
                ax.bar(x + 0.4 * k - 0.2, p, width=0.4, color=colour, linewidth=0)
            else:
                ax.plot(x, p, color=colour)
        ax.set_title(title)
        ax.set_ylim(bottom=0)
        if title == "Bernoulli":
            ax.set_xticks([0, 1])
        ax.set_yticks([])
    save(figure, "likelihoods")


def guides() -> None:
    """One bent posterior, and what each guide makes of it."""
    noise, datum = 0.4, torch.tensor([[-1.5]])

    class Bent(nn.Module):
        """x ~ N(z₂ − z₁², noise²)."""

        event_shape = torch.Size([1])

        def forward(self, z: Tensor) -> torch.distributions.Distribution:
            import pyro.distributions as dist

            return dist.Normal(z[..., 1:] - z[..., :1] ** 2, noise).to_event(1)

    encoders: dict[str, Callable[[], nn.Module]] = {
        "Normal": lambda: pv.Conditional(pv.MLP(8), pv.Normal(2), given=1),
        "MultivariateNormal": lambda: pv.Conditional(pv.MLP(8), pv.MultivariateNormal(2), given=1),
        "ConditionalFlow": lambda: pv.ConditionalFlow(pv.MLP(8), 2, given=1),
    }
    side = torch.linspace(-3, 3, 120)
    grid = torch.stack(torch.meshgrid(side, side, indexing="xy"), -1).reshape(-1, 2)
    prior, decoder = pv.StandardNormal(2), Bent()
    log_p = prior().log_prob(grid) + decoder(grid).log_prob(datum.expand(len(grid), 1))
    cell = float(side[1] - side[0]) ** 2
    log_p = log_p - torch.logsumexp(log_p, 0) - math.log(cell)
    figure, axes = sheet(1, 4, 2.05)
    surfaces = [("the posterior p(z|x)", log_p, None)]
    for title, build in encoders.items():
        torch.manual_seed(0)
        vae = pv.VAE(prior, decoder, build())
        x = datum.expand(64, 1) + 0.05 * torch.randn(64, 1)
        pv.fit(vae, x, epochs=1500, batch_size=64, seed=0, progress=False, compile=False,
               optimizer=(torch.optim.Adam, {"lr": 5e-3}))  # fmt: skip
        with torch.no_grad():
            log_q = vae.posterior(datum).log_prob(grid[:, None])[:, 0]
        gap = float((log_q.exp() * (log_q - log_p)).nansum()) * cell
        surfaces.append((title, log_q, gap))
    for ax, (title, log_density, gap) in zip(axes, surfaces, strict=True):
        density = log_density.exp().reshape(120, 120).numpy()
        truth = log_p.exp().reshape(120, 120).numpy()
        levels = truth.max() * np.array([0.05, 0.25, 0.5, 0.75])
        ax.contour(side, side, truth, levels, colors=DATA, linewidths=0.8)
        if gap is not None:
            own = density.max() * np.array([0.05, 0.25, 0.5, 0.75])
            ax.contour(side, side, density, own, colors=GUIDE, linewidths=1.2)
            ax.text(0.03, 0.03, f"KL = {gap:.2f} nats", transform=ax.transAxes, fontsize=7.5)
        ax.set_title(title)
        ax.set_aspect("equal")
    save(figure, "guides")


if __name__ == "__main__":
    priors()
    likelihoods()
    guides()
