"""Networks. Any callable ``(in_features, out_features) -> nn.Module`` is as welcome."""

from ppl_vae.nets.convolutions import Convolutions as Convolutions
from ppl_vae.nets.convolutions import Deconvolutions as Deconvolutions
from ppl_vae.nets.features import Features as Features
from ppl_vae.nets.flow import FlowBuilder as FlowBuilder
from ppl_vae.nets.flow import NeuralSpline as NeuralSpline
from ppl_vae.nets.flow import built_flow as built_flow
from ppl_vae.nets.gated import GatedMLP as GatedMLP
from ppl_vae.nets.mlp import MLP as MLP
