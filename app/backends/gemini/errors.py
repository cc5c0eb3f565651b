"""What goes wrong between us and Gemini, as our errors. What the server wrote goes along for the log alone."""

from collections.abc import Iterator, Mapping
from typing import Any

import httpx2
from google.auth import exceptions as auth
from google.genai._gaos.lib import compat_errors as decisions
from google.genai.errors import APIError

from app.backends.status import (
    Peer,
    Reason,
    error_of_status,
    late,
    logged_reason,
    retry_after_s,
    seconds_of,
    unreadable,
)
from app.errors import UpstreamError, UpstreamRejected, UpstreamUnavailable

UNREADABLE = (ValueError, TypeError, AttributeError, LookupError, RecursionError)
"""What the SDK raises about a reply that it did not expect. Before there is a reply, they are mistakes of ours."""

FOREIGN = (
    TimeoutError,
    APIError,
    decisions.GeminiNextGenAPIClientError,
    httpx2.HTTPError,
    httpx2.InvalidURL,
    auth.GoogleAuthError,
    *UNREADABLE,
)
"""All that may become one of our errors."""


def peer_of(name: str, model: str, project: str | None) -> Peer:
    """Gemini in the words of the settings. `project` None: with a key."""
    section = f"[backends.{name}]"
    return Peer(
        name=name,
        model=model,
        key_hint=f"check `api_key` in {section}, or GEMINI_API_KEY"
        if project is None
        else f"check the Google Cloud credentials and `project` in {section}",
        url_hint=f"check `url` in {section}, or the SDK's own variable for it",
    )


def translate(exc: Exception, peer: Peer, response: httpx2.Response | None, now: float) -> UpstreamError | None:
    """Our error for one of FOREIGN; None for a mistake of ours. `now` in seconds since 1970.

    `response` is what the server answered, as far as it did.
    """
    if isinstance(exc, decisions.GeminiNextGenAPIClientError):
        return _of_decisions(exc, response, peer, now)
    name = peer.name
    match exc:
        case APIError():
            return _from_status(exc.code, exc.details, response, peer, now)
        case TimeoutError() | httpx2.ReadTimeout() | httpx2.WriteTimeout():
            return late(peer)
        case auth.GoogleAuthError():
            return _of_sign_in(exc, name)
        case httpx2.InvalidURL() | httpx2.UnsupportedProtocol():
            return UpstreamRejected(name, f"{name} cannot be reached at that URL; {peer.url_hint}")
        case httpx2.DecodingError() | httpx2.SSEError() | httpx2.TooManyRedirects():
            return unreadable(peer)
        case httpx2.HTTPError():
            return UpstreamUnavailable(name, f"{name} cannot be reached, or broke the connection")
    if response is None:
        return None
    if response.status_code != httpx2.codes.OK:
        return _from_status(response.status_code, None, response, peer, now)
    return unreadable(peer)


def _of_sign_in(exc: auth.GoogleAuthError, name: str) -> UpstreamError:
    if isinstance(exc, auth.TransportError | auth.TimeoutError):
        return UpstreamUnavailable(name, f"{name}: Google Cloud's sign-in cannot be reached")
    return UpstreamRejected(
        name, f"{name}: no usable Google Cloud credentials; run `gcloud auth application-default login`"
    )


def _of_decisions(
    exc: decisions.GeminiNextGenAPIClientError, response: httpx2.Response | None, peer: Peer, now: float
) -> UpstreamError:
    """Decisions have a family of errors of their own. One that came with a reply is about that reply."""
    if isinstance(exc, decisions.APIStatusError):
        return _from_status(exc.status_code, exc.body, response, peer, now)
    if isinstance(exc, decisions.APITimeoutError):
        return late(peer)
    if response is not None and not isinstance(exc, decisions.APIConnectionError):
        return unreadable(peer)
    return UpstreamUnavailable(peer.name, f"{peer.name} cannot be reached, or broke the connection")


def _from_status(status: Any, body: Any, response: httpx2.Response | None, peer: Peer, now: float) -> UpstreamError:
    """By HTTP status, or by the code of an error inside a stream, which may be anything."""
    if not isinstance(status, int) or not 300 <= status < 600:
        return unreadable(peer)
    details = list(_details(body))
    reasons = set(_reasons(status, details))
    # The delay that Google names beside a spent day is that of the minute's quota.
    wait = None if "day" in reasons else _retry_after(details, {} if response is None else response.headers, now)
    error = error_of_status(status, peer, reasons, wait)
    error.reason = logged_reason("; ".join(_messages(body)))
    return error


def _reasons(status: int, details: list[dict[str, Any]]) -> Iterator[Reason]:
    # Google answers a wrong key with 400.
    if any(detail.get("reason") == "API_KEY_INVALID" for detail in details):
        yield "bad key"
    if status == 404:
        yield "no model"
    for detail in details:
        for violation in _dicts(detail.get("violations")):
            quota_id = str(violation.get("quotaId", "")).lower()
            if "perday" in quota_id:
                yield "day"
            if "perminute" in quota_id:
                yield "minute"


def _retry_after(details: list[dict[str, Any]], headers: Mapping[str, str], now: float) -> float | None:
    """Seconds: from Google's RetryInfo, or else from the header."""
    delays = [_duration(detail["retryDelay"]) for detail in details if "retryDelay" in detail]
    return next((delay for delay in delays if delay is not None), None) or retry_after_s(headers, now)


def _duration(value: Any) -> float | None:
    """Of "3.5s", or {"seconds": 3, "nanos": 500000000}."""
    if isinstance(value, dict):
        seconds, nanos = seconds_of(value.get("seconds", 0)), seconds_of(value.get("nanos", 0))
        return None if seconds is None or nanos is None else seconds + nanos / 1e9
    return seconds_of(str(value).removesuffix("s"))


def _messages(body: Any) -> Iterator[str]:
    """What the errors of a body say in words."""
    for outer in _dicts(body if isinstance(body, list) else [body]):
        yield from (str(error["message"]) for error in _dicts([outer.get("error", outer)]) if "message" in error)


def _details(body: Any) -> Iterator[dict[str, Any]]:
    """`error.details` of an error's body, as far as they are there."""
    for outer in _dicts(body if isinstance(body, list) else [body]):
        for error in _dicts([outer.get("error")]):
            yield from _dicts(error.get("details"))


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
