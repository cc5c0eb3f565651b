"""How fast a key may be used: a bucket of requests and one of tokens for each, refilled all the time."""

from collections.abc import Callable, Iterator

from app.access.keys import Key
from app.errors import RateLimited

MINUTE_S = 60


class Bucket:
    """Holds what may be used at once, a minute's worth at most. Times are seconds that never go back."""

    def __init__(self, per_minute: int, at: float) -> None:
        self.per_minute = per_minute
        self._level, self._at = float(per_minute), at

    def level(self, at: float) -> float:
        """What is left; less than nothing where more was taken than there was."""
        passed_s = max(0.0, at - self._at)  # it may have been made after the caller looked at the clock
        self._level = min(self.per_minute, self._level + passed_s * self.per_minute / MINUTE_S)
        self._at = max(self._at, at)
        return self._level

    def set(self, level: float, at: float) -> None:
        """What is left, as somebody else has counted it."""
        self._level, self._at = level, at

    def take(self, amount: float, at: float) -> None:
        """Whether there is that much or not."""
        self._level = self.level(at) - amount

    def seconds_until(self, amount: float, at: float) -> float:
        """How long until so much is there; 0 if it is."""
        return max(0.0, (amount - self.level(at)) * MINUTE_S / self.per_minute)


class Rates:
    """The buckets of the keys, in memory: each process of a service counts for itself.

    A request takes one from the requests before it is served. Its tokens are known afterwards: it begins while there is
    any left, and whoever took more than there was waits until that has flowed back. `clock`: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._buckets: dict[tuple[str, str], Bucket] = {}

    async def admit(self, key: Key) -> None:
        """Count a request. Raises RateLimited with the time at which the next one may come."""
        at = self._clock()
        self._require_room(key, at)
        for unit, bucket in self._of(key):
            if unit == "requests":
                bucket.take(1, at)

    async def close(self) -> None:
        """Nothing is left to be done."""

    def spend(self, key: Key, tokens: int) -> None:
        """Count the tokens of a model's call."""
        for unit, bucket in self._of(key):
            if unit == "tokens":
                bucket.take(tokens, self._clock())

    def headers(self, key: Key) -> list[tuple[bytes, bytes]]:
        """RateLimit and RateLimit-Policy, as the IETF's draft has them; none for a key without limits."""
        at = self._clock()
        buckets = list(self._of(key))
        if not buckets:
            return []
        policies = ", ".join(f'"{unit}";q={bucket.per_minute};w={MINUTE_S}' for unit, bucket in buckets)
        states = ", ".join(
            f'"{unit}";r={max(0, int(bucket.level(at)))};t={round(bucket.seconds_until(bucket.per_minute, at))}'
            for unit, bucket in buckets
        )
        return [(b"ratelimit-policy", policies.encode()), (b"ratelimit", states.encode())]

    def _require_room(self, key: Key, at: float) -> None:
        for unit, bucket in self._of(key):
            wait_s = bucket.seconds_until(1, at)
            if wait_s > 0:
                raise RateLimited(
                    f"the key {key.name!r} may use {bucket.per_minute:,} {unit} a minute; "
                    f"the next request is possible in {wait_s:.1f} s",
                    wait_s,
                )

    def _of(self, key: Key) -> Iterator[tuple[str, Bucket]]:
        """Those that the key is bound to, by their units."""
        for unit, per_minute in (("requests", key.requests_per_minute), ("tokens", key.tokens_per_minute)):
            if per_minute is not None:
                bucket = self._buckets.get((key.id, unit))
                if bucket is None or bucket.per_minute != per_minute:
                    bucket = self._buckets[key.id, unit] = Bucket(per_minute, self._clock())
                yield unit, bucket
