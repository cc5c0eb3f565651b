"""What can go wrong in the service. No HTTP here: `app.api` alone knows status codes.

WinnowError
├ ConfigError                    start-up only; the process exits with one clear line
├ InvalidRequest                 the caller's mistake; `problems` point at the fields
│ ├ UnknownBackend
│ ├ MissingCapability
│ ├ NotFound
│ ├ Conflict
│ └ TooLarge
├ NotAuthenticated, NotAllowed
├ RateLimited                    `retry_after` seconds
├ BudgetExceeded                 `retry_after` seconds until the period ends
├ Overloaded                     our own queues are full; `retry_after` seconds
└ UpstreamError                  `service` did not deliver; maybe `retry_after` seconds, and what it cost all the same
  ├ UpstreamTimeout              retryable; `sent` if it may have read the prompt all the same
  ├ UpstreamUnavailable          retryable
  │ └ Resting                    it failed so often that we leave it alone for a while
  ├ UpstreamRateLimited          retryable; `quota` says which one is spent
  ├ UpstreamRejected             key, model or request
  │ └ PromptTooLong              for the model's context
  ├ UpstreamBadReply             retryable: the next reply may be whole
  └ Refused                      a safety block
"""

from collections.abc import Iterable
from typing import Literal

import msgspec

from app.domain import Fallback, TokenCount


class FieldProblem(msgspec.Struct, frozen=True):
    """One bad field: where (a JSON pointer into the body) and what, with the fix."""

    pointer: str
    detail: str


class WinnowError(Exception):
    """Base of everything the service raises on purpose; its text is fit for a user to read.

    `code` is the stable word for it in `fallbacks` and in the ledger. `failures` are the backends that were tried.
    """

    code = "failed"
    retryable = False
    failures: tuple[Fallback, ...] = ()


class ConfigError(WinnowError):
    """The configuration cannot work."""


class InvalidRequest(WinnowError):
    """The request cannot be served as it stands."""

    def __init__(self, detail: str, problems: tuple[FieldProblem, ...] = ()) -> None:
        super().__init__(detail)
        self.problems = problems


def pointing_at(pointer: str, detail: str) -> InvalidRequest:
    """The error of one bad field."""
    return InvalidRequest(f"{pointer}: {detail}", (FieldProblem(pointer, detail),))


class UnknownBackend(InvalidRequest):
    """No backend of that name."""

    @classmethod
    def among(cls, name: str, known: Iterable[str]) -> "UnknownBackend":
        """Says which there are. A name may be a megabyte long."""
        return cls(f"there is no backend {name[:100]!r}; known are {', '.join(known)}")


class MissingCapability(InvalidRequest):
    """The backend named cannot do what is asked."""

    code = "cannot"


class NotFound(InvalidRequest):
    """What the request names does not exist."""


class Conflict(InvalidRequest):
    """The request contradicts what exists."""


class TooLarge(InvalidRequest):
    """The body is larger than the service takes."""


class NotAuthenticated(WinnowError):
    """A key is needed."""


class NotAllowed(WinnowError):
    """The caller may not do this."""


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


class Overloaded(WinnowError):
    """The service's own queues are full."""

    code = "overloaded"
    retryable = True

    def __init__(self, detail: str, retry_after: float = 1.0) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class UpstreamError(WinnowError):
    """A service that we stand on did not deliver.

    `retry_after` is in seconds, None when it named no time. `tokens` is what the failed call cost all the same, as far
    as the service said so. The text never repeats what the service wrote.
    """

    def __init__(
        self, service: str, detail: str, retry_after: float | None = None, tokens: TokenCount | None = None
    ) -> None:
        super().__init__(detail)
        self.service = service
        self.retry_after = retry_after
        self.tokens = tokens


class UpstreamTimeout(UpstreamError):
    """It did not answer in time. `sent`: we stopped waiting, as far as we know after the request had left."""

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
    """It cannot be reached, or says that it is down."""

    code = "unavailable"
    retryable = True


class Resting(UpstreamUnavailable):
    """It failed so often that it is left alone for `retry_after` seconds."""

    code = "resting"


Quota = Literal["minute", "day", "unknown"]


class UpstreamRateLimited(UpstreamError):
    """It wants us to wait. A quota of the day is not worth waiting for."""

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
    """It refuses our key, model or request."""

    code = "rejected"


class PromptTooLong(UpstreamRejected):
    """The request does not fit into its context."""


class UpstreamBadReply(UpstreamError):
    """Its reply cannot be understood."""

    code = "bad_reply"
    retryable = True


class Refused(UpstreamError):
    """It declined for safety."""

    code = "refused"
