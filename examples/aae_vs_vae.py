"""The same program under two objectives: a VAE and an adversarial autoencoder.

The AAE's encoder is not trained towards the posterior, so neither program is judged by its own
encoder: both get the same freshly fitted guide, with the decoder frozen.

    python examples/aae_vs_vae.py
"""

import torch

from ppl_vae import (
    ELBO,
    MLP,
    VAE,
    Adversarial,
    Binomial,
    Conditional,
    Normal,
    StandardNormal,
    diagnose,
    fit,
    refit_guide,
)
from ppl_vae.data import digits

x, _ = digits()
train, held_out = x[:1400], x[1400:]

for objective in (ELBO(), Adversarial()):  # the only line that differs
    torch.manual_seed(0)
    program = VAE(
        StandardNormal(2),
        Conditional(MLP(64), Binomial((8, 8), total=16), given=2),
        Conditional(MLP(64), Normal(2), given=(8, 8)),
    )
    name = "VAE" if isinstance(objective, ELBO) else "AAE"
    history, _ = fit(program, train, objective=objective, epochs=30, seed=0, progress=False)
    fresh = refit_guide(program, held_out, epochs=60, progress=False)
    found = diagnose(
        program, held_out, name=name, history=history, fresh=fresh, num_samples=300, budget=10
    )
    print(f"\n{name}: {', '.join(f'{line.role} {line.family}' for line in found.lines)}")
    print(f"  held-out evidence, own guide   at least {found.evidence.log_evidence.mean():8.2f}")
    bound = found.fresh_evidence.log_evidence.mean()
    print(f"  held-out evidence, fresh guide at least {bound:8.2f} nats per datum")
    mmd, classifier = found.match.mmd, found.match.classifier
    print(f"  squared MMD of q(z) and p(z) {mmd.mmd2:.4f} (equal: {mmd.null_mean:.4f})")
    print(f"  a classifier tells them apart with accuracy {classifier.accuracy:.3f}")
    print(found)  # every finding: value, error, effect, what to conclude, what to try
