"""Families of distributions, one record each, in files by support.

They serve decoders and encoders alike: the likelihood p(x|z) and the guide q(z|x).
"""

from ppl_vae.families.binary import Bernoulli as Bernoulli
from ppl_vae.families.counts import Binomial as Binomial
from ppl_vae.families.point import Delta as Delta
from ppl_vae.families.real import MultivariateNormal as MultivariateNormal
from ppl_vae.families.real import Normal as Normal
from ppl_vae.families.real import PerFeature as PerFeature
from ppl_vae.families.real import Predicted as Predicted
from ppl_vae.families.real import Shared as Shared
