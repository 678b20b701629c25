"""Figures: each function takes a result and returns a `matplotlib.figure.Figure`.

Nothing here touches pyplot or the user's settings. `diagram` draws a program, as an SVG string.
"""

from ppl_vae.plots.agreement import agreement as agreement
from ppl_vae.plots.calibration import calibration as calibration
from ppl_vae.plots.cells import reconstructions as reconstructions
from ppl_vae.plots.cells import samples as samples
from ppl_vae.plots.diagram import diagram as diagram
from ppl_vae.plots.fit_to_data import posterior_check as posterior_check
from ppl_vae.plots.fit_to_data import typicality as typicality
from ppl_vae.plots.gaps import annealed as annealed
from ppl_vae.plots.gaps import gaps as gaps
from ppl_vae.plots.holes import holes as holes
from ppl_vae.plots.latent import active_units as active_units
from ppl_vae.plots.latent import latent_space as latent_space
from ppl_vae.plots.latent import match as match
from ppl_vae.plots.sheet import diagnosis as diagnosis
from ppl_vae.plots.training import history as history
from ppl_vae.plots.weights import evidence as evidence
from ppl_vae.plots.weights import khat as khat
from ppl_vae.plots.weights import three_terms as three_terms
