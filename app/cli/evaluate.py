"""`winnow eval`: which backend is best for one's own documents, and at what price."""

from pathlib import Path
from typing import Any

import msgspec
import rich_click as click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.cli.render import AskingView, clean
from app.cli.terminal import err, out, print_json, run, settings_here
from app.evaluation.models import EvalOptions, Report

_LABEL, _COLUMN = 24, 24
"""Characters of a row's name, and of a backend's column."""


@click.command("eval")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder with corpus.jsonl, queries.jsonl, qrels.tsv, and perhaps unanswerable.jsonl, as BEIR has them.",
)
@click.option(
    "--backend", "backends", multiple=True, metavar="NAME", help="To be compared with none, the baseline; repeatable."
)
@click.option("--answers", is_flag=True, help="Have the questions answered too, and unanswerable ones asked.")
@click.option(
    "--check", type=click.Choice(["structural", "model"]), default="structural", help="How citations are checked."
)
@click.option("--questions", type=click.IntRange(1), default=200, help="How many are asked, drawn by the seed.")
@click.option("--k", type=click.IntRange(1, 1000), default=20, help="Depth of recall@k.")
@click.option("--collection", help="Ask this collection of yours instead, whose document ids the judgements use.")
@click.option("--seed", type=int, default=1, help="Draws the questions, and resamples them.")
@click.option("--at-once", type=click.IntRange(1, 64), default=4, help="Questions under way at the same time.")
@click.option("--resume/--fresh", default=True, help="Go on where an earlier run ended, or ask everything anew.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the report here as JSON.")
@click.option("--markdown", type=click.Path(dir_okay=False, path_type=Path), help="Write the report here as a table.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def evaluate(
    data: Path, output: Path | None, markdown: Path | None, resume: bool, as_json: bool, **options: Any
) -> None:
    """Compare backends on your own documents and questions: quality, time and dollars side by side.

    The documents are indexed apart from your collections. What came of each question is kept in the home, so that a run
    that was stopped goes on from there; calls are booked in the ledger and count against the budgets.
    """
    for path in filter(None, (output, markdown)):
        _check_writable(path)
    report = run(_evaluate(data, EvalOptions(fresh=not resume, **options)))
    _write(report, output, markdown)
    if as_json:
        print_json(report)
    else:
        show_report(out, report)


async def _evaluate(folder: Path, options: EvalOptions) -> Report:
    from app.evaluation.evaluation import evaluate as compare
    from app.evaluation.runner import services_apart

    with AskingView(err) as view:
        async with services_apart(settings_here(), folder, options.collection) as (services, data, kept):
            return await compare(services, data, options, kept, view.show)


def _check_writable(path: Path) -> None:
    """Before an hour of questions, not after it."""
    try:
        path.open("ab").close()
    except OSError as exc:
        raise click.UsageError(f"{path} cannot be written: {exc.strerror}") from exc


def _write(report: Report, output: Path | None, markdown: Path | None) -> None:
    from app.evaluation.report import markdown as page

    if output:
        output.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    if markdown:
        markdown.write_text(page(report), encoding="utf-8")


def show_report(console: Console, report: Report) -> None:
    """As many backends side by side as fit; the baseline stands in every table."""
    from app.evaluation.report import notes, rows

    first, others = report.backends[0], report.backends[1:]
    room = max(1, (console.width - _LABEL) // (_COLUMN + 2) - 1)
    for start in range(0, len(others) or 1, room):
        some = msgspec.structs.replace(report, backends=(first, *others[start : start + room]))
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("", overflow="fold")
        for one in some.backends:
            table.add_column(clean(f"{one.backend}\n{one.model or ''}"), justify="right", overflow="fold")
        for row in rows(some):
            table.add_row(*map(clean, (row.name, *row.cells)), style="dim" if row.detail else "")
        console.print(table, soft_wrap=False)
        console.print()
    for note in notes(report):
        console.print(Text(clean(note), "dim"), soft_wrap=False)
