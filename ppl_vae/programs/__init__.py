"""Programs: a generative model and a guide, as Pyro functions, and what their traces say."""

from ppl_vae.programs.log_weights import WeightedDraws as WeightedDraws
from ppl_vae.programs.log_weights import log_weights as log_weights
from ppl_vae.programs.log_weights import weighted_at as weighted_at
from ppl_vae.programs.log_weights import weighted_draws as weighted_draws
from ppl_vae.programs.program import Program as Program
from ppl_vae.programs.traces import NoDensityError as NoDensityError
from ppl_vae.programs.traces import Structure as Structure
from ppl_vae.programs.traces import structure as structure
from ppl_vae.programs.vae import VAE as VAE
