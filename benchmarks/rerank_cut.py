"""What the reranker's cut keeps of gold spans: `python -m benchmarks.rerank_cut --data DIR [--part odd]`.

Passages of about 380 tokens are put together from neighbouring paragraphs (SQuAD, XQuAD) or cut from documents
(chunking_eval). kept: the share of gold spans that `app.ranking.passages` shows in so many
tokens; head: that of a cut that keeps the beginning; expected: what the simulation's assumption about evidence
(rerank_data) says of the cut. The last line of a set has the likeliest strengths of that assumption, to be put there.
"""

import argparse
import math
import statistics
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby, product
from pathlib import Path
from random import Random

import msgspec

from app.backends.base import BYTES_PER_TOKEN, tokens_of
from app.evaluation.data import read_qrels, read_rows
from app.ranking.passages import QueryTerms, excerpt
from benchmarks.rerank_data import PARTS, likelihoods, rarity_of, sentences_of

LONG = 380
CUTS = (160, 256, 320)
MOST = 500
OTHERS = 50
"""Passages beside the right one, which say how rare the query's words are."""

SAYS, BESIDE = range(0, 15), range(0, 5)
SETS = ("squad2_dev", "xquad/de", "xquad/zh", "chunking_eval")


class Case(msgspec.Struct, frozen=True):
    """A question, a long passage, and the part of it that answers."""

    query: str
    text: str
    gold: str


def main() -> int:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="*", default=SETS)
    parser.add_argument("--part", choices=PARTS, default="all", help="every other question")
    args = parser.parse_args()
    print("| set | tokens | kept | head | expected |\n|---|---|---|---|---|")
    for name in args.sets:
        cases = cases_of(args.data / name)[PARTS[args.part]]
        for tokens in CUTS:
            shares = kept(cases, tokens), head(cases, tokens), expected(cases, tokens)
            print(f"| {name}, {len(cases)} | {tokens} | {' | '.join(f'{share:.2f}' for share in shares)} |")
        says, beside = fitted(cases)
        print(f"| | likeliest | says {says} | beside {beside} | |", flush=True)
    return 0


def cases_of(folder: Path) -> list[Case]:
    """At most MOST, drawn at random; answers that stand in their passage once."""
    spans = folder / "corpora"
    found = [*(_from_documents(folder) if spans.exists() else _from_paragraphs(folder))]
    found = [case for case in found if case.text.count(case.gold) == 1 and tokens_of(case.text) > 0.7 * LONG]
    Random(1).shuffle(found)
    return found[:MOST]


def kept(cases: Sequence[Case], tokens: int) -> float:
    """By our cut."""
    return statistics.fmean(_shows(excerpt(QueryTerms(case.query), case.text, tokens), case.gold) for case in cases)


def head(cases: Sequence[Case], tokens: int) -> float:
    """By a cut behind the first so many tokens."""
    room = tokens * BYTES_PER_TOKEN
    return statistics.fmean(case.gold in case.text.encode()[:room].decode("utf-8", "ignore") for case in cases)


def expected(cases: Sequence[Case], tokens: int) -> float:
    """By our cut, if the evidence stood where the simulation draws it."""
    shares = []
    for case, rarity in zip(cases, _rarities(cases), strict=True):
        shown, sentences = excerpt(QueryTerms(case.query), case.text, tokens), sentences_of(case.text)
        weights = likelihoods(sentences, rarity)
        seen = (weight for weight, one in zip(weights, sentences, strict=True) if _middle(one) in shown)
        shares.append(math.fsum(seen) / math.fsum(weights))
    return statistics.fmean(shares)


def fitted(cases: Sequence[Case]) -> tuple[int, int]:
    """The likeliest strengths (says, beside) of `likelihoods` for these gold spans."""
    places = [
        (sentences_of(case.text), rarity, case.gold) for case, rarity in zip(cases, _rarities(cases), strict=True)
    ]

    def fit(strengths: tuple[int, int]) -> float:
        total = 0.0
        for sentences, rarity, gold in places:
            weights = likelihoods(sentences, rarity, *strengths)
            right = next((w for w, one in zip(weights, sentences, strict=True) if gold[:20].strip() in one), None)
            total += math.log(right / math.fsum(weights)) if right else 0.0
        return total

    return max(product(SAYS, BESIDE), key=fit)


def _rarities(cases: Sequence[Case]) -> Iterator[dict[str, float]]:
    for number, case in enumerate(cases):
        others = Random(number).sample([one.text for one in cases], min(OTHERS, len(cases)))
        yield rarity_of(case.query, [case.text, *others])


def _shows(shown: str, gold: str) -> bool:
    return gold in shown or all(sentence in shown for sentence in sentences_of(gold))


def _middle(sentence: str) -> str:
    at = len(sentence) // 2
    return sentence[max(0, at - 15) : at + 15].strip()


def _from_paragraphs(folder: Path) -> Iterator[Case]:
    qrels = read_qrels(folder)
    whole: dict[str, tuple[str, str]] = {}
    for _, rows in groupby(read_rows(folder / "corpus.jsonl"), lambda row: row.get("title", "")):
        for passage in _joined(list(rows)):
            whole |= {row["_id"]: (row["text"], "\n".join(one["text"] for one in passage)) for row in passage}
    for query in read_rows(folder / "queries.jsonl"):
        own, text = whole[next(iter(qrels[query["_id"]]))]
        answer = (query.get("answers") or [""])[0]
        if own.count(answer) == 1:
            at = own.index(answer)
            yield Case(query["text"], text, own[max(0, at - 8) : at + len(answer) + 8].strip())


def _joined(rows: Sequence[dict[str, str]]) -> Iterator[list[dict[str, str]]]:
    """Until a passage has about LONG tokens."""
    passage: list[dict[str, str]] = []
    for row in rows:
        if passage and sum(tokens_of(one["text"]) for one in passage) > 0.75 * LONG:
            yield passage
            passage = []
        passage.append(row)
    yield passage


def _from_documents(folder: Path) -> Iterator[Case]:
    size = LONG * BYTES_PER_TOKEN
    texts = {path.stem: path.read_text(encoding="utf-8") for path in (folder / "corpora").iterdir()}
    for query in msgspec.json.decode(b"[" + b",".join((folder / "queries.jsonl").read_bytes().splitlines()) + b"]"):
        for span in query["references"]:
            start = span["start_index"] // size * size
            text = texts[query["corpus"]][start : start + size]
            if span["end_index"] <= start + size and len(span["content"]) <= 300:
                yield Case(query["text"], text, span["content"].strip())


if __name__ == "__main__":
    sys.exit(main())
