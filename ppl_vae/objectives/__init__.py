"""Objectives: what training minimises. The same program, another argument."""

from ppl_vae.objectives.adversarial import Adversarial as Adversarial
from ppl_vae.objectives.critic_losses import Hinge as Hinge
from ppl_vae.objectives.critic_losses import LeastSquares as LeastSquares
from ppl_vae.objectives.critic_losses import NonSaturating as NonSaturating
from ppl_vae.objectives.critic_losses import Wasserstein as Wasserstein
from ppl_vae.objectives.elbo import ELBO as ELBO
from ppl_vae.objectives.handlers import ScaleLatents as ScaleLatents
from ppl_vae.objectives.importance_weighted import ImportanceWeighted as ImportanceWeighted
from ppl_vae.objectives.kernels import RBF as RBF
from ppl_vae.objectives.kernels import InverseMultiquadric as InverseMultiquadric
from ppl_vae.objectives.mmd import MMD as MMD
from ppl_vae.objectives.phases import Objective as Objective
from ppl_vae.objectives.phases import ObjectiveState as ObjectiveState
from ppl_vae.objectives.phases import Phase as Phase
from ppl_vae.objectives.pyro_elbo import PyroELBO as PyroELBO
