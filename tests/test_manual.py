"""The manual's code runs and prints what it says; its figures are what benchmarks found."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from test_readme import run, same

DOCS = Path(__file__).parents[1] / "docs"
RESULTS = DOCS.parent / "benchmarks" / "results"
PAGES = [
    "choose/prior.md",
    "choose/likelihood.md",
    "choose/guide.md",
    "choose/objective.md",
    "choose/own.md",
    "missing.md",
    "vae_vs_aae.md",
]


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_a_page_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = (DOCS / name).read_text(encoding="utf-8")
    outputs = run(page, name, {})
    assert len(outputs) == page.count("```python\n") > 0
    assert [(s, p) for s, p in outputs if s and not same(s, p)] == []


def test_your_own_piece_takes_under_twenty_lines() -> None:
    page = (DOCS / "choose/own.md").read_text(encoding="utf-8")
    pieces = re.findall(r"^(?:@dataclass.*\n)?(?:class|def) [\s\S]*?(?=^\S)", page, re.MULTILINE)
    assert len(pieces) >= 5
    assert max(len(piece.strip().splitlines()) for piece in pieces) < 20


def test_the_times_of_steps_are_those_that_were_measured() -> None:
    f = json.loads((RESULTS / "step_time.json").read_text("utf-8"))["figures"]
    page = (DOCS / "compiled.md").read_text(encoding="utf-8")
    head = re.search(r"^\| ms per step \| (.*) \|$", page, re.MULTILINE)
    assert head is not None
    for name, ms in f["ms_per_step"].items():
        cells = (f"{ms[c]:.2f}" if c in ms else "–" for c in head[1].split(" | "))
        assert f"| {name} | {' | '.join(cells)} |" in page
    small = f["ms_per_step"]["64-64-8 ELBO"]
    assert f"takes {small['NumPyro'] / small['ours compiled']:.2f} of the time" in page
    assert f"{100 * f['share_of_an_epoch_beside_its_steps']:.1f} % are not steps" in page


def test_the_comparison_quotes_what_its_script_found() -> None:
    found = json.loads((RESULTS / "vae_vs_aae.json").read_text("utf-8"))
    page = (DOCS / "vae_vs_aae.md").read_text(encoding="utf-8").replace("−", "-")
    f = {row["name"]: row for row in found["figures"]["rows"]}
    pace = found["figures"]["ms_per_step"]
    vae, vamp, aae, heavy = (f[n] for n in ("VAE", "VAE + VampPrior", "AAE 10", "AAE 100"))

    def pm(row: dict[str, Any], key: str) -> str:
        return f"{row[key]:.2f} ± {row[key + '_se']:.2f}"

    def looser(row: dict[str, Any]) -> float:
        return row["log_p_annealed"] - row["log_p_fresh_guide_there"]

    def share(value: float) -> str:
        return f"{100 * value:.0f} %"

    def beyond(key: str) -> list[float]:
        return [f[n][key] - vae[key] for n in ("AAE 10", "MMD 100", "no prior")]

    def used(row: dict[str, Any]) -> int:
        return sum(sd < 0.5 for sd in row["encoder_sd"])

    quoted = [
        *(
            f"| {n} | {pm(r, 'log_p_fresh_guide')} | {pm(r, 'log_p_beyond_vae')} | "
            f"{looser(r):+.2f} | {r['log_p_own_encoder']:.2f} | "
            f"{share(r['told_apart'])} | {share(r['covered'])} |"
            for n, r in f.items()
        ),
        *(
            f"| {n} | {r['log_p_x_given_z_train']:.1f} | {r['log_p_x_given_z']:.1f} | {used(r)} |"
            for n, r in f.items()
            if n != "VAE + VampPrior"  # whose scale of z is its own
        ),
        *(f"| {n} | {ms:.1f} |" for n, ms in pace.items()),
        f"among themselves it is {share(vae['covered_by_itself'])}",
        f"tells them apart in {share(vae['told_apart'])} of cases",
        f"{share(1 - vae['covered'])} of the prior lies outside the balls",
        f"{share(1 - vae['covered_by_itself'])} if codes were draws of it",
        f"the classifier is at {share(aae['told_apart'])}",
        f"{share(aae['covered'])} of the prior is covered",
        f"told apart in {share(f['MMD 100']['told_apart'])} of cases, as the VAE is",
        f"leaves {share(1 - f['MMD 100']['covered'])} of the prior outside",
        f"{share(f['no prior']['covered'])} of the prior lies among them, and the classifier is "
        f"right in {share(f['no prior']['told_apart'])}",
        f"At weight 10, {-aae['log_p_beyond_vae']:.1f} nats per image (of which the guide may owe "
        f"{looser(aae) - looser(vae):.1f}",
        f"the price is {-heavy['log_p_beyond_vae']:.1f} nats, or "
        f"{looser(vae) - looser(heavy) - heavy['log_p_beyond_vae']:.1f}",
        f"(a standard deviation of {min(heavy['encoder_sd'][-2:]):.3f} of 1)",
        f"the classifier stays at {share(heavy['told_apart'])}",
        f"the VAE's are {vae['encoder_sd'][0]:.2f} to {vae['encoder_sd'][-1]:.2f}",
        f"fit {min(beyond('log_p_x_given_z_train')):.0f} to "
        f"{max(beyond('log_p_x_given_z_train')):.0f} nats better",
        f"from {-min(beyond('log_p_x_given_z')):.0f} nats worse to "
        f"{max(beyond('log_p_x_given_z')):.0f} better",
        f"{('none', 'one', 'two', 'three')[8 - used(heavy)]} of the eight units of the AAE",
        f"has {aae['log_p_own_encoder']:.1f} nats, "
        f"{aae['log_p_fresh_guide'] - aae['log_p_own_encoder']:.0f} less than by the fresh guide",
        f"above 0.7 for {share(aae['khat_high_own'])} of the images under the AAE's own encoder, "
        f"for {share(vae['khat_high_own'])} under the VAE's",
        f"for {share(aae['khat_high'])} and {share(vae['khat_high'])}",
        f"told apart in {share(vamp['told_apart'])} of cases, "
        f"{share(vamp['covered'])} of its prior is covered "
        f"(of {share(vamp['covered_by_itself'])}), "
        f"and it has {vamp['log_p_beyond_vae']:.1f} nats *more*",
    ]
    assert [text for text in quoted if text not in " ".join(page.split())] == []
    # What the prose says without a number.
    assert abs(aae["told_apart"] - 0.5) < 2 * aae["told_apart_se"]  # "a coin"
    full = {n for n, r in f.items() if used(r) == 8} - {"VAE + VampPrior"}
    assert full == {"VAE", "AAE 10", "MMD 100", "no prior"}  # "where all eight units are in use"
    assert abs(f["MMD 100"]["told_apart"] - vae["told_apart"]) < 2 * vae["told_apart_se"]
    floor = [sd for n in ("AAE 10", "AAE 100") for sd in f[n]["encoder_sd"] if sd < 0.5]
    assert max(floor) < 0.005 and sorted(floor)[-3] < 0.0012  # "at or near", and most at it


def test_the_papers_figures_are_quoted_as_they_were_found() -> None:
    page = (DOCS / "aae_paper.md").read_text(encoding="utf-8").replace("−", "-")
    found = json.loads((RESULTS / "aae_mnist.json").read_text("utf-8"))["figures"]
    cells = {r["name"]: r for r in found["rows"]}
    known = cells.pop("references")
    plain, heavy = cells["plain"], cells["critic x 10"]
    classes = json.loads((RESULTS / "aae_classes.json").read_text("utf-8"))["figures"]["rows"]
    labelled, clusters = classes

    def beyond(name: str) -> str:
        return f"{cells[name]['parzen'] - plain['parzen']:+.1f}"

    quoted = [
        *(
            f"| {n} | {r['parzen']:.1f} ± {r['se_over_data']:.1f} | "
            f"{r['squared_error_of_a_test_image']:.1f} | {100 * r['told_from_the_prior']:.0f} % | "
            f"{100 * r['prior_covered']:.0f} % |"
            for n, r in cells.items()
        ),
        *(
            f"| 10,000 {n} | {known[n]['parzen']:.1f} ± {known[n]['se_over_data']:.1f} |"
            for n in ("training images", "centroids")
        ),
        f"*real* images score {known['training images']['parzen']:.0f}",
        f"score {known['centroids']['parzen']:.0f} (Theis",
        f"standard deviation of {heavy['sigma']:.2f} in each of 784 pixels",
        f"forgives a squared distance of about {784 * heavy['sigma'] ** 2:.0f}.",
        f"come back at {plain['squared_error_of_a_test_image']:.0f})",
        f"images come back at {heavy['squared_error_of_a_test_image']:.0f}, about",
        f"rises by {heavy['parzen'] - plain['parzen']:.0f} nats",
        f"the figure falls to {cells['critic x 100']['parzen']:.0f}.",
        f"Half the epochs hardly change it ({beyond('10 epochs')})",
        f"in the code ({beyond('code sd 0.5')}).",
        f'"{found["best_by_validation"]}" is the best of them',
        f"semi-supervised | {100 * labelled['test_error']:.2f} ± "
        f"{100 * labelled['se_over_data']:.2f} % | 1.60 % | {labelled['training_minutes']:.0f} |",
        f"nothing else | {100 * labelled['test_error_of_labels_alone']:.2f} % |",
        f"surest validation image | {100 * clusters['test_error']:.1f} % | 9.55 % | "
        f"{clusters['training_minutes']:.0f} |",
        f"most of their validation images | {100 * clusters['test_error_by_majority']:.1f} % |",
        f"is sure ({clusters['sureness']:.2f} on average)",
    ]
    assert [text for text in quoted if text not in " ".join(page.split())] == []
    ratio = labelled["test_error"] / labelled["test_error_of_labels_alone"]
    assert 0.4 < ratio < 0.6  # "halve the error"
    assert sum(r["parzen"] > known["training images"]["parzen"] for r in cells.values()) > 2


def test_what_the_match_finds_is_quoted_as_it_was_found() -> None:
    found = json.loads((RESULTS / "match_power.json").read_text("utf-8"))["figures"]
    page = (DOCS / "choose/objective.md").read_text(encoding="utf-8")
    rates = {(r["law"], r["D"]): r for r in found["rows"]}
    for law in {r["law"] for r in found["rows"]}:
        cells = " | ".join(f"{100 * rates[law, d]['together']:.0f} %" for d in (2, 8, 40))
        assert f"| {cells} |" in page
    assert found["levels_above_the_limit"] == "none"
    assert f"(of 500 runs; limit {100 * found['limit']:.1f} %)" in " ".join(page.split())
