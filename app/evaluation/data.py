"""Folders of documents, questions and judgements, as BEIR lays them out.

    corpus.jsonl        {"_id": "d1", "text": "...", "title": "..."?}
    queries.jsonl       {"_id": "q1", "text": "...", "answers": ["..."]?}
    qrels.tsv           query id, document id, grade; with or without a line of headings; or qrels/test.tsv
    unanswerable.jsonl  {"_id": "u1", "text": "..."}: questions that the documents do not answer; may be missing

Each may be packed, as NAME.gz. Other fields are ignored; of unanswerable questions with a `label_source` only those
with "gold" count.
"""

import gzip
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import msgspec

from app.errors import InvalidRequest
from app.text.fencing import clean

CORPUS, QUERIES, UNANSWERABLE = "corpus.jsonl", "queries.jsonl", "unanswerable.jsonl"
QRELS = ("qrels.tsv", "qrels/test.tsv")

_NO_CORPUS = 'documents, a line {"_id": "d1", "title": "...", "text": "..."} each'
_NO_QUERIES = 'questions, a line {"_id": "q1", "text": "..."} each'
_NO_QRELS = "judgements, a line of query id, document id and grade each, with tabs between"


class _Row(msgspec.Struct, frozen=True, kw_only=True, rename={"id": "_id"}):
    id: str | int
    text: str


class _DocumentRow(_Row, frozen=True, kw_only=True):
    title: str | None = None


class _QuestionRow(_Row, frozen=True, kw_only=True):
    answers: tuple[str, ...] | None = None
    label_source: str | None = None


class SourceDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the corpus."""

    id: str
    text: str
    title: str = ""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A question. `answers` are right ones, as they are spelled; none are known of () if it is `answerable`."""

    id: str
    text: str
    answers: tuple[str, ...] = ()
    answerable: bool = True


Grades = Mapping[str, Mapping[str, int]]
"""Those above 0, by query and document."""

Row = TypeVar("Row", bound=_Row)


class DataSet:
    """One folder. Reads each file when it is first needed; raises InvalidRequest that names file, line and fix."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise InvalidRequest(f"{folder} is no folder; name one with {CORPUS}, {QUERIES} and {QRELS[0]}")
        self.folder = folder

    @cached_property
    def documents(self) -> Mapping[str, SourceDocument]:
        """All of them, by id."""
        rows = _by_id(self._file(CORPUS, _NO_CORPUS), _DocumentRow)
        return {
            key: SourceDocument(id=key, text=clean(row.text), title=clean(row.title or "")) for key, row in rows.items()
        }

    @cached_property
    def questions(self) -> Mapping[str, Asked]:
        """Those that are meant to be answered, by id."""
        rows = _by_id(self._file(QUERIES, _NO_QUERIES), _QuestionRow)
        return {key: Asked(id=key, text=row.text, answers=row.answers or ()) for key, row in rows.items()}

    @cached_property
    def unanswerable(self) -> Mapping[str, Asked]:
        """Those that are not, by id."""
        path = _packed_or_not(self.folder / UNANSWERABLE)
        rows = _by_id(path, _QuestionRow) if path else {}
        gold = {key: row for key, row in rows.items() if row.label_source in (None, "gold")}
        return {key: Asked(id=key, text=row.text, answerable=False) for key, row in gold.items()}

    @property
    def has_grades(self) -> bool:
        """Whether there are judgements."""
        return any(_packed_or_not(self.folder / name) for name in QRELS)

    @cached_property
    def grades(self) -> Grades:
        """What the judgements say."""
        return read_qrels(self.folder)

    @cached_property
    def digest(self) -> str:
        """32 hex digits of all that is in the files."""
        digest = hashlib.blake2b(digest_size=16)
        for name in (CORPUS, QUERIES, *QRELS, UNANSWERABLE):
            digest.update(f"\0{name}\0".encode())
            if path := _packed_or_not(self.folder / name):
                digest.update(_bytes(path))
        return digest.hexdigest()

    @cached_property
    def judged(self) -> tuple[Asked, ...]:
        """The questions that have a relevant document."""
        judged = tuple(asked for key, asked in self.questions.items() if self.grades.get(key))
        if not judged:
            raise InvalidRequest(
                f"{self.folder}: no question of {QUERIES} has a relevant document in {QRELS[0]}; "
                "the first column holds the questions' _id, the third a grade above 0"
            )
        return judged

    def _file(self, name: str, what: str) -> Path:
        return _found(self.folder, (name,), what)


def sample(questions: Sequence[Asked], count: int, seed: int) -> tuple[Asked, ...]:
    """At most `count` of them, drawn by the seed, in their own order. A larger sample holds the smaller ones."""
    places = list(range(len(questions)))
    Random(f"questions {seed}").shuffle(places)  # noqa: S311
    return tuple(questions[place] for place in sorted(places[:count]))


def digest_of(*parts: Any) -> str:
    """16 hex digits of plain data."""
    return hashlib.blake2b(msgspec.json.encode(parts), digest_size=8).hexdigest()


def read_qrels(folder: Path) -> Grades:
    """The grades above 0. Raises InvalidRequest."""
    path = _found(folder, QRELS, _NO_QRELS)
    grades: dict[str, dict[str, int]] = {}
    for number, line in _lines(path):
        query, document, grade = _judgement(path, number, line)
        if grade > 0:
            grades.setdefault(query, {})[document] = grade
    return grades


def _judgement(path: Path, number: int, line: str) -> tuple[str, str, int]:
    columns = line.split("\t")
    if len(columns) < 3:
        raise InvalidRequest(f"{path}, line {number}: there are {len(columns)} columns; these are {_NO_QRELS}")
    query, document, grade = (column.strip() for column in columns[:3])
    try:
        return query, document, int(grade)
    except ValueError:
        if number == 1:
            return query, document, 0  # the headings
        raise InvalidRequest(f"{path}, line {number}: the grade {grade[:40]!r} is no whole number") from None


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a .jsonl, or of the .gz beside it. Raises InvalidRequest."""
    return (row for _, row in _rows(_one_of_both(path), dict[str, Any]))


def read_packed(path: Path) -> bytes:
    """What is in the file, or in the .gz beside it. Raises InvalidRequest."""
    return _bytes(_one_of_both(path))


def _by_id(path: Path, kind: type[Row]) -> dict[str, Row]:
    rows: dict[str, Row] = {}
    for number, row in _rows(path, kind):
        key = clean(str(row.id))
        if not key or key in rows:
            problem = "is there twice" if key else "is empty"
            raise InvalidRequest(f"{path}, line {number}: _id: {key!r} {problem}; each line needs one of its own")
        rows[key] = row
    if not rows:
        raise InvalidRequest(f"{path} is empty")
    return rows


def _rows(path: Path, kind: type[Any]) -> Iterator[tuple[int, Any]]:
    decoder = msgspec.json.Decoder(kind)
    for number, line in _lines(path):
        try:
            yield number, decoder.decode(line)
        except msgspec.ValidationError as exc:
            problem, _, place = str(exc).replace("`", "").partition(" - at $.")
            field = f"{place}: " if place else ""
            raise InvalidRequest(f"{path}, line {number}: {field}{problem}") from exc
        except msgspec.DecodeError as exc:
            raise InvalidRequest(f"{path}, line {number}: this is no JSON object: {exc}") from exc


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Those that are not blank, counted from 1."""
    try:
        text = _bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = _bytes(path)[: exc.start].count(b"\n") + 1
        raise InvalidRequest(f"{path}, line {line}: this is no UTF-8; save the file as UTF-8") from exc
    return ((number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip())


def _bytes(path: Path) -> bytes:
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as exc:
        raise InvalidRequest(f"{path} cannot be read: {getattr(exc, 'strerror', None) or 'it is cut off'}") from exc


def _found(folder: Path, names: Sequence[str], what: str) -> Path:
    for name in names:
        if path := _packed_or_not(folder / name):
            return path
    raise InvalidRequest(f"{folder} has no {' or '.join(names)}; it holds {what}")


def _one_of_both(path: Path) -> Path:
    return _found(path.parent, (path.name,), "JSON objects, one a line")


def _packed_or_not(path: Path) -> Path | None:
    packed = path.with_name(path.name + ".gz")
    return next((one for one in (path, packed) if one.is_file()), None)
