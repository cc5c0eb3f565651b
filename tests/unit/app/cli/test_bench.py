"""What `winnow bench` shows."""

from io import StringIO

import msgspec
from rich.console import Console

from app.cli.bench import markdown_lines, rows, show_benchmarks, why_not
from app.domain import ANONYMOUS
from app.errors import BudgetExceeded
from tests.unit.app.accounting.test_benchmarks import MEASURED

UNABLE = msgspec.structs.replace(
    MEASURED,
    backend="own",
    model="a|b\x1b[31m",
    rerank_ms=None,
    usd_per_million_input=None,
    usd_per_1000_reranks=None,
    notes=("no rerank: it offers neither logprobs nor structured",),
)


def test_the_table_has_a_column_for_each_backend() -> None:
    """With a dash for what was not measured, and where it was measured for how much."""
    console = Console(file=StringIO(), width=80, color_system=None, soft_wrap=True)
    show_benchmarks(console, [MEASURED, UNABLE])
    assert isinstance(console.file, StringIO)
    text = console.file.getvalue()
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[0] == "gemma own"
    assert "tokens/s, 16 at once 850.0 850.0" in lines
    assert "rerank of 50 300 ms -" in lines
    assert "$ per million output tokens $0.12 $0.12" in lines
    assert any(line.startswith("gemma: winnow bench of 2026-11-29 on box (8 cores") for line in lines)
    assert "own: no rerank: it offers neither logprobs nor structured" in lines
    assert "\x1b" not in text


def test_a_reranker_has_dashes_for_what_it_does_not_write() -> None:
    """And its rerank."""
    reranker = msgspec.structs.replace(
        MEASURED, first_token_ms=0, tokens_per_s=0, tokens_per_s_at_16=0, usd_per_million_output=None
    )
    cells = dict(rows([reranker]))
    assert [name for name, (cell,) in cells.items() if cell == "-"] == [
        "first token",
        "tokens/s, one stream",
        "tokens/s, 16 at once",
        "$ per million output tokens",
    ]
    assert cells["rerank of 50"] == ["300 ms"]


def test_the_markdown_is_a_table() -> None:
    """Of as many cells in each row, whatever a model is called."""
    lines = markdown_lines([MEASURED, UNABLE])
    assert lines[:3] == ["|  | gemma | own |", "|---|---:|---:|", "| model | gemma-3-4b | a\\|b [31m |"]
    table = lines[: lines.index("")]
    assert {line.replace("\\|", "").count("|") for line in table} == {4}


def test_the_limit_of_the_run_is_no_budget_of_the_settings() -> None:
    """Its key is made for the run; a budget of the user's is told as it is."""
    own = BudgetExceeded("the budget of the key 'bench 1' is spent: daily_usd in [budgets.keys.bench 1]", 60)
    theirs = BudgetExceeded("the budget of all is spent: daily_usd in [budgets]", 60)
    assert "[budgets" not in why_not(own, msgspec.structs.replace(ANONYMOUS, key="bench 1"))
    assert why_not(theirs, msgspec.structs.replace(ANONYMOUS, key="bench 1")) == str(theirs)
