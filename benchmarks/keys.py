"""What API keys add to a search: keys, scopes, rates and budgets, in pairs with a service that needs none."""

import argparse
import asyncio
import statistics
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec

from app.access.keys import KeyRequest
from app.config.settings import IndexSection, Settings
from app.main import create_app
from app.observability.logging import configure_logging
from app.wiring import Services
from indexing.store.base import VectorStore
from indexing.store.embedded import EmbeddedStore
from tests.fakes.corpus import fill
from tests.fakes.embedder import HashEmbedder
from tests.fakes.source import GivenEmbedder

BODY = msgspec.json.encode({"query": "0.1"})


async def search(app: Any, token: str) -> float:
    """Milliseconds of one POST /search in this process."""
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    headers += [(b"authorization", f"Bearer {token}".encode())] if token else []
    scope = {"type": "http", "method": "POST", "path": "/search", "raw_path": b"/search", "query_string": b""}
    scope |= {"headers": headers, "client": ("127.0.0.1", 1), "http_version": "1.1", "scheme": "http", "root_path": ""}
    sent: list[int] = []
    read = False

    async def receive() -> dict[str, Any]:
        nonlocal read
        if read:
            await asyncio.sleep(60)
        read = True
        return {"type": "http.request", "body": BODY, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message.get("status", 0))

    began = perf_counter()
    await app(scope, receive, send)
    ms = 1000 * (perf_counter() - began)
    assert sent[0] == 200, sent
    return ms


async def measure(home: Path, pairs: int, keys: int) -> list[tuple[float, float]]:
    """The times without and with a key, of `pairs` searches each, in turns."""
    store = EmbeddedStore(home / "index")
    await fill(store)

    async def open_store() -> VectorStore:
        return store

    apps = []
    for name in ("without", "with"):
        settings = Settings(index=IndexSection(home=home / name))
        services = Services(settings, open_store, GivenEmbedder(HashEmbedder()), patient=True)
        apps.append((create_app(settings, services), services))
    file = apps[1][1].access.file
    for number in range(keys - 1):
        file.create(KeyRequest(name=f"other-{number}", scopes=("search",)))
    bounds = {"requests_per_minute": 10**9, "tokens_per_minute": 10**9, "daily_usd": 1.0, "backends": ("none",)}
    token = file.create(KeyRequest(name="ours", scopes=("search",), **bounds))[1]  # type: ignore[arg-type]
    (plain, _), (keyed, _) = apps
    for _ in range(50):
        await search(plain, "")
        await search(keyed, token)
    return [(await search(plain, ""), await search(keyed, token)) for _ in range(pairs)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=3000)
    parser.add_argument("--keys", type=int, default=1000, help="that the file has")
    given = parser.parse_args()
    configure_logging("json", "error")
    with tempfile.TemporaryDirectory() as home:
        times = asyncio.run(measure(Path(home), given.pairs, given.keys))
    without, keyed = (statistics.median(column) for column in zip(*times, strict=True))
    added = statistics.median(after - before for before, after in times)
    print(f"without {without:.3f} ms, with a key {keyed:.3f} ms, median of the differences {added:.3f} ms")


if __name__ == "__main__":
    main()
