"""docs/formats.md against the table of readers."""

from pathlib import Path

from indexing.readers import FORMATS

PAGE = Path(__file__).parents[3] / "docs/formats.md"


def test_every_format_is_described() -> None:
    """With its extensions and its reader, in the order of the table."""
    rows = [line.split(" | ")[:3] for line in PAGE.read_text().splitlines() if "`indexing.readers." in line]
    assert rows == [
        [f"| {entry.name}", ", ".join(entry.extensions), f"`indexing.readers.{entry.reader.partition(':')[0]}`"]
        for entry in FORMATS.values()
    ]
