"""Data: arrays as tensors, bundled sets, and the exact worlds that everything is tested in."""

from ppl_vae.data.batches import Batch as Batch
from ppl_vae.data.batches import as_batch as as_batch
from ppl_vae.data.bundled import digits as digits
from ppl_vae.data.linear_gaussian import LinearGaussian as LinearGaussian
from ppl_vae.data.linear_mixture import LinearMixture as LinearMixture
from ppl_vae.data.quadrature import Quadrature as Quadrature
from ppl_vae.data.quadrature import quadrature as quadrature
from ppl_vae.data.resolution import resolution as resolution
from ppl_vae.data.swiss_roll import swiss_roll as swiss_roll
