"""What can go wrong in the service. The root of the tree, and what the index raises, are in `indexing.errors`.

    WinnowError
    ├ ConfigError                    start-up only; the process exits with one clear line
    ├ InvalidRequest                 the caller's mistake; `problems` point at the fields
    │ ├ UnknownBackend
    │ ├ MissingCapability
    │ ├ NotFound
    │ ├ Conflict
    │ ├ TooLarge
    │ └ UnsupportedMediaType
    ├ NotAuthenticated, NotAllowed
    ├ RateLimited                    `retry_after` seconds
    ├ BudgetExceeded                 `retry_after` seconds until the period ends
    ├ Overloaded                     our own queues are full; `retry_after` seconds
    └ UpstreamError                  `service` did not deliver; perhaps `retry_after` seconds, and the cost all the same
      ├ UpstreamTimeout              retryable; `sent` if it may have read the prompt all the same
      ├ UpstreamUnavailable          retryable
      │ └ Resting                    it failed repeatedly and gets no requests for a while
      ├ UpstreamRateLimited          retryable; `quota` says which one is spent
      ├ UpstreamRejected             key, model or request
      │ └ PromptTooLong              for the model's context
      ├ UpstreamBadReply             retryable: the next reply may be whole
      ├ UpstreamUntrusted            its grades were measured, and say nothing
      └ Refused                      a safety block

No HTTP here: `app.api.problem_details` alone knows status codes.
"""

from collections.abc import Iterable
from typing import Literal

from app.domain import TokenCount
from indexing.errors import Conflict, FieldProblem, InvalidRequest, NotFound, Overloaded, WinnowError, pointing_at

__all__ = [
    "BudgetExceeded",
    "ConfigError",
    "Conflict",
    "FieldProblem",
    "InvalidRequest",
    "MissingCapability",
    "NotAllowed",
    "NotAuthenticated",
    "NotFound",
    "Overloaded",
    "PromptTooLong",
    "Quota",
    "RateLimited",
    "Refused",
    "Resting",
    "TooLarge",
    "UnknownBackend",
    "UnsupportedMediaType",
    "UpstreamBadReply",
    "UpstreamError",
    "UpstreamRateLimited",
    "UpstreamRejected",
    "UpstreamTimeout",
    "UpstreamUnavailable",
    "UpstreamUntrusted",
    "WinnowError",
    "pointing_at",
]


class ConfigError(WinnowError):
    """The configuration cannot work."""


class UnknownBackend(InvalidRequest):
    """No backend of that name. `named` are the backends that the text names."""

    named: tuple[str, ...] = ()

    @classmethod
    def among(cls, name: str, configured: Iterable[str]) -> "UnknownBackend":
        """Lists those that are configured. A name may be a megabyte long, and is cut."""
        names = tuple(configured)
        error = cls(f"unknown backend {name[:100]!r}; known are {', '.join(names)}")
        error.named = names
        return error


class MissingCapability(InvalidRequest):
    """The backend named lacks a capability that the request needs. `named` are the backends that the text names."""

    code = "cannot"
    named: tuple[str, ...] = ()

    @classmethod
    def among(cls, detail: str, named: Iterable[str]) -> "MissingCapability":
        """With a text that names these."""
        error = cls(detail)
        error.named = tuple(named)
        return error


class TooLarge(InvalidRequest):
    """The body is larger than allowed."""


class UnsupportedMediaType(InvalidRequest):
    """The body is of a media type, or in an encoding, that is not supported."""


class NotAuthenticated(WinnowError):
    """A key is needed."""


class NotAllowed(WinnowError):
    """The caller may not do this; `problems` point at the fields that ask for it, if any do."""

    def __init__(self, detail: str, problems: tuple[FieldProblem, ...] = ()) -> None:
        super().__init__(detail)
        self.problems = problems


class RateLimited(WinnowError):
    """Too many requests of this caller."""

    def __init__(self, detail: str, retry_after: float) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class BudgetExceeded(WinnowError):
    """The budget is spent; the text has the figures. `retry_after` seconds until the next period begins."""

    code = "over_budget"

    def __init__(self, detail: str, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class UpstreamError(WinnowError):
    """A service that this one depends on failed.

    `retry_after` is in seconds, None when it named no time. `tokens` is what the failed call cost all the same, as far
    as the service said so. The text never repeats what the service wrote; that is `reason`, for the log alone.
    """

    reason = ""

    def __init__(
        self, service: str, detail: str, retry_after: float | None = None, tokens: TokenCount | None = None
    ) -> None:
        super().__init__(detail)
        self.service = service
        self.retry_after = retry_after
        self.tokens = tokens


class UpstreamTimeout(UpstreamError):
    """The service did not answer in time. `sent`: as far as we know, it had received the request."""

    code = "timeout"
    retryable = True

    def __init__(
        self,
        service: str,
        detail: str,
        retry_after: float | None = None,
        tokens: TokenCount | None = None,
        *,
        sent: bool = False,
    ) -> None:
        super().__init__(service, detail, retry_after, tokens)
        self.sent = sent


class UpstreamUnavailable(UpstreamError):
    """The service cannot be reached, or reports that it is down."""

    code = "unavailable"
    retryable = True


class Resting(UpstreamUnavailable):
    """The service failed repeatedly and gets no requests for `retry_after` seconds."""

    code = "resting"


Quota = Literal["minute", "day", "unknown"]


class UpstreamRateLimited(UpstreamError):
    """A rate limit or quota of the service is exhausted. A spent daily quota is not worth waiting for."""

    code = "rate_limited"
    retryable = True

    def __init__(
        self,
        service: str,
        detail: str,
        retry_after: float | None = None,
        tokens: TokenCount | None = None,
        quota: Quota = "unknown",
    ) -> None:
        super().__init__(service, detail, retry_after, tokens)
        self.quota = quota


class UpstreamRejected(UpstreamError):
    """The service refuses our key, model or request."""

    code = "rejected"


class PromptTooLong(UpstreamRejected):
    """The prompt does not fit into the model's context."""


class UpstreamBadReply(UpstreamError):
    """The reply cannot be parsed."""

    code = "bad_reply"
    retryable = True


class UpstreamUntrusted(UpstreamError):
    """A model's grades were measured, and say nothing about relevance: they are not used."""

    code = "not_trusted"


class Refused(UpstreamError):
    """The model declined for safety."""

    code = "refused"
