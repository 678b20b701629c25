"""Labels in an adversarial autoencoder: told to the decoder, z is left with the style.

The supervised form of Makhzani et al. 2015 (arXiv:1511.05644, section 4). The decoder is given the
label beside z, and the critic holds z to a prior that knows of no label: what a label says need not
be in z, and what is in z need not be a label. A linear classifier says how much of the label z
still has.

    python examples/aae_labels.py
"""

import torch
from sklearn.linear_model import LogisticRegression

from ppl_vae import (
    MLP,
    VAE,
    Adversarial,
    Binomial,
    Conditional,
    Normal,
    StandardNormal,
    aggregate_match,
    fit,
    posterior_predictive,
)
from ppl_vae.data import digits

x, labels = digits()
label = torch.eye(10)[torch.as_tensor(labels).long()]

for told in (False, True):
    torch.manual_seed(0)
    given = {"z": 4, "label": 10} if told else {"z": 4}
    aae = VAE(
        StandardNormal(4),
        Conditional(MLP(128), Binomial((8, 8), total=16), given=given),
        Conditional(MLP(128), Normal(4), given={"x": (8, 8)}),
    )
    data = {"x": x, "label": label} if told else {"x": x}
    train = {k: v[:1400] for k, v in data.items()}
    held_out = {k: v[1400:] for k, v in data.items()}
    history, _ = fit(
        aae, train, objective=Adversarial(weight=50.0), epochs=40, seed=0, progress=False
    )
    codes, others = (
        posterior_predictive(aae, rows, 1, seed=0).latents["z"][0] for rows in (train, held_out)
    )
    linear = LogisticRegression(max_iter=1000).fit(codes, labels[:1400])
    print(
        f"decoder {'told' if told else 'not told'} the label: reconstruction "
        f"{history['reconstruction'][-1]:.1f} nats, z says the label in "
        f"{linear.score(others, labels[1400:]):.0%}"
    )
    print(f"  {aggregate_match(aae, held_out)}")
