"""Bad input is refused by a sentence that says what was got, what was expected and what to try.

Every case goes through the public API. The three patterns of a case are looked for in that order
in the one message; and after the refusal everything is as it was before: parameters, buffers and
modes of the program, Pyro's parameter store, the random states, the files.
"""

import copy
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pyro.infer
import pytest
import rich.style  # noqa: F401 - draws from `random` when first imported, which may be in a case
import torch
from torch import nn

import ppl_vae
from ppl_vae import (
    MLP,
    MMD,
    VAE,
    Adversarial,
    Bernoulli,
    Binomial,
    Categorical,
    Conditional,
    Delta,
    DiscretisedLogistic,
    GaussianMixture,
    LogNormal,
    LowRankMultivariateNormal,
    MultivariateNormal,
    NegativeBinomial,
    Normal,
    Ordinal,
    PerFeature,
    Program,
    Shared,
    StandardNormal,
    StudentT,
    diagnose,
    fit,
    log_evidence,
    log_weights,
    posterior_predictive,
    prior_predictive,
    to_datatree,
)
from ppl_vae.data import resolution

NAN, INF = float("nan"), float("inf")
Action = Callable[[], object]


class Case(NamedTuple):
    """A bad input, and what the refusal must say."""

    name: str
    got: str
    expected: str
    attempt: str
    prepare: Callable[[Path], tuple[Action, nn.Module | None]]


CASES: list[Case] = []


def case(name: str, got: str, expected: str, attempt: str) -> Callable[[Callable], Callable]:
    """Add a case; the function prepares it: what to run, and the program that must not change."""

    def add(prepare: Callable) -> Callable:
        CASES.append(Case(name, got, expected, attempt, prepare))
        return prepare

    return add


def refuses(name: str, action: Action, got: str, expected: str, attempt: str) -> None:
    """Add a case that needs nothing prepared."""
    case(name, got, expected, attempt)(lambda folder: (action, None))


# ---- what the cases are made of


def bits(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(*shape, generator=generator) > 0.5).float()


def put(value: float) -> torch.Tensor:
    x = bits(20, 6)
    x[3, 2] = value
    return x


def a_vae(family: ppl_vae.Family | None = None, latent: int = 2, net: object = None) -> VAE:
    family = Bernoulli(6) if family is None else family
    net = MLP(4) if net is None else net
    return VAE(
        StandardNormal(latent),
        Conditional(net, family, given=latent),
        Conditional(net, Normal(latent), given=tuple(family.event_shape)),
    )


def parts(**odd: nn.Module) -> dict[str, nn.Module]:
    """What a sound VAE is made of, but for what is given."""
    sound = {
        "prior": StandardNormal(2),
        "decoder": Conditional(MLP(), Bernoulli(6), given=2),
        "encoder": Conditional(MLP(), Normal(2), given=6),
    }
    return {**sound, **odd}


def batch_norm(i: int, o: int) -> nn.Module:
    return nn.Sequential(nn.Linear(i, 4), nn.BatchNorm1d(4), nn.Linear(4, o))


def fits(name: str, data: object, got: str, expected: str, attempt: str, **given: object) -> None:
    """Add a case of `fit`; `program` is a function that builds it."""
    build = given.pop("program", a_vae)
    arguments = {"epochs": 1, "batch_size": 10, "seed": 0, "progress": False, **given}

    def prepare(folder: Path) -> tuple[Action, nn.Module]:
        program = build()
        program.eval()  # fit switches the mode, and must give it back
        return lambda: fit(program, data() if callable(data) else data, **arguments), program

    case(name, got, expected, attempt)(prepare)


def model(x):
    with pyro.plate("rows", len(x)):
        latent = pyro.sample("latent", dist.Normal(0.0, 1.0))
        pyro.sample("obs", dist.Normal(latent, 1.0), obs=x)


def guide(x):
    slope = pyro.param("slope", torch.tensor(0.5))
    with pyro.plate("rows", len(x)):
        pyro.sample("latent", dist.Normal(slope * x, 1.0))


def fixed_guide(x):
    with pyro.plate("rows", len(x)):
        pyro.sample("latent", dist.Normal(0.5 * x, 1.0))


REALS = torch.linspace(-1, 1, 20)

# ---- data: values

fits("infinity", put(INF), "inf at row 3, column 2", "finite numbers", "masked_fill")
fits("grey under Bernoulli", put(0.5), "0.5 at row 3, column 2", "support of Bern", "x > 0.5")
for wrong, attempt in {2.5: "Normal", 17: "total=17", -1: "NaN for the negative numbers"}.items():
    fits(
        f"{wrong} under Binomial(16)",
        put(wrong),
        rf"Got {wrong} at row 3, column 2",
        r"support of Binomial\(\(6,\), total=16\)",
        attempt,
        program=lambda: a_vae(Binomial(6, total=16)),
    )
fits("complex tensor", torch.zeros(20, 6, dtype=torch.cfloat), "complex", "real", "np.stack")
fits("complex array", np.zeros((20, 6), dtype=complex), "complex", "real", "np.stack")
fits("too large integers", np.full((20, 6), 2**24 + 1), "16777216", "float32", r"\.double\(\)")
fits("float32 overflow", np.full((20, 6), 1e300), r"1e\+300", "float32 holds", r"\.double\(\)")

# ---- data: masks and covariates

seen = torch.ones(20, 6)
fits("mask of 2", {"x": bits(20, 6), "mask": 2 * seen}, "2 at row 0, column 0", "1 where", "isnan")
fits("narrow mask", {"x": bits(20, 6), "mask": seen[:, :1]}, r"20, 1\)", "each cell", "expand")
fits("seen NaN", {"x": put(NAN), "mask": seen}, "nan at row 3, column 2", "a number", "mask & ")
two = {"z": 2, "dose": 1}


def dosed() -> nn.Module:
    """A program with a covariate."""
    return VAE(
        StandardNormal(2),
        Conditional(MLP(), Bernoulli(6), given=two),
        Conditional(MLP(), Normal(2), given=6),
    )


dose = torch.zeros(20, 1)
with_dose = {"program": dosed}
fits("no dose", bits(20, 6), r"1 array\(s\)", "x and dose", "{'x': x, 'dose': dose}", **with_dose)
both = {"x": bits(20, 6), "dose": dose}
fits("another covariate", both | {"age": dose}, "'age'", "x and dose", "Try", **with_dose)
flat = both | {"dose": dose[:, 0]}
fits(
    "a flat covariate", flat, r"'dose' of shape \(20,\)", r"N, 1\)", r"reshape\(-1, 1", **with_dose
)
fits(
    "a dose of NaN", both | {"dose": dose / 0}, "NaN .* 'dose'", "only cells of x", "", **with_dose
)

# ---- data: kinds

fits("strings", np.array([["a"] * 6] * 20), "data of dtype <U1", "numbers", "encoding categories")
fits("object array", np.array([[1, None] * 3] * 20), "dtype object", "numbers", "text out")
fits("a name", "digits", "Got a str as data", "an array, a tensor or a DataFrame", "np.asarray")
fits("None", None, "Got a NoneType as data", "an array", "np.asarray")
fits("a loader", lambda: torch.utils.data.DataLoader(bits(20, 6)), "DataLoader", "array", "Try")
fits("sparse", lambda: bits(20, 6).to_sparse(), "torch.sparse_coo", "dense", "to_dense")
fits("ragged", [[1, 2], [3]], "list as data that is no array", "one shape", "padding")
frame = pd.DataFrame({"age": [1.0, 2.0], "name": ["u", "v"]})
fits("a column of text", frame, r"columns \['name'\]", "numbers", "encoding categories")
nullable = pd.DataFrame({k: pd.array([0, None], dtype="Int64") for k in "abcdef"})
fits("pandas 2", nullable + 2, "2 at row 0, column 'a'", "support of Bernoulli", "Poisson")

# ---- data: columns


def of_table(
    ask: Callable[[VAE, object], object], name: str, trained: Callable = lambda table: table
) -> None:
    @case(f"columns in another order {len(CASES)}", rf"'b' in {name} where .*'a'", "order", "Try")
    def _(folder: Path):
        program = a_vae()
        table = pd.DataFrame(bits(20, 6).numpy(), columns=list("abcdef"))
        fit(program, trained(table), epochs=1, progress=False)
        return lambda: ask(program, table[list("bacdef")]), program


of_table(lambda p, t: fit(p, t, epochs=1, progress=False), "data")
of_table(lambda p, t: log_evidence(p, t, 30), "x")
of_table(lambda p, t: diagnose(copy.deepcopy(p), t), "x")
of_table(lambda p, t: log_evidence(p, t, 30), "x", lambda table: {"x": table})
of_table(lambda p, t: log_evidence(p, {"x": t}, 30), "x")


@case("validation columns in another order", "'b' in validation where .*'a'", "order", "Try")
def _(folder: Path):
    program, table = a_vae(), pd.DataFrame(bits(20, 6).numpy(), columns=list("abcdef"))
    return lambda: fit(program, table, validation=table[list("bacdef")], epochs=1), program


# ---- data: shapes

fits("wrong width", torch.zeros(20, 7), r"shape \(20, 7\)", r"\(N, 6\)", r"shape \(7,\)")
fits("columns for rows", torch.zeros(6, 20), r"shape \(6, 20\)", r"\(N, 6\)", r"x\.T")
images = {"program": lambda: a_vae(Bernoulli((2, 3)))}
fits("transposed", torch.zeros(9, 3, 2), r"\(9, 3, 2\)", r"\(N, 2, 3\)", "permute", **images)
fits("flat", torch.zeros(20, 6), r"\(20, 6\)", r"\(N, 2, 3\)", r"reshape\(-1, 2, 3\)", **images)
column = pd.Series(np.zeros(20))
one = {"program": lambda: a_vae(Normal(1))}
fits("a Series", column, r"\(20,\)", r"\(N, 1\)", r"reshape\(-1, 1\), or x.to_frame", **one)
fits("one datum", torch.zeros(6), r"shape \(6,\)", r"\(N, 6\)", r"x\[None\]")
fits("one row", bits(1, 6), "Got 1 row to train on", "at least 2", "one row is one datum")
fits("no rows", bits(0, 6), r"no rows in data \(shape \(0, 6\)\)", "at least one", "selected")
fits("empty tuple", (), "empty tuple as data", "at least one array", "the array itself")
fits("empty dict", {}, "empty dict as data", "at least one array", "the array itself")
fits("a number", 3.0, "a single number as data", "one row per datum", r"reshape\(1, -1\)")
foreign = {"program": lambda: Program(model, guide)}
lengths = r"\{'data\[0\]': 20, 'data\[1\]': 5\}"
fits("tuple lengths", (REALS, REALS[:5]), lengths, "one row per datum", "common", **foreign)
uneven = {"x": REALS, "m": REALS[:5]}
fits("dict lengths", uneven, r"\{'x': 20, 'm': 5\}", "one row per datum", "common", **foreign)
fits(
    "two arrays for a VAE",
    (bits(20, 6), bits(20, 6)),
    r"2 array\(s\)",
    "x alone",
    r"fit\(program, x",
)
fits("another name", {"images": bits(20, 6)}, r"\['images'\]", "x alone", r"fit\(program, x\)")
fits("too many", (REALS, REALS), r"2 array\(s\)", r"model\(x\) takes", "tuple", **foreign)
fits("bad validation data", bits(20, 6), "validation of shape", "6", "Try", validation=bits(20, 3))

# ---- the parts of a program


def assembles(name: str, got: str, expected: str, attempt: str, **odd: object) -> None:
    """Add a case of `VAE(...)`: one of its parts, built beforehand, does not fit."""
    built = parts(**odd)
    case(name, got, expected, attempt)(lambda folder: (lambda: VAE(**built), None))


agree = "one latent size in prior, encoder and decoder"
encoder3, encoder5 = (Conditional(MLP(), Normal(a), given=b) for a, b in ((3, 6), (2, 5)))
decoder3, decoder23 = (Conditional(MLP(), Bernoulli(6), given=given) for given in (3, [2, 3]))
of_encoder = r"encoder's event shape \(3,\)"
assembles("latent of encoder", of_encoder, r"prior's event shape \(2,\)", agree, encoder=encoder3)
of_decoder = r"decoder's given shape \(3,\)"
assembles("latent of decoder", of_decoder, r"prior's event shape \(2,\)", agree, decoder=decoder3)
prior4 = StandardNormal(4)
assembles(
    "latent of prior", r"event shape \(2,\)", r"prior's event shape \(4,\)", agree, prior=prior4
)
of_data = r"encoder's given shape \(5,\)"
assembles("data of encoder", of_data, r"decoder's event shape \(6,\)", "data", encoder=encoder5)
assembles("two contexts", r"\[\(2,\), \(3,\)\]", "one context, z", '{"z": 2,', decoder=decoder23)
normal = dist.Normal(0.0, 1.0)
assembles("a distribution as prior", "Normal as prior", "nn.Module", "StandardNormal", prior=normal)
linear = nn.Linear(2, 6)
assembles("a net as decoder", "Linear as decoder", "event_shape", "Conditional", decoder=linear)


class Undeclared(nn.Module):
    event_shape = torch.Size([2])

    def forward(self):
        return dist.Normal(torch.zeros(2), 1.0)  # without .to_event(1)


assembles(
    "a prior of another shape than it says",
    r"batch shape \(2,\) and event shape \(\)",
    r"expected \(\) and \(2,\)",
    "to_event",
    prior=Undeclared(),
)
assembles(
    "a discrete guide under a continuous prior",
    r"guide Bernoulli\(\(2,\)\)",
    "lives inside it",
    "Try Normal",
    encoder=Conditional(MLP(), Bernoulli(2), given=6),
)
refuses(
    "a net, no builder",
    lambda: Conditional(linear, Bernoulli(6), given=2),
    "Linear as net",
    r"\(in_features, out_features\)",
    "lambda i, o",
)
refuses(
    "a builder of a function",
    lambda: Conditional(lambda i, o: torch.relu, Bernoulli(6), given=2),
    "builtin_function_or_method from the net builder",
    "an nn.Module, or its parameters are never trained",
    "wrapping it in a module",
)
refuses(
    "a builder without sizes",
    lambda: Conditional(lambda: nn.Linear(2, 6), Bernoulli(6), given=2),
    "does not take two arguments",
    r"\(in_features, out_features\)",
    "lambda i, o",
)
refuses(
    "the class MLP",
    lambda: Conditional(MLP, Bernoulli(6), given=2),
    "Got a MLP",
    "nn.Module",
    r"an instance, MLP\(400\)",
)
refuses(
    "a family that lacks its shape",
    lambda: Conditional(MLP(), Bernoulli, given=2),
    "function Bernoulli",
    "Family record",
    r"Bernoulli\(784\)",
)
for bad in (0, 2.5, "z", None, (2, -1)):
    refuses(
        f"given={bad!r}",
        lambda bad=bad: Conditional(MLP(), Bernoulli(6), given=bad),
        re.escape(f"event shape {bad!r}"),
        "positive integers",
        "10 for a vector",
    )
refuses(
    "given nothing", lambda: Conditional(MLP(), Bernoulli(6), given=[]), r"\[\]", "one or", "Try"
)
narrow = Conditional(MLP(), Bernoulli(6), given=2)
pair = Conditional(MLP(), Bernoulli(6), given=[2, 2])
zeros = torch.zeros
refuses(
    "a context of another shape",
    lambda: narrow(zeros(5, 3)),
    r"\(5, 3\)",
    r"\(\*batch, 2\)",
    "given",
)
refuses("two contexts for one", lambda: narrow(zeros(5, 2), zeros(5, 2)), "2 con", "1", "given=")
refuses("an array as context", lambda: narrow(np.zeros((5, 2))), "ndarray", "tensor", "as_tensor")
refuses(
    "contexts of two lengths",
    lambda: pair(zeros(5, 2), zeros(4, 2)),
    r"\(5,\), \(4,\)",
    "broadcast",
    "one row per datum",
)
wide = {"program": lambda: a_vae(net=lambda i, o: nn.Linear(i, o + 1))}
fits("a net of another size", bits(20, 6), r"\(10, 5\)", r"\(10, 4\)", "out_features", **wide)
lstm = {"program": lambda: a_vae(net=lambda i, o: nn.LSTM(i, o))}
fits("a net that returns a tuple", bits(20, 6), "a tuple from", r"\(10, 4\)", "one tensor", **lstm)
refuses(
    "an MLP that keeps images",
    lambda: Conditional(MLP(4), Bernoulli(6), given=(2, 2), flatten=False),
    r"torch.Size\(\[2, 2\]\)",
    "flat rows",
    "flatten=True",
)
for bad in (0, 2.5, [400, 400]):
    refuses(f"MLP({bad})", lambda bad=bad: MLP(bad), "hidden widths", "positive", r"MLP\(400\)")
for bad in (nn.ReLU(), "relu", torch.relu):
    refuses(
        f"activation={bad}"[:30],
        lambda bad=bad: MLP(4, activation=bad),
        "Got activation=",
        "without arguments and returns a module",
        "nn.ReLU, without brackets",
    )

# ---- families and priors

for bad in (0, None, 2.5, True):
    refuses(
        f"total={bad}",
        lambda bad=bad: Binomial(6, total=bad),
        f"total={bad}",
        "positive integer",
        "total=16",
    )
for bad in (-1, NAN, INF, "predicted", Shared, zeros(3)):
    refuses(
        f"scale={bad}"[:30],
        lambda bad=bad: Normal(3, scale=bad),
        re.escape(f"scale={bad!r}"),
        "a positive finite number",
        r"Shared\(\)",
    )
for bad in (0, INF, "a", None):
    refuses(
        f"min_scale={bad}",
        lambda bad=bad: Normal(3, min_scale=bad),
        f"min_scale={bad!r}",
        "positive finite",
        "1e-3",
    )
for bad in (1e-4, INF):
    refuses(
        f"init={bad}",
        lambda bad=bad: Normal(3, scale=PerFeature(bad)),
        f"init={bad}",
        "above 0.001, the floor",
        "standard deviation of the data",
    )
refuses("MVN of an image", lambda: MultivariateNormal((2, 3)), r"\(2, 3\)", "one dim", "Try Normal")
refuses("MVN floor", lambda: MultivariateNormal(2, min_scale=-1), "=-1", "positive", "1e-3")
for bad in (0, 4, 1.0, True):
    refuses(
        f"rank={bad}",
        lambda bad=bad: LowRankMultivariateNormal(3, rank=bad),
        f"rank={bad!r}",
        "from 1 to 3",
        "Try rank=1",
    )
refuses("low rank image", lambda: LowRankMultivariateNormal((2, 3), rank=1), "2, 3", "one", "Try N")
for bad in (1, 2.0, True, "a"):
    refuses(
        f"classes={bad}",
        lambda bad=bad: Categorical(3, classes=bad),
        f"classes={bad!r}",
        "above 1",
        "x.max",
    )
    refuses(
        f"ordered classes={bad}",
        lambda bad=bad: Ordinal(3, classes=bad),
        f"classes={bad!r}",
        "above 1",
        "x.max",
    )
    refuses(
        f"levels={bad}",
        lambda bad=bad: DiscretisedLogistic(3, levels=bad),
        f"levels={bad!r}",
        "above 1",
        "256",
    )
refuses("dispersion", lambda: NegativeBinomial(3, dispersion=0), "dispersion=0", "pos", "=Shared")
refuses("df", lambda: StudentT(3, df=-1), "df=-1", "positive", r"df=Shared\(\)")
refuses("df below its floor", lambda: StudentT(3, df=Shared()), r"=1.0\)", "above 2, the", "larger")
refuses("log-normal floor", lambda: LogNormal(3, min_scale=0), "min_scale=0", "positive", "1e-3")
refuses("Delta of no cell", lambda: Delta(0), "shape 0", "positive integers", "10 for a vector")
refuses("mixture of a vector", lambda: GaussianMixture(zeros(3)), r"\(3,\)", r"\(K, D\)", "randn")
refuses("mixture by name", lambda: GaussianMixture("ring"), "loc='ring'", "numbers", "tensor")
refuses("mixture at NaN", lambda: GaussianMixture([[NAN]]), "nan in loc", "finite", "leaving")
refuses("mixture scale", lambda: GaussianMixture(zeros(3, 2), -1), "scale=-1", "above 0", "1.0")
refuses(
    "mixture scale of another shape",
    lambda: GaussianMixture(zeros(3, 2), zeros(4)),
    r"\(4,\)",
    r"\(3, 2\)",
    "one number",
)
refuses(
    "mixture below its floor",
    lambda: GaussianMixture(zeros(3, 2), 1e-4, learned=True),
    "scale=0.0001",
    "above min_scale=0.001",
    "1.0",
)
refuses(
    "mixture weights",
    lambda: GaussianMixture(zeros(3, 2), weights=[1, 2, 0]),
    r"\[1.0, 2.0, 0.0\]",
    "3 positive numbers",
    "None for equal",
)
for bad in (0, -1.0):
    refuses(
        f"prior scale={bad}",
        lambda bad=bad: StandardNormal(2, scale=bad),
        "scale=.-?[01]",
        "pos",
        "1",
    )
refuses("prior loc", lambda: StandardNormal(2, loc=zeros(3)), r"\(3,\)", r"\(2,\)", "one number")
refuses("prior by name", lambda: StandardNormal(2, scale="wide"), "='wide'", "numbers", "tensor")

# ---- programs of Pyro functions


def unregistered(net: nn.Module) -> Program:
    def net_guide(x):
        with pyro.plate("rows", len(x)):
            pyro.sample("latent", dist.Normal(net(x[:, None])[:, 0], 1.0))

    return Program(model, net_guide)


nothing = {"program": lambda: Program(model, fixed_guide)}
fits("nothing to train", REALS, "no trainable parameter", "some", "pyro.module", **nothing)
forgotten = {"program": lambda: unregistered(nn.Linear(1, 1))}
fits("unregistered", REALS, r"\['net'\].*unregistered", "nothing would", "pyro.module", **forgotten)


@case("name clash", r"decoder\$\$\$weight", "its own", "clear_param_store")
def _(folder: Path):
    first, second = nn.Linear(1, 1), nn.Linear(1, 1)
    pyro.module("decoder", first)

    def clashing(x):
        pyro.module("decoder", second)
        with pyro.plate("rows", len(x)):
            latent = pyro.sample("latent", dist.Normal(0.0, 1.0))
            pyro.sample("obs", dist.Normal(second(latent[:, None])[:, 0], 1.0), obs=x)

    program = Program(clashing, fixed_guide, modules=[second])
    return lambda: fit(program, REALS, epochs=1, seed=0, progress=False), program


def other_guide(x):
    slope = pyro.param("slope", torch.tensor(0.5))
    with pyro.plate("rows", len(x)):
        pyro.sample("code", dist.Normal(slope * x, 1.0))


def unobserving(x):
    with pyro.plate("rows", len(x)):
        pyro.sample("latent", dist.Normal(0.0, 1.0))


def forgetful(x):
    with pyro.plate("rows", len(x)):
        latent = pyro.sample("latent", dist.Normal(0.0, 1.0))
        pyro.sample("obs", dist.Normal(latent, 1.0))


def latentless(x):
    with pyro.plate("rows", len(x)):
        pyro.sample("obs", dist.Normal(pyro.param("mean", torch.tensor(0.0)), 1.0), obs=x)


def two_plates(x):
    with pyro.plate("rows", 20, dim=-2), pyro.plate("columns", 20, dim=-1):
        latent = pyro.sample("latent", dist.Normal(0.0, 1.0))
        pyro.sample("obs", dist.Normal(latent, 1.0), obs=x)


def two_plate_guide(x):
    with pyro.plate("rows", 20, dim=-2), pyro.plate("columns", 20, dim=-1):
        pyro.sample("latent", dist.Normal(x / 2, 1.0))


def with_mask(x, mask):
    model(x)


names = {"program": lambda: Program(model, other_guide)}
fits("latents differ", REALS, r"\['latent'\] .* \['code'\]", "same names", "renaming", **names)
idle = {"program": lambda: Program(unobserving, guide)}
fits("no observation", REALS, r"observes nothing .*\['latent'\]", "obs=", "obs=x", **idle)
forgot = {"program": lambda: Program(forgetful, guide)}
fits("obs= forgotten", REALS, r"\['latent', 'obs'\]", "same names", "giving data obs=", **forgot)
no_latent = {"program": lambda: Program(latentless, lambda x: None)}
fits("no latent", REALS, r"without latents .*\['obs'\]", "at least one site", "sample", **no_latent)
arity = {"program": lambda: Program(with_mask, guide)}
fits("a model of two", REALS, r"1 array\(s\)", r"model\(x, mask\)", "tuple", **arity)
refuses(
    "two plates of the batch's size",
    lambda: log_weights(Program(two_plates, two_plate_guide), zeros(20, 20), 5),
    r"\['rows', 'columns'\] both have the batch's size 20",
    "[Ee]xpected",
    "Try",
)
refuses(
    "a plate that is not there",
    lambda: log_weights(Program(model, guide, plate="data"), REALS, 5),
    "plate='data'",
    "holds every observed site",
    r"\['rows'\]",
)
refuses("a number as plate", lambda: Program(model, guide, plate=20), "=20", "name", 'plate="data"')
refuses("a name as model", lambda: Program("vae", guide), "'vae' as model", "Pyro function", "Try")
refuses("no guide", lambda: Program(model, None), "None as guide", "Pyro function", "Try Program")
refuses(
    "a net as modules",
    lambda: Program(model, guide, modules=linear),
    "Linear as modules",
    "a list of nn.Module",
    r"modules=\[net\]",
)
refuses(
    "names as modules",
    lambda: Program(model, guide, modules=["net"]),
    "'net' in modules",
    "nn.Module",
    r"modules=\[enc",
)
refuses(
    "a function as program",
    lambda: fit(model, REALS, epochs=1),
    "Got a function as program",
    "a VAE or a Program",
    r"Program\(model, guide\)",
)

# ---- the arguments of fit

x = bits(20, 6)
for bad in (ppl_vae.ELBO, "elbo", None, pyro.infer.Trace_ELBO):
    fits(
        f"objective={bad}"[:40],
        x,
        re.escape(f"objective={bad!r}"),
        "an instance such as",
        "Try objective=ELBO",
        objective=bad,
    )
adam, rates = torch.optim.Adam, torch.optim.lr_scheduler
pyro_schedule = {"optimizer": adam, "optim_args": {"lr": 1e-3}, "gamma": 0.9}
for name, bad, got in (
    ("a class", adam, "torch.optim.adam.Adam"),
    ("a name", "adam", "'adam'"),
    ("a PyroLRScheduler", pyro.optim.ExponentialLR(pyro_schedule), "PyroLRScheduler"),
    ("a name in a tuple", ("adam", {}), r"\('adam', \{\}\), which cannot be built"),
    ("an unknown argument", (adam, {"rate": 1}), r"\(Adam, \{'rate': 1\}\)"),
    ("a negative rate", (adam, {"lr": -1}), "Invalid learning rate: -1"),
    ("a net's class", (nn.Linear, {}), r"\(Linear, \{\}\)"),
    ("one that wants a closure", (torch.optim.LBFGS, {}), "LBFGS"),
):
    fits(f"optimizer: {name}", x, got, "expected a", "torch.optim.Adam", optimizer=bad)
for name, bad, got in (
    ("a name", "cosine", "'cosine'"),
    ("a class", rates.ExponentialLR, "ExponentialLR'>"),
    ("an unknown argument", (rates.ExponentialLR, {"gama": 1}), r"\(ExponentialLR, \{'gama': 1\}"),
    ("one that wants a metric", (rates.ReduceLROnPlateau, {}), "ReduceLROnPlateau"),
):
    fits(f"schedule: {name}", x, got, "expected", "ExponentialLR, .*gamma", schedule=bad)
fits("patience alone", x, "patience=3 without", "data to judge", "validation=0.1", patience=3)
fits(
    "patience under Adversarial",
    x,
    "patience under Adversarial",
    "none: an adversary has no validation score",
    "fewer epochs",
    patience=3,
    validation=0.5,
    objective=Adversarial(),
)
for bad in (0, 1, 1.5, NAN, True):
    fits(
        f"validation={bad}",
        x,
        f"validation={bad}",
        "between 0 and 1",
        "validation=0.1",
        validation=bad,
    )
fits("validation too small", x, "0.01 of 20 rows", "a row or more", "Try 0.1", validation=0.01)
fits("validation by name", x, "a str as validation", "array", "Try", validation="20%")
for name in ("epochs", "batch_size"):
    for bad in (0, -1, 2.5, True):
        fits(f"{name}={bad}", x, f"{name}={bad}", "positive integer", f"{name}=1", **{name: bad})
for bad in (-1, 0, NAN, True):
    fits(f"clip_norm={bad}", x, f"clip_norm={bad}", "positive number or None", "10", clip_norm=bad)
for bad in ("a", 1.5, True):
    fits(f"seed={bad}", x, f"seed={bad!r}", "an integer or None", "seed=0", seed=bad)
normed = {"program": lambda: a_vae(net=batch_norm)}
fits("BatchNorm, last row", x, "20 rows in batches of 19", "two", "=20", batch_size=19, **normed)
fits("BatchNorm, one row", x, "20 rows in batches of 1,", "two", "=2", batch_size=1, **normed)
fits("BatchNorm, odd", bits(7, 6), "batches of 2,", "two", "batch_size=4", batch_size=2, **normed)

# ---- objectives

for arguments, got, expected in (
    ({"num_particles": 0}, "num_particles=0", "positive integer"),
    ({"num_particles": 2.5}, "num_particles=2.5", "positive integer"),
    ({"kl_weight": -1}, "kl_weight=-1", "finite number of 0 or more"),
    ({"kl_weight": "1"}, "kl_weight='1'", "finite number of 0 or more"),
    ({"warmup": NAN}, "warmup=nan", "finite number of 0 or more"),
    ({"analytic_kl": "yes"}, "analytic_kl='yes'", "a bool"),
):
    refuses(f"ELBO({arguments})", lambda a=arguments: ppl_vae.ELBO(**a), got, expected, "Try")
for arguments, got, expected, attempt in (
    ({"weight": -1}, "weight=-1", "finite number of 0 or more", "10"),
    ({"weight": "1"}, "weight='1'", "finite number of 0 or more", "10"),
    ({"critic": nn.Linear(2, 1)}, "Linear as critic", r"builder \(in_features, 1\)", "MLP"),
    ({"critic_optimizer": adam}, "critic_optimizer=Adam", "class and its arguments", "'lr'"),
):
    refuses(
        f"Adversarial({arguments})"[:50],
        lambda a=arguments: Adversarial(**a),
        got,
        expected,
        attempt,
    )
for name, critic, got, expected in (
    ("a critic of two logits", lambda i, o: nn.Linear(i, 2), r"\(10, 2\)", r"\(10, 1\)"),
    ("a critic without weights", lambda i, o: torch.relu, "builtin_function", "nn.Module"),
):
    fits(name, x, got, expected, "Try", objective=Adversarial(critic=critic))
wrong_critic = Adversarial(critic_optimizer=(adam, {"rate": 1}))
fits(
    "critic_optimizer",
    x,
    r"critic_optimizer=\(Adam, \{'rate'",
    "class",
    "Try",
    objective=wrong_critic,
)


@case("warm-up under SVI", "warmup=3 outside fit", "expected 0", r"fit\(program, data")
def _(folder: Path):
    program = a_vae()
    optimizer = pyro.optim.Adam({"lr": 0.1})
    svi = pyro.infer.SVI(program.model, program.guide, optimizer, ppl_vae.ELBO(warmup=3))
    return lambda: svi.step(x), program


class SampledOnly(dist.TorchDistribution):
    arg_constraints: dict = {}
    support = torch.distributions.constraints.real_vector
    has_rsample = False

    def expand(self, batch_shape, _instance=None):
        return SampledOnly(torch.Size(batch_shape), self.event_shape, validate_args=False)

    def sample(self, sample_shape=torch.Size()):  # noqa: B008
        return torch.randn(sample_shape + self.batch_shape + self.event_shape)

    def log_prob(self, value):
        raise NotImplementedError


class SampledPrior(nn.Module):
    event_shape = torch.Size([2])

    def forward(self):
        return SampledOnly(torch.Size(), self.event_shape, validate_args=False)


sampled = {"program": lambda: VAE(**parts(prior=SampledPrior()))}
fits("ELBO of samples", x, "the prior at 'z' can only be", "log_prob", "Adversarial", **sampled)

fits("a kernel without pairs", x, "a single row", "pairs", "=128", batch_size=1, objective=MMD())

# ---- checkpoints


def resumed(write: Callable[[Path], None], **arguments: object) -> Callable:
    """A `fit` that meets a file: `write` makes it."""

    def prepare(folder: Path) -> tuple[Action, nn.Module]:
        path = folder / "run.safetensors"
        write(path)
        program = arguments.get("program", a_vae)()
        given = {"epochs": 1, "batch_size": 10, "seed": 0, "progress": False, "checkpoint": path}
        given |= {k: v for k, v in arguments.items() if k != "program"}
        return lambda: fit(program, x, **given), program

    return prepare


def a_run(path: Path, **arguments: object) -> None:
    given = {"epochs": 1, "batch_size": 10, "seed": 0, "progress": False, **arguments}
    fit(a_vae(), x, checkpoint=path, **given)


def half_a_run(path: Path) -> None:
    a_run(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def plain_weights(path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"weight": torch.ones(3)}, path)


garbage = resumed(lambda path: path.write_bytes(b"no checkpoint"))
unread = "which cannot be read"
case("garbage checkpoint", f"safetensors', {unread}", "a file that fit wrote", "delete")(garbage)
case("half a checkpoint", unread, "a file that fit wrote", "delete")(resumed(half_a_run))
case("weights of others", "no ppl_vae manifest", "fit wrote", "delete")(resumed(plain_weights))
case("a folder", unread, "a file that fit wrote", "delete")(resumed(lambda path: path.mkdir()))
case("another run", "batch_size was 10, now 5", "same arguments", "another path")(
    resumed(a_run, batch_size=5)
)
case("other data", r"sum of the data was '\[\d+", "same arguments", "another path")(
    resumed(
        lambda path: fit(
            a_vae(), 1 - x, epochs=1, batch_size=10, seed=0, progress=False, checkpoint=path
        )
    )
)


@case("no such folder", "checkpoint=.*in a folder that is not there", "one that is", "mkdir -p")
def _(folder: Path):
    program = a_vae()
    path = folder / "no" / "run.safetensors"
    return lambda: fit(program, x, epochs=1, seed=0, progress=False, checkpoint=path), program


fits("no such device", x, "device='gpu'", "of this machine", 'device="cpu"', device="gpu")
fits("a number as checkpoint", x, "checkpoint=3", "path of a file", "safetensors", checkpoint=3)

# ---- draws, weights, diagnostics


def asks(name: str, ask: Callable[[VAE], object], got: str, expected: str, attempt: str) -> None:
    """Add a case of a function of a program."""

    def prepare(folder: Path) -> tuple[Action, nn.Module]:
        program = a_vae()
        program.guide(x)  # some of these run the program first, which registers it
        return lambda: ask(program), program

    case(name, got, expected, attempt)(prepare)


asks(
    "weights of 0 draws", lambda p: log_weights(p, x, 0), "num_samples=0", "positive integer", "Try"
)
asks("weights of 2.5 draws", lambda p: log_weights(p, x, 2.5), "num_samples=2.5", "positive", "Try")
asks("weights in rows of 0", lambda p: log_weights(p, x, 5, rows=0), "rows=0", "positive", "Try")
asks("weights of inf", lambda p: log_weights(p, put(INF), 5), "inf at row 3, .* in x", "fin", "Try")
asks("weights of another shape", lambda p: log_weights(p, x[:, :3], 5), "20, 3", r"N, 6", "Try")
asks(
    "one draw", lambda p: log_evidence(p, x, 1, seed=0), r"1 draw\(s\)", "at least 2", "more draws"
)
asks(
    "level=95",
    lambda p: log_evidence(p, x, 20, level=95, seed=0),
    "got 95",
    "between 0 and 1",
    "0.95",
)
asks(
    "0 predictive draws",
    lambda p: posterior_predictive(p, x, 0),
    "num_samples=0",
    "positive",
    "Try",
)
asks("draws of no rows", lambda p: posterior_predictive(p, x[:0], 3), "no rows in x", "one", "Try")
asks("0 prior draws", lambda p: prior_predictive(p, 0, like=x), "num_samples=0", "positive", "Try")
asks("diagnosis of 10 rows", lambda p: diagnose(p, x[:10]), "10 rows", "at least 20", "more data")
for labels in ([1, 2], 3, np.zeros((20, 1))):
    asks(
        f"labels of shape {np.shape(labels)}",
        lambda p, labels=labels: diagnose(p, x, labels=labels),
        re.escape(f"labels of shape {np.shape(labels)}"),
        r"\(20,\), one a row",
        "Try",
    )
asks("diagnosis seed", lambda p: diagnose(p, x, seed=None), "seed=None", "an integer", "seed=0")
asks("weights seed", lambda p: log_weights(p, x, 5, seed="a"), "seed='a'", "an integer", "seed=0")
asks("elpd of an array", lambda p: ppl_vae.elpd(np.zeros(3), x), "ndarray", "a VAE or", "Try Prog")
asks("one score", lambda p: ppl_vae.compare({"a": 1.0}), "1 score", "two programs or more", "elpd")
asks("a list of scores", lambda p: ppl_vae.compare([1.0, 2.0]), "Got list", "by name", "elpd")
asks(
    "numbers as scores", lambda p: ppl_vae.compare({"a": 1.0, "b": 2.0}), "'float'", "held", "elpd"
)


def given(p: VAE, latents: object) -> object:
    return ppl_vae.data_given(p, latents, like=x)


asks("another latent", lambda p: given(p, {"w": zeros(3, 2)}), r"\['w'\]", r"\['z'\]", "'z': z")
asks("no latents", lambda p: given(p, zeros(0, 2)), r"no rows in latents", "one datum", "Try")
asks(
    "a number as latent", lambda p: given(p, torch.tensor(1.0)), "single number as z", "row", "Try"
)
asks("latents at NaN", lambda p: given(p, zeros(3, 2) / 0), "NaN .* latent 'z'", "finite", "Try")
asks("latent width", lambda p: given(p, zeros(3, 5)), r"\(3, 5\)", r"\(\*batch, 2\)", "Try")


def two_sites(x):
    with pyro.plate("rows", len(x)):
        latent = pyro.sample("latent", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(latent, 1.0), obs=x)
        pyro.sample("y", dist.Normal(latent, 1.0), obs=2 * x)


def tree(columns: list[str] | None, names: str = "abcdef") -> Callable[[VAE], object]:
    table = pd.DataFrame(x.numpy(), columns=list(names))
    return lambda p: to_datatree(p, table, num_samples=3, columns=columns)


asks("tree, three names", tree(["a", "b", "c"]), "3 column names", "6, one for each", "Try col")
asks("tree, one name twice", tree(None, "abcdea"), "'e', 'a'", "differ from each", "Try columns=")
asks("tree, a dim's name", tree(["row", *"abcde"]), "'row'", "from the dims", "Try columns=")
refuses(
    "tree, names of two sites",
    lambda: to_datatree(Program(two_sites, guide), REALS, columns=["x"]),
    r"sites \['x', 'y'\]",
    "a single site",
    "Try None",
)
asks("diagnosis of 0 draws", lambda p: diagnose(p, x, num_samples=0), "=0", "positive", "Try")
asks("a freak as fresh guide", lambda p: diagnose(p, x, fresh="yes"), "a str", "Program", "Try")

# ---- resolution

refuses("resolution of nothing", lambda: resolution([]), r"shape \(0,\)", "at least one", "rows")
refuses("resolution of a number", lambda: resolution(3.0), r"shape \(\)", r"\(N, \.\.\.\)", "rows")
refuses("resolution of NaN", lambda: resolution([1.0, NAN]), "1 values", "finite", "isfinite")
refuses("resolution of text", lambda: resolution(["a"]), "a list .*'a'", r"\(N, \.\.\.\)", "text")


# ---- the test


def held(program: nn.Module | None, folder: Path) -> dict[str, object]:
    """Everything that a refusal must leave alone, as values that compare by `==`."""
    store = pyro.get_param_store()
    tensors = {k: v.detach().numpy().tobytes() for k, v in store._params.items()}
    identities = {k: id(v) for k, v in store._params.items()}
    state = {
        "store": (tensors, identities),
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": str(np.random.get_state()),
        "random": random.getstate(),
        "files": {
            p.relative_to(folder): p.read_bytes() if p.is_file() else None
            for p in folder.rglob("*")
        },
    }
    if program is not None:
        state["tensors"] = {k: v.numpy().tobytes() for k, v in program.state_dict().items()}
        state["modes"] = [m.training for m in program.modules()]
        state["gradients"] = [p.grad for p in program.parameters()]
    return state


@pytest.mark.parametrize("bad", CASES, ids=lambda bad: bad.name)
def test_it_is_refused_and_nothing_has_happened(bad: Case, tmp_path: Path) -> None:
    action, program = bad.prepare(tmp_path)
    before = held(program, tmp_path)
    with pytest.raises(ValueError) as refusal:
        action()
    message = str(refusal.value)
    pattern = ".*".join((bad.got, bad.expected, bad.attempt))
    assert re.search(pattern, message, re.DOTALL), f"{pattern!r} is not in {message!r}"
    assert held(program, tmp_path) == before


def test_the_names_of_the_cases_differ() -> None:
    assert len({bad.name for bad in CASES}) == len(CASES) >= 40
