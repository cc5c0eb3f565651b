"""How commands show progress, search results and answers."""

import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.status import Status
from rich.text import Text

from app.cli.terminal import counted, dollars
from app.evaluation.models import EvaluationProgress
from indexing.pipeline.progress import (
    Advanced,
    Event,
    Notice,
    NotIndexed,
    Planned,
    Summary,
)

_LINE_EVERY_S = 5.0
"""Between two lines of progress, where no terminal can show a bar."""
_NAMED = 5
"""Of the files that are skipped for the same reason."""


class BarView:
    """A bar on a terminal, removed at the end; elsewhere a line every few seconds. Use as a context manager."""

    def __init__(self, console: Console, bar: Progress, clock: Callable[[], float]) -> None:
        self._console, self._bar, self._clock = console, bar, clock
        self._begun = self._last_line = clock()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Remove the bar from the terminal."""
        if self._bar.live.is_started:
            self._bar.stop()

    def _line_is_due(self) -> bool:
        """Whether to print a line of progress now."""
        now = self._clock()
        if now - self._last_line < _LINE_EVERY_S:
            return False
        self._last_line = now
        return True


class EvaluationView(BarView):
    """Progress of an evaluation. Pass `show` to the run."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(console, progress_bar(console, MofNCompleteColumn()), clock)
        self._tasks: dict[str, TaskID] = {}
        self._shown_at: dict[str, float] = {}

    def show(self, progress: EvaluationProgress) -> None:
        """Show how far a step is."""
        step = clean(progress.step)
        if self._console.is_terminal:
            if step not in self._tasks:
                self._tasks[step] = self._bar.add_task(step, total=progress.total, completed=progress.done, note="")
            self._bar.update(self._tasks[step], completed=progress.done, note=_note(progress))
        elif self._is_due(step, progress):
            parts = f"{step}: {progress.done} of {progress.total}", _note(progress)
            self._console.print(Text(", ".join(filter(None, parts))))

    def _is_due(self, step: str, progress: EvaluationProgress) -> bool:
        """Whether to print a line: at the start, at the end, and every few seconds in between."""
        now = self._clock()
        finished = progress.done == progress.total
        if step in self._shown_at and not finished and now - self._shown_at[step] < _LINE_EVERY_S:
            return False
        self._shown_at[step] = now
        return True


def _note(progress: EvaluationProgress) -> str:
    failed = f"{progress.failed} failed" if progress.failed else ""
    usd = dollars(progress.usd) if progress.usd else ""
    return ", ".join(filter(None, (usd, failed)))


_SNIPPET = 320
_CONTEXT = 140
"""Characters shown on either side of a quote."""

# Documents and file names are data: an escape sequence in them must not reach the terminal.
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]+")
_WORD = re.compile(r"\w{4,}")
_MARKER = r"\[\d{1,3}\]"


def progress_bar(console: Console, amount: ProgressColumn) -> Progress:
    """A bar that disappears when the work is done. Its tasks have a `note`; `amount` shows how much is done."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        amount,
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        expand=True,
        speed_estimate_period=120,
    )


class IndexingView(BarView):
    """Progress of an indexing run. Pass `show` to the run as its report."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(console, progress_bar(console, TaskProgressColumn()), clock)
        self._bytes = 0
        self._alike: Counter[tuple[str, str]] = Counter()
        self._task: TaskID | None = None

    def show(self, event: Event) -> None:
        """Show one event of the run."""
        match event:
            case Planned():
                self._planned(event)
            case NotIndexed():
                self._not_indexed(event)
            case Notice(stage="waiting" | "advice", detail=detail):
                self._console.print(Text(clean(detail), "yellow"))
            case Advanced():
                self._advanced(event)
            case Notice():
                self._say(event)
            case Summary():
                for (reason, detail), count in self._alike.items():
                    if count > _NAMED:
                        more = f"skipped {count - _NAMED} more [{reason}] {_flat(detail)}"
                        self._console.print(Text(more, "yellow"))

    def _not_indexed(self, refused: NotIndexed) -> None:
        """A failure is always named; of what is skipped for the same reason, the first ones."""
        if refused.skipped:
            self._alike[refused.reason, refused.detail] += 1
        if not refused.skipped or self._alike[refused.reason, refused.detail] <= _NAMED:
            self._console.print(not_indexed_line(refused))

    def _planned(self, plan: Planned) -> None:
        self._bytes = plan.bytes
        parts = [f"{plan.new} new", f"{plan.changed} changed", f"{plan.unchanged} unchanged"]
        parts += [f"{plan.gone} gone"] if plan.gone else []
        self._console.print(Text(f"files: {', '.join(parts)}"))
        self._begun = self._last_line = self._clock()
        if plan.bytes:
            self._task = self._bar.add_task("reading", total=plan.bytes, note="")

    def _advanced(self, so_far: Advanced) -> None:
        seconds = max(self._clock() - self._begun, 1e-6)
        rate = f"{so_far.passages} passages, {so_far.passages / seconds:.1f}/s"
        if self._task is not None and self._console.is_terminal:
            self._bar.update(self._task, description="indexing", completed=so_far.bytes, note=rate)
        elif so_far.passages and self._line_is_due():
            share = so_far.bytes / self._bytes if self._bytes else 1.0
            left = f", about {duration(seconds / share * (1 - share))} left" if 0.01 <= share < 1 else ""
            self._console.print(Text(f"{share:.0%}: {rate}{left}"))

    def _say(self, notice: Notice) -> None:
        step = clean(notice.detail)
        if self._task is not None and self._console.is_terminal:
            self._bar.update(self._task, description=escape(step))
        elif notice.stage != "reading" or self._line_is_due():
            self._console.print(Text(step))


class LoadingView:
    """Tells a person at a terminal that the model is being loaded; silent elsewhere. Use as a context manager."""

    def __init__(self, console: Console) -> None:
        self._status = Status("", console=console)
        self._terminal = console.is_terminal

    def __enter__(self) -> "LoadingView":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def show(self, event: Event) -> None:
        """Show an event of the start."""
        if isinstance(event, Notice) and event.stage == "loading_model" and self._terminal:
            self._status.update(Text(clean(event.detail)))
            self._status.start()

    def stop(self) -> None:
        """Remove the message from the terminal."""
        self._status.stop()


def clean(text: str) -> str:
    """The text without control characters, except line feeds."""
    return _CONTROL.sub(" ", text)


def not_indexed_line(refused: NotIndexed) -> Text:
    """One line: which file was not indexed, why, and whether its earlier version is still in the index."""
    source, detail = _flat(refused.source), _flat(refused.detail)
    word = ("skipped ", "yellow") if refused.skipped else ("failed ", "red")
    line = Text.assemble(word, (source, "bold"), f" [{refused.reason}] {detail}")
    notes = [" The earlier version stays in the index."] if refused.kept else []
    notes += [" Known from an earlier run, not read again."] if refused.known else []
    return line.append("".join(notes), "dim")


def summary_line(summary: Summary) -> str:
    """The result of an indexing run in one line."""
    parts = [f"{summary.created} created", f"{summary.updated} updated", f"{summary.unchanged} unchanged"]
    parts += [f"{summary.deleted} deleted"] if summary.deleted else []
    skipped = len(summary.refused) - summary.failed
    parts += [f"{skipped} skipped"] if skipped else []
    parts += [f"{summary.failed} failed"] if summary.failed else []
    known = sum(one.known for one in summary.refused)
    again = f"; --retry-refused reads {counted(known, 'unchanged file')} again" if known else ""
    rate = f", {summary.passages / summary.seconds:.1f} passages/s" if summary.passages and summary.seconds else ""
    totals = f"{counted(summary.total_documents, 'document')}, {counted(summary.total_passages, 'passage')}"
    held = f"{summary.collection!r} holds {totals}"
    return f"documents: {', '.join(parts)} in {duration(summary.seconds)}{rate}; {held}{again}"


def show_results(console: Console, response: dict[str, Any]) -> None:
    """The body of a /search response."""
    queries = response.get("queries", [response["query"]])
    words = sorted({word for query in queries for word in _WORD.findall(query)})
    for number, hit in enumerate(response["results"], 1):
        console.print(_hit_header(number, hit))
        if hit.get("text"):
            _indented(console, _snippet(hit["text"], words))
        console.print()
    if not response["results"]:
        console.print("no results")
    for query in queries[1:]:
        console.print(Text(clean(f"searched with it: {query}"), "dim"), soft_wrap=not console.is_terminal)
    _show_notes(console, response)


def show_answer(console: Console, answer: dict[str, Any]) -> None:
    """The body of an /answer response: the answer, then its numbered sources with their quotes."""
    text = answer_text(answer["answer"], "bold" if answer["answerable"] else "yellow")
    console.print(text, soft_wrap=not console.is_terminal)
    show_sources(console, answer)


def answer_text(text: str, style: str = "") -> Text:
    """A piece of an answer, with its citation markers highlighted."""
    shown = Text(clean(text), style)
    shown.highlight_regex(_MARKER, "cyan")
    return shown


def show_sources(console: Console, answer: dict[str, Any]) -> None:
    """The sources of an answer and its notes; the text of a streamed answer is already on the screen."""
    texts = {hit["id"]: hit for hit in answer["results"]}
    for citation in _by_marker(answer["citations"]):
        console.print()
        console.print(_source_header(citation))
        _indented(console, _quote(citation, texts.get(citation["result_id"])))
    for span in answer["unsupported"]:
        statement = _flat(answer["answer"][span["start"] : span["end"]])
        console.print(Text(f"no source supports this statement: “{statement}”", "yellow"))
    if not answer["answerable"]:
        console.print(Text(f"abstained: {str(answer['abstain_reason']).replace('_', ' ')}", "dim"))
    console.print()
    _show_notes(console, answer)


def _pages(place: dict[str, Any]) -> str:
    """The pages of a hit or a citation; "" where there are none."""
    first, last = place["page"], place.get("page_end")
    if not first:
        return ""
    return f", page {first}" if last in (None, first) else f", pages {first}-{last}"


def _hit_header(number: int, hit: dict[str, Any]) -> Text:
    source = hit["source"] or hit["document_id"]
    page = _pages(hit)
    path = f"  {_flat(' > '.join(hit['heading']))}" if hit["heading"] else ""
    return Text.assemble(
        (f"{number}. ", "cyan"),
        (f"{hit['score']:.3f} ", "green"),
        (_flat(f"{source}{page}"), "bold"),
        (path, "dim"),
    )


def _by_marker(citations: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each source once, by number: verified if it is for at least one of the statements that cite it."""
    first: dict[int, dict[str, Any]] = {}
    for citation in sorted(citations, key=lambda one: (one["marker"], not one["verified"])):
        first.setdefault(citation["marker"], citation)
    return list(first.values())


def _source_header(citation: dict[str, Any]) -> Text:
    page = _pages(citation)
    source = _flat(f"{citation['source'] or citation['document_id']}{page}")
    span = f"  characters {citation['start']}-{citation['end']}"
    doubt = "" if citation["verified"] else "  does not fully support the statement"
    return Text.assemble((f"[{citation['marker']}] ", "cyan"), (source, "bold"), (span, "dim"), (doubt, "yellow"))


def _quote(citation: dict[str, Any], hit: dict[str, Any] | None) -> Text:
    """The quoted sentence in quotation marks, with the text around it."""
    quote = (f"“{_flat(citation['quote'])}”", "green")
    if hit is None or not hit.get("text"):
        return Text.assemble(quote)
    start, end = citation["start"] - hit["start"], citation["end"] - hit["start"]
    before, after = hit["text"][:start], hit["text"][end:]
    lead = "…" + _flat(before[-_CONTEXT:].partition(" ")[2]) if len(before) > _CONTEXT else _flat(before)
    tail = _flat(after[:_CONTEXT].rpartition(" ")[0]) + "…" if len(after) > _CONTEXT else _flat(after)
    return Text.assemble((f"{lead} " if lead else "", "dim"), quote, (f" {tail}" if tail else "", "dim"))


def _snippet(text: str, words: Sequence[str]) -> Text:
    flat = _flat(text)
    shown = Text(flat if len(flat) <= _SNIPPET else flat[: _SNIPPET - 1] + "…")
    if words:
        shown.highlight_words(words, "bold", case_sensitive=False)
    return shown


def _indented(console: Console, text: Text) -> None:
    """Wrapped to the width of a terminal; a single line for a program."""
    if console.is_terminal:
        console.print(Padding(text, (0, 0, 0, 4)), soft_wrap=False)
    else:
        console.print(Text("    ").append_text(text))


def _show_notes(console: Console, body: dict[str, Any]) -> None:
    for note in (*body["warnings"], *body["degraded"]):
        console.print(Text(clean(note), "yellow"))
    times = body["timings_ms"]
    stages = sorted(times, key=lambda stage: stage == "total")  # the total last, the others in their order
    timings = ", ".join(f"{stage} {times[stage]:.1f} ms" for stage in stages)
    console.print(Text(f"{_answered_by(body)}{timings}; cost ${body['usage']['cost_usd']:.4f}", "dim"))


def _answered_by(body: dict[str, Any]) -> str:
    """The backend that wrote the answer, and those that failed before it; "" if no model was involved."""
    use = body.get("answer_backend")
    if use is None or not use["model"]:
        return ""
    before = "".join(f" after {one['backend']} ({one['reason']})" for one in use["fallbacks"])
    return f"answered by {_flat(use['used'])} ({_flat(use['model'])}){before}; "


def _flat(text: str) -> str:
    return " ".join(clean(text).split())


def duration(seconds: float) -> str:
    """9.5 s, 42 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
