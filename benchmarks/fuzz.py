"""Bodies that nobody should send, at every endpoint that takes one: `python -m benchmarks.fuzz [--bodies 3000]`.

In this process, over a real store and fake models: valid bodies with parts exchanged, odd characters, JSON that is cut
or nested or no JSON at all, forms with odd parts, wrong media types. Prints the statuses by endpoint, and exits with 1
for any 5xx but 503, or its like in a body that is sent with 200 (RAGFlow's formats, and streams).
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import httpx

from app.config.settings import IndexSection, Settings
from app.main import create_app
from app.observability.logging import configure_logging
from app.wiring import Services
from indexing.store.base import VectorStore
from indexing.store.embedded import EmbeddedStore
from tests.fakes.answerer import ScriptedAnswerer
from tests.fakes.corpus import fill
from tests.fakes.embedder import HashEmbedder
from tests.fakes.source import GivenEmbedder

TURNS = [{"role": "user", "content": "How long is the leave?"}, {"role": "assistant", "content": "Long."}]
SEARCH = {"query": "dental", "limit": 3, "filter": {"lang": "en", "year": {"gte": 2020}}, "ranking": {"depth": 5}}
RERANK = {"model": "m", "query": "dental", "documents": ["Dental cover", {"text": "Parking"}], "top_n": 1}
CHAT = {"model": "winnow:default", "messages": TURNS[:1], "stream": False, "temperature": 0.5, "max_tokens": 20}
RECORD = {
    "id": "d",
    "text": "Dental.",
    "title": "t",
    "source": "s.txt",
    "metadata": {"a": 1, "b": ["x"], "c": {"d": None}},
}
RETRIEVAL = {"knowledge_id": "default", "query": "dental", "retrieval_setting": {"top_k": 3, "score_threshold": 0.1}}

SEEDS: dict[str, Any] = {
    "POST /search": SEARCH,
    "POST /answer": {**SEARCH, "messages": TURNS, "language": "de", "stream": True},
    "POST /chat": {"messages": TURNS[:1], "max_output_tokens": 10, "temperature": 0.1},
    "POST /documents": {"collection": "fuzz", "documents": [RECORD, {"text": "Second."}]},
    "PUT /collections/fuzzed": {"vector_size": 8, "distance": "cosine"},
    "POST /cost/estimate": {"input_tokens": 1000, "output_tokens": 10, "concurrency": 8},
    "POST /internal/sync": {"inputs": ["x"], "cwd": "/"},
    "POST /v1/rerank": RERANK,
    "POST /v2/rerank": RERANK,
    "POST /rerank": RERANK,
    "POST /tei/rerank": {"query": "dental", "texts": ["Dental cover", "Parking"], "raw_scores": True},
    "POST /v1/embeddings": {"model": "all-MiniLM-L6-v2", "input": ["a", "b"], "encoding_format": "base64"},
    "POST /v1/chat/completions": CHAT,
    "POST /retrieval": RETRIEVAL,
    "POST /api/v1/retrieval": {"dataset_ids": ["default"], "question": "dental", "top_k": 3},
    "POST /api/v1/dify/retrieval": RETRIEVAL,
    "POST /api/v1/chats_openai/default/chat/completions": CHAT,
    "POST /api/v1/openai/default/chat/completions": CHAT,
    "PUT /process": "Dental cover begins after a month.",
    "POST /openwebui/search": {"query": "dental", "count": 3},
}

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**53 + 1, 2**63, -(2**64), 10**400, 0.1, 1e308, -1e-320),
    *("", " ", "\0", "\x1b[31m", "\ufeff", "\u202e", "\ud83d", "\U0001f9b7", "../..", "%00", "a" * 20_000, "\n" * 500),
    *([], [[]], [None], [1, "a"], {}, {"": ""}, {"$ne": None}, {"text": None}, {"and": []}, ["a"] * 3000),
)
NAMES = ("query", "model", "filter", "stream", "messages", "documents", "text", "ranking", "", "id", "\0", "a" * 300)
TYPES = (
    *(
        "text/plain",
        "",
        "application/json; charset=latin-1",
        "multipart/form-data",
        "application/x-www-form-urlencoded",
    ),
    *("multipart/form-data; boundary=x", "application/json; charset", "\xff", "application/pdf", "json/" + "x" * 300),
)
FILENAMES = ("", '; filename="a.txt"', '; filename="\xff\\..\\a.pdf"', '; filename=""', "; filename*=x")


class Dice(random.Random):
    """Draws bodies."""

    def body(self, seed: Any) -> tuple[bytes, str]:
        """A body and its media type."""
        kind = self.random()
        if kind < 0.1:
            return self.form(), "multipart/form-data; boundary=x"
        text = json.dumps(self.changed(seed), ensure_ascii=self.random() < 0.5, allow_nan=True)
        encoded = text.encode("utf-8", "surrogatepass")
        if kind < 0.45:
            encoded = self.damaged(encoded)
        return encoded, self.choice(TYPES) if self.random() < 0.1 else "application/json"

    def changed(self, value: Any) -> Any:
        """With up to three parts exchanged, left out or added."""
        value = json.loads(json.dumps(value))
        for _ in range(self.choice((0, 1, 1, 1, 2, 3))):
            value = self._changed(value)
        return value

    def _changed(self, value: Any) -> Any:
        if not isinstance(value, dict | list) or not value or self.random() < 0.15:
            return deepcopy(self.choice(ODD))
        place = self.choice(list(value)) if isinstance(value, dict) else self.randrange(len(value))
        way = self.random()
        if way < 0.1:
            del value[place]
        elif way < 0.25 and isinstance(value, dict):
            value[self.choice(NAMES)] = deepcopy(self.choice(ODD))
        else:
            value[place] = self._changed(value[place])
        return value

    def damaged(self, body: bytes) -> bytes:
        """As bytes: cut, nested, repeated, marked, with bytes changed."""
        at = self.randint(0, len(body))
        ways: tuple[Callable[[], bytes], ...] = (
            lambda: body[:at],
            lambda: body[:at] + self.randbytes(3) + body[at + 3 :],
            lambda: b"\xef\xbb\xbf" + body,
            lambda: body.decode("utf-8", "replace").encode("utf-16"),
            lambda: body.replace(b":", b": NaN, ", 1),
            lambda: body.replace(b"{", b'{"query": "twice", "query": "dental", "model": 1e999, ', 1),
            lambda: body.replace(b'"dental"', b'{"a": ' * 5000 + b"1" + b"}" * 5000),
            lambda: b"[" * self.choice((10, 5000, 200_000)),
            lambda: body.replace(b'"', b"'"),
            lambda: body + body,
            lambda: body[:at] + rb"\ud800" + body[at:],
            lambda: self.randbytes(self.randint(0, 200)),
            lambda: b"",
        )
        return self.choice(ways)()

    def form(self) -> bytes:
        """Multipart, mostly not quite."""
        names = ("files", "collection", "x", "", "files\0")
        parts = b""
        for _ in range(self.randint(0, 4)):
            filename = self.choice(FILENAMES)
            head = f'Content-Disposition: form-data; name="{self.choice(names)}"{filename}'
            more = self.choice(("", "\r\nContent-Type: text/plain; charset=nope", "\r\nContent-Length: -1", "\r\n: x"))
            content = self.choice((b"Dental.", b"", b"%PDF-1.7 no", b"PK\x03\x04", b'{"text": 1}', self.randbytes(50)))
            parts += b"--x\r\n" + (head + more).encode("utf-8") + b"\r\n\r\n" + content + b"\r\n"
        return parts + self.choice((b"--x--\r\n", b"--x--", b"", b"--x", b"--y--\r\n"))


UNEXPECTED = "internal error; the log has the details"
"""What every format and stream says of an error that nobody expected (`app.api.problem_details`)."""


def went_wrong(response: httpx.Response) -> bool:
    """Whether the service failed: by the status, or in a body under 200. RAGFlow's `code` 100 is its 5xx."""
    if response.status_code >= 500:
        return response.status_code != 503
    return UNEXPECTED in response.text or ragflow_code(response) == 100


def ragflow_code(response: httpx.Response) -> int | None:
    """The `code` in a body of RAGFlow's format, which has it beside the status; None in any other."""
    try:
        body = response.json()
    except ValueError:
        return None
    code = body.get("code") if isinstance(body, dict) else None
    return code if isinstance(code, int) else None


async def throw(client: httpx.AsyncClient, bodies: int, seed: int) -> tuple[dict[str, Counter[str]], list[str]]:
    """The statuses by endpoint, with RAGFlow's `code` where there is one, and what went wrong."""
    dice = Dice(seed)
    statuses: dict[str, Counter[str]] = {endpoint: Counter() for endpoint in SEEDS}
    failures: list[str] = []
    for number in range(bodies):
        endpoint = list(SEEDS)[number % len(SEEDS)]
        method, path = endpoint.split(" ")
        body, media_type = dice.body(SEEDS[endpoint])
        headers = {"Content-Type": media_type.encode("latin-1")}
        response = await client.request(method, path, content=body, headers=headers)
        code = ragflow_code(response)
        statuses[endpoint][f"{response.status_code}" + ("" if code is None else f" code {code}")] += 1
        if went_wrong(response):
            failures.append(f"{endpoint} {response.status_code} {media_type} {body[:300]!r} -> {response.text[:200]}")
    return statuses, failures


async def run(bodies: int, seed: int, home: Path) -> tuple[dict[str, Counter[str]], list[str]]:
    """As `throw`, at an application of its own."""

    async def open_store() -> VectorStore:
        store = EmbeddedStore(home / "index")
        await fill(store)
        return store

    settings = Settings(index=IndexSection(home=home))
    services = Services(settings, open_store, GivenEmbedder(HashEmbedder()), lambda _services: ScriptedAnswerer())
    app = create_app(settings, services)
    transport = httpx.ASGITransport(app=app, client=("127.0.0.1", 50000), raise_app_exceptions=False)
    async with (
        app.lifespan(),
        httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=60) as client,
    ):
        return await throw(client, bodies, seed)


def main() -> None:
    """Throw, count, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bodies", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    configure_logging("json", "error")
    with tempfile.TemporaryDirectory() as home:
        statuses, failures = asyncio.run(run(arguments.bodies, arguments.seed, Path(home)))
    for endpoint, counts in statuses.items():
        print(f"{endpoint:<52}", "  ".join(f"{status}: {count}" for status, count in sorted(counts.items())))
    print(f"{sum(map(Counter.total, statuses.values()))} bodies, {len(failures)} went wrong")
    for failure in failures[:20]:
        print(failure)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
