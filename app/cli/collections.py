"""`winnow collections`: what is indexed where."""

import sys
from typing import Any

import rich_click as click
from rich.table import Table
from rich.text import Text

from app.cli.render import EvaluationView, clean
from app.cli.session import create_collection, delete_collection, list_collections, repair_collection, show_collection
from app.cli.snapshot import shown
from app.cli.terminal import current_settings, err, out, print_json, size
from indexing.pipeline.progress import RepairRequest

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print the response as JSON.")


@click.group(invoke_without_command=True)
@as_json_option
@click.pass_context
def collections(context: click.RichContext, /, as_json: bool) -> None:
    """List, create and delete collections; without a command, list them."""
    if context.invoked_subcommand is None:
        _list(as_json)


@collections.command(name="list")
@as_json_option
def show_list(as_json: bool) -> None:
    """List all collections with their counts and sizes."""
    _list(as_json)


@collections.command()
@click.argument("name")
@as_json_option
def show(name: str, as_json: bool) -> None:
    """Show one collection: its counts, its size, and the embedding model of its vectors."""
    _show(show_collection(current_settings(), name), as_json)


@collections.command()
@click.argument("name")
@as_json_option
def create(name: str, as_json: bool) -> None:
    """Create an empty collection for the configured embedding model; nothing happens if it exists.

    Indexing documents creates their collection, too.
    """
    _show(create_collection(current_settings(), name), as_json)


@collections.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
def delete(name: str, yes: bool) -> None:
    """Delete a collection with its documents, for good; its jobs are cancelled."""
    settings = current_settings()
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("add --yes to delete a collection without being asked")
        documents = show_collection(settings, name)["documents"]
        click.confirm(f"Delete {clean(name)!r} with {documents:,} documents?", abort=True, err=True)
    delete_collection(settings, name)
    err.print(f"deleted {clean(name)}", markup=False, highlight=False)


@collections.command()
@click.argument("name")
@as_json_option
def repair(name: str, as_json: bool) -> None:
    """Make the manifest and the index of a collection agree.

    Documents that only the index has are recorded again, with their texts. Documents that lack passages in the index
    are written again: submitted ones at once, those of files with the next run over the files.
    """
    with EvaluationView(err) as view:
        done = repair_collection(current_settings(), RepairRequest(collection=name), shown(view, name))
    if as_json:
        print_json(done)
        return
    line = (
        f"{clean(done.collection)}: {done.recovered} documents recovered from the index, {done.written} written again; "
        f"{done.to_read} documents of files are to be read again"
    )
    err.print(line, markup=False, highlight=False)
    if done.recovered or done.to_read:
        err.print("now run winnow index over the folders that the collection was made from", highlight=False)


def _list(as_json: bool) -> None:
    found = list_collections(current_settings())
    if as_json:
        print_json(found)
    elif found["collections"]:
        out.print(_table(found["collections"]), soft_wrap=False)
    else:
        out.print("no collections yet; create one with: winnow index PATH")


def _table(found: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("collection", "documents", "passages", "size", "status"):
        table.add_column(head, justify="right" if head in ("documents", "passages", "size") else "left")
    for one in found:
        table.add_row(
            clean(one["name"]),
            f"{one['documents']:,}",
            f"{one['passages']:,}",
            "-" if one["bytes"] is None else size(one["bytes"]),
            Text(one["status"], "" if one["status"] == "ready" else "yellow"),
        )
    return table


def _show(collection: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(collection)
        return
    out.print(_table([collection]), soft_wrap=False)
    vectors = f"{collection['vector_size']} dimensions, {collection['distance']}, by {clean(collection['embedder'])}"
    out.print(Text(f"vectors: {vectors}", "dim"))
