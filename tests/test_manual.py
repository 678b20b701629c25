"""The manual's code runs, prints what it says, and is short where it says so."""

import re
from pathlib import Path

import pytest

from test_readme import run, same

DOCS = Path(__file__).parents[1] / "docs"
PAGES = [
    "choose/prior.md",
    "choose/likelihood.md",
    "choose/guide.md",
    "choose/objective.md",
    "choose/own.md",
    "missing.md",
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
