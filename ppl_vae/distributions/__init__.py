"""Distributions and divergences that Pyro lacks."""

from ppl_vae.distributions.flow import Flow as Flow
from ppl_vae.distributions.kl import kl_divergence as kl_divergence
from ppl_vae.distributions.marginal import Marginal as Marginal
from ppl_vae.distributions.mixture import MixtureOfNormals as MixtureOfNormals
from ppl_vae.distributions.mixture import mixture_log_prob as mixture_log_prob
from ppl_vae.distributions.sample_only import SampleOnly as SampleOnly
