"""One HTML page that says what was fitted and whether to trust it."""

from ppl_vae.report.write import report as report
from ppl_vae.report.write import reports as reports
