"""Everything that can be said of a fitted program, in a stated time, from one set of draws."""

from ppl_vae.diagnose.diagnosis import Diagnosis as Diagnosis
from ppl_vae.diagnose.finding import Finding as Finding
from ppl_vae.diagnose.run import diagnose as diagnose
from ppl_vae.diagnose.tree import tree as tree
