"""Swap the prior: one argument, and everything downstream follows.

Three priors for the same decoder and encoder on scikit-learn's digits. The evidence of held-out
digits says which one serves the data, with its error over data.

    python examples/swap_prior.py
"""

import torch

from ppl_vae import (
    MLP,
    VAE,
    Binomial,
    Conditional,
    GaussianMixture,
    Normal,
    StandardNormal,
    compare,
    elpd,
    fit,
    refit_guide,
)
from ppl_vae.data import digits

x, _ = digits()
train, held_out = x[:1500], x[1500:]
angle = torch.arange(10) * 2 * torch.pi / 10

PRIORS = {
    "standard normal": lambda: StandardNormal(2),
    "ring of ten, fixed": lambda: GaussianMixture(
        3 * torch.stack([angle.cos(), angle.sin()], -1), scale=0.5
    ),
    "mixture of ten, learned": lambda: GaussianMixture(2 * torch.randn(10, 2), learned=True),
}

scores = {}
for name, prior in PRIORS.items():
    torch.manual_seed(0)
    vae = VAE(
        prior(),  # the only line that differs
        Conditional(MLP(64), Binomial((8, 8), total=16), given=2),
        Conditional(MLP(64), Normal(2), given=(8, 8)),
    )
    fit(vae, train, epochs=20, seed=0, progress=False)
    fresh = refit_guide(vae, held_out, epochs=40, progress=False)  # the same guide for all three
    scores[name] = elpd(fresh, held_out, 200, seed=0)
    per_datum = scores[name].elpd / len(held_out)
    print(f"{name:24s} held-out evidence at least {per_datum:8.2f} nats per datum")

print(compare(scores)[["rank", "elpd", "mc_se", "bias", "elpd_diff", "dse"]].round(1).to_string())
