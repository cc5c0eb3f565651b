"""Whether extractive answers are about the thing that was asked about, and silent where nothing is.

    python -m benchmarks.asked [--held-out] [--show]

Small documents in English, German and Chinese (texts, tables, mails) in one collection, and questions about a row, a
column, a name, an attribute, an attachment, a kind of thing, or what follows from the question before: each with a twin
that no document answers.
"""

import argparse
import asyncio
import sys
import tempfile
import tomllib
from collections import defaultdict
from pathlib import Path

import msgspec

from app.domain import ANONYMOUS, Answer, Query, Question, Turn
from app.wiring import Services
from benchmarks.indexed import index_folder, services_at

_SET = Path(__file__).with_name("answers_asked.toml")
_COLLECTION = "asked"
_REQUIRED = {"answered": 0.85, "silent": 0.85}
"""The share that must be right."""


class AskedQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """A question, the string that its answer must hold ("": nothing answers it), and those that it must not."""

    kind: str
    language: str
    ask: str
    answer: str = ""
    wrong: tuple[str, ...] = ()
    after: str = ""
    held_out: bool = False


class AskedSet(msgspec.Struct, frozen=True):
    """Documents by file name, and the questions about them."""

    documents: dict[str, str]
    questions: list[AskedQuestion]


def load() -> AskedSet:
    """The set that lies beside this module."""
    return msgspec.convert(tomllib.loads(_SET.read_text(encoding="utf-8")), AskedSet)


def main() -> int:
    """Ask and judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--held-out", action="store_true", help="those that were not in view when the rules were made")
    parser.add_argument("--show", action="store_true", help="print the wrong answers")
    args = parser.parse_args()
    asked = load()
    questions = [question for question in asked.questions if question.held_out == args.held_out]
    return asyncio.run(_measure(asked.documents, questions, show=args.show))


async def _measure(documents: dict[str, str], questions: list[AskedQuestion], *, show: bool) -> int:
    rights: dict[str, dict[str, list[bool]]] = {"answered": defaultdict(list), "silent": defaultdict(list)}
    with tempfile.TemporaryDirectory(prefix="winnow-benchmark-") as folder:
        for name, text in documents.items():
            await asyncio.to_thread((Path(folder) / name).write_text, text.lstrip("\n"), encoding="utf-8")
        async with services_at(None) as services:
            await index_folder(services, Path(folder), _COLLECTION)
            for question in questions:
                answer = await _answer(services, question)
                right = _is_right(question, answer)
                measure = "answered" if question.answer else "silent"
                rights[measure][f"{question.kind} {question.language}"].append(right)
                if show and not right:
                    print(f"{question.after} {question.ask} -> {answer.answer!r} (expected {question.answer!r})")
    return _judge(rights)


async def _answer(services: Services, question: AskedQuestion) -> Answer:
    """The answer, within a conversation if another question comes first."""
    turns: tuple[Turn, ...] = ()
    if question.after:
        earlier = await services.answerer.answer(_question(question.after), ANONYMOUS)
        turns = (Turn(role="user", content=question.after), Turn(role="assistant", content=earlier.answer))
    return await services.answerer.answer(_question(question.ask, turns), ANONYMOUS)


def _question(text: str, turns: tuple[Turn, ...] = ()) -> Question:
    query = Query(text=text, collection=_COLLECTION, limit=10, backend="none")
    return Question(search=query, messages=turns, answer_backend="extractive")


def _is_right(question: AskedQuestion, answer: Answer) -> bool:
    if not question.answer:
        return not answer.answerable
    held = answer.answerable and question.answer in answer.answer
    return held and not any(wrong in answer.answer for wrong in question.wrong)


def _judge(rights: dict[str, dict[str, list[bool]]]) -> int:
    failed = False
    for measure, by_kind in rights.items():
        everything = [right for some in by_kind.values() for right in some]
        share = sum(everything) / len(everything)
        failed |= share < _REQUIRED[measure]
        worst = [f"{name} {sum(some)}/{len(some)}" for name, some in by_kind.items() if not all(some)]
        print(f"{measure:9} {sum(everything)} of {len(everything)}, {share:.3f}; not all: {', '.join(worst)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
