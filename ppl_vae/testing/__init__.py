"""The conformance kit: one call checks a family, prior or program of your own against the laws.

The library relies on these laws, and its own pieces are tested by the same calls. A broken law is
a `ConformanceError` that names it. Each function returns the laws that it checked and found kept,
so one that does not apply (the density of a Delta, say) is seen to be absent.
"""

from ppl_vae.testing.families import check_family as check_family
from ppl_vae.testing.laws import ConformanceError as ConformanceError
from ppl_vae.testing.priors import check_prior as check_prior
from ppl_vae.testing.programs import check_program as check_program
