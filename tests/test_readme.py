"""README's commands, code, links and map say what is so."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The fenced blocks of README in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def test_the_two_commands() -> None:
    # .ci/run reads both from README and runs them; each is one line that needs nothing before it.
    install = "python3 -m venv .venv && .venv/bin/pip install -c constraints.txt -e"
    assert blocks("bash") == [
        f"{install} . && .venv/bin/ppl-vae demo\n",
        f"{install} '.[test]' && .venv/bin/pytest\n",
    ]


def test_the_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = blocks("python")
    assert found
    names: dict[str, object] = {"__name__": "readme"}
    for number, block in enumerate(found, 1):
        exec(compile(block, f"README.md, Python block {number}", "exec"), names)


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
