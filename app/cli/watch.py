"""`winnow watch`: keeps a collection in line with its sources, by looking at them again and again.

A look lists names, sizes and times, or a bucket's tags. It works the same for folders, network drives and buckets, of
which only the first could tell by themselves that something has changed.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import rich_click as click

from app.cli.render import IndexingView, clean, summary_line
from app.cli.session import index_files
from app.cli.terminal import current_settings, ending_on_interrupt, err, write
from app.config.settings import Settings
from app.errors import ConfigError, WinnowError
from indexing.pipeline.progress import Summary, SyncRequest

Seen = Mapping[str, Mapping[str, object]]
"""Source -> file -> whatever tells one state of it from another."""

MOST_LOOKS = 6
"""At changes that never pause; then a run takes what there is."""
LONGEST_PAUSE_S = 300.0


def sync_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that `index` and `watch` share."""
    for option in (
        click.option(
            "--allowed", multiple=True, metavar="GROUP", help="Only keys with this group see them; repeatable."
        ),
        click.option("--tenant", default="", help="Whose documents these become; one run has one tenant."),
        click.option("--no-delete", is_flag=True, help="Keep documents whose files no longer exist."),
        click.option("--collection", default="default", help="Collection to write to; created if it does not exist."),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@sync_options
@click.option("--every", type=click.FloatRange(min=0.5), default=10.0, help="Seconds between two looks.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary of each run as a line of JSON.")
def watch(
    sources: tuple[str, ...],
    collection: str,
    every: float,
    no_delete: bool,
    tenant: str,
    allowed: tuple[str, ...],
    as_json: bool,
) -> None:
    """Index files, directories, globs or buckets (s3://bucket/folder), and again whenever they change.

    A change is taken once a second look has found it finished, or after six looks. What fails is tried again at the
    next look, later each time up to five minutes. A source with no file at all is taken for a drive that is not there:
    what is indexed of it stays. Ends with Ctrl-C or SIGTERM; nothing is lost by it, nor by a kill.
    """
    settings = current_settings()
    request = SyncRequest(
        inputs=sources,
        cwd=str(Path.cwd()),
        collection=collection,
        delete=not no_delete,
        tenant=tenant,
        allowed=allowed or None,
    )
    err.print(f"watching {clean(', '.join(sources))} every {every:g} s; Ctrl-C ends it", markup=False, highlight=False)
    follow(lambda: look(request), lambda seen: _index(settings, request, seen, as_json), time.sleep, every)


def follow(
    look: Callable[[], Seen], bring_in_line: Callable[[Seen], bool], pause: Callable[[float], None], every: float
) -> None:
    """Bring in line at once, and after every change that has settled, until an exception ends it.

    `bring_in_line` says whether it could; if not, pauses become longer.
    """
    before: Seen | None = None
    done: Seen | None = None
    waited = failures = 0
    while True:
        seen = look()
        if seen != done and (before is None or seen == before or waited >= MOST_LOOKS):
            if bring_in_line(seen):
                # What was seen before the run: a change in the middle of it is seen by the next look.
                done, waited, failures = seen, 0, 0
            else:
                failures += 1
        elif seen != done:
            waited += 1
        before = seen
        pause(max(every, min(every * 2**failures, LONGEST_PAUSE_S)))


def look(request: SyncRequest) -> Seen:
    """The files that a run would find, and what has to be different in one that has changed."""
    from indexing.pipeline.sources import discover

    seen: dict[str, dict[str, object]] = {}
    for given in request.inputs:
        discovery = discover([given], Path(request.cwd))
        seen[given] = {source.key: _state(source.path) for source in discovery.sources}
        seen[given] |= {f"?{source.name}": error.reason for source, error in discovery.problems}
    return seen


def _is_there(files: Mapping[str, object]) -> bool:
    """Whether a source has a file, or says what keeps us from seeing one."""
    return any(state != "not_found" for state in files.values())


def _state(path: object) -> object:
    if not isinstance(path, Path):
        return path  # with the version that the listing told
    try:
        status = path.stat()
    except OSError as exc:
        return type(exc).__name__
    return status.st_size, status.st_mtime_ns, status.st_ino


def _index(settings: Settings, request: SyncRequest, seen: Seen, as_json: bool) -> bool:
    """One run. What nobody but the user can mend ends the command; with everything else it waits for better days.

    Nobody watches the watcher: a drive that was not mounted would have its documents deleted.
    """
    there = tuple(given for given in request.inputs if _is_there(seen[given]))
    for given in (one for one in request.inputs if one not in there):
        note = f"{clean(given)} has no files: what is indexed of it stays, until `winnow index` is run over it"
        err.print(note, style="yellow", markup=False, highlight=False)
    if not there:
        return True
    request = msgspec.structs.replace(request, inputs=there)
    try:
        with IndexingView(err) as view, ending_on_interrupt(view.stop):
            summary = index_files(settings, request, view.show)
    except ConfigError:
        raise
    except WinnowError as exc:
        err.print(f"{clean(str(exc))}; tried again later", style="yellow", markup=False, highlight=False)
        return False
    _tell(summary, as_json)
    return True


def _tell(summary: Summary, as_json: bool) -> None:
    if as_json:
        write(msgspec.json.encode(summary))
    else:
        err.print(summary_line(summary), markup=False, highlight=False)
