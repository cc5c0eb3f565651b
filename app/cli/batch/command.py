"""The options that make a command work through a file, and what it then shows."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import wraps
from itertools import islice
from pathlib import Path
from typing import Any, Self

import msgspec
import rich_click as click
from click.exceptions import Exit
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from app.cli.batch.journal import SUFFIX, CannotWrite, Journal, Origin
from app.cli.batch.run import Judge, Run
from app.cli.batch.texts import Item, fingerprint, items_of, rest_of
from app.cli.render import BarView, clean, duration
from app.cli.session import judge_later, judge_lines
from app.cli.terminal import counted, current_settings, dollars, err, run
from app.config.settings import Settings
from app.errors import ConfigError, InvalidRequest

BATCHES_SUFFIX = ".batches.json"
"""Of the file beside the output that knows the batches that are not collected yet."""

RETRY_SUFFIX = ".retry"
"""Of the output in which failed texts are tried again, until it is whole and takes the place of the first one."""

ALL = 10**9
"""How many texts may wait for their results where these come after hours."""

SOME_FAILED = 1
"""The exit status where a text failed, or the budget left some for the next run."""


class FileOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Those of one call of a command."""

    out: Path | None
    field: str
    concurrency: int
    budget_usd: float | None
    batch: bool
    restart: bool
    retry_failed: bool


def file_options(command: Callable[..., None]) -> Callable[..., None]:
    """With --out the argument of the command names a file; the command gets `file`, a FileOptions."""

    @wraps(command)
    def with_file(**given: Any) -> None:
        own = {name: given.pop(name) for name in FileOptions.__struct_fields__}
        command(file=FileOptions(**own), **given)

    wrapped: Callable[..., None] = with_file
    for option in (
        click.option("--restart", is_flag=True, help="With --out: begin again, and overwrite what is there."),
        click.option("--retry-failed", is_flag=True, help="With --out: try the texts again that have failed."),
        click.option(
            "--budget",
            "budget_usd",
            type=click.FloatRange(min=0, min_open=True),
            metavar="USD",
            help="With --out: stop before it costs more.",
        ),
        click.option(
            "--concurrency", type=click.IntRange(1, 256), default=32, help="With --out: how many texts at once."
        ),
        click.option(
            "--batch", is_flag=True, help="With --out: in Gemini's batches, for half the price, within a day."
        ),
        click.option("--field", default="text", help="With --out: the field, or the column, that has the text."),
        click.option(
            "--out",
            type=click.Path(dir_okay=False, path_type=Path),
            help="Work through a file (lines of text, .jsonl, .csv or .tsv) and write a JSON line for each text here. "
            "Run it again to go on after an interruption.",
        ),
    ):
        wrapped = option(wrapped)
    return wrapped


def work_through(command: str, given: str, options: Mapping[str, Any], file: FileOptions) -> None:
    """Have POST /`command` judge the texts of the file `given`, with these options, into `file.out`.

    Exits with SOME_FAILED if texts failed or the budget left some. Raises InvalidRequest, Conflict, Stopped.
    """
    assert file.out is not None  # noqa: S101 - the command has looked
    settings, target = current_settings(), file.out.resolve()  # the file of a link, not the link, is replaced at last
    source = _source(given, target)
    if file.batch and file.budget_usd is not None:
        raise InvalidRequest("--budget does not go with --batch: what a batch costs is known when it is done")
    total = sum(1 for _ in items_of(source, file.field))
    origin = Origin(
        command=command,
        input=str(source.absolute()),
        field=file.field,
        options=dict(options),
        fingerprint=fingerprint(source),
    )
    with closing(Journal(target, origin, restart=file.restart)) as journal:
        if file.restart:
            _forget(target)
        items = rest_of(source, file.field, journal.done, journal.last_id)
        try:
            if file.retry_failed and journal.failed:
                _retry(settings, journal, source, total, file)
            else:
                _fill(settings, journal, items, total, file)
        except (ConfigError, InvalidRequest):
            if not _plan_of(target).exists():
                journal.discard_if_new()
            raise


def _retry(settings: Settings, journal: Journal, source: Path, total: int, file: FileOptions) -> None:
    """Try the failed texts again, in a file beside the output that takes its place when it is whole."""
    with closing(Journal(_beside(journal.path, RETRY_SUFFIX), journal.origin)) as retry:
        items = islice(journal.settled(items_of(source, file.field)), retry.done, None)
        try:
            _fill(settings, retry, items, total, file)
        finally:
            if retry.done == total:
                retry.replace(journal)


def _forget(out: Path) -> None:
    """Remove what an earlier run has left beside the output."""
    retry = _beside(out, RETRY_SUFFIX)
    for left in (retry, _beside(retry, SUFFIX), _plan_of(retry), _plan_of(out)):
        left.unlink(missing_ok=True)


def _beside(out: Path, suffix: str) -> Path:
    return out.with_name(out.name + suffix)


def _plan_of(out: Path) -> Path:
    """The file that knows the batches of this output."""
    return _beside(out, BATCHES_SUFFIX)


def _source(given: str, out: Path) -> Path:
    source = Path(given)
    if not source.is_file():
        raise InvalidRequest(f"there is no file {given}; with --out the argument is a file")
    if out.exists() and out.samefile(source):
        raise InvalidRequest("--out names the file that is read")
    return source


def _fill(settings: Settings, journal: Journal, items: Iterator[Item], total: int, file: FileOptions) -> None:
    """Have the items judged, and say what came of it. Exits with SOME_FAILED."""
    command, options = journal.origin.command, journal.origin.options
    try:
        with _View(err, journal, total) as view:
            working = Run(journal, items, ALL if file.batch else file.concurrency, file.budget_usd, view.show)
            judge = _judge(settings, command, {**options, "concurrency": file.concurrency})
            if file.batch:
                judge = _judge_later(settings, command, options, _plan_of(journal.path), journal.origin.token)
            if journal.done < total:
                run(_guarded(working, judge, view))
    finally:
        _summarise(journal, total)
    if working.over_budget:
        err.print("the budget ends here; a higher --budget goes on", style="yellow", markup=False, highlight=False)
    if journal.failed or journal.done < total:
        raise Exit(SOME_FAILED)


def _judge(settings: Settings, command: str, options: Mapping[str, Any]) -> Judge:
    return lambda rows: judge_lines(settings, f"/{command}", options, rows)


def _judge_later(settings: Settings, command: str, options: Mapping[str, Any], plan: Path, token: str) -> Judge:
    return lambda rows: judge_later(settings, f"/{command}", options, rows, plan, token)


async def _guarded(working: Run, judge: Judge, view: "_View") -> None:
    try:
        await working.work(judge)
    except OSError as exc:
        raise CannotWrite(f"the output cannot be written: {exc.strerror}; what is written stays") from exc
    except asyncio.CancelledError:
        view.stop()
        err.print("stopped; the same command goes on from here", highlight=False)
        raise


def _summarise(journal: Journal, total: int) -> None:
    counts = f"{journal.done:,} of {counted(total, 'text')}, {journal.failed:,} failed, {dollars(journal.cost_usd)}"
    err.print(clean(f"{journal.path}: {counts}"), markup=False, highlight=False)


class _View(BarView):
    """How many texts are done, how fast, what they cost, and the time left."""

    def __init__(
        self, console: Console, journal: Journal, total: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"), TimeRemainingColumn())
        super().__init__(console, Progress(*columns, console=console, transient=True), clock)
        self._journal, self._total, self._before = journal, total, journal.done
        self._task = self._bar.add_task("texts", total=total, completed=journal.done, note="")

    def __enter__(self) -> Self:
        if self._before:
            self._console.print(Text(f"going on after {counted(self._before, 'text')}"))
        return super().__enter__()

    def show(self) -> None:
        """Show how far it is."""
        if self._console.is_terminal:
            self._bar.update(self._task, completed=self._journal.done, note=self._note())
        elif self._line_is_due():
            left_s = (self._total - self._journal.done) / max(self._rate(), 1e-9)
            left = f", about {duration(left_s)} left" if self._journal.done > self._before else ""
            self._console.print(Text(f"{self._journal.done:,} of {self._total:,}: {self._note()}{left}"))

    def _note(self) -> str:
        failed = f", {self._journal.failed:,} failed" if self._journal.failed else ""
        return f"{self._rate():.1f}/s, {dollars(self._journal.cost_usd)}{failed}"

    def _rate(self) -> float:
        return (self._journal.done - self._before) / max(self._clock() - self._begun, 1e-6)


@click.command()
@click.argument("path", metavar="FILE")
@file_options
@click.option("--system", default="", help="What the model is told before each text.")
@click.option("--backend", help="Backend: a configured name, or auto.  [default: the configured one]")
@click.option("--max-output-tokens", type=click.IntRange(1, 65_536), default=1024, help="Longest reply.")
@click.option("--temperature", type=click.FloatRange(0, 2), default=0.0, help="0 replies alike each time.")
def batch(path: str, file: FileOptions, **options: Any) -> None:
    """Send each text of FILE to a model, and write its replies, a JSON line for each text, to --out.

    Interrupted or killed, it goes on where it was when run again. Exit status 1: texts failed, or the budget left some;
    3: the run had to stop.
    """
    if file.out is None:
        raise click.UsageError("--out names the file for the replies")
    work_through("chat", path, {name: value for name, value in options.items() if value is not None}, file)
