"""Priors p(z): the noun without a context, one a file."""

from ppl_vae.priors.flow import FlowPrior as FlowPrior
from ppl_vae.priors.gaussian_mixture import GaussianMixture as GaussianMixture
from ppl_vae.priors.sampled import SampledPrior as SampledPrior
from ppl_vae.priors.standard_normal import StandardNormal as StandardNormal
from ppl_vae.priors.student_t import StudentTPrior as StudentTPrior
from ppl_vae.priors.uniform_box import UniformBox as UniformBox
from ppl_vae.priors.vamp import VampPrior as VampPrior
