"""Who is calling: the keys in memory, kept up to date with the file."""

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock

import msgspec
import structlog

from app.access.key_file import KEY_FILE, KeyFile, Keys, Stamp
from app.access.keys import ENVIRONMENT, OPERATOR, TOKEN, Key, digest_of
from app.access.rates import Rates
from app.access.shared import KeyTable, SharedRates
from app.backends.settings import KeyBudget
from app.config.settings import AccessSettings
from app.domain import ANONYMOUS, SCOPES, Caller
from app.errors import ConfigError, NotAuthenticated, WinnowError
from indexing.errors import StoreBusy, StoreUnavailable
from indexing.postgres import Database, clock_of

REFRESH_S = 0.25
"""How old what is known of the file may be when a request comes."""

SHORTEST = 32
"""Characters of a key that somebody chose."""

_ASK = "send a key as Authorization: Bearer, or as X-API-Key"
_NOBODY = bytes(32)
"""The digest of no key."""

log = structlog.get_logger()


class Access:
    """The keys of a service. `keyed`: there are some, or there were, so that a caller needs one.

    Once keyed it stays so until the process ends: a file that vanishes lets nobody in. Nothing is read before `open`
    or the first `refresh`. `now`: seconds since 1970; `clock`: seconds that never go back.
    """

    def __init__(
        self,
        home: Path,
        settings: AccessSettings,
        now: Callable[[], float] | None = None,
        clock: Callable[[], float] = time.monotonic,
        database: Database | None = None,
    ) -> None:
        """With a `database`, keys and rates are those of all who share it, and so is its clock if there is no `now`;
        else the keys are in `home`.
        """
        now = now or clock_of(database)
        self.file = keys_of(home, now, database)
        self.keyed = False
        self._settings = settings
        self._now, self._clock = now, clock
        self._rates = Rates(clock) if database is None else SharedRates(database, clock)
        self._keys: dict[str, Key] = {}
        self._by_name: dict[str, Key] = {}
        self._callers: dict[str, Caller] = {}
        self._admin = b""
        self._failure: WinnowError | None = None
        self._stamp: Stamp | None = None
        self._settled = False
        self._looked_at: float | None = None
        self._one_reads = Lock()  # what is read last is what counts
        self._reloading: asyncio.Future[None] | None = None

    def open(self) -> None:
        """Read the keys. Blocks. Raises ConfigError: a service that cannot tell its callers apart does not start; and
        StoreBusy where that passes by itself, as while the database is away.
        """
        try:
            self._admin = _admin_digest(self._settings)
        except ConfigError:
            self.keyed = True
            raise
        self.load()
        if isinstance(self._failure, StoreBusy):
            raise self._failure
        if self._failure is not None:
            raise ConfigError(str(self._failure)) from self._failure

    async def refresh(self) -> None:
        """Take notice of what others have changed. A failure is raised by `identify`."""
        if self._looked_at is not None and self._clock() - self._looked_at < REFRESH_S:
            return
        if self._reloading is None:
            if self._is_current():
                self._looked_at = self._clock()
                return
            self._reloading = asyncio.ensure_future(self._reload())
        await asyncio.shield(self._reloading)  # the requests that wait for it go on together

    def identify(self, tokens: Sequence[str], *, operator: bool, local: bool) -> Caller:
        """Who sends these tokens. `operator`: it has proved to be this machine's; `local`: a program on this machine.

        Raises NotAuthenticated, and StoreUnavailable while the keys cannot be read.
        """
        if operator:
            key = OPERATOR if self.keyed else ANONYMOUS.key
            return msgspec.structs.replace(ANONYMOUS, key=key, scopes=SCOPES | {OPERATOR})
        if self._failure is not None:
            raise self._failure
        if not self.keyed or (self._settings.loopback and local and not tokens):
            return ANONYMOUS
        if not tokens:
            raise NotAuthenticated(f"a key is needed: {_ASK}")
        if len({*tokens}) > 1:
            raise NotAuthenticated("the headers have different keys; send one")
        return self._owner(tokens[0])

    async def admit(self, caller: Caller) -> None:
        """Count a request of this caller's. Raises RateLimited, and StoreUnavailable where others count, too."""
        if (key := self._by_name.get(caller.key)) is not None:
            await self._rates.admit(key)

    async def close(self) -> None:
        """Let others know what was used."""
        await self._rates.close()

    def spend(self, name: str, tokens: int) -> None:
        """Count tokens that a model has read or written for the key of this name."""
        if (key := self._by_name.get(name)) is not None:
            self._rates.spend(key, tokens)

    def rate_headers(self, caller: Caller) -> list[tuple[bytes, bytes]]:
        """What a response says of the caller's rates."""
        key = self._by_name.get(caller.key)
        return [] if key is None else self._rates.headers(key)

    def budget(self, name: str) -> KeyBudget | None:
        """What the key of this name is bound to."""
        key = self._by_name.get(name)
        return None if key is None else KeyBudget(daily_usd=key.daily_usd, monthly_usd=key.monthly_usd)

    async def confirm(self, caller: Caller) -> None:
        """A long stream asks again: raises NotAuthenticated once the caller's key is no longer good."""
        await self.refresh()
        key = self._by_name.get(caller.key)
        if key is not None:
            self._require_active(key)

    def load(self) -> None:
        """Read the file now. Blocks."""
        with self._one_reads:
            self._load()

    def _load(self) -> None:
        try:
            stamp = self.file.stamp()
            if not self.file.quick and stamp is not None and stamp == self._stamp and self._failure is None:
                return
            self._stamp = stamp
            self._settled = self.file.is_settled(self._stamp)
            keys = {key.id: key for key in self.file.all()}
        except WinnowError as exc:
            if str(exc) != str(self._failure):
                log.error("the keys cannot be read: nobody is let in", detail=str(exc))
            self._failure, self.keyed = exc, True
            return
        if self._keys and not keys:
            log.error("the file of the keys is gone: nobody is let in", path=str(self.file.path))
        self._failure, self._keys = None, keys
        self._by_name = {key.name: key for key in keys.values()}
        self._callers = {key_id: key.caller() for key_id, key in keys.items()}
        self.keyed = self.keyed or bool(keys or self._admin) or self._settings.required

    async def _reload(self) -> None:
        try:
            await asyncio.to_thread(self.open if self._looked_at is None else self.load)
        except (ConfigError, StoreBusy):
            log.exception("the keys cannot be read: nobody is let in")
        finally:
            self._looked_at = self._clock()
            self._reloading = None

    def _is_current(self) -> bool:
        """Whether the file is as it was. One that had just changed is read again: it may change at the same time."""
        if self._looked_at is None or self._failure is not None or not (self._settled and self.file.quick):
            return False
        try:
            return self.file.stamp() == self._stamp
        except StoreUnavailable:
            return False

    def _owner(self, token: str) -> Caller:
        digest = digest_of(token)
        if secrets.compare_digest(digest, self._admin or _NOBODY):
            return msgspec.structs.replace(ANONYMOUS, key=ENVIRONMENT)
        match = TOKEN.fullmatch(token)
        key = self._keys.get(match["id"]) if match else None
        if key is None or not key.accepts(digest, self._now()):
            raise NotAuthenticated("this key is not known")
        self._require_active(key)
        return self._callers[key.id]

    def _require_active(self, key: Key) -> None:
        if (state := key.state(self._now())) != "active":
            raise NotAuthenticated(f"the key {key.name!r} is {state}")


def keys_of(home: Path, now: Callable[[], float], database: Database | None) -> Keys:
    """Those of the database if there is one, else those of the home. Nothing is read yet."""
    return KeyFile(home / KEY_FILE, now) if database is None else KeyTable(database, now)


def _admin_digest(settings: AccessSettings) -> bytes:
    """Of the admin's key in the settings, b"" if there is none. Raises ConfigError."""
    if settings.admin_key_file is None:
        key, where = settings.admin_key, "WINNOW_ADMIN_KEY"
    elif settings.admin_key is not None:
        raise ConfigError("WINNOW_ADMIN_KEY and WINNOW_ADMIN_KEY_FILE are both set; give one")
    else:
        key, where = _content(settings.admin_key_file), f"the key in {settings.admin_key_file}"
    if key is None:
        return b""
    if len(key) < SHORTEST or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(
            f"{where} must have {SHORTEST} or more letters and digits, and no spaces; `openssl rand -hex 32` makes one"
        )
    return digest_of(key)


def _content(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as exc:
        why = getattr(exc, "strerror", None) or "it is not text"
        raise ConfigError(
            f"the file of the admin's key, {path}, cannot be read: {why}; WINNOW_ADMIN_KEY_FILE names it"
        ) from exc
