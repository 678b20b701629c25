"""Swap the likelihood: the network is sized to fit the family.

The digits are counts of 0..16 dots. Binomial(16) is their likelihood; a Bernoulli wants them
binarised, and a Normal treats them as measurements. A mass and a density are not to be compared:
each program is judged by its own reconstructions instead.

    python examples/swap_likelihood.py
"""

import torch

from ppl_vae import (
    MLP,
    VAE,
    Bernoulli,
    Binomial,
    Conditional,
    Normal,
    Shared,
    StandardNormal,
    fit,
    posterior_predictive,
)
from ppl_vae.data import digits

x, _ = digits()
binary = (x > 8).astype(float)
LIKELIHOODS = {
    "Binomial, counts": (Binomial((8, 8), total=16), x),
    "Bernoulli, binarised": (Bernoulli((8, 8)), binary),
    "Normal, one learned scale": (Normal((8, 8), scale=Shared(), min_scale=0.5), x),
}

for name, (family, data) in LIKELIHOODS.items():
    torch.manual_seed(0)
    vae = VAE(
        StandardNormal(2),
        Conditional(MLP(64), family, given=2),  # the only line that differs
        Conditional(MLP(64), Normal(2), given=(8, 8)),
    )
    history, _ = fit(vae, data[:1500], epochs=20, seed=0, validation=0.1, progress=False)
    means = posterior_predictive(vae, data[1500:], 1, seed=0).means["x"][0]
    error = (means - torch.as_tensor(data[1500:]).float()).square().mean().sqrt().item()
    print(
        f"{name:26s} validation ELBO {history['validation_elbo'][-1]:8.2f} nats per datum, "
        f"held-out error {error:.2f} {'dots' if data is x else 'of 1'} per cell"
    )

try:  # a likelihood that is none: grey values under a Bernoulli
    vae = VAE(
        StandardNormal(2),
        Conditional(MLP(64), Bernoulli((8, 8)), given=2),
        Conditional(MLP(64), Normal(2), given=(8, 8)),
    )
    fit(vae, x / 16, epochs=1)
except ValueError as refusal:
    print("refused:", refusal)
