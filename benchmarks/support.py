"""How often the structural check of citations is right, on claims that are known to be true or false.

    python -m benchmarks.support --data DIR [--questions 1500] [--show 0]

DIR: corpus.jsonl and queries.jsonl with `answers` and `passage_id`, as squad2_dev. True claims cite the sentence that
holds the gold answer: the question with the answer in place of its question word, and the sentence itself, cut at its
last comma. False claims cite another sentence of the passage, or one of another article, or have a number, a month or a
name changed to another one of the data set.
"""

import argparse
import calendar
import json
import random
import re
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from app.answering.verification.support import verify
from indexing.chunking.sentences import sentence_spans

_ASKS = re.compile(
    r"\b(?:(?:in|on|at|of|to|from|for|by) )?(?:what|which|who|whom|whose|when|where|how (?:many|much|long|old))\b", re.I
)
Evidence = tuple[str, str]
"""A quotation, and its context."""

_NUMBER = re.compile(r"\b\d[\d,.]*\d\b|\b\d\b")
_NAME = re.compile(r"[A-Z][a-z]+(?: [A-Z][a-z]+)*")
_MONTHS = calendar.month_name[1:]
_MONTH = re.compile(rf"\b(?:{'|'.join(_MONTHS)})\b(?=,? \d)")


class Case(msgspec.Struct, frozen=True):
    kind: str
    true: bool
    claim: str
    evidence: Evidence


class Passage(msgspec.Struct, frozen=True):
    title: str
    text: str
    sentences: tuple[str, ...]

    def evidence(self, place: int) -> Evidence:
        before = self.text[: self.text.index(self.sentences[place])]
        return self.sentences[place], f"{self.title}\n{before}"


def passages(directory: Path) -> dict[str, Passage]:
    found = {}
    for line in (directory / "corpus.jsonl").read_text("utf-8").splitlines():
        record = json.loads(line)
        text = record["text"]
        pieces = tuple(text[span.start : span.end] for span in sentence_spans(text))
        found[record["_id"]] = Passage(record["title"], text, pieces)
    return found


def cases(records: list[dict[str, Any]], known: dict[str, Passage], draw: random.Random) -> Iterator[Case]:
    """Every case that can be made of each question."""
    names = sorted({answer for record in records for answer in record["answers"] if _NAME.fullmatch(answer)})
    everything = list(known.values())
    for record in records:
        passage, answer = known[record["passage_id"]], min(record["answers"], key=len)
        holding = [place for place, sentence in enumerate(passage.sentences) if answer in sentence]
        asked = record["text"].rstrip("? ")
        claim = _ASKS.sub(lambda _, told=answer: told, asked, count=1) + "."
        if not holding or not _ASKS.search(asked):
            continue
        words = set(asked.lower().split())
        place = max(holding, key=lambda at: len(words & set(passage.sentences[at].lower().split())))
        right = passage.evidence(place)
        yield Case("question turned", True, claim, right)
        short = passage.sentences[place].rpartition(",")[0]
        if len(short.split()) > 4:
            yield Case("sentence shortened", True, short + ".", right)
        if others := [at for at in range(len(passage.sentences)) if at not in holding]:
            yield Case("another sentence", False, claim, passage.evidence(draw.choice(others)))
        stranger = draw.choice([one for one in draw.sample(everything, 20) if one.title != passage.title])
        yield Case("another article", False, claim, stranger.evidence(draw.randrange(len(stranger.sentences))))
        yield from altered(claim, answer, right, names, draw)


def altered(claim: str, answer: str, right: Evidence, names: list[str], draw: random.Random) -> Iterator[Case]:
    """The claim with one thing changed to what the sentence does not hold."""
    if number := _NUMBER.search(claim):
        digits = number.group()
        wrong = digits[:-1] + str((int(digits[-1]) + draw.randint(1, 9)) % 10)
        if wrong not in right[0]:
            yield Case("number changed", False, claim.replace(digits, wrong, 1), right)
    if month := _MONTH.search(claim):
        other = draw.choice([one for one in _MONTHS if one not in right[0]])
        yield Case("month changed", False, claim.replace(month.group(), other, 1), right)
    if _NAME.fullmatch(answer):
        other = draw.choice([one for one in draw.sample(names, 20) if one not in right[0]])
        yield Case("name changed", False, claim.replace(answer, other, 1), right)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--show", type=int, default=0, help="wrong verdicts to print, of each kind")
    options = parser.parse_args()
    known = passages(options.data)
    records = [json.loads(line) for line in (options.data / "queries.jsonl").read_text("utf-8").splitlines()]
    records.sort(key=lambda record: record["_id"])
    draw = random.Random(options.seed)
    made = list(cases(draw.sample(records, min(options.questions, len(records))), known, draw))
    right: dict[tuple[bool, str], list[bool]] = defaultdict(list)
    shown: dict[str, int] = defaultdict(int)
    begun = time.perf_counter()
    for case in made:
        quote, context = case.evidence
        [verified] = verify(case.claim, [quote], context)
        right[case.true, case.kind].append(verified is case.true)
        if verified is not case.true and shown[case.kind] < options.show:
            shown[case.kind] += 1
            print(f"  {case.kind}: {case.claim}\n    {quote}")
    elapsed = time.perf_counter() - begun
    for (true, kind), verdicts in sorted(right.items(), reverse=True):
        verdict = "verified" if true else "rejected"
        print(f"{kind:20} {verdict} {sum(verdicts):5} of {len(verdicts):5}  {sum(verdicts) / len(verdicts):6.1%}")
    print(f"{1000 * elapsed / len(made):.2f} ms per claim")


if __name__ == "__main__":
    main()
