"""Making, listing, renewing and revoking keys, for the service and for a command without one."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from app.access.key_file import Keys
from app.access.keys import Key, KeyInfo, KeyRequest, NewKey, info_of, with_secret

MAX_OVERLAP_S = 30 * 86_400


def changed_nothing() -> None:
    """Where nobody else has to know."""


class KeyAdministration:
    """Every method blocks, and raises StoreUnavailable. `changed` is called after each change, before it returns.

    A key can be bound to `backends`. `now`: seconds since 1970.
    """

    def __init__(
        self,
        file: Keys,
        backends: Sequence[str],
        now: Callable[[], float],
        changed: Callable[[], None] = changed_nothing,
    ) -> None:
        self._file, self._backends, self._now, self._changed = file, backends, now, changed

    def all(self) -> list[KeyInfo]:
        """The keys by name, those too that are expired or revoked."""
        return [info_of(key, self._now()) for key in self._file.all()]

    def create(self, request: KeyRequest) -> NewKey:
        """Raises InvalidRequest."""
        request.check(self._backends, datetime.fromtimestamp(self._now(), UTC))
        return self._new(*self._file.create(request))

    def rotate(self, name: str, overlap_s: float) -> NewKey:
        """A new secret for the key of this name or id; the one before holds for `overlap_s`.

        Raises NotFound, InvalidRequest.
        """
        return self._new(*self._file.rotate(name, overlap_s))

    def revoke(self, name: str) -> KeyInfo:
        """Raises NotFound."""
        key = self._file.revoke(name)
        self._changed()
        return info_of(key, self._now())

    def _new(self, key: Key, token: str) -> NewKey:
        self._changed()
        return with_secret(key, token, self._now())
