"""An API key: its shape, its secret, and what it is bound to."""

import hashlib
import re
import secrets
from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from app.domain import SCOPES, Caller, Scope
from app.errors import pointing_at
from indexing.documents import EVERYTHING, Audience

PREFIX = "wnw"

TOKEN = re.compile(rf"{PREFIX}_(?P<id>[0-9a-f]{{12}})_[A-Za-z0-9_-]{{43}}")
"""How a key is written: its id, which logs may show, and 256 random bits."""

ENVIRONMENT = "environment"
OPERATOR = "operator"
RESERVED = ("anonymous", ENVIRONMENT, OPERATOR)
"""Names under which the ledger and the log know callers without a key of the file."""

MODELLESS = ("none", "extractive")
"""These cost nothing, so every key may use them."""

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")]
ShortText = Annotated[str, Meta(min_length=1, max_length=256)]
Few = Meta(min_length=1, max_length=1000)
Dollars = Annotated[float, Meta(ge=0, le=10**9)]
PerMinute = Annotated[int, Meta(ge=1, le=10**12)]
State = Literal["active", "expired", "revoked"]


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """What a key may do, see and spend; None: no bound.

    It sees the documents of `tenant` ("": those of no tenant) that are open to one of its `groups`, in `collections`.
    """

    scopes: Annotated[tuple[Scope, ...], Meta(min_length=1, max_length=6)]
    tenant: Annotated[str, Meta(max_length=256)] = ""
    groups: Annotated[tuple[ShortText, ...], Meta(max_length=1000)] = ()
    collections: Annotated[tuple[ShortText, ...], Few] | None = None
    backends: Annotated[tuple[ShortText, ...], Few] | None = None
    requests_per_minute: PerMinute | None = None
    tokens_per_minute: PerMinute | None = None
    daily_usd: Dollars | None = None
    monthly_usd: Dollars | None = None
    expires_at: Annotated[datetime, Meta(tz=True)] | None = None


class KeyRequest(Bounds, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key that is to be created. `name` is what the ledger, the log and budgets call it, and never used again."""

    name: Name

    def check(self, backends: Iterable[str], now: datetime) -> None:
        """Raises InvalidRequest for bounds that contradict each other or name what is not there."""
        if self.name in RESERVED:
            raise pointing_at("/name", f"{self.name!r} is reserved; choose another name")
        if {"admin", "metrics"} & {*self.scopes} and (self.tenant or self.groups or self.collections is not None):
            raise pointing_at("/scopes", "admin and metrics see everything: leave out tenant, groups and collections")
        known = [*backends]
        if unknown := [name for name in self.backends or () if name not in known]:
            names = ", ".join(known) or "none"
            raise pointing_at("/backends", f"unknown backend {unknown[0]!r}; those that a key can be bound to: {names}")
        if self.expires_at is not None and self.expires_at <= now:
            raise pointing_at("/expires_at", "this is in the past")


class Key(Bounds, frozen=True, kw_only=True):
    """A key as the file has it: of its secrets only the digests.

    After a rotation the secret before it, `previous`, is accepted until `previous_until` (seconds since 1970).
    """

    id: str
    name: str
    digest: bytes
    created_at: datetime
    revoked_at: datetime | None = None
    previous: bytes = b""
    previous_until: float = 0.0

    def accepts(self, digest: bytes, now: float) -> bool:
        """Whether this is the digest of its secret. Takes the same time wherever they differ."""
        current = secrets.compare_digest(digest, self.digest)
        previous = secrets.compare_digest(digest, self.previous or self.digest)
        return current or (previous and now < self.previous_until)

    def state(self, now: float) -> State:
        """Whether it is still good."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at.timestamp() <= now else "active"

    def caller(self) -> Caller:
        """Whoever sends it."""
        scopes = SCOPES if "admin" in self.scopes else frozenset(self.scopes)
        backends = None if self.backends is None else (*self.backends, *MODELLESS)
        return Caller(key=self.name, scopes=scopes, backends=backends, audience=self._audience())

    def _audience(self) -> Audience:
        if "admin" in self.scopes:
            return EVERYTHING
        return Audience(tenant=self.tenant, groups=self.groups, collections=self.collections)


class KeyInfo(Bounds, frozen=True, kw_only=True):
    """A key without its secret. `prefix` is what it begins with."""

    id: str
    name: str
    prefix: str
    state: State
    created_at: datetime
    revoked_at: datetime | None = None


class NewKey(KeyInfo, frozen=True, kw_only=True):
    """A key and its secret, which is shown this once."""

    key: str


def info_of(key: Key, now: float) -> KeyInfo:
    """What may be shown of it."""
    return KeyInfo(**_shown(key, now))


def with_secret(key: Key, token: str, now: float) -> NewKey:
    """What is shown once."""
    return NewKey(**_shown(key, now), key=token)


def _shown(key: Key, now: float) -> dict[str, Any]:
    shown = {name: getattr(key, name) for name in KeyInfo.__struct_fields__ if hasattr(key, name)}
    return {**shown, "prefix": f"{PREFIX}_{key.id}", "state": key.state(now)}


def new_key(request: KeyRequest, taken: Collection[str], now: float) -> tuple[Key, str]:
    """A key with an id that is not `taken`, and the token that a client sends."""
    key_id = secrets.token_hex(6)
    while key_id in taken:
        key_id = secrets.token_hex(6)
    token = new_token(key_id)
    bounds = {name: getattr(request, name) for name in Bounds.__struct_fields__}
    created_at = datetime.fromtimestamp(now, UTC)
    return Key(**bounds, id=key_id, name=request.name, digest=digest_of(token), created_at=created_at), token


def new_token(key_id: str) -> str:
    """A new secret for the key of this id."""
    return f"{PREFIX}_{key_id}_{secrets.token_urlsafe(32)}"


def digest_of(token: str) -> bytes:
    """SHA-256. A secret of 256 random bits cannot be guessed from it, so a slow hash would only cost time."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
