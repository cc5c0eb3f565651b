"""What a simulated judge believes: relevance judgements, with stated errors instead of a model's weights.

It reads the prompt that it is given: whatever prompt shows a candidate's words, cut or reordered, is recognised, and
only what is shown counts. Per passage it holds a belief

    x = 3 * judged grade / highest grade [* UNSEEN when the evidence is cut off] + error

on the scale of the labels (0..3). The error is the same whenever this judge reads this passage for this query; a part
of it is shared by all ways of asking, the rest belongs to reading alone or to comparing. Each reply adds what that
prompt brings: noise that grows with the number of passages, and a pull towards the first ones. All of it is drawn from
the seed and from what is asked, so the same prompt always gets the same reply.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from random import Random

import msgspec

from benchmarks.rerank_data import Task, words_of

TOP = 3.0
UNSEEN = 0.35
"""A full answer (3) that was cut off leaves a passage on the topic (1)."""

SHINGLE = 4

_NAMED = re.compile(r"(?:\S+ )?\[(\w{1,3})\] ")
"""The beginning of a line in a list of passages: a fence, if there is one, and a name."""


class Noise(msgspec.Struct, frozen=True, kw_only=True):
    """How a judge errs; lengths are in grades of 0..3.

    `error` is the standard deviation of its belief, `shared` the part of that variance which all ways of asking have in
    common, `lexical` the correlation of the error with the first stage's score. `crowd` is the noise in a prompt of 20
    passages; it grows with the root of their number, and beyond 25 passages by `lost` for each more. `primacy` is what
    the first passage of a list gains over the last one. `letter_crowd` and `letters` are the same two for the first
    token of a reply, where every letter has a bias of its own too (`letter_bias`). `label_bias` and `label_noise` are
    nats on each label's logit. `malformed` is the share of generated replies that are damaged.
    """

    error: float = 0.0
    shared: float = 0.7
    lexical: float = 0.3
    crowd: float = 0.0
    letter_crowd: float = 0.0
    lost: float = 0.0
    primacy: float = 0.0
    letters: float = 0.0
    letter_bias: float = 0.0
    label_bias: float = 0.0
    label_noise: float = 0.0
    malformed: float = 0.0


NONE = Noise()
SMALL = Noise(
    error=1.4,
    crowd=0.4,
    letter_crowd=0.7,
    lost=0.006,
    primacy=0.5,
    letters=1.0,
    letter_bias=0.25,
    label_bias=0.7,
    label_noise=0.4,
    malformed=0.04,
)
"""Like an open model of 4 to 8 billion parameters: see benchmarks/README.md for what fixed these values."""


class Seen(msgspec.Struct, frozen=True):
    """A passage in a prompt: which, the places of its words that are shown, and by which name ("" for none)."""

    id: str
    places: frozenset[int]
    name: str = ""


class Reader:
    """Recognises a task's candidates in any text, a line at a time, by runs of four words. Remembers lines."""

    def __init__(self, task: Task) -> None:
        self._places: dict[tuple[str, ...], list[tuple[str, int]]] = {}
        for passage in (candidate.passage for candidate in task.candidates):
            for place, run in enumerate(_runs(words_of(f"{passage.title} {passage.text}"))):
                self._places.setdefault(run, []).append((passage.id, place))
        self._query = words_of(task.query)
        self._lines: dict[str, Seen | None] = {}

    def read(self, text: str) -> list[Seen]:
        """In the order of the text. A line without a name that shows the passage before it belongs to that."""
        found: list[Seen] = []
        for line in text.split("\n"):
            named = _NAMED.match(line)
            seen = self._look_up(line[named.end() :] if named else line)
            if seen is None:
                continue
            last = found[-1] if found else None
            if last and not named and last.id == seen.id:
                found[-1] = msgspec.structs.replace(last, places=last.places | seen.places)
            else:
                found.append(msgspec.structs.replace(seen, name=named[1]) if named else seen)
        return found

    def _look_up(self, line: str) -> Seen | None:
        if line not in self._lines:
            self._lines[line] = self._read_line(line)
        return self._lines[line]

    def _read_line(self, line: str) -> Seen | None:
        words = words_of(line)
        if self._is_query(words):
            return None
        runs = _runs(words)
        if sum(run in self._places for run in runs) < max(1, len(runs) // 2):
            return None
        hits = [hit for run in runs for hit in self._places.get(run, ())]
        best = Counter(name for name, _ in hits).most_common(1)[0][0]
        starts = [place for name, place in hits if name == best]
        return Seen(best, frozenset(start + word for start in starts for word in range(SHINGLE)))

    def _is_query(self, words: Sequence[str]) -> bool:
        return len(words) <= len(self._query) + 8 and " ".join(self._query) in " ".join(words)


def _runs(words: Sequence[str]) -> list[tuple[str, ...]]:
    if not words:
        return []
    return [tuple(words[i : i + SHINGLE]) for i in range(max(1, len(words) - SHINGLE + 1))]


class Opinion:
    """What the judge of this seed believes about a task's passages, alone and side by side."""

    def __init__(self, task: Task, top_grade: int, noise: Noise, seed: int) -> None:
        self.noise, self.seed = noise, seed
        self._task = task
        self._signal = {c.passage.id: TOP * task.grades.get(c.passage.id, 0) / top_grade for c in task.candidates}
        self._lexical = _standardised({c.passage.id: c.score for c in task.candidates})
        self._errors: dict[tuple[str, str], float] = {}

    def believed(self, seen: Seen, way: str) -> float:
        """x; `way` is "alone" or "together"."""
        evidence = self._task.evidence.get(seen.id)
        shown = evidence is None or evidence in seen.places
        return self._signal[seen.id] * (1.0 if shown else UNSEEN) + self._error(seen.id, way)

    def together(self, seen: Sequence[Seen], crowd: float, primacy: float) -> list[float]:
        """What it thinks of each when they stand side by side, the first of them pulled up by half of `primacy`."""
        size, chance = len(seen), self.chance("together", [s.id for s in seen])
        spread = crowd * math.sqrt(size / 20) + self.noise.lost * max(0, size - 25)
        return [
            self.believed(one, "together") + spread * chance.gauss() + pull
            for one, pull in zip(seen, slope(size, primacy), strict=True)
        ]

    def bias(self, token: str) -> float:
        """How much this judge likes to say a token, whatever is asked: standard normal."""
        return Random(f"{self.seed} {token}").gauss()

    def chance(self, *what: object) -> Random:
        """A source of randomness that only this seed, this task and `what` decide."""
        return Random(f"{self.seed} {self._task.id} {what}")

    def _error(self, passage: str, way: str) -> float:
        key = passage, way
        if key not in self._errors:
            pull, share = self.noise.lexical, self.noise.shared
            own = math.sqrt(1 - pull**2) * self.chance("belief", passage).gauss()
            both = pull * self._lexical[passage] + own
            apart = self.chance("belief", passage, way).gauss()
            self._errors[key] = self.noise.error * (math.sqrt(share) * both + math.sqrt(1 - share) * apart)
        return self._errors[key]


def slope(size: int, height: float) -> list[float]:
    """From height / 2 down to -height / 2."""
    return [height * (0.5 - place / (size - 1)) for place in range(size)] if size > 1 else [0.0] * size


def _standardised(values: Mapping[str, float]) -> dict[str, float]:
    mean = math.fsum(values.values()) / max(1, len(values))
    spread = math.sqrt(math.fsum((v - mean) ** 2 for v in values.values()) / max(1, len(values)))
    return {name: (value - mean) / spread if spread else 0.0 for name, value in values.items()}
