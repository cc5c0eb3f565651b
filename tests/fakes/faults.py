"""What can go wrong with a model's server: the names that the fakes, the tests and the storms share."""

import random
from collections.abc import Callable, Sequence
from enum import StrEnum

from app.errors import (
    Refused,
    UpstreamBadReply,
    UpstreamError,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)


class Fault(StrEnum):
    """How a fake server treats one call. Each speaks its own protocol; the names mean the same everywhere."""

    OK = "ok"
    BAD_REQUEST = "bad_request"
    """400"""
    UNAUTHORIZED = "unauthorized"
    """401"""
    FORBIDDEN = "forbidden"
    """403"""
    UNKNOWN_MODEL = "unknown_model"
    """404"""
    REQUEST_TIMEOUT = "request_timeout"
    """408"""
    RATE_LIMITED_WITH_DELAY = "rate_limited_with_delay"
    """429 that says when to come back"""
    RATE_LIMITED = "rate_limited"
    """429 that does not"""
    QUOTA_OF_THE_DAY = "quota_of_the_day"
    """429 that no waiting of ours will end"""
    SERVER_ERROR = "server_error"
    """500"""
    UNAVAILABLE = "unavailable"
    """503"""
    HTML_PAGE = "html_page"
    """a gateway's error page, with 502"""
    MALFORMED_JSON = "malformed_json"
    """200 with half a JSON document"""
    EMPTY_REPLY = "empty_reply"
    """200 with nothing in it"""
    TRUNCATED_STREAM = "truncated_stream"
    """a stream that ends in good order, but without a finish reason; a unary reply without one"""
    ERROR_IN_STREAM = "error_in_stream"
    """an error event after some text; a unary call gets 500"""
    BLOCKED_PROMPT = "blocked_prompt"
    BLOCKED_ANSWER = "blocked_answer"
    OUT_OF_TOKENS = "out_of_tokens"
    """cut for its length before the first visible word"""
    DROPPED_BEFORE = "dropped_before"
    """the connection closes before the status line"""
    DROPPED_MIDWAY = "dropped_midway"
    """the connection closes within the body"""
    SLOW_FIRST_BYTE = "slow_first_byte"
    SLOW_TRICKLE = "slow_trickle"
    """the first bytes come at once, the rest takes its time"""


ERRORS: dict[Fault, type[UpstreamError]] = {
    Fault.BAD_REQUEST: UpstreamRejected,
    Fault.UNAUTHORIZED: UpstreamRejected,
    Fault.FORBIDDEN: UpstreamRejected,
    Fault.UNKNOWN_MODEL: UpstreamRejected,
    Fault.REQUEST_TIMEOUT: UpstreamTimeout,
    Fault.RATE_LIMITED_WITH_DELAY: UpstreamRateLimited,
    Fault.RATE_LIMITED: UpstreamRateLimited,
    Fault.QUOTA_OF_THE_DAY: UpstreamRateLimited,
    Fault.SERVER_ERROR: UpstreamUnavailable,
    Fault.UNAVAILABLE: UpstreamUnavailable,
    Fault.HTML_PAGE: UpstreamUnavailable,
    Fault.MALFORMED_JSON: UpstreamBadReply,
    Fault.EMPTY_REPLY: UpstreamBadReply,
    Fault.TRUNCATED_STREAM: UpstreamBadReply,
    Fault.ERROR_IN_STREAM: UpstreamUnavailable,
    Fault.BLOCKED_PROMPT: Refused,
    Fault.BLOCKED_ANSWER: Refused,
    Fault.DROPPED_BEFORE: UpstreamUnavailable,
    Fault.DROPPED_MIDWAY: UpstreamUnavailable,
    Fault.SLOW_FIRST_BYTE: UpstreamTimeout,
    Fault.SLOW_TRICKLE: UpstreamTimeout,
}
"""What every adapter makes of each; the slow ones when they are too slow. The others end in a reply."""


def seeded_faults(seed: int, share: float, faults: Sequence[Fault] | None = None) -> Callable[[], Fault]:
    """A chooser that lets a `share` in [0,1] of the calls go wrong, evenly over `faults` (None: all but OK)."""
    chance = random.Random(seed)
    among = [fault for fault in Fault if fault is not Fault.OK] if faults is None else list(faults)
    return lambda: chance.choice(among) if chance.random() < share else Fault.OK
