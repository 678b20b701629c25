"""Distributions and divergences that Pyro lacks, or has with fewer digits."""

from ppl_vae.distributions.continuous_bernoulli import ContinuousBernoulli as ContinuousBernoulli
from ppl_vae.distributions.flow import Flow as Flow
from ppl_vae.distributions.joint import Joint as Joint
from ppl_vae.distributions.kl import kl_divergence as kl_divergence
from ppl_vae.distributions.logistic_bins import CumulativeLogit as CumulativeLogit
from ppl_vae.distributions.logistic_bins import DiscretisedLogistic as DiscretisedLogistic
from ppl_vae.distributions.marginal import Marginal as Marginal
from ppl_vae.distributions.mixture import MixtureOfNormals as MixtureOfNormals
from ppl_vae.distributions.mixture import mixture_log_prob as mixture_log_prob
from ppl_vae.distributions.negative_binomial import NegativeBinomial as NegativeBinomial
from ppl_vae.distributions.poisson import Poisson as Poisson
from ppl_vae.distributions.sample_only import SampleOnly as SampleOnly
from ppl_vae.distributions.zero_inflated import ZeroInflated as ZeroInflated
