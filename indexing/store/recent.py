"""Passages that a shard has read lately, so that they are neither read nor parsed again.

Reading and parsing a passage takes the engine and Python 15 to 30 microseconds, a search finds some 85, and people ask
about the same things.
"""

import sys
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

import msgspec

from indexing.documents import Passage

_BESIDE_TEXT = 1000
"""Bytes of a passage without its text and its metadata: ids, names, the objects themselves."""
_OF_METADATA = 4
"""Bytes of an object of Python for each byte of its JSON."""


class RecentPassages:
    """Passages by shard and id, of all shards together up to about `size` bytes. Thread-safe.

    Half of them are the younger ones; when these fill their half the others go, and they are the older ones. What is
    asked for becomes young again. Who reads takes `changes` before, and what was read is not kept if the shard has
    changed since, or is about to: it may be of before the change.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._young: dict[tuple[int, int], Passage] = {}
        self._old: dict[tuple[int, int], Passage] = {}
        self._taken = 0
        self._changes: dict[int, int] = {}
        self._lock = threading.Lock()

    def changes(self, shard: int) -> int:
        """How many changes of it have begun or ended: an odd number while one is under way."""
        return self._changes.get(shard, 0)

    def known(self, shard: int, ids: Collection[int]) -> dict[int, Passage]:
        """Those of these passages that are here."""
        with self._lock:
            young, old = self._young, self._old
            known = {}
            for one in ids:
                key = shard, one
                if (passage := young.get(key)) is None:
                    if (passage := old.get(key)) is None:
                        continue
                    self._keep(key, passage)
                known[one] = passage
            return known

    def add(self, shard: int, passages: Mapping[int, Passage], changes: int) -> None:
        """Keep what was read when `changes` were these."""
        with self._lock:
            if changes % 2 == 0 and self._changes.get(shard, 0) == changes:
                for one, passage in passages.items():
                    self._keep((shard, one), passage)

    @contextmanager
    def changing(self, shard: int, ids: Collection[int]) -> Iterator[None]:
        """Inside, these passages are replaced or deleted, by nobody else at the same time: nobody gets from here what
        they were, from the beginning on, and nothing that is read of the shard meanwhile is kept.
        """
        with self._lock:
            self._count(shard)
            for one in ids:
                self._young.pop((shard, one), None)
                self._old.pop((shard, one), None)
        try:
            yield
        finally:
            with self._lock:
                self._count(shard)

    def forget(self, shard: int) -> None:
        """It is closed."""
        with self._lock:
            self._changes.pop(shard, None)
            for half in (self._young, self._old):
                for key in [key for key in half if key[0] == shard]:
                    del half[key]

    def _count(self, shard: int) -> None:
        self._changes[shard] = self._changes.get(shard, 0) + 1

    def _keep(self, key: tuple[int, int], passage: Passage) -> None:
        self._young[key] = passage
        self._taken += _bytes_of(passage)
        if self._taken > self._size // 2:
            self._old, self._young, self._taken = self._young, {}, 0


def _bytes_of(passage: Passage) -> int:
    metadata = _OF_METADATA * len(msgspec.json.encode(passage.metadata)) if passage.metadata else 0
    return _BESIDE_TEXT + sys.getsizeof(passage.text) + metadata
