"""Training: one loop, one step."""

from ppl_vae.training.blame import NonFiniteError as NonFiniteError
from ppl_vae.training.fit import FitResult as FitResult
from ppl_vae.training.fit import fit as fit
from ppl_vae.training.history import History as History
from ppl_vae.training.step import TrainState as TrainState
from ppl_vae.training.svi import CompiledSVI as CompiledSVI
