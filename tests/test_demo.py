"""The demo, with little training, and the command."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from ppl_vae.cli import app, main
from ppl_vae.demo import demo, train_and_diagnose

LITTLE = {"epochs": 1, "refit_epochs": 1, "num_samples": 30, "budget": 0, "progress": False}


def numbers(value: object) -> list[np.ndarray]:
    """Every number in a diagnosis but wall times."""
    if dataclasses.is_dataclass(value):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return [n for k, v in value.items() if k not in ("seconds", "history") for n in numbers(v)]
    if isinstance(value, int | float | np.ndarray) and np.asarray(value).dtype.kind in "fiub":
        return [np.asarray(value)]
    return []


def test_the_demo_writes_its_reports_and_one_seed_gives_one_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ppl_vae.demo.HELD_OUT", 120)
    screen = Console(record=True, width=80)
    first = demo(tmp_path / "new" / "folder", seed=3, console=screen, **LITTLE)
    assert sorted(p.name for p in first.page.parent.iterdir()) == [
        "aae.html", "mixture.html", "report.html", "vae.html",
    ]  # fmt: skip
    assert np.array_equal(first.vae.data, first.aae.data) and len(first.vae.data) == 120
    said = screen.export_text()
    assert "report.html" in said.replace("\n", "") and all(f"{k}." in said for k in (1, 2, 3))
    assert re.search(r"log p̂\(x\), fresh guide ± MC SE +−\d+\.\d+ ± [\d.]+ +−\d+\.\d+ ± ", said)
    assert max(map(len, said.replace(str(first.page), "").splitlines())) <= 80

    quiet = Console(quiet=True)
    again = train_and_diagnose(seed=3, console=quiet, **LITTLE)
    for one, two in zip(first[:3], again, strict=True):
        pairs = list(zip(numbers(one), numbers(two), strict=True))
        assert len(pairs) > 40
        assert all(np.array_equal(a, b, equal_nan=True) for a, b in pairs)
        for column in set(one.history.columns) - {"seconds"}:
            assert np.array_equal(one.history[column], two.history[column])


def test_a_folder_that_cannot_be_made_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("sys.argv", ["ppl-vae", "demo", "--out", str(tmp_path / "file" / "out")])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    said = capsys.readouterr().err
    assert "cannot be made" in said and "Try" in said and "Traceback" not in said


@pytest.mark.parametrize(
    "arguments", [["demo", "--seed", "x"], ["demo", "--seed", "-1"], ["demo", "--no"], ["fly"]]
)
def test_bad_options_are_sentences(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2 and "Traceback" not in result.output


def test_info_says_what_is_here() -> None:
    result = CliRunner().invoke(app, ["info"])
    assert result.exit_code == 0
    for word in ("python", "torch", "pyro-ppl", "cores", "C++ compiler", "headers", "digits"):
        assert word in result.output
