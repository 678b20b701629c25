"""README's commands, code, links and map say what is so, and so does the tutorial."""

import io
import re
from contextlib import redirect_stdout
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
NUMBER = r"(?<![A-Za-z])-?\d+(?:\.\d+)?(?:e-?\d+)?"


def blocks(language: str) -> list[str]:
    """The fenced blocks of README in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def run(page: str, name: str) -> list[tuple[str, str]]:
    """Run a page's Python from top to bottom; what it says that each block prints, and what did."""
    pattern = r"^```python\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?"
    names: dict[str, object] = {"__name__": "page"}
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
    pairs = zip(re.findall(NUMBER, shown), re.findall(NUMBER, printed), strict=True)
    # A training run magnifies another processor's rounding: a nat, or a twentieth.
    return all(abs(float(a) - float(b)) <= max(1.0, 0.05 * abs(float(a))) for a, b in pairs)


def test_the_two_commands() -> None:
    # .ci/run reads both from README and runs them; each is one line that needs nothing before it.
    install = "python3 -m venv .venv && .venv/bin/pip install -c constraints.txt -e"
    assert blocks("bash") == [
        f"{install} . && .venv/bin/ppl-vae demo\n",
        f"{install} '.[test]' && .venv/bin/pytest\n",
    ]


def test_the_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(run(README, "README.md")) == len(blocks("python")) > 0


@pytest.mark.slow
def test_the_tutorial_prints_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outputs = run(TUTORIAL, "docs/tutorial.md")
    assert [(shown, printed) for shown, printed in outputs if not same(shown, printed)] == []
    assert TUTORIAL.count("```text\n") == sum(bool(shown) for shown, _ in outputs) > 5
    assert {p.name for p in tmp_path.iterdir()} == {"history.png", "priors.html"}


def test_another_output_is_seen() -> None:
    page = "```python\nprint('a', 20.0, '3.1 s')\n```\n\n```text\n{}\n```\n"
    for text, fits in (("a 20.5 9.9 s", True), ("a 23.0 3.1 s", False), ("b 20.0 3.1 s", False)):
        ((shown, printed),) = run(page.format(text), "page")
        assert same(shown, printed) is fits
    assert not same("", "a\n") and same("", "")


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
