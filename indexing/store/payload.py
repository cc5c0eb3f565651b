"""What lies beside the vectors: a passage's payload, and what makes filters on it exact and fast in every engine.

`words` mirrors the filterable text fields as word lists, because the engines' own full-text matching disagrees: without
an index Edge and the local client take a run of Chinese for one word and keep accents; with one, they differ again.
`dates` mirrors what reads as a date, in one spelling: an index over numbers answers date ranges too, and wrongly, so
that dates need a place of their own to be found exactly, and fast.
"""

import functools
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

from indexing.documents import Passage, to_payload
from indexing.filters import payload_path, read_moment

IndexKind = Literal["keyword", "integer", "number", "flag", "date"]

WORDS, DATES = "words", "dates"
MIRRORS = [WORDS, DATES]
MAX_INDEXED_FIELDS = 96
BUILT_IN_INDEXES: dict[str, IndexKind] = {
    "document_id": "keyword",
    "source": "keyword",
    "title": "keyword",
    "page": "integer",
    f"{WORDS}.document_id": "keyword",
    f"{WORDS}.source": "keyword",
    f"{WORDS}.title": "keyword",
}

_MAX_LEVELS = 4
_UNSPACED = re.compile(
    "([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]+)"
)
_ACCENTS = re.compile("[\u0300-\u036f]")
"""Only the accents of Latin, Greek and Cyrillic: the marks of other scripts are letters."""


def encode(passage: Passage) -> dict[str, Any]:
    """The payload as a store keeps it; `indexing.documents.from_payload` reads it back."""
    payload = to_payload(passage)
    mirrored = {key: payload[key] for key in ("document_id", "source", "title", "metadata") if key in payload}
    for name, read in ((WORDS, words), (DATES, _dates)):
        if mirror := _mirror(mirrored, read):
            payload[name] = mirror
    return payload


def words(text: str) -> list[str]:
    """Lower-case words without accents, each once; of scripts without spaces every character and every pair."""
    return list(_words(text))


def sought_words(text: str) -> list[str]:
    """The words that a field must have to contain `text`: as `words`, single characters only where they stand alone."""
    return list(dict.fromkeys(word for run in _runs(text) for word in _needed_pieces(run)))


def indexable_fields(payloads: Iterable[Mapping[str, Any]]) -> dict[str, IndexKind]:
    """The metadata fields of these payloads, as JSON paths, that an index would make fast to filter by."""
    found: dict[str, IndexKind] = {}
    for payload in payloads:
        for field, value in _leaves(payload.get("metadata", {}), "", _MAX_LEVELS):
            kind = _kind(value)
            if kind is None or '"' in field or "\\" in field:
                continue
            path = payload_path(field)
            found.setdefault(path, kind)
            if _mirror(value, _dates):
                found.setdefault(f"{DATES}.{path}", "date")
    return found | word_indexes(found)


def word_indexes(indexed: Mapping[str, IndexKind]) -> dict[str, IndexKind]:
    """What makes words as fast to find as the whole values of these paths; a truth may be spelt elsewhere."""
    own = [path for path, kind in indexed.items() if kind in ("keyword", "flag") and not path.startswith(f"{WORDS}.")]
    return {f"{WORDS}.{path}": "keyword" for path in own}


@functools.lru_cache(maxsize=1024)  # the passages of a document repeat its title and its source
def _words(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word for run in _runs(text) for word in _pieces(run)))


def _mirror(value: Any, read: Callable[[str], list[str]]) -> Any:
    """The same object with every string replaced by what `read` makes of it, and without what then is empty."""
    if isinstance(value, str):
        return read(value)
    if isinstance(value, Mapping):
        parts = {key: _mirror(item, read) for key, item in value.items()}
        return {key: part for key, part in parts.items() if part}
    if isinstance(value, list | tuple):
        return list(dict.fromkeys(found for item in value if isinstance(item, str) for found in read(item)))
    return None


def _dates(text: str) -> list[str]:
    moment = read_moment(text)
    return [] if moment is None else [moment]


def _runs(text: str) -> Iterator[str]:
    """Runs of letters, digits and their marks; those of scripts without spaces by themselves."""
    folded = unicodedata.normalize("NFC", _ACCENTS.sub("", unicodedata.normalize("NFKD", text.casefold())))
    spaced = "".join(char if unicodedata.category(char)[0] in "LMN" else " " for char in folded)
    for word in spaced.split():
        yield from filter(None, _UNSPACED.split(word))


def _pieces(run: str) -> list[str]:
    if not _UNSPACED.match(run):
        return [run]
    return [*run, *_pairs(run)]


def _needed_pieces(run: str) -> list[str]:
    if not _UNSPACED.match(run) or len(run) == 1:
        return [run]
    return _pairs(run)


def _pairs(run: str) -> list[str]:
    return [run[i : i + 2] for i in range(len(run) - 1)]


def _leaves(value: Mapping[str, Any], prefix: str, levels: int) -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        # A key with a dot in it cannot be named in a filter.
        if not isinstance(key, str) or not key or "." in key:
            continue
        if isinstance(item, Mapping):
            if levels > 1:
                yield from _leaves(item, f"{prefix}{key}.", levels - 1)
        else:
            yield f"{prefix}{key}", item


def _kind(value: Any) -> IndexKind | None:
    if isinstance(value, list | tuple):
        value = next(iter(value), None)
    if isinstance(value, bool):
        return "flag"
    if isinstance(value, int | float):
        return "number"
    return "keyword" if isinstance(value, str) else None
