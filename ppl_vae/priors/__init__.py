"""Priors p(z): the noun without a context, one a file."""

from ppl_vae.priors.gaussian_mixture import GaussianMixture as GaussianMixture
from ppl_vae.priors.standard_normal import StandardNormal as StandardNormal
from ppl_vae.priors.vamp import VampPrior as VampPrior
