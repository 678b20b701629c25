"""A model and a guide that you wrote in plain Pyro, trained and diagnosed.

Site names are your own; `Program` finds latents, data and plate in the traces. What it says of
the posterior is checked here: a regression with a latent cause whose evidence is known exactly.

    python examples/own_pyro_program.py
"""

import pyro
import pyro.distributions as dist
import torch
from torch import nn

from ppl_vae import Program, diagnose, fit, log_evidence

torch.manual_seed(0)
loading = torch.tensor([1.0, -2.0, 0.5])
encoder = nn.Linear(3, 2)


def model(measured):
    noise = pyro.param("noise", torch.tensor(1.0), constraint=dist.constraints.positive)
    with pyro.plate("patients", len(measured)):
        severity = pyro.sample("severity", dist.Normal(0.0, 1.0))
        mean = severity[..., None] * loading
        pyro.sample("symptoms", dist.Normal(mean, noise).to_event(1), obs=measured)


def guide(measured):
    pyro.module("encoder", encoder)
    with pyro.plate("patients", len(measured)):
        loc, raw = encoder(measured).unbind(-1)
        pyro.sample("severity", dist.Normal(loc, raw.exp()))


data = torch.randn(500, 1) * loading + 0.5 * torch.randn(500, 3)
program = Program(model, guide)
history, _ = fit(program, data, epochs=100, optimizer=(torch.optim.Adam, {"lr": 3e-2}), seed=0)
print(history)

noise = pyro.param("noise").item()
result = log_evidence(program, data, 1000, seed=0)
exact = dist.MultivariateNormal(
    torch.zeros(3), loading[:, None] * loading + noise**2 * torch.eye(3)
).log_prob(data)
print(f"noise {noise:.3f} (0.5 in truth)")
print(f"evidence {result.log_evidence.mean():.4f}, exact {exact.mean():.4f} nats per datum")

found = diagnose(program, data, name="severity", history=history, budget=10)
gap = found.terms.kl_posterior.mean()
print(f"KL(q || posterior) {gap:.4f} nats; share with k-hat above 0.5: ", end="")
print(f"{(found.evidence.khat > 0.5).mean():.1%}; latents {found.latents}")
