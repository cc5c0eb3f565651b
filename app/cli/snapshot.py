"""`winnow snapshot`: back-ups of collections, written while they are in use, listed and restored."""

from collections.abc import Callable
from pathlib import Path

import rich_click as click
from click.exceptions import Exit
from rich.table import Table
from rich.text import Text

from app.cli.render import EvaluationView, clean, duration
from app.cli.session import collection_names, create_snapshot, list_snapshots, restore_snapshot
from app.cli.terminal import counted, current_settings, err, out, print_json, size
from app.config.settings import Settings
from app.errors import WinnowError
from app.evaluation.models import EvaluationProgress
from indexing.pipeline.progress import Copied, Event, Notice, Report, RestoreRequest, SnapshotInfo, SnapshotRequest

FAILED = 3


@click.group()
def snapshot() -> None:
    """Back up collections to files and restore them."""


@snapshot.command()
@click.option("--collection", "collections", multiple=True, help="Collection to write; repeatable.  [default: all]")
@click.option(
    "--output",
    type=click.Path(),
    help="File to write; or, if it exists or ends with a slash, directory to write to.  "
    "[default: snapshots/ in the home]",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def create(collections: tuple[str, ...], output: str | None, as_json: bool) -> None:
    """Write collections to files, one each, while they stay in use. Each file is checked after it was written.

    Exit status 3: a collection could not be written; the others are.
    """
    settings, written, failed = current_settings(), [], False
    with EvaluationView(err) as view:
        names = collections or collection_names(settings, shown(view, ""))
        target = None if output is None else _absolute(output, directory=len(names) > 1)
        for name in names:
            try:
                info = _create(settings, SnapshotRequest(collection=name, output=target), shown(view, name))
            except WinnowError as exc:
                if len(names) == 1:
                    raise
                err.print(f"{clean(name)}: {clean(str(exc))}", style="red", markup=False, highlight=False)
                failed = True
            else:
                written.append(info)
    if as_json:
        print_json(written)
    elif not names:
        err.print("no collections yet: nothing to write")
    if failed:
        raise Exit(FAILED)


@snapshot.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
def show_list(as_json: bool) -> None:
    """List the snapshots in the home."""
    found = list_snapshots(current_settings())
    if as_json:
        print_json(found)
    elif found:
        out.print(_table(found), soft_wrap=False)
        for damaged in (info for info in found if info.problem):
            out.print(Text(clean(damaged.problem), "red"))
    else:
        out.print("no snapshots yet")


@snapshot.command()
@click.argument("snapshot")
@click.option("--collection", help="Refuse a snapshot of any other collection than this one.")
@click.option("--as", "name", metavar="NEWNAME", help="Name of the restored collection.  [default: its own]")
@click.option("--force", is_flag=True, help="Replace a collection of that name; a snapshot of it is kept.")
@click.option("--json", "as_json", is_flag=True, help="Print what was restored as JSON.")
def restore(snapshot: str, collection: str | None, name: str | None, force: bool, as_json: bool) -> None:
    """Restore SNAPSHOT: a file, or the name of one in the home.

    Everything is checked before anything is changed, and nothing is embedded. The collection appears when it is
    complete; one that is replaced answers until then.
    """
    path = Path(snapshot)
    target = str(path.absolute()) if path.exists() else snapshot
    request = RestoreRequest(snapshot=target, collection=collection, name=name, force=force)
    with EvaluationView(err) as view:
        restored = restore_snapshot(current_settings(), request, shown(view, name or collection or ""))
    for warning in restored.warnings:
        err.print(f"warning: {clean(warning)}", style="yellow", markup=False, highlight=False)
    if as_json:
        print_json(restored)
        return
    verb = "replaced" if restored.replaced else "restored"
    line = (
        f"{verb} {restored.collection!r} in {duration(restored.seconds)}: {counted(restored.documents, 'document')}, "
        f"{counted(restored.passages, 'passage')}, {counted(restored.files, 'file')}"
    )
    err.print(clean(line), markup=False, highlight=False)
    if restored.kept:
        err.print(f"the collection before it is kept in {clean(restored.kept)}", markup=False, highlight=False)


def _absolute(output: str, *, directory: bool) -> str:
    """Where to write: a file, or a directory if it ends with a slash. The service has another working directory."""
    path = Path(output)
    if directory and path.exists() and not path.is_dir():
        raise click.UsageError("--output must be a directory where several collections are written")
    return f"{path.absolute()}/" if directory or output.endswith("/") else str(path.absolute())


def _create(settings: Settings, request: SnapshotRequest, report: Report) -> SnapshotInfo:
    info = create_snapshot(settings, request, report)
    counts = f"{counted(info.documents, 'document')}, {counted(info.passages, 'passage')}, {size(info.bytes)}"
    line = f"{info.collection}: {counts}, {info.path}"
    err.print(clean(line), markup=False, highlight=False)
    for warning in info.warnings:
        err.print(f"warning: {clean(warning)}", style="yellow", markup=False, highlight=False)
    return info


def shown(view: EvaluationView, collection: str) -> Callable[[Event], None]:
    """Shows the progress of a collection's run."""

    def show(event: Event) -> None:
        if isinstance(event, Copied):
            step = f"{event.step} {collection}".strip()
            view.show(EvaluationProgress(step=step, done=event.done, total=event.total))
        elif isinstance(event, Notice):
            err.print(clean(event.detail), style="dim", markup=False, highlight=False)

    return show


def _table(found: list[SnapshotInfo]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("snapshot", "created (UTC)"):
        table.add_column(head, no_wrap=True)
    for head in ("documents", "passages", "size"):
        table.add_column(head, justify="right")
    for info in found:
        name = clean(Path(info.path).name.removesuffix(".snapshot.zip"))
        if info.problem:
            table.add_row(name, "damaged", "", "", "", style="red")
        else:
            counts = (f"{info.documents:,}", f"{info.passages:,}", size(info.bytes))
            table.add_row(name, info.created_at[:16].replace("T", " "), *counts)
    return table
