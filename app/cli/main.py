"""`winnow`: serve, index, search, answer, eval, calibrate, usage, cost, doctor, vllm.

While a service runs on the same home directory the commands go through it; otherwise they open the index themselves.
Exit status: 0 done; 1 done, but some documents were refused; 2 wrong usage or configuration; 3 it could not be done;
130 interrupted.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import rich_click as click
from click.exceptions import Exit

from app.cli.calibrate import calibrate
from app.cli.cost import cost
from app.cli.evaluate import evaluate
from app.cli.http_client import CREATE_COLLECTION
from app.cli.render import (
    IndexingView,
    LoadingView,
    answer_text,
    clean,
    show_answer,
    show_results,
    show_sources,
    summary_line,
)
from app.cli.terminal import INTERRUPTED, err, out, print_json, settings_here, write
from app.cli.usage import usage
from app.cli.vllm import vllm
from app.errors import ConfigError, Conflict, InvalidRequest, NotFound, WinnowError
from app.observability.logging import configure_logging
from indexing.errors import CollectionNotFound
from indexing.pipeline.progress import Summary, SyncRequest

REFUSED, USAGE, FAILED = 1, 2, 3


def _version() -> str:
    try:
        return version("winnow")
    except PackageNotFoundError:
        return "0"


_PLAIN: dict[str, Any] = {"style": "red", "markup": False, "highlight": False}


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(_version(), prog_name="winnow")
def cli() -> None:
    """Finds passages in your documents and answers from them, with citations that are true."""


def main() -> NoReturn:
    """The console script."""
    _print_whatever_comes()
    configure_logging("text", "warning")  # standard output belongs to what was asked for; `serve` has its own settings
    try:
        # Without its standalone mode click returns the status that an Exit carries.
        status = cli(prog_name="winnow", standalone_mode=False)
    except click.ClickException as exc:
        _die_of_usage(exc)
    except (KeyboardInterrupt, click.Abort):
        err.print("interrupted")
        sys.exit(INTERRUPTED)
    except CollectionNotFound as exc:
        _die(f"{exc}; {CREATE_COLLECTION}", FAILED)
    except (NotFound, Conflict) as exc:
        _die(exc, FAILED)
    except (ConfigError, InvalidRequest) as exc:
        _die(exc, USAGE)
    except WinnowError as exc:
        _die(exc, FAILED)
    sys.exit(status or 0)


def _die(exc: object, status: int) -> NoReturn:
    err.print(f"winnow: {clean(str(exc))}", **_PLAIN)
    sys.exit(status)


def _die_of_usage(exc: click.ClickException) -> NoReturn:
    context = exc.ctx if isinstance(exc, click.UsageError) else None
    help_of = context.command_path if context else "winnow"
    err.print(f"winnow: {clean(exc.format_message())} ({help_of} --help tells more)", **_PLAIN)
    sys.exit(USAGE)


def _print_whatever_comes() -> None:
    """A terminal that knows fewer characters than a document has gets a question mark, not an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")


@contextmanager
def _ending_at_once(view: IndexingView | LoadingView, line: str) -> Iterator[None]:
    """Ctrl-C does not wait for the batch that a thread is embedding: the index stands being killed at any moment."""

    def end(*_: object) -> None:
        view.stop()
        err.print(f"interrupted{line}", highlight=False)
        os._exit(INTERRUPTED)

    before = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@cli.command()
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 takes any.  [default: 8000]")
@click.option("--samples", is_flag=True, help="Index the sample documents if the index is empty.")
def serve(host: str | None, port: int | None, samples: bool) -> None:
    """Run the service until SIGTERM or Ctrl-C; then finish what is under way."""
    from app.main import serve as run
    from app.wiring import build_services

    settings = settings_here()
    changed = {key: value for key, value in (("host", host), ("port", port)) if value is not None}
    service = msgspec.structs.replace(settings.service, **changed)
    settings = msgspec.structs.replace(settings, service=service)
    run(settings, build_services(settings), samples=samples)


@cli.command()
@click.argument("paths", nargs=-1, metavar="PATH...")
@click.option("--collection", default="default", help="Collection to write to; created if it is not there.")
@click.option("--no-delete", is_flag=True, help="Keep documents whose files are gone.")
@click.option("--rebuild", is_flag=True, help="Embed everything anew beside the live index, then switch.")
@click.option(
    "--name", default="stdin.txt", help="What a document from standard input (-) is called; tells its format."
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON on standard output.")
def index(paths: tuple[str, ...], collection: str, no_delete: bool, rebuild: bool, name: str, as_json: bool) -> None:
    """Bring a collection in line with files, directories, globs, or standard input (-).

    Unchanged files are skipped, changed ones replaced, and documents whose files are gone from within PATH deleted.
    """
    from app.cli.session import index_files, index_stdin

    if not paths and not rebuild:
        raise click.UsageError("name at least one PATH, or - for standard input")
    if "-" in paths and (len(paths) > 1 or rebuild):
        raise click.UsageError("standard input (-) is indexed by itself, without other paths or --rebuild")
    settings = settings_here()
    with IndexingView(err) as view, _ending_at_once(view, "; what is indexed stays, and the next run does the rest"):
        if paths == ("-",):
            summary = index_stdin(settings, sys.stdin.buffer.read(), name, collection, view.show)
        else:
            request = SyncRequest(
                inputs=paths, cwd=str(Path.cwd()), collection=collection, delete=not no_delete, rebuild=rebuild
            )
            summary = index_files(settings, request, view.show)
    _finish_index(summary, as_json)


def _finish_index(summary: Summary, as_json: bool) -> None:
    if as_json:
        print_json(msgspec.to_builtins(summary))
    else:
        err.print(summary_line(summary), markup=False, highlight=False)
    if summary.refused:
        raise Exit(REFUSED)


def _searching(command: Callable[..., None]) -> Callable[..., None]:
    """The options that `search` and `answer` share."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print the response as JSON."),
        click.option("--filter", "filter_json", metavar="JSON", help='As in {"lang": "en"}.'),
        click.option("--mode", type=click.Choice(["hybrid", "dense", "sparse"]), default="hybrid"),
        click.option("--backend", help="Who ranks: a configured name, auto, or none."),
        click.option("--limit", type=click.IntRange(1, 100), default=5, help="Passages."),
        click.option("--collection", default="default"),
    ):
        command = option(command)
    return command


@cli.command()
@click.argument("query")
@_searching
def search(query: str, as_json: bool, **options: Any) -> None:
    """Find passages for QUERY."""
    from app.cli.session import search as find

    with LoadingView(err) as view, _ending_at_once(view, ""):
        found = find(settings_here(), _body(query, options), view.show)
    if as_json:
        print_json(found)
    else:
        show_results(out, found)


@cli.command()
@click.argument("query")
@_searching
@click.option("--stream", is_flag=True, help="Print the answer as it is made.")
@click.option("--answer-backend", help="Who answers: a configured name, auto, or extractive.  [default: who ranks]")
@click.option(
    "--check", "check_citations", type=click.Choice(["structural", "model"]), help="Who checks what is cited."
)
@click.option("--language", help="Language of the answer, as in en or pt-BR.  [default: the question's]")
@click.option("--instructions", help="For tone and form, as in 'one sentence, formal'.")
def answer(query: str, as_json: bool, stream: bool, **options: Any) -> None:
    """Answer QUERY from the documents, with numbered sources."""
    from app.cli.session import answer as reply
    from app.cli.session import stream_answer

    settings, body = settings_here(), _body(query, options)
    with LoadingView(err) as view, _ending_at_once(view, ""):
        if stream:
            stream_answer(settings, body, _EventPrinter(view, as_json=as_json), view.show)
            return
        answered = reply(settings, body, view.show)
    if as_json:
        print_json(answered)
    else:
        show_answer(out, answered)


class _EventPrinter:
    """Prints a streamed answer: its text as it comes, then its sources. As JSON: an object a line for each event."""

    def __init__(self, view: LoadingView, *, as_json: bool) -> None:
        self._view = view
        self._as_json = as_json
        self._text = ""

    def __call__(self, name: str, data: dict[str, Any]) -> None:
        self._view.stop()
        if self._as_json:
            write(msgspec.json.encode({"event": name, "data": data}))
        elif name == "delta":
            self._text += data["text"]
            out.print(answer_text(data["text"]), end="")
        elif name == "done":
            out.print()
            show_sources(out, {**data, "answer": self._text})
        sys.stdout.flush()


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def doctor(as_json: bool) -> None:
    """Say what is configured, reachable and missing, and how to mend it."""
    from app.cli.doctor import examine, show

    findings = examine(os.environ, Path.cwd())
    if as_json:
        print_json(msgspec.to_builtins(findings))
    else:
        show(out, findings)
    if any(finding.state == "broken" for finding in findings):
        raise Exit(FAILED)


def _body(query: str, options: dict[str, Any]) -> dict[str, Any]:
    if not query.strip():
        raise click.UsageError("QUERY is empty")
    # What the shell handed over in another encoding cannot be looked up, but must not break anything either.
    query = query.encode("utf-8", "replace").decode()
    body = {"query": query, **{key: value for key, value in options.items() if value is not None}}
    if "filter_json" in body:
        try:
            body["filter"] = msgspec.json.decode(body.pop("filter_json"), type=dict[str, Any])
        except msgspec.DecodeError as exc:
            raise click.UsageError(f"--filter is no JSON object: {exc}") from exc
    return body


cli.add_command(usage)
cli.add_command(cost)
cli.add_command(calibrate)
cli.add_command(evaluate)
cli.add_command(vllm)


if __name__ == "__main__":
    main()
