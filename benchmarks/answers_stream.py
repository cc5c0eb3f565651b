"""The stream and the plain answer are one, and quotes are verbatim: `python -m benchmarks.answers_stream --data DIR`.

Each question is asked twice over HTTP, plain and streamed, of the running application: with extractive answers, and
with a simulated model behind a fake vLLM server. Exits with 1 unless for each the answers and citations are the same,
the deltas make up the answer, and every quote stands at its offsets in the text that GET /documents/{id} has.
"""

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import msgspec

from app.config.settings import IndexSection, Settings
from app.evaluation.data import DataSet, EvalQuestion, digest_of, sample
from app.evaluation.runner import evaluation_services, index_documents
from tests.fakes.answering_model import AnsweringModel
from tests.fakes.answering_service import backend_of, events_of, server_of, text_of
from tests.fakes.models import client_of

MODEL = "simulated"
CALL_TIMEOUT_S = 120.0


class Checks:
    """Asks, compares and counts what was looked at and what was wrong."""

    def __init__(self, client: httpx.AsyncClient, collection: str, backend: str) -> None:
        self._client, self._collection, self._backend = client, collection, backend
        self._texts: dict[str, str] = {}
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []

    async def check(self, asked: EvalQuestion) -> None:
        """One question, both ways."""
        plain = msgspec.json.decode(await self._ask(asked.text, stream=False))
        events = events_of((await self._ask(asked.text, stream=True)).decode())
        name, done = events[-1]
        told = [data for kind, data in events if kind == "citation"]
        self._same(asked, "end of the stream", name, "done")
        self._same(asked, "deltas", text_of(events), plain["answer"])
        self._same(asked, "citations", told, plain["citations"])
        self._same(asked, "citations at the end", done.get("citations"), plain["citations"])
        self._same(asked, "reason to abstain", done.get("abstain_reason"), plain["abstain_reason"])
        self.counts.update(questions=1, answered=int(plain["answerable"]), deltas=len(events) - len(told) - 2)
        for citation in plain["citations"]:
            text = await self._text(citation["document_id"])
            self._same(asked, "quote", citation["quote"], text[citation["start"] : citation["end"]])
            self.counts["quotes"] += 1

    async def _ask(self, question: str, *, stream: bool) -> bytes:
        body = {"query": question, "collection": self._collection, "backend": "none", "answer_backend": self._backend}
        response = await self._client.post("/answer", json={**body, "stream": stream}, timeout=CALL_TIMEOUT_S)
        response.raise_for_status()
        return response.content

    async def _text(self, document: str) -> str:
        """The document's text, in which the offsets count."""
        if document not in self._texts:
            response = await self._client.get(f"/documents/{document}", params={"collection": self._collection})
            self._texts[document] = response.raise_for_status().json()["text"]
        return self._texts[document]

    def _same(self, asked: EvalQuestion, what: str, one: Any, other: Any) -> None:
        if one != other:
            self.wrong.append(f"{asked.id}: {what}: {one!r} is not {other!r}")


async def run(data: DataSet, questions: Sequence[EvalQuestion], home: Path) -> bool:
    """Whether all is as it should be."""
    async with server_of("vllm", AnsweringModel(least=0.3, most=3)) as server:
        settings = Settings(index=IndexSection(home=home), backends={MODEL: backend_of(server)})
        async with evaluation_services(settings, data.folder, None) as (services, _, _), client_of(services) as client:
            collection = f"corpus-{digest_of(services.embedder.fingerprint)}"
            await index_documents(services, collection, data.documents)
            return all(
                [await compare(Checks(client, collection, name), name, questions) for name in ("extractive", MODEL)]
            )


async def compare(checks: Checks, name: str, questions: Sequence[EvalQuestion]) -> bool:
    """Prints what came of it."""
    for asked in questions:
        await checks.check(asked)
    told = ", ".join(f"{count:,} {what}" for what, count in checks.counts.items())
    print(f"{name:12} {told}; {len(checks.wrong)} differences", flush=True)
    for line in checks.wrong[:10]:
        print(f"  {line[:400]}", file=sys.stderr)
    return not checks.wrong and checks.counts["quotes"] > 0


def main() -> None:
    """Ask, compare, exit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--home", type=Path, help="keeps the index for the next run")
    arguments = parser.parse_args()
    data = DataSet(arguments.data)
    half = (arguments.questions + 1) // 2
    answerable = sample(tuple(data.questions.values()), arguments.questions - half, arguments.seed)
    questions = (*answerable, *sample(tuple(data.unanswerable.values()), half, arguments.seed))
    with tempfile.TemporaryDirectory() as home:
        sys.exit(0 if asyncio.run(run(data, questions, arguments.home or Path(home))) else 1)


if __name__ == "__main__":
    main()
