"""A linear VAE, trained by `fit`, is probabilistic PCA at its maximum likelihood."""

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles
from sklearn.decomposition import PCA

from ppl_vae import ELBO, MLP, VAE, Conditional, Normal, Shared, StandardNormal, fit
from ppl_vae.data import LinearGaussian


@pytest.mark.usefixtures("float64")
def test_a_linear_vae_reaches_the_maximum_likelihood_of_ppca():
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    x = rng.normal(size=(600, 6)) * np.sqrt([6.0, 3.0, 0.6, 0.5, 0.5, 0.4]) @ basis.T + 1.0
    pca = PCA(2).fit(x)
    eigenvalues = np.linalg.eigvalsh(np.cov(x.T))[::-1]
    assert eigenvalues[1] / eigenvalues[2] >= 2
    # pPCA's maximum likelihood has the covariance of 1/N, scikit-learn's that of 1/(N-1); the
    # likelihoods differ by less than 1e-5 nats per datum at N = 600.
    best = pca.score(x)

    vae = VAE(
        StandardNormal(2),
        Conditional(MLP(), Normal(6, scale=Shared(), min_scale=1e-6), given=2),
        Conditional(MLP(), Normal(2), given=6),
    )
    epochs = 150
    history, _ = fit(
        vae,
        x,
        objective=ELBO(analytic_kl=True),
        epochs=epochs,
        batch_size=100,
        optimizer=(torch.optim.Adam, {"lr": 2e-2}),
        schedule=(torch.optim.lr_scheduler.CosineAnnealingLR, {"T_max": epochs}),
        seed=0,
        progress=False,
    )
    linear = vae.decoder.net[0]
    with torch.no_grad():
        scale = vae.decoder(torch.zeros(1, 2)).stddev[0, 0]
    world = LinearGaussian(linear.weight.detach(), linear.bias.detach(), float(scale))
    reached = world.log_evidence(torch.tensor(x)).mean().item()
    angle = np.degrees(subspace_angles(world.weight.numpy(), pca.components_.T)[0])
    print(
        f"{best - reached:.4f} nats per datum below the maximum; largest angle {angle:.2f} degrees"
    )
    # The tolerances are the claim itself: training ends as near as the optimiser brings it.
    assert 0 <= best - reached + 1e-5 < 0.02
    assert angle < 5
    # The bound stays below the evidence of the decoder it belongs to (its noise: SE 0.1/sqrt(600)).
    assert history["elbo"][-1] < reached + 0.02
