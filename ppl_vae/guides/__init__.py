"""Guides q(z|x) beyond a `Conditional` of a family: a normalizing flow, and one without density."""

from ppl_vae.guides.conditional_flow import ConditionalFlow as ConditionalFlow
from ppl_vae.guides.implicit import Implicit as Implicit
