"""What a fitted program says: draws, evidence, refitted guides, and the door to ArviZ."""

from ppl_vae.posterior.ais import AIS as AIS
from ppl_vae.posterior.ais import Sandwich as Sandwich
from ppl_vae.posterior.ais import ais as ais
from ppl_vae.posterior.ais import ais_sandwich as ais_sandwich
from ppl_vae.posterior.calibrate import calibrate as calibrate
from ppl_vae.posterior.checks import prior_check as prior_check
from ppl_vae.posterior.clusters import clusters as clusters
from ppl_vae.posterior.datatree import to_datatree as to_datatree
from ppl_vae.posterior.draws import Draws as Draws
from ppl_vae.posterior.draws import posterior_predictive as posterior_predictive
from ppl_vae.posterior.draws import prior_predictive as prior_predictive
from ppl_vae.posterior.elpd import elpd as elpd
from ppl_vae.posterior.evidence import log_evidence as log_evidence
from ppl_vae.posterior.given import data_given as data_given
from ppl_vae.posterior.held_out_cells import HeldOutCells as HeldOutCells
from ppl_vae.posterior.held_out_cells import held_out_cells as held_out_cells
from ppl_vae.posterior.impute import Imputation as Imputation
from ppl_vae.posterior.impute import impute as impute
from ppl_vae.posterior.refine import Refined as Refined
from ppl_vae.posterior.refine import refine as refine
from ppl_vae.posterior.refit import Refitted as Refitted
from ppl_vae.posterior.refit import refit_guide as refit_guide
from ppl_vae.posterior.typicality import Typicality as Typicality
from ppl_vae.posterior.typicality import typicality as typicality
