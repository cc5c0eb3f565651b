"""The replica that writes to the index that services share, for commands on a machine without a service of its own."""

from typing import NamedTuple
from urllib.parse import urlsplit

from app.cli.http_client import RemoteService
from app.config.settings import Settings
from app.errors import Conflict
from app.instance import HOP_HEADER, answers, is_loopback
from indexing.errors import IndexBusy
from indexing.pipeline.progress import NEEDS_FILES
from indexing.postgres import Database
from indexing.tables import NotPrepared
from indexing.writer import PART, Writer, holder, writer_in

WAIT_S = 60.0
"""How long a command waits for a process that writes to the index and cannot be asked to do the work."""


class WritingService(RemoteService):
    """It takes whoever knows its secret, from the database, for its operator. `beside`: it runs on this machine."""

    def __init__(self, writer: Writer, *, beside: bool) -> None:
        super().__init__(writer.url, {HOP_HEADER: f"{writer.secret} operator"})
        self.beside = beside

    def require_files(self) -> None:
        """Of a command that reads or writes files. Raises Conflict where the service cannot see them."""
        if not self.beside:
            raise Conflict(NEEDS_FILES)


class _Seen(NamedTuple):
    """What the database knows: who announced itself, the address of the process that has the lock, and ours."""

    writer: Writer
    holder: str | None
    own: str


def writing_service(settings: Settings) -> WritingService | None:
    """The replica that writes; None where the index is not shared, nobody writes, or it cannot be reached."""
    seen = _look(settings)
    if seen is None or seen.holder is None or not seen.writer.url:
        return None
    host = urlsplit(seen.writer.url).hostname or ""
    service = WritingService(seen.writer, beside=host == seen.own or is_loopback(host))
    return service if answers(seen.writer.url, service.headers) else None


def whom_to_wait_for(settings: Settings) -> str:
    """Who writes to the index that is shared, and cannot be asked; "" where it is not shared."""
    seen = _look(settings)
    if seen is None:
        return ""
    at = f" at {seen.holder}" if seen.holder else ""
    if seen.writer.url:
        return f"the replica{at} that writes to the index cannot be reached from here under {seen.writer.url}"
    return f"another process of Winnow{at}, such as `winnow index`, writes to the index"


def still_busy(who: str, seconds: float) -> IndexBusy:
    """After so long."""
    return IndexBusy(
        f"{who}, and did not end within {seconds:g} s; run this again when it has, or where a service runs, which "
        "hands the work on"
    )


def _look(settings: Settings) -> _Seen | None:
    if settings.database.url is None or not settings.store.url:
        return None
    database = Database(settings.database.url, migrates=False)
    try:
        with database.connected(PART) as db:
            return _Seen(writer_in(db), holder(db), db.local_address or "127.0.0.1")
    except NotPrepared:  # nobody has written yet
        return None
    finally:
        database.close()
