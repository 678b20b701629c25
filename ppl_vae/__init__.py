"""Deep latent-variable models as probabilistic programs.

State a prior p(z), a likelihood p(x|z) and a guide q(z|x); fit them under an objective; swap
any of them in one argument; then know whether to trust the posterior.
"""

from ppl_vae.conditional import Conditional as Conditional
from ppl_vae.conditional import DistributionModule as DistributionModule
from ppl_vae.conditional import Family as Family
from ppl_vae.diagnose import Diagnosis as Diagnosis
from ppl_vae.diagnose import diagnose as diagnose
from ppl_vae.families import Bernoulli as Bernoulli
from ppl_vae.families import Binomial as Binomial
from ppl_vae.families import Delta as Delta
from ppl_vae.families import MultivariateNormal as MultivariateNormal
from ppl_vae.families import Normal as Normal
from ppl_vae.families import PerFeature as PerFeature
from ppl_vae.families import Predicted as Predicted
from ppl_vae.families import Shared as Shared
from ppl_vae.nets import MLP as MLP
from ppl_vae.objectives import ELBO as ELBO
from ppl_vae.objectives import Adversarial as Adversarial
from ppl_vae.posterior import data_given as data_given
from ppl_vae.posterior import elpd as elpd
from ppl_vae.posterior import log_evidence as log_evidence
from ppl_vae.posterior import posterior_predictive as posterior_predictive
from ppl_vae.posterior import prior_predictive as prior_predictive
from ppl_vae.posterior import refit_guide as refit_guide
from ppl_vae.posterior import to_datatree as to_datatree
from ppl_vae.priors import GaussianMixture as GaussianMixture
from ppl_vae.priors import StandardNormal as StandardNormal
from ppl_vae.programs import VAE as VAE
from ppl_vae.programs import NoDensityError as NoDensityError
from ppl_vae.programs import Program as Program
from ppl_vae.programs import log_weights as log_weights
from ppl_vae.training import FitResult as FitResult
from ppl_vae.training import History as History
from ppl_vae.training import NonFiniteError as NonFiniteError
from ppl_vae.training import fit as fit

__version__ = "0.1.0"
