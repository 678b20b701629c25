"""The guide beside a reference posterior of the same data."""

from __future__ import annotations

from typing import Any

from torch import nn

from ppl_vae.diagnostics import khat
from ppl_vae.diagnostics.agreement import Agreement, agreement
from ppl_vae.posterior.draws import posterior_predictive, side_by_side, with_plate
from ppl_vae.posterior.nuts import Reference
from ppl_vae.posterior.simulated import unit_names
from ppl_vae.programs.inputs import program_batch
from ppl_vae.programs.log_weights import weighted_draws


def guide_agreement(
    program: nn.Module,
    x: Any,  # noqa: ANN401
    reference: Reference,
    *,
    num_samples: int = 1000,
    seed: int = 0,
) -> Agreement:
    """Set draws of the guide beside a reference posterior: moments, and a classifier, by datum.

    The reference knows nothing of the guide: one serves the program's own, a refined and a refitted
    one. A datum whose `Reference.rhat` is high has no reference. See `diagnostics.agreement`.

    Args:
        program: A `VAE` or `Program` of the model that the reference was drawn from.
        x: The data that it was drawn for.
        reference: What `reference_posterior` gave.
        num_samples: Draws S of q(z|x) for each datum.
        seed: Of the draws and the classifiers.

    Returns:
        The comparison; with k-hat, where the guide has a density.

    Raises:
        ValueError: If the reference is of other data or latents, or has fewer than 20 effective
            draws of a datum.

    Example:
        >>> from ppl_vae import Program, reference_posterior
        >>> from ppl_vae.data import LinearGaussian
        >>> world = LinearGaussian.random(2, 5, seed=0)
        >>> x, _ = world.sample(1, seed=1)
        >>> shifted = Program(world.model, world.broken_guide(shift=2.0))
        >>> few = {"num_samples": 100, "warmup": 50, "num_chains": 2, "progress": False}
        >>> found = guide_agreement(shifted, x, reference_posterior(shifted, x, **few))
        >>> bool(found.rms_mean_error[0] > 1), bool(found.c2st[0] > 0.8)
        (True, True)
    """
    batch = program_batch(program, x, name="x")
    found = with_plate(program, batch)
    names = list(reference.latents)
    shapes = {n: v.shape[3:] for n, v in reference.latents.items()}
    rows = len(reference.rhat)
    if set(names) != set(found.latents) or rows != batch.rows:
        raise ValueError(
            f"reference: got {names} of {rows} data, expected {list(found.latents)} of "
            f"{batch.rows}. Try reference_posterior(program, x)."
        )
    tails = None
    if found.undefined is None:
        drawn = weighted_draws(program, batch, num_samples, seed=seed)
        latents, tails = drawn.latents, khat(drawn.log_weights.cpu().numpy())
    else:
        latents = posterior_predictive(program, batch, num_samples, seed=seed).latents
    chains = {n: v.flatten(0, 1) for n, v in reference.latents.items()}
    return agreement(
        side_by_side(latents, names, 2),
        side_by_side(chains, names, 2),
        ess=reference.ess,
        khat=tails,
        names=unit_names(names, [s.numel() for s in shapes.values()]),
        seed=seed,
    )
