"""Deep latent-variable models as probabilistic programs.

State a prior p(z), a likelihood p(x|z) and a guide q(z|x); fit them under an objective; swap
any of them in one argument; then know whether to trust the posterior: `diagnose`, and `report`.

The names below are the public face. The rest is in packages: data sets and exact worlds in
`ppl_vae.data`, figures in `ppl_vae.plots` (matplotlib is loaded with it and not before), functions
of arrays in `ppl_vae.diagnostics`, the tests that a piece of your own should pass in
`ppl_vae.testing`.

The function `report` hides the package of its name: what else is in there comes by
``from ppl_vae.report import reports``, for ``import ppl_vae.report.words as w`` is an ImportError.
"""

from importlib import import_module as _import_module
from types import ModuleType as _ModuleType

from ppl_vae.conditional import Conditional, DistributionModule, Family
from ppl_vae.diagnose import Diagnosis, diagnose
from ppl_vae.families import (
    Bernoulli,
    Binomial,
    Categorical,
    Columns,
    ContinuousBernoulli,
    Delta,
    DiscretisedLogistic,
    LogNormal,
    LowRankMultivariateNormal,
    MultivariateNormal,
    NegativeBinomial,
    Normal,
    Ordinal,
    PerFeature,
    Poisson,
    Predicted,
    Shared,
    Standardised,
    StudentT,
    ZeroInflatedNegativeBinomial,
    propose_columns,
)
from ppl_vae.guides import ConditionalFlow, Implicit
from ppl_vae.nets import MLP, Convolutions, Deconvolutions, Features, GatedMLP, NeuralSpline
from ppl_vae.objectives import (
    ELBO,
    MMD,
    RBF,
    Adversarial,
    Hinge,
    ImportanceWeighted,
    InverseMultiquadric,
    LeastSquares,
    NonSaturating,
    Wasserstein,
)
from ppl_vae.posterior import (
    aggregate_match,
    ais,
    ais_sandwich,
    calibrate,
    calibration_tree,
    clusters,
    compare,
    data_given,
    elpd,
    gaps,
    guide_agreement,
    held_out_cells,
    impute,
    log_evidence,
    mutual_information,
    posterior_check,
    posterior_predictive,
    prior_check,
    prior_coverage,
    prior_predictive,
    reference_posterior,
    refine,
    refit_guide,
    resampled_posterior,
    to_datatree,
    typicality,
)
from ppl_vae.priors import (
    FlowPrior,
    GaussianMixture,
    SampledPrior,
    StandardNormal,
    StudentTPrior,
    UniformBox,
    VampPrior,
)
from ppl_vae.programs import VAE, NoDensityError, Program, log_weights
from ppl_vae.report import report
from ppl_vae.training import CompiledSVI, FitResult, History, NonFiniteError, fit

__version__ = "0.1.0"

__all__ = [
    "ELBO",
    "MLP",
    "MMD",
    "RBF",
    "VAE",
    "Adversarial",
    "Bernoulli",
    "Binomial",
    "Categorical",
    "Columns",
    "CompiledSVI",
    "Conditional",
    "ConditionalFlow",
    "ContinuousBernoulli",
    "Convolutions",
    "Deconvolutions",
    "Delta",
    "Diagnosis",
    "DiscretisedLogistic",
    "DistributionModule",
    "Family",
    "Features",
    "FitResult",
    "FlowPrior",
    "GatedMLP",
    "GaussianMixture",
    "Hinge",
    "History",
    "Implicit",
    "ImportanceWeighted",
    "InverseMultiquadric",
    "LeastSquares",
    "LogNormal",
    "LowRankMultivariateNormal",
    "MultivariateNormal",
    "NegativeBinomial",
    "NeuralSpline",
    "NoDensityError",
    "NonFiniteError",
    "NonSaturating",
    "Normal",
    "Ordinal",
    "PerFeature",
    "Poisson",
    "Predicted",
    "Program",
    "SampledPrior",
    "Shared",
    "StandardNormal",
    "Standardised",
    "StudentT",
    "StudentTPrior",
    "UniformBox",
    "VampPrior",
    "Wasserstein",
    "ZeroInflatedNegativeBinomial",
    "aggregate_match",
    "ais",
    "ais_sandwich",
    "calibrate",
    "calibration_tree",
    "clusters",
    "compare",
    "data_given",
    "diagnose",
    "elpd",
    "fit",
    "gaps",
    "guide_agreement",
    "held_out_cells",
    "impute",
    "log_evidence",
    "log_weights",
    "mutual_information",
    "posterior_check",
    "posterior_predictive",
    "prior_check",
    "prior_coverage",
    "prior_predictive",
    "propose_columns",
    "reference_posterior",
    "refine",
    "refit_guide",
    "report",
    "resampled_posterior",
    "to_datatree",
    "typicality",
]


def __getattr__(name: str) -> _ModuleType:
    if name in ("plots", "testing"):  # loaded when they are first named
        return _import_module(f"ppl_vae.{name}")
    raise AttributeError(f"module 'ppl_vae' has no attribute {name!r}")
