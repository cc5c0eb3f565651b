"""`winnow documents`, as it is shown."""

import io

from rich.console import Console

from app.cli.documents import documents_table


def test_ids_are_in_one_piece() -> None:
    """In a terminal of 80 columns, and so in a pipe: they are what the other commands take."""
    document_id = "c37960de0212b083815b5c0a55e69768"
    told = {
        "id": document_id,
        "source": "integrations-of-others.md",
        "passages": 1_234,
        "origin": "file",
        "tenant": "acme",
    }
    console = Console(file=io.StringIO(), width=80)
    console.print(documents_table([told | {"indexed_at": "2026-11-28T12:00:00Z"}]))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert document_id in shown
    assert "acme" in shown
