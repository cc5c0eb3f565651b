"""Passages as payloads, and filters as conditions on them. Pure.

Qdrant compares strings as a whole, so that two things which filters offer are answered by mirrors that a payload has
beside its own fields, under the same paths:

    words     every string as the list of its words, for HasText
    dates     every string that is a date as a moment in UTC, for DateRange
"""

import functools
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeVar
from unicodedata import category, normalize

from indexing.documents import Audience, Passage, document_key, split_key, to_payload
from indexing.filters import (
    BUILT_IN,
    EXACT,
    NAMES,
    DateRange,
    Exists,
    Filter,
    Group,
    HasText,
    NumberRange,
    OfDocuments,
    OfVersions,
    OneOf,
    OpenTo,
    Scalar,
    field_name,
    payload_path,
    read_moment,
)

IndexKind = Literal["keyword", "tenant", "integer", "number", "flag", "date"]
"""Of a "tenant" field an engine may keep the points of each value together."""
WORDS, DATES = "words", "dates"
MIRRORS = [WORDS, DATES]
TENANT, ALLOWED = TENANCY = ("tenant", "allowed")
MAX_INDEXED_FIELDS = 96
"""Paths of metadata that may have an index."""
BUILT_IN_INDEXES: dict[str, IndexKind] = {
    "document_id": "keyword",
    "source": "keyword",
    "title": "keyword",
    "page": "integer",
    TENANT: "tenant",
    ALLOWED: "keyword",
    f"{WORDS}.document_id": "keyword",
    f"{WORDS}.source": "keyword",
    f"{WORDS}.title": "keyword",
}
MAX_INDEXES = MAX_INDEXED_FIELDS + len(BUILT_IN_INDEXES)
_MAX_LEVELS = 4
_DOCUMENTS_PER_CONDITION = 1000
_UNSPACED = re.compile(
    "([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]+)"
)
_ACCENTS = re.compile("[\u0300-\u036f]")
"""Only the accents of Latin, Greek and Cyrillic: the marks of other scripts are letters."""
C = TypeVar("C")


def encode(passage: Passage) -> dict[str, Any]:
    """The payload as a store keeps it; `indexing.documents.from_payload` reads it back."""
    payload = to_payload(passage)
    mirrored = {key: payload[key] for key in ("document_id", "source", "title", "metadata") if key in payload}
    for name, read in ((WORDS, words), (DATES, _dates)):
        if mirror := _mirror(mirrored, read):
            payload[name] = mirror
    return payload


def restricted(condition: Filter | None, audience: Audience) -> Filter | None:
    """What `audience` may see of what meets the condition. The one place where reads are restricted, in every store."""
    if audience.unrestricted:
        return condition
    own = OpenTo(tenant=audience.tenant, groups=audience.groups)
    return own if condition is None else Group(op="and", conditions=(own, condition))


def of_documents(keys: Sequence[str], audience: Audience) -> Iterator[Filter]:
    """The passages of these documents that the audience may see, as a few conditions that are not too long."""
    for start in range(0, len(keys), _DOCUMENTS_PER_CONDITION):
        condition = OfDocuments(tuple(keys[start : start + _DOCUMENTS_PER_CONDITION]))
        yield restricted(condition, audience) or condition


def key_of(payload: Mapping[str, Any]) -> str:
    """The key of a passage's document (`indexing.documents.document_key`)."""
    return document_key(payload.get(TENANT) or "", payload["document_id"])


def words(text: str) -> list[str]:
    """Lower-case words without accents, each once; for scripts without spaces, every character and every pair."""
    return list(_words(text))


def sought_words(text: str) -> list[str]:
    """The words that a field must have to contain `text`: as `words`, single characters only where they stand alone."""
    return list(dict.fromkeys(word for run in _runs(text) for word in _needed_pieces(run)))


@functools.lru_cache(maxsize=1024)  # the passages of a document repeat its title and its source
def _words(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word for run in _runs(text) for word in _pieces(run)))


def wanted_indexes(paths: Collection[str], payloads: Iterable[Mapping[str, Any]]) -> dict[str, IndexKind]:
    """Which of these paths can have an index, and of which kind: that of the first value found in the payloads."""
    found: dict[str, IndexKind] = {path: kind for path, kind in BUILT_IN_INDEXES.items() if path in paths}
    for payload in payloads if paths else ():
        for field, value in _leaves(payload.get("metadata", {}), (), _MAX_LEVELS):
            kind = _kind(value)
            if kind is None:
                continue
            path = payload_path(field)
            found.setdefault(path, kind)
            if _mirror(value, _dates):
                found.setdefault(f"{DATES}.{path}", "date")
    # Booleans too: another document may have a string there.
    own = [path for path, kind in found.items() if kind in ("keyword", "flag")]
    found |= {f"{WORDS}.{path}": "keyword" for path in own}
    return {path: kind for path, kind in found.items() if path in paths}


def filtered_paths(condition: Filter | None) -> set[str]:
    """The paths of metadata that a filter reads."""
    match condition:
        case None | OfDocuments() | OfVersions():
            return set()
        case OpenTo():
            return set(TENANCY)
        case Group():
            return {path for part in condition.conditions for path in filtered_paths(part)}
        case _ if condition.field in BUILT_IN:
            return set()
        case DateRange():
            return {f"{DATES}.{payload_path(condition.field)}"}
        case HasText():
            return {f"{WORDS}.{payload_path(condition.field)}"}
        case _:
            return {payload_path(condition.field)}


def declared_paths(fields: Iterable[str]) -> set[str]:
    """Everything that a filter on one of these fields may read."""
    own = [payload_path(field) for field in fields]
    return {path for one in own for path in (one, f"{WORDS}.{one}", f"{DATES}.{one}")}


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
    folded = normalize("NFC", _ACCENTS.sub("", normalize("NFKD", text.casefold())))
    spaced = "".join(char if category(char)[0] in "LMN" else " " for char in folded)
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


def _leaves(value: Mapping[str, Any], keys: tuple[str, ...], levels: int) -> Iterator[tuple[str, Any]]:
    """The fields that a filter can name, and their values."""
    for key, item in value.items():
        if not isinstance(key, str) or not key or set(key) & set('"\\'):
            continue
        if isinstance(item, Mapping):
            if levels > 1:
                yield from _leaves(item, (*keys, key), levels - 1)
        else:
            yield field_name((*keys, key)), item


def _kind(value: Any) -> IndexKind | None:
    if isinstance(value, list | tuple):
        value = next(iter(value), None)
    if isinstance(value, bool):
        return "flag"
    if isinstance(value, int | float):
        return "number"
    return "keyword" if isinstance(value, str) else None


class Dialect(Protocol[C]):
    """How an engine writes a condition on the values at a JSON path."""

    def any_string(self, path: str, values: list[str]) -> C: ...

    def integer(self, path: str, value: int) -> C: ...

    def flag(self, path: str, value: bool) -> C: ...

    def numbers(self, path: str, bounds: NumberRange) -> C: ...

    def dates(self, path: str, bounds: DateRange) -> C: ...

    def empty(self, path: str) -> C:
        """Absent, null or an empty list."""

    def group(self, *, must: Sequence[C] = (), should: Sequence[C] = (), must_not: Sequence[C] = ()) -> C: ...


def translate(condition: Filter, dialect: Dialect[C]) -> C:
    """The condition in the engine's own form."""
    match condition:
        case OneOf():
            return _one_of(condition.field, condition.values, dialect)
        case NumberRange():
            return dialect.numbers(payload_path(condition.field), condition)
        case DateRange():
            return dialect.dates(f"{DATES}.{payload_path(condition.field)}", condition)
        case HasText():
            return _has_text(condition, dialect)
        case Exists():
            empty = dialect.empty(payload_path(condition.field))
            return dialect.group(must_not=[empty]) if condition.present else empty
        case OfDocuments():
            return _of_documents(condition.keys, dialect)
        case OpenTo():
            no_groups = dialect.empty(ALLOWED)
            named = [dialect.any_string(ALLOWED, list(condition.groups))] if condition.groups else []
            return dialect.group(must=[_of_tenant(condition.tenant, dialect)], should=[no_groups, *named])
        case OfVersions():
            documents = _of_documents(condition.keys, dialect)
            versions = [dialect.any_string("version", list(condition.versions))] if condition.versions else []
            return dialect.group(must_not=[dialect.group(must=[documents], must_not=versions)])
        case Group():
            return _group(condition, dialect)


def _of_documents(keys: Sequence[str], dialect: Dialect[C]) -> C:
    by_tenant: dict[str, list[str]] = {}
    for tenant, document_id in map(split_key, keys):
        by_tenant.setdefault(tenant, []).append(document_id)
    parts = [
        dialect.group(must=[dialect.any_string("document_id", ids), _of_tenant(tenant, dialect)])
        for tenant, ids in by_tenant.items()
    ]
    return parts[0] if len(parts) == 1 else dialect.group(should=parts or [dialect.any_string("document_id", [])])


def _of_tenant(tenant: str, dialect: Dialect[C]) -> C:
    return dialect.any_string(TENANT, [tenant]) if tenant else dialect.empty(TENANT)


def _group(group: Group, dialect: Dialect[C]) -> C:
    parts = [translate(part, dialect) for part in group.conditions]
    if group.op == "and":
        return dialect.group(must=parts)
    if group.op == "or":
        return dialect.group(should=parts)
    return dialect.group(must_not=parts if len(parts) == 1 else [dialect.group(must=parts)])


def _one_of(field: str, values: Sequence[Scalar], dialect: Dialect[C]) -> C:
    path = payload_path(field)
    strings = [value for value in values if isinstance(value, str)]
    if field in NAMES:
        strings = _spelled(strings)
    parts = [dialect.any_string(path, strings)] if strings else []
    parts += [_equals(field, value, dialect) for value in values if not isinstance(value, str)]
    return parts[0] if len(parts) == 1 else dialect.group(should=parts)


def _spelled(names: Sequence[str]) -> list[str]:
    """With both spellings that Unicode has for "é": names of files are kept as the file system has them."""
    return list(dict.fromkeys([*names, *(normalize(form, name) for form in ("NFC", "NFD") for name in names)]))


def _equals(field: str, value: int | float | bool, dialect: Dialect[C]) -> C:
    path = payload_path(field)
    if isinstance(value, bool):
        return dialect.flag(path, value)
    if isinstance(value, int) and abs(value) >= EXACT:
        return dialect.integer(path, value)
    return dialect.numbers(path, NumberRange(field=field, gte=value, lte=value))


def _has_text(condition: HasText, dialect: Dialect[C]) -> C:
    path = f"{WORDS}.{payload_path(condition.field)}"
    sought = sought_words(condition.text) or [""]  # the empty word is in no field
    return dialect.group(must=[dialect.any_string(path, [word]) for word in sought])
