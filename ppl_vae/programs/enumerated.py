"""Log weights of programs whose discrete sites are marked for enumeration: these are summed out."""

from __future__ import annotations

from collections import OrderedDict

import torch
from pyro import poutine
from pyro.ops import packed
from pyro.ops.contract import contract_to_tensor
from pyro.ops.rings import LogRing
from pyro.poutine.enum_messenger import EnumMessenger
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor, nn

from ppl_vae.data.batches import Batch
from ppl_vae.programs.traces import Structure


def summed_out(program: nn.Module, batch: Batch, found: Structure) -> Tensor:
    """log Σ_y p(x, z, y) / q(z | y), the enumerated y summed out: ``(N,)``.

    log q(y) of an enumerated guide site cancels, but where q(y) = 0 (a label known) the term
    leaves the sum.
    """
    free = -1 - found.nesting
    guide = poutine.trace(EnumMessenger(first_available_dim=free)(program.guide)).get_trace(
        *batch.args, **batch.kwargs
    )
    enumerated_model = EnumMessenger()(program.model)  # its dims go on from the guide's
    model = poutine.trace(poutine.replay(enumerated_model, trace=guide)).get_trace(
        *batch.args, **batch.kwargs
    )
    model, guide = prune_subsample_sites(model), prune_subsample_sites(guide)
    for site in guide.nodes.values():  # the guide may call the data plate by another name
        if site["type"] == "sample":
            site["cond_indep_stack"] = tuple(
                f._replace(name=found.plate) if f.dim == found.dim else f
                for f in site["cond_indep_stack"]
            )
    model.compute_log_prob()
    guide.compute_log_prob()
    model.pack_tensors()
    guide.pack_tensors(model.plate_to_symbol)
    factors: OrderedDict[frozenset[str], list[Tensor]] = OrderedDict()
    summed: set[str] = set()
    for trace, sign in ((model, 1.0), (guide, -1.0)):
        for site in trace.nodes.values():
            if site["type"] != "sample":
                continue
            term = packed.scale_and_mask(
                site["packed"]["unscaled_log_prob"], mask=site["packed"]["mask"]
            )
            dims = term._pyro_dims
            if symbol := site["infer"].get("_enumerate_symbol"):
                summed.add(symbol)
            if sign < 0 and symbol:
                term = torch.where(term == -torch.inf, term, torch.zeros_like(term))
            elif sign < 0:
                term = -term
            term._pyro_dims = dims
            # Packing squeezes dims of size 1, so plates of size 1 are no ordinals.
            ordinal = frozenset(
                model.plate_to_symbol[f.name]
                for f in site["cond_indep_stack"]
                if f.vectorized and f.size > 1
            )
            factors.setdefault(ordinal, []).append(term)
    data = {model.plate_to_symbol[found.plate]: batch.rows} if batch.rows > 1 else {}
    total = contract_to_tensor(
        factors, summed, target_ordinal=frozenset(data), ring=LogRing(dim_to_size=dict(data))
    )
    return total.reshape(-1).expand(batch.rows)
