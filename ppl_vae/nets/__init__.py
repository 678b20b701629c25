"""Networks. Any callable ``(in_features, out_features) -> nn.Module`` is as welcome."""

from ppl_vae.nets.mlp import MLP as MLP
