"""`winnow documents`: what is in a collection."""

from datetime import datetime
from typing import Any

import rich_click as click
from rich.table import Table
from rich.text import Text

from app.cli.render import clean
from app.cli.session import delete_document, list_documents, show_document
from app.cli.terminal import current_settings, err, out, print_json

collection_option = click.option("--collection", default="default", help="Collection of the documents.")
tenant_option = click.option("--tenant", default=None, help="Whose documents they are; by default those of no tenant.")
as_json_option = click.option("--json", "as_json", is_flag=True, help="Print the response as JSON.")


@click.group()
def documents() -> None:
    """List, show and delete documents."""


@documents.command(name="list")
@collection_option
@click.option("--limit", type=click.IntRange(1, 1000), default=100, help="Maximum number of documents.")
@click.option("--cursor", default="", help="Continue after an earlier list, with the cursor at its end.")
@as_json_option
def show_list(collection: str, limit: int, cursor: str, as_json: bool) -> None:
    """List the documents of a collection by id."""
    page = list_documents(current_settings(), {"collection": collection, "cursor": cursor, "limit": str(limit)})
    if as_json:
        print_json(page)
        return
    if not page["documents"]:
        out.print("no documents" if not cursor else "no more documents")
        return
    out.print(documents_table(page["documents"]), soft_wrap=False)
    if page["next_cursor"]:
        err.print(f"more: --cursor {page['next_cursor']}", style="dim", markup=False, highlight=False)


@documents.command()
@click.argument("document_id", metavar="ID")
@collection_option
@tenant_option
@click.option("--no-text", is_flag=True, help="Leave out the text.")
@as_json_option
def show(document_id: str, collection: str, tenant: str | None, no_text: bool, as_json: bool) -> None:
    """Show a document: its metadata and its text."""
    params = {"collection": collection, "include_text": "false" if no_text else "true", **_of(tenant)}
    document = show_document(current_settings(), document_id, params)
    if as_json:
        print_json(document)
        return
    out.print(documents_table([document]), soft_wrap=False)
    for name, value in {"title": document["title"], **document["metadata"]}.items():
        if value not in ("", None):
            out.print(Text.assemble((f"{clean(str(name))}: ", "dim"), clean(str(value))))
    if document["text"] is not None:
        out.print()
        out.print(Text(clean(document["text"])))


@documents.command()
@click.argument("document_ids", metavar="ID...", nargs=-1, required=True)
@collection_option
@tenant_option
def delete(document_ids: tuple[str, ...], collection: str, tenant: str | None) -> None:
    """Delete documents with their passages. One that came from a file comes back with the next run over that file."""
    settings = current_settings()
    for document_id in document_ids:
        delete_document(settings, document_id, {"collection": collection, **_of(tenant)})
        err.print(f"deleted {clean(document_id)}", markup=False, highlight=False)


def _of(tenant: str | None) -> dict[str, str]:
    return {} if tenant is None else {"tenant": tenant}


def documents_table(found: list[dict[str, Any]]) -> Table:
    """A row for each, as GET /documents tells it; a column of tenants where one has any."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    tenants = any(document["tenant"] for document in found)
    for head in ("id", "source", "passages", "indexed", "from", *(["tenant"] if tenants else [])):
        # An id is there to be copied: what does not fit is taken from the others.
        table.add_column(head, justify="right" if head == "passages" else "left", overflow="fold", no_wrap=head == "id")
    for document in found:
        table.add_row(
            clean(document["id"]),
            clean(document["source"]) or "-",
            f"{document['passages']:,}",
            f"{datetime.fromisoformat(document['indexed_at']):%Y-%m-%d %H:%M}",
            document["origin"],
            *([clean(document["tenant"])] if tenants else []),
        )
    return table
