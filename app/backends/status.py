"""What an HTTP status of a model server means: one table for every adapter, and one set of texts.

status                   becomes
3xx                      UpstreamRejected, naming the setting of the URL
401, 403                 UpstreamRejected, naming the setting of the key
402, 429                 UpstreamRateLimited, with Retry-After and the quota
400, 404, 405            NoSuchModel, if that is the reason; NoSuchRoute for the last two
408, 504, 524            UpstreamTimeout
501, other 4xx           UpstreamRejected; PromptTooLong, if that is the reason
other 5xx                UpstreamUnavailable, with Retry-After

Each adapter reads the reasons out of its server's own codes. No text repeats what the server wrote: that is kept beside
it, for the log (`app.errors.UpstreamError.reason`).
"""

import math
import re
from collections.abc import Collection, Mapping
from email.utils import parsedate_to_datetime
from typing import Literal

import msgspec

from app.backends.tools import ToolsRefused
from app.errors import (
    PromptTooLong,
    Quota,
    Refused,
    UpstreamBadReply,
    UpstreamError,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)

Reason = Literal["policy", "no tools", "bad key", "no model", "too long", "day", "minute"]
"""What a server's codes tell beyond the status; "day" and "minute" are the quota that is spent."""

_RATE_LIMITED = (402, 429)
_TIMED_OUT = (408, 504, 524)

_NAMES_SHOWN = 10

_REASON_LENGTH = 300
_KEYS = re.compile(r"\b(?:sk|pk|rk|hf|gsk|xai|AIza)[-_A-Za-z0-9]{8,}|(?i:bearer)\s+\S+")
""""Incorrect API key provided: sk-..." """


class NoSuchRoute(UpstreamRejected):
    """The server does not have that endpoint."""


class NoSuchModel(UpstreamRejected):
    """The server does not have the model, or no longer."""


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """The server, for the texts. `models` are those that it is known to have; the hints say what to check."""

    name: str
    model: str | None = None
    models: tuple[str, ...] = ()
    context_tokens: int | None = None
    key_hint: str = ""
    url_hint: str = ""


def error_of_status(
    status: int, peer: Peer, reasons: Collection[Reason] = (), retry_after: float | None = None
) -> UpstreamError:
    """The error for a reply with that status, or with an error that names it."""
    name = peer.name
    if "policy" in reasons:
        return Refused(name, f"{name} declined for its content policy")
    if "no tools" in reasons:
        return ToolsRefused(name, f"{name} does not support tools (HTTP {status})")
    if status in _RATE_LIMITED:
        return _rate_limited(status, peer, reasons, retry_after)
    if status in _TIMED_OUT:
        return UpstreamTimeout(name, f"{name} timed out (HTTP {status})", retry_after)
    if status >= 500 and status != 501:
        return UpstreamUnavailable(name, f"{name} is unavailable (HTTP {status})", retry_after)
    return _rejected(status, peer, reasons)


def _rate_limited(
    status: int, peer: Peer, reasons: Collection[Reason], retry_after: float | None
) -> UpstreamRateLimited:
    quota: Quota = "unknown"
    if status == 402 or "day" in reasons:
        quota = "day"
    elif "minute" in reasons:
        quota = "minute"
    what = "the daily quota is spent" if quota == "day" else "too many requests or tokens"
    return UpstreamRateLimited(peer.name, f"{peer.name}: {what} (HTTP {status})", retry_after, quota=quota)


def _rejected(status: int, peer: Peer, reasons: Collection[Reason]) -> UpstreamRejected:
    name, section = peer.name, f"[backends.{peer.name}]"
    url_hint = peer.url_hint or f"check `url` in {section}; it should end in /v1"
    if status in (401, 403) or "bad key" in reasons:
        key_hint = peer.key_hint or f"set `api_key` in {section}"
        return UpstreamRejected(name, f"{name} rejects the API key (HTTP {status}); {key_hint}")
    if "too long" in reasons:
        limit = f" of {peer.context_tokens} tokens" if peer.context_tokens else ""
        return PromptTooLong(name, f"the prompt is too long for the context{limit} of {name}")
    if status in (400, 404) and "no model" in reasons:
        has = f"; it has {listed(peer.models)}" if peer.models else ""
        return NoSuchModel(
            name, f"{name} does not have the model {peer.model!r}{has}; set another `model` in {section}"
        )
    if status in (404, 405) and "no model" not in reasons:
        return NoSuchRoute(name, f"{name} has no such endpoint (HTTP {status}); {url_hint}")
    if status < 400:
        return UpstreamRejected(name, f"{name} redirects elsewhere (HTTP {status}); {url_hint}")
    return UpstreamRejected(name, f"{name} rejects the request (HTTP {status})")


def logged_reason(text: str) -> str:
    """What a server wrote, as far as a log may hold it: one short line of visible characters, without keys."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text[:4_000]).split())
    line = _KEYS.sub("***", line)
    return f"{line[:_REASON_LENGTH]}…" if len(line) > _REASON_LENGTH else line


def unreadable(peer: Peer) -> UpstreamBadReply:
    """The error for a reply that is not what was asked for."""
    return UpstreamBadReply(peer.name, f"{peer.name} sent a reply that cannot be read")


def late(peer: Peer) -> UpstreamTimeout:
    """The error for a reply that did not come in time; the server may have read the prompt."""
    return UpstreamTimeout(peer.name, f"{peer.name} did not answer in time", sent=True)


def listed(models: tuple[str, ...]) -> str:
    """The first few names."""
    more = f" and {len(models) - _NAMES_SHOWN} more" if len(models) > _NAMES_SHOWN else ""
    return ", ".join(models[:_NAMES_SHOWN]) + more


def retry_after_s(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds to wait: `retry-after-ms`, or `Retry-After` as seconds or as a date (RFC 9110); a date that is past is 0.

    None: there is none, or it is nonsense, as a negative number is. `now` in seconds since 1970.
    """
    for header, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        if (number := seconds_of(headers.get(header))) is not None:
            return number / unit
    try:
        return max(0.0, parsedate_to_datetime(headers.get("retry-after", "")).timestamp() - now)
    except (ValueError, OverflowError):
        return None


def seconds_of(value: object) -> float | None:
    """A number that can be waited for: finite, and not negative."""
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
