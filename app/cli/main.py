"""`winnow`: the console script, and its commands serve, index, search, answer and doctor.

While a service runs on the same home directory, the commands go through it; otherwise they open the index themselves.
Exit status: 0 success, also where `index` skipped files of a kind that is never read; 1 `index` could not read some
files that it should have read; 2 wrong usage or configuration; 3 failure; 130 interrupted.
"""

import os
import sys
from collections.abc import Callable
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import rich_click as click
import structlog
from click.exceptions import Exit

from app.cli.batch.command import batch
from app.cli.bench import bench
from app.cli.calibrate import calibrate
from app.cli.chat import chat
from app.cli.collections import collections
from app.cli.complete import complete
from app.cli.cost import cost
from app.cli.documents import documents
from app.cli.evaluate import evaluate
from app.cli.jobs import jobs
from app.cli.judging import classify, moderate, translate
from app.cli.keys import keys
from app.cli.mcp import mcp
from app.cli.migrate import migrate
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
from app.cli.session import ShowEvent, index_files, index_stdin, stream_answer
from app.cli.session import answer as request_answer
from app.cli.session import search as request_search
from app.cli.snapshot import snapshot
from app.cli.terminal import INTERRUPTED, current_settings, ending_on_interrupt, err, out, print_json, write
from app.cli.usage import usage
from app.cli.vision import vision
from app.cli.vllm import vllm
from app.cli.watch import sync_options, watch
from app.config.settings import misspelt_variables
from app.config.validation import load_settings
from app.errors import ConfigError, Conflict, InvalidRequest, NotFound, WinnowError
from app.instance import installed_version
from app.observability.logging import configure_logging
from indexing.errors import CollectionNotFound
from indexing.pipeline.progress import SyncRequest

# Nothing above loads a web framework, numpy, the index or a model's SDK: printing help and talking to a running service
# must be quick (tests/unit/app/cli/test_imports.py). Commands import the heavy parts where they need them.

UNREAD, USAGE, FAILED = 1, 2, 3


def _show_version(context: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked:  # only then is it looked up, for which all that is installed is listed
        click.echo(f"winnow, version {installed_version()}")
        context.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)
def cli() -> None:
    """Search your documents and answer questions from them, with verified citations."""


def main() -> NoReturn:
    """The console script."""
    os.umask(0o077)  # what is written holds the texts of documents
    # A terminal that lacks a character shows a question mark in its place, instead of raising an error.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    configure_logging("text", "warning")  # to standard error; `serve` applies its own settings
    try:
        # Without its standalone mode click returns the status that an Exit carries.
        status = cli(prog_name="winnow", standalone_mode=False)
    except click.ClickException as exc:
        context = exc.ctx if isinstance(exc, click.UsageError) else None
        _exit(
            f"{exc.format_message().removesuffix('.')} (see: {context.command_path if context else 'winnow'} --help)",
            USAGE,
        )
    except (KeyboardInterrupt, click.Abort):
        err.print("interrupted")
        sys.exit(INTERRUPTED)
    except CollectionNotFound as exc:
        option = "" if exc.name == "default" else f" --collection {exc.name}"
        _exit(f"{exc}; create it with: winnow index PATH{option}", FAILED)
    except (NotFound, Conflict) as exc:
        _exit(str(exc), FAILED)
    except (ConfigError, InvalidRequest) as exc:
        _exit(str(exc), USAGE)
    except WinnowError as exc:
        _exit(str(exc), FAILED)
    sys.exit(status or 0)


def _exit(message: str, status: int) -> NoReturn:
    err.print(f"winnow: {clean(message)}", style="red", markup=False, highlight=False)
    sys.exit(status)


@cli.command()
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 picks a free one.  [default: 8000]")
@click.option("--samples", is_flag=True, help="Index the sample documents if the index is empty.")
def serve(host: str | None, port: int | None, samples: bool) -> None:
    """Run the HTTP service until SIGTERM or Ctrl-C; requests in progress are completed first."""
    from app.main import serve as run
    from app.wiring import build_services

    settings = load_settings(os.environ, Path.cwd())
    overrides = {key: value for key, value in (("host", host), ("port", port)) if value is not None}
    service = msgspec.structs.replace(settings.service, **overrides)
    settings = msgspec.structs.replace(settings, service=service)
    configure_logging(service.log_format, service.log_level)
    for sentence in misspelt_variables(os.environ):  # in the log, which may have to be JSON
        structlog.get_logger().warning(sentence)
    run(settings, build_services(settings), samples=samples)


@cli.command()
@click.argument("paths", nargs=-1, metavar="PATH...")
@sync_options
@click.option("--rebuild", is_flag=True, help="Re-embed everything into a new index, then switch to it.")
@click.option("--force", is_flag=True, help="Rebuild a damaged collection even if documents are lost by it.")
@click.option(
    "--retry-refused", is_flag=True, help="Also read files again that could not be read and have not changed."
)
@click.option("--ray", default="", metavar="ADDRESS", help="Read and embed on a Ray cluster: HOST:6379, auto or local.")
@click.option("--open", "opened", is_flag=True, help="Let all of the tenant see files that were for groups.")
@click.option(
    "--name",
    default="stdin.txt",
    help="Name of the document read from standard input; its extension determines the format.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def index(
    paths: tuple[str, ...],
    collection: str,
    no_delete: bool,
    rebuild: bool,
    force: bool,
    retry_refused: bool,
    ray: str,
    tenant: str,
    allowed: tuple[str, ...],
    opened: bool,
    name: str,
    as_json: bool,
) -> None:
    """Index files, directories, globs, or standard input (-).

    Unchanged files are left alone, changed files are replaced, and documents whose files have disappeared from PATH
    are deleted: those of --tenant, or of no tenant without it.

    A file of a kind that is never read (an unsupported format, encrypted, empty, without text) is reported as skipped.
    One that should have been read (damaged, beyond a limit, no permission) has failed: the exit status is 1, the other
    files are indexed all the same. Exit status 2: wrong usage or configuration; 3: the run failed.
    """
    if not paths and not rebuild:
        raise click.UsageError("specify at least one PATH, or - for standard input")
    if "-" in paths and (len(paths) > 1 or rebuild):
        raise click.UsageError("standard input (-) cannot be combined with other paths or --rebuild")
    if force and not rebuild:
        raise click.UsageError("--force belongs to --rebuild")
    if allowed and opened:
        raise click.UsageError("--allowed names groups, and --open lets all of the tenant see: give one")
    settings = current_settings()
    note = "; everything indexed so far is kept, and the next run continues from there"
    with IndexingView(err) as view, ending_on_interrupt(view.stop, note):
        if paths == ("-",):
            summary = index_stdin(settings, sys.stdin.buffer.read(), name, collection, view.show, tenant, allowed)
            for refused in summary.refused:
                view.show(refused)
        else:
            request = SyncRequest(
                inputs=paths,
                cwd=str(Path.cwd()),
                collection=collection,
                delete=not no_delete,
                rebuild=rebuild,
                force=force,
                retry_refused=retry_refused,
                ray=ray,
                tenant=tenant,
                allowed=allowed or (() if opened else None),
            )
            summary = index_files(settings, request, view.show)
    if as_json:
        print_json(msgspec.to_builtins(summary))
    else:
        err.print(summary_line(summary), markup=False, highlight=False)
    if summary.failed:
        raise Exit(UNREAD)


def _search_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that `search` and `answer` share."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print the response as JSON."),
        click.option("--filter", "filter_json", metavar="JSON", help='Metadata filter, such as {"lang": "en"}.'),
        click.option(
            "--mode",
            type=click.Choice(["hybrid", "dense", "sparse"]),
            default="hybrid",
            help="How to retrieve: by meaning (dense), by words (sparse), or both.",
        ),
        click.option(
            "--expand",
            "expand_query",
            type=click.Choice(["none", "multi", "hyde"]),
            help="Let a model write other phrasings of QUERY (multi), or a passage that could answer it (hyde), to be "
            "searched with it.",
        ),
        click.option(
            "--backend", help="Backend that ranks: a configured name, auto, or none.  [default: the configured one]"
        ),
        click.option("--limit", type=click.IntRange(1, 100), default=5, help="Maximum number of passages."),
        click.option("--collection", default="default", help="Collection to search."),
    ):
        command = option(command)
    return command


@cli.command()
@click.argument("query")
@_search_options
@click.option("--also", "queries", multiple=True, metavar="TEXT", help="QUERY in other words; repeatable, up to 5.")
def search(query: str, as_json: bool, queries: tuple[str, ...], **options: Any) -> None:
    """Find the passages that are most relevant to QUERY."""
    options["queries"] = list(map(_encodable, queries)) or None
    with LoadingView(err) as view, ending_on_interrupt(view.stop):
        response = request_search(current_settings(), _request_body(query, options), view.show)
    if as_json:
        print_json(response)
    else:
        show_results(out, response)


@cli.command()
@click.argument("query")
@_search_options
@click.option("--stream", is_flag=True, help="Print the answer as it is generated.")
@click.option(
    "--answer-backend",
    help="Backend that answers: a configured name, auto, or extractive.  [default: the one that ranks]",
)
@click.option(
    "--check",
    "check_citations",
    type=click.Choice(["structural", "model"]),
    help="How citations are verified: by rules, or by a model.  [default: structural]",
)
@click.option("--language", help="Language of the answer, such as en or pt-BR.  [default: that of the question]")
@click.option("--instructions", help="Tone and form of the answer, such as 'one sentence, formal'.")
def answer(query: str, as_json: bool, stream: bool, **options: Any) -> None:
    """Answer QUERY from your documents, with numbered sources."""
    settings, body = current_settings(), _request_body(query, options)
    with LoadingView(err) as view, ending_on_interrupt(view.stop):
        if stream:
            stream_answer(settings, body, _event_printer(view, as_json=as_json), view.show)
            return
        response = request_answer(settings, body, view.show)
    if as_json:
        print_json(response)
    else:
        show_answer(out, response)


def _event_printer(view: LoadingView, *, as_json: bool) -> ShowEvent:
    """Print a streamed answer: its text as it arrives, then its sources. As JSON: one line for each event."""
    text = ""

    def show(name: str, data: dict[str, Any]) -> None:
        nonlocal text
        view.stop()
        if as_json:
            write(msgspec.json.encode({"event": name, "data": data}))
        elif name == "delta":
            text += data["text"]
            out.print(answer_text(data["text"]), end="")
        elif name == "done":
            out.print()
            show_sources(out, {**data, "answer": text})
        sys.stdout.flush()

    return show


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def doctor(as_json: bool) -> None:
    """Check configuration, index and backends, and suggest fixes."""
    from app.cli.doctor import examine
    from app.cli.surroundings import show

    findings = examine(os.environ, Path.cwd())
    if as_json:
        print_json(msgspec.to_builtins(findings))
    else:
        show(out, findings)
    if any(finding.state == "broken" for finding in findings):
        raise Exit(FAILED)


def _request_body(query: str, options: dict[str, Any]) -> dict[str, Any]:
    if not query.strip():
        raise click.UsageError("QUERY is empty")
    body = {"query": _encodable(query), **{key: value for key, value in options.items() if value is not None}}
    if "filter_json" in body:
        try:
            body["filter"] = msgspec.json.decode(body.pop("filter_json"), type=dict[str, Any])
        except msgspec.DecodeError as exc:
            raise click.UsageError(f"--filter is not a JSON object: {exc}") from exc
    return body


def _encodable(argument: str) -> str:
    """An argument in another encoding arrives with lone surrogates, which JSON cannot carry."""
    return argument.encode("utf-8", "replace").decode()


cli.add_command(batch)
cli.add_command(bench)
cli.add_command(classify)
cli.add_command(moderate)
cli.add_command(chat)
cli.add_command(complete)
cli.add_command(translate)
cli.add_command(collections)
cli.add_command(documents)
cli.add_command(jobs)
cli.add_command(keys)
cli.add_command(mcp)
cli.add_command(migrate)
cli.add_command(usage)
cli.add_command(cost)
cli.add_command(calibrate)
cli.add_command(evaluate)
cli.add_command(snapshot)
cli.add_command(vision)
cli.add_command(vllm)
cli.add_command(watch)


if __name__ == "__main__":
    main()
