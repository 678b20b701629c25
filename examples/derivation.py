"""The derivation behind every VAE, evaluated: each line as two numbers that must be equal.

The latent z has one dimension, x is four bits, the decoder is small: here every integral can be
had. The two sides of a line take different roads to their number: the adaptive `quadrature` of
the library, a plain sum on a fixed lattice, Gauss-Hermite nodes under p(z) or under q(z|x), a
closed form, or Pyro. Run ``python examples/derivation.py``; it fails if a line is off by 1e-8.
"""

import itertools
import math
import sys

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine

from ppl_vae.data import quadrature

torch.set_default_dtype(torch.float64)
x = torch.tensor([1.0, 0.0, 1.0, 0.0])
LEVEL, SLOPE = torch.tensor([0.3, -0.2, -1.0, 0.6]), torch.tensor([1.5, -1.0, 0.8, 0.5])
LOC, SCALE = torch.tensor(0.4, requires_grad=True), torch.tensor(0.8, requires_grad=True)


def prior():  # p(z)
    return dist.Normal(torch.zeros(1), 1.0).to_event(1)


def decoder(z):  # p(x|z)
    return dist.Bernoulli(logits=LEVEL + SLOPE * (z + torch.sin(z)) / 2).to_event(1)


def guide(x):  # q(z|x), deliberately not the posterior
    return dist.Normal(LOC.expand(*x.shape[:-1], 1), SCALE).to_event(1)


def model(x):
    return pyro.sample("x", decoder(pyro.sample("z", prior())), obs=x)


def log_joint(z):
    return prior().log_prob(z) + decoder(z).log_prob(x)


def integral(values):  # ∫ dz, by a sum over the lattice
    return values.sum() * (LATTICE[1, 0] - LATTICE[0, 0])


def under(loc, scale, f):  # E f(loc + scale ε) with ε ~ N(0, 1), by Gauss-Hermite
    return WEIGHTS @ f(loc + scale * NODES[:, None])


def line(text, left, right):
    left, right = (float(torch.as_tensor(side).detach()) for side in (left, right))
    worst.append(abs(left - right))
    print(f"  {text:<54}{round(left, 10) + 0:>14.10f}{right:>15.10f}  {worst[-1]:.0e}")


worst = []
LATTICE = torch.linspace(-12, 12, 4001)[:, None]
NODES, WEIGHTS = map(torch.as_tensor, np.polynomial.hermite_e.hermegauss(100))
WEIGHTS = WEIGHTS / WEIGHTS.sum()
q, bits = guide(x), torch.tensor(list(itertools.product([0.0, 1.0], repeat=4)))
exact, every = quadrature(prior(), decoder, x[None], guide), quadrature(prior(), decoder, bits)
log_p = under(0, 1, lambda z: decoder(z).log_prob(x).exp()).log()  # log p(x)
log_posterior = log_joint(LATTICE) - integral(log_joint(LATTICE).exp()).log()  # log p(z|x)
q_lattice = q.log_prob(LATTICE).exp()
gap = integral(q_lattice * (q.log_prob(LATTICE) - log_posterior))  # KL(q‖p(z|x))

print(f"1. The joint: a prior, and a likelihood given z{'left':>23}{'right':>15}  difference")
z = torch.tensor([0.7])
trace = poutine.trace(poutine.condition(model, {"z": z})).get_trace(x)
logits = LEVEL + SLOPE * (0.7 + math.sin(0.7)) / 2
log_prior = -(0.7**2 + math.log(2 * math.pi)) / 2
by_hand = log_prior + (x * logits - logits.exp().log1p()).sum()
line("log p(x,z) = log p(z) + log p(x|z), at z = 0.7", trace.log_prob_sum(), by_hand)

print("\n2. The marginal: z integrated out")
line("log p(x) = log ∫ p(z) p(x|z) dz", exact.log_evidence, log_p)
line("Σₓ p(x) = 1, over the 16 values of x", every.log_evidence.exp().sum(), 1)

print("\n3. Bayes' rule: the posterior p(z|x) = p(z) p(x|z) / p(x)")
line("∫ p(z) p(x|z) / p(x) dz = 1", integral((log_joint(LATTICE) - log_p).exp()), 1)
mean = integral(LATTICE[:, 0] * log_posterior.exp())
line("E[z|x] = ∫ z p(z|x) dz", exact.posterior_mean, mean)
back = every.log_evidence.exp() @ every.posterior_mean
line("Σₓ p(x) E[z|x] = E[z]: posteriors average to the prior", back, 0)

print("\n4. Multiplied and divided by q(z|x): an expectation under q")
ratio = under(LOC, SCALE, lambda z: (log_joint(z) - q.log_prob(z)).exp())
line("log p(x) = log E_q[p(x,z) / q(z|x)]", exact.log_evidence, ratio.log())

print("\n5. The three terms")
reconstruction = under(LOC, SCALE, lambda z: decoder(z).log_prob(x))
kl_prior = (SCALE**2 + LOC**2 - 1) / 2 - SCALE.log()
line("E_q[log p(x|z)]  reconstruction", exact.reconstruction, reconstruction)
line("KL(q‖p(z))       guide against prior", exact.kl_prior, kl_prior)
line("KL(q‖p(z|x))     guide against posterior", exact.kl_posterior, gap)
line("log p(x) = first − second + third", log_p, reconstruction - kl_prior + gap)

print("\n6. The third is never negative: r = p(z|x) / q(z|x), and no summand is below 0")
nodes = LOC + SCALE * NODES[:, None]
log_r = log_joint(nodes) - q.log_prob(nodes) - log_p
summands = WEIGHTS * (log_r.expm1() - log_r)
counted = f"{int((summands >= 0).sum())} of {len(summands)}"
line(f"KL(q‖p(z|x)) = E_q[r − 1 − log r], {counted} ≥ 0", gap, summands.sum())

print("\n7. So the first two are a lower bound: the ELBO")
elbo = under(LOC, SCALE, lambda z: log_joint(z) - q.log_prob(z))
line("log p(x) − E_q[log p(x,z) − log q(z|x)] = KL(q‖p(z|x))", log_p - elbo, gap)
tight = integral(log_posterior.exp() * (log_joint(LATTICE) - log_posterior))
line("ELBO = log p(x), when q is the posterior", tight, exact.log_evidence)

print("\n8. Its gradient, with z = μ + σε: what is averaged over no longer moves with μ and σ")
density = torch.autograd.grad(integral(q_lattice * decoder(LATTICE).log_prob(x)), (LOC, SCALE))
path = torch.autograd.grad(reconstruction, (LOC, SCALE))
line("∂/∂μ ∫ q log p(x|z) dz = E_ε[∂/∂μ log p(x|μ+σε)]", density[0], path[0])
line("∂/∂σ ∫ q log p(x|z) dz = E_ε[∂/∂σ log p(x|μ+σε)]", density[1], path[1])

print(f"\nLargest difference: {max(worst):.0e}")
sys.exit(not (max(worst) < 1e-8 and (summands >= 0).all()))
