"""`winnow calibrate`: fits a backend's scores to judged documents."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.cli.render import EvaluationView, clean, duration
from app.cli.terminal import current_settings, dollars, err, out, print_json, run
from app.evaluation.models import CalibrateOptions

if TYPE_CHECKING:  # they load numpy
    from app.evaluation.calibration import CalibrationReport
    from app.ranking.calibration import Bin

_BAR = 22
"""Characters of a bar."""


@click.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    help="Directory with corpus.jsonl, queries.jsonl and qrels.tsv in the BEIR layout.",
)
@click.option("--backend", required=True, help="Name of the configured backend to calibrate.")
@click.option("--questions", "queries", type=click.IntRange(2), default=100, help="Number of questions to grade.")
@click.option(
    "--depth", type=click.IntRange(20, 100), default=50, help="Passages that the model reads for each question."
)
@click.option(
    "--documents",
    "passages",
    type=click.IntRange(20),
    default=2000,
    help="Documents to use of a larger corpus: the relevant ones and a random sample of the others.",
)
@click.option(
    "--collection", help="Rank from this existing collection instead; the judgements must use its document ids."
)
@click.option("--seed", type=int, default=1, help="Random seed for drawing questions and documents.")
@click.option("--concurrency", type=click.IntRange(1, 64), default=4, help="Questions graded at the same time.")
@click.option("--resume/--fresh", default=True, help="Continue an earlier run, or grade everything again.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def calibrate(data: Path, resume: bool, as_json: bool, **options: Any) -> None:
    """Calibrate a backend's scores on judged documents, so that of those scored 0.8, 8 in 10 are relevant.

    The model grades the passages that are retrieved for the questions; documents without a judgement count as not
    relevant. The calibration is saved for this model and prompt version. A running service applies it after a restart.
    """
    report = run(_calibrate(data, CalibrateOptions(fresh=not resume, **options)))
    if as_json:
        print_json(report)
    else:
        show_calibration(out, report)


async def _calibrate(folder: Path, options: CalibrateOptions) -> "CalibrationReport":
    from app.evaluation.calibration import calibrate as fit
    from app.evaluation.runner import evaluation_services

    with EvaluationView(err) as view:
        async with evaluation_services(current_settings(), folder, options.collection, fits={}) as (
            services,
            data,
            results,
        ):
            return await fit(services, data, options, results, view.show)


def show_calibration(console: Console, report: "CalibrationReport") -> None:
    """The fit, how good it is, and a reliability diagram, in 80 columns."""
    fit = report.fit
    _say(console, f"{clean(report.model)} ({clean(report.backend)}), prompts {report.prompt_version}", "bold")
    console.print(_figures(report), soft_wrap=False)
    for line in diagram(report.before, report.after):
        _say(console, line)
    _say(console, "#: share of relevant documents; |: mean score, where the bar should end\n", "dim")
    _say(console, f"{report.requests:,} requests, {dollars(report.cost_usd)}, {duration(report.seconds)}", "dim")
    for line in _notes(report):
        _say(console, line, "yellow")
    _say(console, f"score = sigmoid({fit.slope:.3f} z {fit.offset:+.3f}), saved in {clean(report.kept_in)}")
    _say(console, "A running service applies it after a restart.")


def _figures(report: "CalibrationReport") -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column, head in enumerate(("", "documents", "calibration error", "log loss")):
        table.add_column(head, justify="right" if column else "left")
    fit, held_out = report.fit, report.held_out
    table.add_row(
        f"all {report.queries} questions",
        f"{fit.n:,} ({fit.positives:,} relevant)",
        f"{fit.ece_before:.3f} -> {fit.ece_after:.3f}",
        f"{fit.log_loss:.3f}",
    )
    if held_out is not None:
        table.add_row(
            "held-out half",
            f"{held_out.n:,}",
            f"{held_out.ece_before:.3f} -> {held_out.ece_after:.3f}",
            f"{held_out.log_loss_before:.3f} -> {held_out.log_loss_after:.3f}",
        )
    return table


def _notes(report: "CalibrationReport") -> list[str]:
    notes = []
    if report.held_out is None:
        notes.append("too few questions to hold half of them out: how well this generalises is unknown")
    elif report.held_out.log_loss_after > report.held_out.log_loss_before:
        notes.append("on the held-out questions the scores got worse: use more --questions")
    if report.failed:
        notes.append(f"{report.failed} questions failed and are left out; run the same command again to retry them")
    if report.unread:
        notes.append(f"{report.unread:,} documents were not graded and are left out")
    return notes


def diagram(before: "Sequence[Bin]", after: "Sequence[Bin]") -> list[str]:
    """A line for each bin of the score: without the calibration on the left, with it on the right."""
    lines = [f"{'score':<9}{'before':<{_BAR + 11}}after"]
    by_low = [{bin.low: bin for bin in bins} for bins in (before, after)]
    for low in sorted({*by_low[0], *by_low[1]}):
        halves = (_bar(bins.get(low)) for bins in by_low)
        lines.append(f"{low:.1f}-{low + 0.1:.1f}  {'   '.join(halves)}".rstrip())
    return lines


def _bar(bin: "Bin | None") -> str:
    if bin is None:
        return " " * (_BAR + 8)
    cells = ["#" if place < round(bin.relevant * _BAR) else "." for place in range(_BAR)]
    cells[min(round(bin.score * _BAR), _BAR - 1)] = "|"
    return f"{''.join(cells)} {bin.n:>7,}"


def _say(console: Console, line: str, style: str = "") -> None:
    console.print(Text(line, style))
