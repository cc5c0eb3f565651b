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
├ BudgetExceeded
├ Overloaded                     our own queues are full; `retry_after` seconds
└ UpstreamError                  `service` did not deliver
  ├ UpstreamTimeout              retryable
  ├ UpstreamUnavailable          retryable
  ├ UpstreamRateLimited          retryable; `retry_after` seconds
  ├ UpstreamRejected
  ├ UpstreamBadReply
  └ Refused                      a safety block
"""

import msgspec


class FieldProblem(msgspec.Struct, frozen=True):
    """One bad field: where (a JSON pointer into the body) and what, with the fix."""

    pointer: str
    detail: str


class WinnowError(Exception):
    """Base of everything the service raises on purpose; its text is fit for a user to read."""

    retryable = False


class ConfigError(WinnowError):
    """The configuration cannot work."""


class InvalidRequest(WinnowError):
    """The request cannot be served as it stands."""

    def __init__(self, detail: str, problems: tuple[FieldProblem, ...] = ()) -> None:
        super().__init__(detail)
        self.problems = problems


class UnknownBackend(InvalidRequest):
    """No backend of that name."""


class MissingCapability(InvalidRequest):
    """The backend named cannot do what is asked."""


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
    """The budget is spent."""


class Overloaded(WinnowError):
    """The service's own queues are full."""

    retryable = True

    def __init__(self, detail: str, retry_after: float = 1.0) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class UpstreamError(WinnowError):
    """A service that we stand on did not deliver."""

    def __init__(self, service: str, detail: str) -> None:
        super().__init__(detail)
        self.service = service


class UpstreamTimeout(UpstreamError):
    """It did not answer in time."""

    retryable = True


class UpstreamUnavailable(UpstreamError):
    """It cannot be reached, or says that it is down."""

    retryable = True


class UpstreamRateLimited(UpstreamError):
    """It wants us to wait."""

    retryable = True

    def __init__(self, service: str, detail: str, retry_after: float | None = None) -> None:
        super().__init__(service, detail)
        self.retry_after = retry_after


class UpstreamRejected(UpstreamError):
    """It refuses our key, model or request."""


class UpstreamBadReply(UpstreamError):
    """Its reply cannot be understood."""


class Refused(UpstreamError):
    """It declined for safety."""
