"""README's commands, code, links and map say what is so, and so does the tutorial."""

import io
import json
import re
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from ppl_vae.diagnostics import mean_evidence

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BELIEVE = (ROOT / "docs" / "believe.md").read_text(encoding="utf-8")
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
NUMBER = r"(?<![A-Za-z])-?\d+(?:\.\d+)?(?:e-?\d+)?"


def blocks(language: str) -> list[str]:
    """The fenced blocks of README in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def run(page: str, name: str, names: dict[str, Any]) -> list[tuple[str, str]]:
    """Run a page's Python from top to bottom; what it says that each block prints, and what did.

    What the blocks define is put into `names`.
    """
    pattern = r"^```python\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?"
    names["__name__"] = "page"
    printed = []
    for number, (block, shown) in enumerate(re.findall(pattern, page, re.DOTALL | re.MULTILINE), 1):
        out = io.StringIO()
        with redirect_stdout(out):
            exec(compile(block, f"{name}, Python block {number}", "exec"), names)
        printed.append((shown, out.getvalue()))
    return printed


def same(shown: str, printed: str) -> bool:
    """Whether two outputs have the same words, and numbers that differ by rounding at most."""
    shown, printed = (re.sub(r"[\d.]+ s$", "# s", t, flags=re.MULTILINE) for t in (shown, printed))
    if re.sub(NUMBER, "#", shown).split() != re.sub(NUMBER, "#", printed).split():
        return False
    found = re.finditer(rf"({NUMBER})( ?%)?", shown)
    pairs = zip(found, re.findall(NUMBER, printed), strict=True)
    return all(abs(float(m[1]) - float(b)) <= tolerance(m[1], bool(m[2])) for m, b in pairs)


def tolerance(number: str, share: bool) -> float:
    """How far from a number another machine may be, whose rounding a training run magnifies.

    Counts are exact. Measurements, which have decimals, may differ by a fifth, though by one nat at
    most: two standard errors or more of these data. Shares may differ by seven points, two standard
    errors of the difference of two shares of 400.
    """
    if share:
        return 7.0
    return min(1.0, 0.2 * abs(float(number))) if re.search(r"[.e]", number) else 0.0


def test_the_two_commands() -> None:
    # .ci/run reads both from README and runs them; each is one line that needs nothing before it.
    install = "python3 -m venv .venv && .venv/bin/pip install -c constraints.txt -e"
    assert blocks("bash") == [
        f"{install} . && .venv/bin/ppl-vae demo\n",
        f"{install} '.[test]' && .venv/bin/pytest\n",
    ]


def test_the_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(run(README, "README.md", {})) == len(blocks("python")) > 0


@pytest.mark.slow
def test_the_tutorial_prints_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    outputs = run(TUTORIAL, "docs/tutorial.md", names)
    assert [(shown, printed) for shown, printed in outputs if not same(shown, printed)] == []
    assert TUTORIAL.count("```text\n") == sum(bool(shown) for shown, _ in outputs) > 5
    assert {p.name for p in tmp_path.iterdir()} == {"history.png", "priors.html"}
    assert false_claims(names) == []


def false_claims(names: dict[str, Any]) -> list[str]:
    """What the tutorial's prose says of its numbers, where it is not so."""
    held, history, mixture = names["held"], names["history"], names["mixture_result"].history
    single, ten = names["found"]
    gaps = [d.terms.kl_posterior.mean() for d in names["found"]]
    pairs = [tuple(map(mean_evidence, (d.evidence, d.fresh_evidence))) for d in names["found"]]
    chance = [d.match.classifier.accuracy for d in names["found"]]
    claims = {
        "it still rises": held[19] > held[9] + 1 > held[0],
        "held-out data follow, some nats below": 1 < history["elbo"][-1] - held[-1] < 10,
        "the mixture's bound is higher": mixture["validation_elbo"][-1] > held[-1] + 1,
        "several nats for both": min(gaps) > 2,
        "fresh: a higher bound": all(f.mean > own.mean + 1 for own, f in pairs),
        "fresh: fewer high k-hats": all(f.unquantified < own.unquantified for own, f in pairs),
        "both units are in use": single.active.count == ten.active.count == 2,
        "far more often than a coin": chance[0] > 0.7,
        "moved towards the data, not all the way": 0.53 < chance[1] < chance[0] - 0.1,
        "by many standard errors": names["difference"].mean() > 5 * names["error"],
    }
    return [claim for claim, holds in claims.items() if not holds]


def test_the_second_tutorial_quotes_what_its_script_found() -> None:
    found = json.loads((ROOT / "benchmarks" / "results" / "believe.json").read_text("utf-8"))
    page, f = BELIEVE.replace("\\|", "|"), found["figures"]
    rows = [f"| {check} | {value} | {effect} | {verdict} |" for check, value, effect, _, verdict, _
            in f["findings"]]  # fmt: skip
    before, after, full = f["same_200"], f["refined_200"], f["full_covariance"]
    quoted = [
        *(row.replace("\u00a0", " ") for row in rows),
        f"{100 * f['variance_explained']:.0f} % of the variance",
        f"with a gap of {full['gap']:.2f} nats",
        f"k-hat too high for {100 * full['khat_high']:.0f} %",
        f"{f['gaps']['amortisation']:.2f} nats are *amortisation*",
        f"would gain {f['gaps']['correlation']:.2f} on top",
        f"| ELBO, nats per digit | {before['elbo']:.2f} | {after['elbo']:.2f} |",
        f"| evidence, at least | {before['evidence']:.2f} | {after['evidence']:.2f} |",
        f"| KL to p(z|x) | {before['gap']:.2f} | {after['gap']:.2f} |",
        f"| {100 * before['khat_high']:.0f} % | {100 * after['khat_high']:.0f} % |",
        f"| {100 * f['told_apart_before']:.0f} % | {100 * f['told_apart_after']:.0f} % |",
        f"| {f['mean_error_before']:.2f} | {f['mean_error_after']:.2f} |",
    ]
    assert [
        text for text in quoted if text not in page.replace("−", "-") and text not in page
    ] == []
    ranks = json.loads((ROOT / "benchmarks" / "results" / "khat_digits.json").read_text("utf-8"))
    of = ("rms_mean_error", "rms_log_sd_ratio", "c2st")
    found = [ranks["figures"][f"own_khat_and_{name}"] for name in of]
    assert [text for text in found if text not in page.replace("−", "-")] == []
    pictures = set(re.findall(r"images/(believe_\w+\.svg)", page))
    assert pictures == {p.name for p in (ROOT / "docs" / "images").glob("believe_*.svg")}


def test_another_output_is_seen() -> None:
    page = "```python\nprint('a', 20.0, '3.1 s')\n```\n\n```text\n{}\n```\n"
    for text, fits in (("a 20.5 9.9 s", True), ("a 23.0 3.1 s", False), ("b 20.0 3.1 s", False)):
        ((shown, printed),) = run(page.format(text), "page", {})
        assert same(shown, printed) is fits
    assert not same("", "a\n") and same("", "")
    line = "N={}; {} ± {}; k-hat > {} for {}%"
    right = (397, -177.411, 0.021, 0.5, 75)
    assert same(line.format(*right), line.format(397, -177.9, 0.019, 0.5, 77))
    for i, number in enumerate((396, -169.411, 0.921, 1.4, 60)):
        wrong = line.format(*right[:i], number, *right[i + 1 :])
        assert not same(line.format(*right), wrong), wrong


def test_the_example_takes_ten_lines() -> None:
    first = blocks("python")[0].splitlines()
    assert len([line for line in first if line.strip()]) <= 10


def test_local_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)", README)
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []


def test_the_map_shows_the_house() -> None:
    (house,) = (block for block in blocks("text") if block.startswith("ppl_vae/\n"))
    shown = {line.split()[0].rstrip("/") for line in house.splitlines()[1:]}
    there = {
        path.name
        for path in (ROOT / "ppl_vae").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert shown == there - {"__init__.py"}
