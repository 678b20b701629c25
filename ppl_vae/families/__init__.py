"""Families of distributions, one record each, in files by support.

They serve decoders and encoders alike: the likelihood p(x|z) and the guide q(z|x).
"""

from ppl_vae.families.binary import Bernoulli as Bernoulli
from ppl_vae.families.categories import Categorical as Categorical
from ppl_vae.families.categories import Ordinal as Ordinal
from ppl_vae.families.columns import Columns as Columns
from ppl_vae.families.counts import Binomial as Binomial
from ppl_vae.families.counts import NegativeBinomial as NegativeBinomial
from ppl_vae.families.counts import Poisson as Poisson
from ppl_vae.families.counts import ZeroInflatedNegativeBinomial as ZeroInflatedNegativeBinomial
from ppl_vae.families.levels import DiscretisedLogistic as DiscretisedLogistic
from ppl_vae.families.multivariate import LowRankMultivariateNormal as LowRankMultivariateNormal
from ppl_vae.families.multivariate import MultivariateNormal as MultivariateNormal
from ppl_vae.families.point import Delta as Delta
from ppl_vae.families.positive import LogNormal as LogNormal
from ppl_vae.families.proposal import Proposal as Proposal
from ppl_vae.families.proposal import propose_columns as propose_columns
from ppl_vae.families.real import Normal as Normal
from ppl_vae.families.real import StudentT as StudentT
from ppl_vae.families.scale import PerFeature as PerFeature
from ppl_vae.families.scale import Predicted as Predicted
from ppl_vae.families.scale import Shared as Shared
from ppl_vae.families.standardised import Standardised as Standardised
from ppl_vae.families.unit import ContinuousBernoulli as ContinuousBernoulli
