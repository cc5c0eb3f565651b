"""The accounts of a service as a whole."""

from pathlib import Path

import pytest

from app.accounting.ledger import LEDGER_FILE
from tests.fakes.money import accounts


@pytest.mark.parametrize("content", [b"no database at all" * 1000, b"SQLite format 3\x00" + b"\xff" * 4096])
def test_a_damaged_ledger_stops_nobody(tmp_path: Path, content: bytes) -> None:
    """It is kept in quarantine, and a new one is begun."""
    (tmp_path / LEDGER_FILE).write_bytes(content)
    opened = accounts(tmp_path)
    opened.open()
    assert opened.usage().total.calls == 0
    opened.close()
    assert [path.read_bytes() for path in (tmp_path / "quarantine").iterdir()] == [content]
    assert (tmp_path / LEDGER_FILE).exists()
