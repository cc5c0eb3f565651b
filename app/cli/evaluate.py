"""`winnow eval`: compares backends on judged questions."""

from pathlib import Path
from typing import Any

import msgspec
import rich_click as click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.cli.render import EvaluationView, clean
from app.cli.terminal import current_settings, err, out, print_json, run
from app.evaluation.models import EvalOptions, Report

_LABEL, _COLUMN = 24, 24
"""Width of the first column, and of a backend's, in characters."""


@click.command("eval")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    help="Directory with corpus.jsonl, queries.jsonl, qrels.tsv and optionally unanswerable.jsonl, in the BEIR layout.",
)
@click.option(
    "--backend",
    "backends",
    multiple=True,
    metavar="NAME",
    help="Backend to compare with the baseline, none; repeatable.",
)
@click.option("--answers", is_flag=True, help="Also evaluate answers, and ask the unanswerable questions.")
@click.option(
    "--check",
    type=click.Choice(["structural", "model"]),
    default="structural",
    help="How citations are verified: by rules, or by a model.",
)
@click.option("--questions", type=click.IntRange(1), default=200, help="Number of questions to ask.")
@click.option("--k", type=click.IntRange(1, 1000), default=20, help="Depth of recall@k.")
@click.option(
    "--expand",
    "expand_query",
    type=click.Choice(["none", "multi", "hyde"]),
    default="none",
    help="Let a model write other phrasings of each question, or a passage that could answer it, to search with it.",
)
@click.option("--collection", help="Search this existing collection instead; the judgements must use its document ids.")
@click.option("--seed", type=int, default=1, help="Random seed for drawing and resampling questions.")
@click.option("--concurrency", type=click.IntRange(1, 64), default=4, help="Questions asked at the same time.")
@click.option("--resume/--fresh", default=True, help="Continue an earlier run, or ask everything again.")
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the report to this file as JSON."
)
@click.option(
    "--markdown", type=click.Path(dir_okay=False, path_type=Path), help="Write the report to this file as Markdown."
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def evaluate(
    data: Path, output: Path | None, markdown: Path | None, resume: bool, as_json: bool, **options: Any
) -> None:
    """Compare the quality, speed and cost of backends on your own documents and questions.

    The documents are indexed separately from your collections. The result of each question is saved, so that an
    interrupted run can be resumed. Model calls are recorded in the ledger and count towards the budgets.
    """
    for path in filter(None, (output, markdown)):
        _check_writable(path)
    report = run(_evaluate(data, EvalOptions(fresh=not resume, **options)))
    _write(report, output, markdown)
    if as_json:
        print_json(report)
    else:
        show_report(out, report)
    _check(report)


def _check(report: Report) -> None:
    from app.evaluation.evaluation import check_measured

    check_measured(report)


async def _evaluate(folder: Path, options: EvalOptions) -> Report:
    from app.evaluation.evaluation import evaluate as compare
    from app.evaluation.runner import evaluation_services

    with EvaluationView(err) as view:
        async with evaluation_services(current_settings(), folder, options.collection) as (services, data, results):
            return await compare(services, data, options, results, view.show)


def _check_writable(path: Path) -> None:
    """Find out before an hour of questions, not after it."""
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
    """Tables with as many backends side by side as fit, each with the baseline first."""
    from app.evaluation.report import notes, rows

    first, others = report.backends[0], report.backends[1:]
    room = max(1, (console.width - _LABEL) // (_COLUMN + 2) - 1)
    for start in range(0, len(others) or 1, room):
        some = msgspec.structs.replace(report, backends=(first, *others[start : start + room]))
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("", overflow="fold")
        for one in some.backends:
            table.add_column(clean(f"{one.backend}\n{one.model or ''}"), justify="right", overflow="fold")
        for name, cells, is_detail in rows(some):
            table.add_row(*map(clean, (name, *cells)), style="dim" if is_detail else "")
        console.print(table, soft_wrap=False)
        console.print()
    for note in notes(report):
        console.print(Text(clean(note), "dim"), soft_wrap=False)
