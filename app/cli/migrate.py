"""`winnow migrate`: from the files of one service to the database of several."""

from pathlib import Path

import rich_click as click
from rich.console import Console

from app.cli.render import clean
from app.cli.terminal import current_settings, err, out
from app.config.settings import Settings
from app.errors import ConfigError, Conflict
from app.instance import find_service
from indexing.postgres import open_database


@click.command()
def migrate() -> None:
    """Bring keys, ledger, calibrations and the record of documents from the home into the database, once.

    WINNOW_DATABASE_URL names it, and it must not have any of that. Without a Qdrant server the record of documents
    stays in the home, with the index. Stop the service first.
    """
    settings = current_settings()
    database = open_database(settings.database.url)
    if database is None:
        raise ConfigError("WINNOW_DATABASE_URL is not set: it says into which database")
    home = settings.index.home
    if find_service(home) is not None:
        raise Conflict(f"a service runs on {home}: stop it first")
    from app.services.migration import migrate as bring

    progress = _Progress(err)
    try:
        parts = bring(home, _manifest(settings), database, progress.show)
    finally:
        progress.end()
        database.close()
    for part in parts:
        rows = "already there" if part.rows is None else f"{part.rows:,} rows"
        out.print(f"{part.name}: {rows}", markup=False, highlight=False)
    if not parts:
        err.print(f"nothing to bring: {clean(str(home))} has no keys, ledger or documents")


def _manifest(settings: Settings) -> Path | None:
    """Its file, where replicas share the index, too."""
    from app.wiring import MANIFEST_FILE

    return settings.index.home / MANIFEST_FILE if settings.store.url else None


class _Progress:
    """One line of a terminal that is written again and again; nothing elsewhere."""

    def __init__(self, console: Console) -> None:
        self._status = console.status("bringing ...") if console.is_terminal else None
        if self._status is not None:
            self._status.start()

    def show(self, name: str, done: int, total: int) -> None:
        """Hear how far a part is."""
        if self._status is not None:
            self._status.update(f"{name}: {done:,} of {total:,} rows")

    def end(self) -> None:
        """Leave the line."""
        if self._status is not None:
            self._status.stop()
