"""A report as rows of text, for a terminal or a Markdown file. Pure."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from app.evaluation.metrics import LEVEL, RECALL, RESAMPLES
from app.evaluation.models import BackendReport, Fate, Figure, Report
from app.evaluation.records import SHARES

Row = tuple[str, tuple[str, ...], bool]
"""A line of the table: its name, a cell for each backend, and whether it is a detail of the row above."""


def rows(report: Report) -> list[Row]:
    """Measures first, each followed by the gain over the baseline; what became of answers; time, cost and counts."""
    measures = dict.fromkeys(name for backend in report.backends for name in backend.measures)
    return [row for measure in measures for row in _measure_rows(report, measure)] + [
        *_gate_rows(report),
        *_fate_rows(report),
        *_cost_rows(report),
    ]


def _measure_rows(report: Report, measure: str) -> Iterator[Row]:
    percent = measure in SHARES
    yield _row(report, measure, lambda one: _figure(one.measures.get(measure), percent))
    if any(measure in one.gains for one in report.backends):
        name = f"  against {report.backends[0].backend}"
        yield _row(report, name, lambda one: _gain(one.gains.get(measure), percent), detail=True)


FATES: Mapping[Fate, str] = {
    "right": "answer: comes first",
    "misjudged": "answer: read, not first",
    "not_read": "answer: not read",
    "not_found": "answer: no candidate",
}
"""What became of the answer, as a row of the table."""

_REMEDIES = {
    "recall": "searching by other means would help (queries, expand_query, another embedding model, more candidates), "
    "another model that ranks would not",
    "ranking": "a better model that ranks, or one that reads more (ranking.depth, deadline_ms), would help",
}


def _fate_rows(report: Report) -> Iterator[Row]:
    def cell(fate: Fate) -> Callable[[BackendReport], str]:
        def text(one: BackendReport) -> str:
            found = one.fates.get(fate)
            return f"{found['count']:,.0f} ({found['share']:.1%})" if found else "-"

        return text

    if any(one.fates for one in report.backends):
        yield from (_row(report, name, cell(fate)) for fate, name in FATES.items())


def _gate_rows(report: Report) -> Iterator[Row]:
    """Whether the best score tells that nothing answers."""
    if any(one.gate for one in report.backends):
        yield _row(report, "best score: AUROC", lambda one: f"{one.gate.auroc:.3f}" if one.gate else "-")
        yield _row(
            report,
            f"best score: false acceptance at {RECALL:.0%} recall",
            lambda one: f"{one.gate.false_acceptance:.1%} (from {one.gate.threshold:.3f})" if one.gate else "-",
        )


def _cost_rows(report: Report) -> list[Row]:
    def latency(stage: str) -> Callable[[BackendReport], str]:
        def cell(one: BackendReport) -> str:
            times = one.latency_ms.get(stage)
            return f"{times['p50']:,.0f} / {times['p95']:,.0f}" if times else "-"

        return cell

    return [
        _row(report, "rank ms, p50 / p95", latency("rank")),
        _row(report, "total ms, p50 / p95", latency("total")),
        _row(report, "$ per 1,000 questions", lambda one: f"{one.usd_per_1000:,.4f}"),
        _row(report, "requests", lambda one: f"{one.requests:,}"),
        _row(report, "tokens in", lambda one: f"{one.input_tokens:,}"),
        _row(
            report,
            "  of them cached",
            lambda one: "-" if one.cached_tokens is None else f"{one.cached_tokens:,}",
            detail=True,
        ),
        _row(report, "tokens out", lambda one: f"{one.output_tokens:,}"),
        _row(report, "questions", lambda one: f"{one.questions:,}"),
        _row(report, "failed", lambda one: f"{sum(one.failed.values()):,}"),
    ]


def notes(report: Report) -> list[str]:
    """What a reader of the table needs to know."""
    lines, options = list(report.notes), report.options
    for one in report.backends:
        if one.failed:
            codes = ", ".join(f"{count} {code}" for code, count in sorted(one.failed.items()))
            lines.append(f"{one.backend}: {codes} are left out; run the same command again to retry them")
        if one.limited_by:
            counts = {fate: int(found["count"]) for fate, found in one.fates.items()}
            lost = sum(counts.values()) - counts["right"]
            lines.append(
                f"{one.backend}: {one.limited_by} is the limit: of {lost} answers that do not come first, "
                f"{counts['not_found']} are not among the candidates; {_REMEDIES[one.limited_by]}"
            )
        others = {name: count for name, count in one.answered_by.items() if name != one.backend}
        if others and one is not report.backends[0]:
            written = ", ".join(f"{count} by {name}" for name, count in sorted(others.items()))
            lines.append(f"{one.backend}: answers were written {written}")
    lines.append(
        f"[low high]: {LEVEL:.0%} bootstrap intervals ({RESAMPLES:,} resamples, seed {options.seed}); "
        "gains are paired by question, * where the interval excludes 0"
    )
    lines.append(f"times were measured with {options.concurrency} concurrent questions")
    if options.answers:
        lines.append(
            "citation recall and precision follow ALCE, per answer; support is judged "
            + ("by the model that checks citations" if options.check == "model" else "by rules (numbers, dates, names)")
            + ", not by ALCE's entailment model"
        )
    return lines


def markdown(report: Report) -> str:
    """A page to keep or to share."""
    questions = f"{report.answerable:,} questions"
    questions += f" and {report.unanswerable:,} unanswerable ones" if report.unanswerable else ""
    source = (
        f"the collection `{report.options.collection}`"
        if report.documents is None
        else f"{report.documents:,} documents"
    )
    heads = ["", *(_head(one) for one in report.backends)]
    body = [[f"_{name.strip()}_" if is_detail else name.strip(), *cells] for name, cells, is_detail in rows(report)]
    return "\n".join(
        [
            f"# {report.data}",
            "",
            f"{questions} on {source}; seed {report.options.seed}, data {report.digest[:16]}.",
            "",
            _line(heads),
            _line(["---", *["---:"] * len(report.backends)]),
            *map(_line, body),
            "",
            *(f"- {note}" for note in notes(report)),
            "",
        ]
    )


def _head(one: BackendReport) -> str:
    return f"{one.backend} ({one.model})" if one.model else one.backend


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _row(report: Report, name: str, cell: Callable[[BackendReport], str], *, detail: bool = False) -> Row:
    return name, tuple(map(cell, report.backends)), detail


def _figure(figure: Figure | None, percent: bool) -> str:
    if figure is None:
        return "-"
    if percent:
        return f"{figure.mean:.1%} [{100 * figure.low:.1f} {100 * figure.high:.1f}]"
    return f"{figure.mean:.3f} [{_three(figure.low)} {_three(figure.high)}]"


def _gain(figure: Figure | None, percent: bool) -> str:
    if figure is None:
        return ""
    significant = "*" if figure.low > 0 or figure.high < 0 else ""
    if percent:
        return f"{100 * figure.mean:+.1f}{significant} [{100 * figure.low:+.1f} {100 * figure.high:+.1f}]"
    return f"{figure.mean:+.3f}{significant} [{_three(figure.low, '+')} {_three(figure.high, '+')}]"


def _three(number: float, sign: str = "") -> str:
    """.987, as is usual in tables of measures."""
    return f"{number:{sign}.3f}".replace("0.", ".", 1) if abs(number) < 0.9995 else f"{number:{sign}.2f}"
