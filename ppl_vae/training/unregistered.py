"""Parameters that a program depends on and Pyro does not know: they would never train."""

from __future__ import annotations

from collections.abc import Iterable

import pyro
from pyro import poutine
from torch import Tensor, nn
from torch.autograd.graph import Node

from ppl_vae.data.batches import Batch
from ppl_vae.programs.modes import probing
from ppl_vae.programs.program import Program, reachable
from ppl_vae.programs.runs import run
from ppl_vae.programs.vae import VAE


def unregistered(program: nn.Module, batch: Batch) -> list[str]:
    """Name the nets, or give the shapes of the tensors, that no gradient step would reach.

    They are the leaves of the graph behind draws and log-probs, less what the run registers.
    """
    with probing(program):
        with poutine.trace(param_only=True) as capture:
            traces = run(program, batch)
        roots = []
        for site in (s for t in traces for s in t.nodes.values() if s["type"] == "sample"):
            roots.append(site["value"])
            try:
                roots.append(site["fn"].log_prob(site["value"]))
            except (NotImplementedError, ValueError):  # no density, or a value outside it
                continue
    known = {id(s["value"].unconstrained()) for s in capture.trace.nodes.values()}
    # A program within a program is frozen on purpose, its bare parameters too.
    stored = pyro.get_param_store()._params.values()
    known |= {id(p) for p in stored if not isinstance(p, nn.Parameter)}
    inner = [m for m in program.modules() if m is not program and isinstance(m, Program | VAE)]
    for m in inner:  # nets of two plain functions are found in these
        nets = [net for side in (m.model, m.guide) for _, net in reachable(side)]
        known |= {id(p) for net in (m, *nets) for p in net.parameters()}
    names = _names(program)
    missed = [t for t in leaves(roots) if id(t) not in known]
    return sorted({names.get(id(t), f"shape {tuple(t.shape)}") for t in missed})


def leaves(roots: Iterable[Tensor]) -> list[Tensor]:
    """Find the tensors that ask for gradients and that others were computed from, or are."""
    found = {id(t): t for t in roots if t.requires_grad and t.is_leaf}
    stack: list[Node | None] = [t.grad_fn for t in roots]
    seen: set[Node] = set()
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(leaf := getattr(node, "variable", None), Tensor):
            found[id(leaf)] = leaf
        stack += [n for n, _ in node.next_functions]
    return list(found.values())


def _names(program: nn.Module) -> dict[int, str]:
    if not isinstance(program, Program):
        return {id(p): n for n, p in program.named_parameters()}
    nets = [(f"modules[{i}]", m) for i, m in enumerate(program.parts)]
    nets += [*reachable(program.model), *reachable(program.guide)]
    return {id(p): name for name, net in nets for p in net.parameters()}
