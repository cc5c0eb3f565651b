"""How far a model's grades are to be believed, measured on passages whose grades are known before it gives any.

A model is asked about the `topics` beside its first rankings, a few each time, until it is trusted in full or was asked
about all of them.
With x the log-odds of its grades, n1 of them of passages that answer and n0 of others, and s their common deviation:

    d     = mean x of answers - mean x of others
    slope = d / s^2                             what a unit of x says of relevance (Fisher's linear discriminant)
    t     = d / (s * sqrt(1/n1 + 1/n0))         whether that may be chance (Student)
    trust = min(1, slope / FULL_SLOPE) * ramp(t), ramp rising from 0 at t = CHANCE to 1 at t = SURE

Trust is the weight of the model beside retrieval where both are pooled (`app.ranking.scoring.Scoreboard`).
"""

import math
import os
import statistics
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path

import msgspec
import structlog

from app.backends.base import Way

CONTROLS = Path(__file__).with_name("controls.toml")

TOPICS_AT_ONCE = (2, 1)
"""Asked about beside one ranking, those of the second turn only where the first leaves trust open. Of simulated models
that err by 1.4 grades six in ten are trusted in full after 16 controls and nine after 24; of 300 coins one and two are.
"""

FULL_SLOPE = 0.5
CHANCE, SURE = 2.5, 4.0

MIN_TRUST = 0.1
"""Below it a model's grades are worth less than the order of retrieval, which then stays."""

MUCH_TRUST = 0.5
"""Below it a model is not asked for more than grades."""

_MIN_DEVIATION = 0.5
"""Of x: with few readings, that all are alike is no proof."""


class Topic(msgspec.Struct, frozen=True, kw_only=True):
    """A question, passages that answer it, and passages that do not: some sound like it, some are of other topics."""

    query: str
    answers: tuple[str, ...]
    others: tuple[str, ...]


@cache
def topics() -> tuple[Topic, ...]:
    """Those of `controls.toml`, each with two answers of its neighbours for unrelated passages."""
    rows = tomllib.loads(CONTROLS.read_text(encoding="utf-8"))["topic"]
    return tuple(
        Topic(
            query=row["query"],
            answers=tuple(row["answer"]),
            others=(*row["like"], rows[at - 1]["answer"][0], rows[at - 2]["answer"][1]),
        )
        for at, row in enumerate(rows)
    )


class TopicReading(msgspec.Struct, frozen=True):
    """The log-odds x of the grades of a topic's passages, those without a grade left out."""

    answers: tuple[float, ...] = ()
    others: tuple[float, ...] = ()


class Record(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """What is known of one model: its readings by topic."""

    readings: Mapping[str, TopicReading] = {}

    @property
    def left(self) -> Sequence[Topic]:
        """What it is still to be asked about: nothing, once it is trusted in full."""
        if self.trust >= 1:
            return ()
        return [topic for topic in topics() if topic.query not in self.readings]

    @cached_property
    def trust(self) -> float:
        """In [0,1]; 0 if its grades tell nothing, and as long as nothing is known of them."""
        answers = [x for reading in self.readings.values() for x in reading.answers]
        others = [x for reading in self.readings.values() for x in reading.others]
        if len(answers) < 2 or len(others) < 2:
            return 0.0
        apart = statistics.fmean(answers) - statistics.fmean(others)
        count = len(answers) + len(others)
        squares = statistics.pvariance(answers) * len(answers) + statistics.pvariance(others) * len(others)
        deviation = max(_MIN_DEVIATION, math.sqrt(squares / (count - 2)))
        t = apart / (deviation * math.sqrt(1 / len(answers) + 1 / len(others)))
        ramp = (t - CHANCE) / (SURE - CHANCE)
        return min(1.0, max(0.0, ramp)) * min(1.0, max(0.0, apart / deviation**2 / FULL_SLOPE))


class StoredRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A record, and the model, the prompts and the way of asking that it holds for. `trust` is for people to read."""

    backend: str
    model: str
    prompt_version: str
    way: Way
    trust: float
    record: Record


Owner = tuple[str, str, str, Way]
"""Backend, model, prompt version and way of asking."""

TRUST_FILE = "trust.json"

log = structlog.get_logger()


class TrustBook:
    """The records of all models, kept in `file` if there is one.

    A backend has one record for each way of asking: that of its present model. A file that cannot be read or written
    costs nothing but asking again.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._records = read_records(file) if file else {}

    def record(self, owner: Owner) -> Record:
        """An empty one of a model that nothing is known of."""
        return self._records.get(owner, Record())

    def add(self, owner: Owner, readings: Mapping[Topic, TopicReading]) -> None:
        """What a model made of some topics. Blocks for the millisecond that the file takes, rarely."""
        if not readings:
            return
        known = {**self.record(owner).readings, **{topic.query: reading for topic, reading in readings.items()}}
        if self._file:  # what other processes have written
            self._records = read_records(self._file) | self._records
        backend, _, _, way = owner
        kept = {other: record for other, record in self._records.items() if (other[0], other[3]) != (backend, way)}
        self._records = kept | {owner: Record(readings=known)}
        if self._file:
            _write_records(self._file, self._records)


def read_records(file: Path) -> dict[Owner, Record]:
    """None where there is no file, or a damaged one."""
    try:
        rows = msgspec.json.decode(file.read_bytes(), type=tuple[StoredRecord, ...])
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, msgspec.MsgspecError) as exc:
        log.warning(
            "what models made of the controls cannot be read: they are asked again", path=str(file), why=str(exc)
        )
        return {}
    return {(row.backend, row.model, row.prompt_version, row.way): row.record for row in rows}


def _write_records(file: Path, records: Mapping[Owner, Record]) -> None:
    rows = [
        StoredRecord(
            backend=backend, model=model, prompt_version=version, way=way, trust=round(record.trust, 3), record=record
        )
        for (backend, model, version, way), record in sorted(records.items())
    ]
    draft = file.with_name(f"{file.name}.{os.getpid()}.new")
    try:
        draft.write_bytes(msgspec.json.format(msgspec.json.encode(rows)))
        draft.replace(file)
    except OSError as exc:
        log.warning("what models made of the controls cannot be kept", path=str(file), why=str(exc))
