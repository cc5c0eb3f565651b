"""`winnow calibrate`: makes a backend's scores mean what they say."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rich_click as click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.cli.render import AskingView, clean, duration
from app.cli.terminal import dollars, err, out, print_json, run, settings_here
from app.evaluation.models import Calibrated, CalibrateOptions
from app.ranking.calibration import Bin

_BAR = 22


@click.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder with corpus.jsonl, queries.jsonl and qrels.tsv, as BEIR has them.",
)
@click.option("--backend", required=True, help="Whose scores to calibrate: a configured name.")
@click.option("--queries", type=click.IntRange(2), default=100, help="How many are asked.")
@click.option("--depth", type=click.IntRange(20, 100), default=50, help="Passages that the model reads for each.")
@click.option(
    "--passages",
    type=click.IntRange(20),
    default=2000,
    help="Documents taken of a larger corpus: the relevant ones, and others.",
)
@click.option("--collection", help="Rank from this collection of yours instead, whose document ids the judgements use.")
@click.option("--seed", type=int, default=1, help="Draws the queries and the other documents.")
@click.option("--at-once", type=click.IntRange(1, 64), default=4, help="Queries under way at the same time.")
@click.option("--fresh", is_flag=True, help="Ask everything anew, what an earlier run found out too.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def calibrate(data: Path, as_json: bool, **options: Any) -> None:
    """Fit a backend's scores to judged documents, so that 0.8 means: 8 of 10 are relevant.

    The model grades what retrieval finds for the queries; a document without a judgement counts as not relevant. The
    fit is kept for the model and the version of the prompts, and used from the next start of the service on.
    """
    found = run(_calibrate(data, CalibrateOptions(**options)))
    if as_json:
        print_json(found)
    else:
        show_calibrated(out, found)


async def _calibrate(folder: Path, options: CalibrateOptions) -> Calibrated:
    from app.evaluation.calibration import calibrate as fit
    from app.evaluation.runner import services_apart

    with AskingView(err) as view:
        async with services_apart(settings_here(), folder, options.collection, fits={}) as (services, data, kept):
            return await fit(services, data, options, kept, view.show)


def show_calibrated(console: Console, found: Calibrated) -> None:
    """The fit, what it is worth, and a reliability diagram; fits 80 columns."""
    fit = found.fit
    _say(console, f"{clean(found.model)} ({clean(found.backend)}), prompts {found.prompt_version}", "bold")
    console.print(_figures(found), soft_wrap=False)
    for line in diagram(found.before, found.after):
        _say(console, line)
    _say(console, "#: share of relevant documents; |: mean score, where the bar should end\n", "dim")
    _say(console, f"{found.requests:,} requests, {dollars(found.cost_usd)}, {duration(found.seconds)}", "dim")
    for line in _notes(found):
        _say(console, line, "yellow")
    _say(console, f"score = sigmoid({fit.slope:.3f} z {fit.offset:+.3f}), kept in {clean(found.kept_in)}")
    _say(console, "A service that is running uses it after its next start.")


def _figures(found: Calibrated) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column, head in enumerate(("", "documents", "calibration error", "log loss")):
        table.add_column(head, justify="right" if column else "left")
    fit, half = found.fit, found.held_out
    table.add_row(
        f"all {found.queries} queries",
        f"{fit.n:,} ({fit.positives:,} relevant)",
        f"{fit.ece_before:.3f} -> {fit.ece_after:.3f}",
        f"{fit.log_loss:.3f}",
    )
    if half is not None:
        table.add_row(
            "held-out half",
            f"{half.n:,}",
            f"{half.ece_before:.3f} -> {half.ece_after:.3f}",
            f"{half.log_loss_before:.3f} -> {half.log_loss_after:.3f}",
        )
    return table


def _notes(found: Calibrated) -> list[str]:
    notes = []
    if found.held_out is None:
        notes.append("too little to hold half of the queries out: how well this carries over is not known")
    elif found.held_out.log_loss_after > found.held_out.log_loss_before:
        notes.append("on queries it was not fitted on, the scores got worse: give it more --queries")
    if found.failed:
        notes.append(f"{found.failed} queries failed and are left out; the same command asks them again")
    if found.unread:
        notes.append(f"{found.unread:,} documents were not graded and are left out")
    return notes


def diagram(before: Sequence[Bin], after: Sequence[Bin]) -> list[str]:
    """A line for each bin of the score, without and with the calibration beside it."""
    lines = [f"{'score':<9}{'before':<{_BAR + 11}}after"]
    by_low = [{bin.low: bin for bin in bins} for bins in (before, after)]
    for low in sorted({*by_low[0], *by_low[1]}):
        halves = (_bar(bins.get(low)) for bins in by_low)
        lines.append(f"{low:.1f}-{low + 0.1:.1f}  {'   '.join(halves)}".rstrip())
    return lines


def _bar(bin: Bin | None) -> str:
    if bin is None:
        return " " * (_BAR + 8)
    cells = ["#" if place < round(bin.relevant * _BAR) else "." for place in range(_BAR)]
    cells[min(round(bin.score * _BAR), _BAR - 1)] = "|"
    return f"{''.join(cells)} {bin.n:>7,}"


def _say(console: Console, line: str, style: str = "") -> None:
    console.print(Text(line, style))
