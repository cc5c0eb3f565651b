"""What goes wrong between us and Gemini, as our errors. None of the texts repeats what the server wrote."""

from collections.abc import Iterator, Mapping
from typing import Any

import httpx2
import msgspec
from google.auth import exceptions as auth
from google.genai.errors import APIError

from app.backends.resilience.retry import pause_of, told_pause_s
from app.errors import (
    Quota,
    UpstreamBadReply,
    UpstreamError,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)

UNREADABLE = (ValueError, TypeError, AttributeError, LookupError, RecursionError)
"""What the SDK raises about a reply that it did not expect. Before there is a reply, they are mistakes of ours."""

FOREIGN = (TimeoutError, APIError, httpx2.HTTPError, httpx2.InvalidURL, auth.GoogleAuthError, *UNREADABLE)
"""All that may become one of our errors."""


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """Whom we talk to, in the words of the settings. `project` None: with a key."""

    name: str
    model: str
    project: str | None

    @property
    def section(self) -> str:
        """Where its settings stand."""
        return f"[backends.{self.name}]"


def translate(exc: Exception, peer: Peer, response: httpx2.Response | None, now: float) -> UpstreamError | None:
    """Our error for one of FOREIGN; None for a mistake of ours. `now` in seconds since 1970.

    `response` is what the server answered, as far as it did.
    """
    match exc:
        case APIError():
            return _from_status(exc.code, exc.details, response, peer, now)
        case TimeoutError() | httpx2.ReadTimeout() | httpx2.WriteTimeout():
            return UpstreamTimeout(peer.name, f"{peer.name} did not answer in time", sent=True)
        case auth.TransportError() | auth.TimeoutError():
            return UpstreamUnavailable(peer.name, f"{peer.name}: Google Cloud's sign-in cannot be reached")
        case auth.GoogleAuthError():
            return UpstreamRejected(
                peer.name, f"{peer.name}: no usable Google Cloud credentials; `gcloud auth application-default login`"
            )
        case httpx2.InvalidURL() | httpx2.UnsupportedProtocol():
            return UpstreamRejected(peer.name, f"{peer.name} cannot be reached under that address; {_url_of(peer)}")
        case httpx2.DecodingError() | httpx2.SSEError() | httpx2.TooManyRedirects():
            return _unreadable(peer)
        case httpx2.HTTPError():
            return UpstreamUnavailable(peer.name, f"{peer.name} cannot be reached, or broke the connection")
    if response is None:
        return None
    if response.status_code != httpx2.codes.OK:
        return _from_status(response.status_code, None, response, peer, now)
    return _unreadable(peer)


def _from_status(status: Any, details: Any, response: httpx2.Response | None, peer: Peer, now: float) -> UpstreamError:
    """By HTTP status, or by the code of an error inside a stream."""
    name = peer.name
    listed = list(_details(details))
    wait = _retry_after(listed, {} if response is None else response.headers, now)
    match status:
        case 400 if any(detail.get("reason") == "API_KEY_INVALID" for detail in listed):
            return UpstreamRejected(name, f"{name} refuses our key; {_key_of(peer)}")
        case 401 | 403:
            return UpstreamRejected(name, f"{name} refuses our key ({status}); {_key_of(peer)}")
        case 404:
            known = f"{name} does not know the model {peer.model!r}; set another `model` in {peer.section}"
            return UpstreamRejected(name, known)
        case 408 | 504:
            return UpstreamTimeout(name, f"{name} ran out of time ({status})", wait)
        case 429:
            return _rate_limited(listed, wait, peer)
        case int() if 300 <= status < 400:
            return UpstreamRejected(name, f"{name} is somewhere else ({status}); {_url_of(peer)}")
        case int() if 400 <= status < 500:
            return UpstreamRejected(name, f"{name} refuses the request ({status})")
        case int() if 500 <= status < 600:
            return UpstreamUnavailable(name, f"{name} is out of order ({status})", wait)
    return _unreadable(peer)


def _rate_limited(listed: list[dict[str, Any]], wait: float | None, peer: Peer) -> UpstreamRateLimited:
    quota = _quota(listed)
    if quota == "day":
        # The delay that it names all the same is that of the minute's quota.
        return UpstreamRateLimited(peer.name, f"{peer.name}: the quota of the day is spent", quota=quota)
    return UpstreamRateLimited(
        peer.name, f"{peer.name} wants us to wait: too many requests or tokens", wait, quota=quota
    )


def _quota(listed: list[dict[str, Any]]) -> Quota:
    violations = [v for detail in listed for v in _dicts(detail.get("violations"))]
    ids = [str(violation.get("quotaId", "")).lower() for violation in violations]
    if any("perday" in quota_id for quota_id in ids):
        return "day"
    return "minute" if any("perminute" in quota_id for quota_id in ids) else "unknown"


def _retry_after(listed: list[dict[str, Any]], headers: Mapping[str, str], now: float) -> float | None:
    """Seconds: from Google's RetryInfo, or else from the header."""
    told = [_duration(detail["retryDelay"]) for detail in listed if "retryDelay" in detail]
    return next((wait for wait in told if wait is not None), None) or told_pause_s(headers, now)


def _duration(value: Any) -> float | None:
    """Of "3.5s", or {"seconds": 3, "nanos": 500000000}."""
    if isinstance(value, dict):
        seconds, nanos = pause_of(value.get("seconds", 0)), pause_of(value.get("nanos", 0))
        return None if seconds is None or nanos is None else seconds + nanos / 1e9
    return pause_of(str(value).removesuffix("s"))


def _details(body: Any) -> Iterator[dict[str, Any]]:
    """`error.details` of an error's body, as far as they are there."""
    for outer in _dicts(body if isinstance(body, list) else [body]):
        for error in _dicts([outer.get("error")]):
            yield from _dicts(error.get("details"))


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _unreadable(peer: Peer) -> UpstreamBadReply:
    return UpstreamBadReply(peer.name, f"{peer.name}: its reply cannot be understood")


def _key_of(peer: Peer) -> str:
    if peer.project is not None:
        return f"check the Google Cloud credentials and `project` in {peer.section}"
    return f"check `api_key` in {peer.section}, or GEMINI_API_KEY"


def _url_of(peer: Peer) -> str:
    return f"check `url` in {peer.section}, or the SDK's own variable for it"
