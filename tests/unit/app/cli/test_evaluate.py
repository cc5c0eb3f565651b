"""What `winnow eval` and `winnow calibrate` show."""

from io import StringIO

import msgspec
import pytest
from rich.console import Console

from app.cli.calibrate import diagram, show_calibration
from app.cli.evaluate import show_report
from app.cli.render import EvaluationView
from app.evaluation.calibration import CalibrationReport, HeldOut
from app.evaluation.models import EvaluationProgress
from app.ranking.calibration import Bin, Fit
from tests.unit.app.evaluation.test_report import GEMMA, REPORT

BINS = (
    Bin(low=0.0, high=0.1, n=900, score=0.05, relevant=0.0),
    Bin(low=0.9, high=1.0, n=1100, score=1.0, relevant=0.5),
)
CALIBRATED = CalibrationReport(
    backend="gemma",
    model="gemma-3",
    prompt_version="1",
    fit=Fit(
        slope=0.5, offset=-1.25, data_hash="d", n=2000, positives=550, ece_before=0.3, ece_after=0.01, log_loss=0.2
    ),
    held_out=HeldOut(n=1000, ece_before=0.3, ece_after=0.02, log_loss_before=0.5, log_loss_after=0.25),
    before=BINS,
    after=BINS[:1],
    queries=100,
    failed=0,
    unread=0,
    requests=200,
    cost_usd=0.12,
    seconds=75.0,
    kept_in="/home/me/.winnow/calibration.json",
)


def console(width: int = 80, *, terminal: bool = False) -> Console:
    return Console(file=StringIO(), width=width, color_system=None, soft_wrap=True, force_terminal=terminal)


def text_of(console: Console) -> str:
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(("width", "tables"), [(80, 2), (120, 1)])
def test_a_report_fits_the_terminal(width: int, tables: int) -> None:
    """What has no room beside the others gets a table of its own, with the baseline in it."""
    flash = msgspec.structs.replace(GEMMA, backend="flash", model="a-model-with-a-very-long-name-that-is-folded")
    shown = console(width)
    show_report(shown, msgspec.structs.replace(REPORT, backends=(*REPORT.backends, flash)))
    lines = text_of(shown).splitlines()
    assert max(map(len, lines)) <= width
    assert sum(line.startswith("nDCG@10") for line in lines) == tables
    assert sum("none" in line and "gemma" in line for line in lines) == 1


def test_a_calibration_is_shown() -> None:
    """The figures before and after, the diagram, the formula, and what to do next."""
    shown = console()
    show_calibration(shown, CALIBRATED)
    text = text_of(shown)
    assert max(map(len, text.splitlines())) <= 80
    for piece in ("2,000 (550 relevant)", "0.300 -> 0.010", "0.500 -> 0.250", "200 requests, $0.1200, 1 min 15 s"):
        assert piece in text
    assert "score = sigmoid(0.500 z -1.250)" in text
    assert "after a restart" in text


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"held_out": None}, "too few questions to hold half of them out"),
        (
            {"held_out": HeldOut(n=9, ece_before=0.1, ece_after=0.2, log_loss_before=0.1, log_loss_after=0.2)},
            "the scores got worse",
        ),
        ({"failed": 3}, "3 questions failed and are left out"),
        ({"unread": 1200}, "1,200 documents were not graded"),
    ],
)
def test_doubts_are_told(changed: dict[str, object], said: str) -> None:
    """What makes the fit worth less."""
    shown = console()
    show_calibration(shown, msgspec.structs.replace(CALIBRATED, **changed))
    assert said in text_of(shown)
    plain = console()
    show_calibration(plain, CALIBRATED)
    assert said not in text_of(plain)


def test_a_diagram_has_a_line_for_each_bin() -> None:
    """The bar is the share of relevant documents, the mark the mean score."""
    head, low, high = diagram(BINS, BINS[:1])
    assert head.split() == ["score", "before", "after"]
    assert low.startswith("0.0-0.1  .|....................     900   .|")
    assert high == "0.9-1.0  ###########..........|   1,100"


def test_progress_is_told_now_and_then() -> None:
    """Where no terminal is: at the start, at the end, and every few seconds; with dollars and failures."""
    now = 0.0
    shown = console()
    with EvaluationView(shown, lambda: now) as view:
        for done, at in ((0, 0.0), (1, 1.0), (2, 7.0), (3, 8.0)):
            now = at
            view.show(EvaluationProgress(step="gemma", done=done, total=3, usd=0.25 * done, failed=done // 2))
    assert text_of(shown).splitlines() == [
        "gemma: 0 of 3",
        "gemma: 2 of 3, $0.5000, 1 failed",
        "gemma: 3 of 3, $0.7500, 1 failed",
    ]


def test_a_terminal_gets_a_bar() -> None:
    """A line for each step, with what it has cost so far."""
    shown = console(100, terminal=True)
    with EvaluationView(shown) as view:
        view.show(EvaluationProgress(step="none", done=3, total=3))
        view.show(EvaluationProgress(step="gemma", done=1, total=3, usd=0.25))
    text = text_of(shown)
    assert "1/3" in text
    assert "$0.2500" in text
