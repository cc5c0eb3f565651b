"""Folders of documents, questions and judgements in the BEIR layout.

    corpus.jsonl        {"_id": "d1", "text": "...", "title": "..."?}
    queries.jsonl       {"_id": "q1", "text": "...", "answers": ["..."]?}
    qrels.tsv           query id, document id, grade; with or without a line of headings; or qrels/test.tsv
    unanswerable.jsonl  {"_id": "u1", "text": "..."}: questions that the documents do not answer; optional

Each file may be compressed, as NAME.gz. Other fields are ignored; of unanswerable questions with a `label_source` only
those with "gold" count.
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
from indexing.documents import Document

CORPUS, QUERIES, UNANSWERABLE = "corpus.jsonl", "queries.jsonl", "unanswerable.jsonl"
QRELS = ("qrels.tsv", "qrels/test.tsv")

_CORPUS_FORMAT = 'documents, one {"_id": "d1", "title": "...", "text": "..."} per line'
_QUERIES_FORMAT = 'questions, one {"_id": "q1", "text": "..."} per line'
_QRELS_FORMAT = "judgements, one per line: query id, document id and grade, separated by tabs"


class _DocumentRow(msgspec.Struct, frozen=True, kw_only=True, rename={"id": "_id"}):
    id: str | int
    text: str
    title: str | None = None


class _QuestionRow(msgspec.Struct, frozen=True, kw_only=True, rename={"id": "_id"}):
    id: str | int
    text: str
    answers: tuple[str, ...] | None = None
    label_source: str | None = None


class EvalQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """A question. `answers` are correct ones, in their spelling; () if none are known, or it is not `answerable`."""

    id: str
    text: str
    answers: tuple[str, ...] = ()
    answerable: bool = True


Grades = Mapping[str, Mapping[str, int]]
"""The grades above 0, by query and document."""

Row = TypeVar("Row", _DocumentRow, _QuestionRow)


class DataSet:
    """One folder. Files are read when first needed. Raises InvalidRequest naming the file, the line and the fix."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise InvalidRequest(f"{folder} is not a directory; specify one with {CORPUS}, {QUERIES} and {QRELS[0]}")
        self.folder = folder

    @cached_property
    def documents(self) -> Mapping[str, Document]:
        """The documents by id."""
        rows = _by_id(self._file(CORPUS, _CORPUS_FORMAT), _DocumentRow)
        return {key: Document(text=clean(row.text), title=clean(row.title or "")) for key, row in rows.items()}

    @cached_property
    def questions(self) -> Mapping[str, EvalQuestion]:
        """The answerable questions by id."""
        rows = _by_id(self._file(QUERIES, _QUERIES_FORMAT), _QuestionRow)
        return {key: EvalQuestion(id=key, text=row.text, answers=row.answers or ()) for key, row in rows.items()}

    @cached_property
    def unanswerable(self) -> Mapping[str, EvalQuestion]:
        """The unanswerable questions by id."""
        path = _existing(self.folder / UNANSWERABLE)
        rows = _by_id(path, _QuestionRow) if path else {}
        gold = {key: row for key, row in rows.items() if row.label_source in (None, "gold")}
        return {key: EvalQuestion(id=key, text=row.text, answerable=False) for key, row in gold.items()}

    @property
    def has_grades(self) -> bool:
        """Whether there are judgements."""
        return any(_existing(self.folder / name) for name in QRELS)

    @cached_property
    def grades(self) -> Grades:
        """The judgements above 0."""
        return read_qrels(self.folder)

    @cached_property
    def digest(self) -> str:
        """32 hex digits of the content of all files."""
        digest = hashlib.blake2b(digest_size=16)
        for name in (CORPUS, QUERIES, *QRELS, UNANSWERABLE):
            digest.update(f"\0{name}\0".encode())
            if path := _existing(self.folder / name):
                digest.update(_bytes(path))
        return digest.hexdigest()

    @cached_property
    def judged(self) -> tuple[EvalQuestion, ...]:
        """The questions that have a relevant document."""
        judged = tuple(question for key, question in self.questions.items() if self.grades.get(key))
        if not judged:
            raise InvalidRequest(
                f"{self.folder}: no question of {QUERIES} has a relevant document in {QRELS[0]}; "
                "the first column must be the _id of a question, the third a grade above 0"
            )
        return judged

    def _file(self, name: str, format: str) -> Path:
        return _find(self.folder, (name,), format)


def sample(questions: Sequence[EvalQuestion], count: int, seed: int) -> tuple[EvalQuestion, ...]:
    """At most `count` questions drawn by the seed, in their own order. A larger sample contains the smaller ones."""
    places = list(range(len(questions)))
    Random(f"questions {seed}").shuffle(places)  # noqa: S311
    return tuple(questions[place] for place in sorted(places[:count]))


def digest_of(*parts: Any) -> str:
    """16 hex digits of plain data."""
    return hashlib.blake2b(msgspec.json.encode(parts), digest_size=8).hexdigest()


def read_qrels(folder: Path) -> Grades:
    """The grades above 0. Raises InvalidRequest."""
    path = _find(folder, QRELS, _QRELS_FORMAT)
    grades: dict[str, dict[str, int]] = {}
    for number, line in _lines(path):
        query, document, grade = _judgement(path, number, line)
        if grade > 0:
            grades.setdefault(query, {})[document] = grade
    return grades


def _judgement(path: Path, number: int, line: str) -> tuple[str, str, int]:
    columns = line.split("\t")
    if len(columns) < 3:
        raise InvalidRequest(f"{path}, line {number}: {len(columns)} columns instead of 3; expected {_QRELS_FORMAT}")
    query, document, grade = (column.strip() for column in columns[:3])
    try:
        return query, document, int(grade)
    except ValueError:
        if number == 1:
            return query, document, 0  # the header
        raise InvalidRequest(f"{path}, line {number}: the grade {grade[:40]!r} is not an integer") from None


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a .jsonl, or of the .gz beside it. Raises InvalidRequest."""
    found = _find(path.parent, (path.name,), "JSON objects, one per line")
    return (row for _, row in _rows(found, dict[str, Any]))


def _by_id(path: Path, kind: type[Row]) -> dict[str, Row]:
    rows: dict[str, Row] = {}
    for number, row in _rows(path, kind):
        key = clean(str(row.id))
        if not key or key in rows:
            problem = "is not unique" if key else "is empty"
            raise InvalidRequest(f"{path}, line {number}: _id {key!r} {problem}")
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
            raise InvalidRequest(f"{path}, line {number}: not a JSON object: {exc}") from exc


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, with their numbers from 1."""
    try:
        text = _bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = _bytes(path)[: exc.start].count(b"\n") + 1
        raise InvalidRequest(f"{path}, line {line}: not valid UTF-8; save the file as UTF-8") from exc
    return ((number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip())


def _bytes(path: Path) -> bytes:
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as exc:
        raise InvalidRequest(f"{path} cannot be read: {getattr(exc, 'strerror', None) or 'it is truncated'}") from exc


def _find(folder: Path, names: Sequence[str], format: str) -> Path:
    for name in names:
        if path := _existing(folder / name):
            return path
    raise InvalidRequest(f"{folder} has no {' or '.join(names)}: {format}")


def _existing(path: Path) -> Path | None:
    """The file, or the compressed one beside it."""
    compressed = path.with_name(path.name + ".gz")
    return next((one for one in (path, compressed) if one.is_file()), None)
