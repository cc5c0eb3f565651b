"""What the command line shows to a person: progress, results, answers. Plain lines where no terminal is listening."""

import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from indexing.progress import (
    Advanced,
    Event,
    Finishing,
    LoadingModel,
    Planned,
    Refused,
    Summary,
    Waiting,
)

_PLAIN_EVERY_S = 5.0
_SNIPPET = 320


class IndexingView:
    """Shows a run of the pipeline; use as a context manager and hand `show` to the run as its report."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._begun = self._last_line = clock()
        self._bytes = 0
        self._task: TaskID | None = None
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            speed_estimate_period=120,
        )

    def __enter__(self) -> "IndexingView":
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, event: Event) -> None:
        """One event of the run."""
        match event:
            case Planned():
                self._planned(event)
            case LoadingModel(model=model):
                self._say(f"loading the embedding model {model}")
            case Refused():
                self._console.print(refusal(event))
            case Waiting(detail=detail):
                self._console.print(Text(detail, "yellow"))
            case Advanced():
                self._advanced(event)
            case Finishing(step=step):
                self._say(step)
            case Summary():
                pass

    def _planned(self, plan: Planned) -> None:
        self._bytes = plan.bytes
        parts = [f"{plan.new} new", f"{plan.changed} changed", f"{plan.unchanged} unchanged"]
        self._console.print(
            "files: " + ", ".join([*parts, f"{plan.gone} gone"] if plan.gone else parts), highlight=False
        )
        self._begun = self._last_line = self._clock()
        if plan.bytes:
            self._task = self._bar.add_task("indexing", total=plan.bytes, rate="")

    def _advanced(self, so_far: Advanced) -> None:
        seconds = max(self._clock() - self._begun, 1e-6)
        rate = f"{so_far.passages} passages, {so_far.passages / seconds:.1f}/s"
        if self._task is not None and self._console.is_terminal:
            self._bar.update(self._task, description="indexing", completed=so_far.bytes, rate=rate)
        elif self._clock() - self._last_line >= _PLAIN_EVERY_S:
            self._last_line = self._clock()
            share = so_far.bytes / self._bytes if self._bytes else 1.0
            left = f", about {seconds / share * (1 - share):.0f} s left" if 0 < share < 1 else ""
            self._console.print(f"{share:.0%}: {rate}{left}", highlight=False)

    def _say(self, step: str) -> None:
        if self._task is not None and self._console.is_terminal:
            self._bar.update(self._task, description=step)
        else:
            self._console.print(step, highlight=False)


def refusal(refused: Refused) -> Text:
    """One line: which file, why, and what of it stays."""
    line = Text.assemble(("refused ", "red"), (refused.source, "bold"), f" [{refused.reason}] {refused.detail}")
    return line.append(" The earlier version stays in the index.", "dim") if refused.kept else line


def summary_line(summary: Summary) -> str:
    """What a run did, in one line."""
    parts = [f"{summary.created} created", f"{summary.updated} updated", f"{summary.unchanged} unchanged"]
    parts += [f"{summary.deleted} deleted"] if summary.deleted else []
    parts += [f"{len(summary.refused)} refused"] if summary.refused else []
    rate = f", {summary.passages / summary.seconds:.1f} passages/s" if summary.passages and summary.seconds else ""
    held = f"{summary.collection!r} holds {summary.total_documents} documents, {summary.total_passages} passages"
    return f"documents: {', '.join(parts)} in {summary.seconds:.1f} s{rate}; {held}"


def show_results(console: Console, found: dict[str, Any]) -> None:
    """The body of a /search response."""
    for number, hit in enumerate(found["results"], 1):
        console.print(_hit_header(number, hit))
        if hit.get("text"):
            console.print(Text(_snippet(hit["text"])), soft_wrap=False)
        console.print()
    if not found["results"]:
        console.print("nothing found")
    _show_notes(console, found)


def show_answer(console: Console, answer: dict[str, Any]) -> None:
    """The body of an /answer response: the answer, then its numbered sources with their quotes."""
    console.print(Text(answer["answer"], "bold" if answer["answerable"] else "yellow"))
    if answer["citations"]:
        console.print()
    for citation in answer["citations"]:
        page = f", page {citation['page']}" if citation["page"] else ""
        place = (
            f"{citation['source'] or citation['document_id']}{page}, characters {citation['start']}-{citation['end']}"
        )
        console.print(Text.assemble((f"[{citation['marker']}] ", "cyan"), (place, "bold")))
        console.print(Text(f"    “{' '.join(citation['quote'].split())}”", "dim"))
    if not answer["answerable"]:
        console.print(f"[dim]abstained: {escape(str(answer['abstain_reason']))}[/dim]")
    _show_notes(console, answer)


def _hit_header(number: int, hit: dict[str, Any]) -> Text:
    where = hit["source"] or hit["document_id"]
    page = f", page {hit['page']}" if hit["page"] else ""
    path = f"  {' > '.join(hit['heading'])}" if hit["heading"] else ""
    return Text.assemble(
        (f"{number}. ", "cyan"), (f"{hit['score']:.3f} ", "green"), (f"{where}{page}", "bold"), (path, "dim")
    )


def _snippet(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _SNIPPET else flat[: _SNIPPET - 1] + "…"


def _show_notes(console: Console, body: dict[str, Any]) -> None:
    for note in (*body["warnings"], *body["degraded"]):
        console.print(Text(note, "yellow"))
    timings = ", ".join(f"{stage} {ms:.1f} ms" for stage, ms in body["timings_ms"].items())
    cost = body["usage"]["cost_usd"]
    console.print(f"[dim]{escape(timings)}; cost ${cost:.4f}[/dim]", highlight=False)
