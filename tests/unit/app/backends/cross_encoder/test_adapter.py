"""A tiny cross-encoder in the process."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.backends.cross_encoder.adapter import BATCH, CrossEncoderAdapter
from app.backends.settings import BackendSettings
from app.config.validation import load_settings
from app.errors import ConfigError, MissingCapability, UpstreamRejected, UpstreamUnavailable
from tests.fakes.corpus import fill
from tests.fakes.models import BRISK, client_of, services_for
from tests.fakes.tiny_cross_encoder import make_tiny_cross_encoder

pytestmark = [pytest.mark.anyio, pytest.mark.slow]  # torch takes seconds to load

TEXTS = [f"the office opens at nine {'and the kettle is hot ' * (number % 5)}{number}" for number in range(40)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_cross_encoder(tmp_path_factory.mktemp("model"))


def opened(model: Path | str, **settings: Any) -> CrossEncoderAdapter:
    return CrossEncoderAdapter(
        "local", BackendSettings(kind="cross_encoder", model=str(model), device="cpu", **settings)
    )


@pytest.fixture
async def adapter(folder: Path) -> AsyncIterator[CrossEncoderAdapter]:
    one = opened(folder)
    yield one
    await one.aclose()


async def test_it_says_what_the_model_says(adapter: CrossEncoderAdapter, folder: Path) -> None:
    """As log-odds, in the order of the texts, whatever the batches; a probe loads the model and costs nothing."""
    from sentence_transformers import CrossEncoder
    from torch.nn import Identity

    probed = await adapter.probe(60)
    assert (probed.model, probed.capabilities, probed.context_tokens) == (str(folder), {"rerank"}, 128)
    assert (probed.requests, probed.tokens.input) == (0, 0)
    said = await adapter.relevance("when does the office open", TEXTS, 60)
    pairs = [("when does the office open", text) for text in TEXTS]
    expected = CrossEncoder(str(folder), device="cpu").predict(pairs, activation_fn=Identity())
    assert said.log_odds == pytest.approx([float(one) for one in expected], abs=1e-3)
    assert len(set(said.log_odds)) > BATCH
    assert said.tokens.input > 40


async def test_a_long_text_is_cut(adapter: CrossEncoderAdapter) -> None:
    """Not refused, and not read for ever."""
    said = await adapter.relevance("office", ["the office opens " * 5_000], 60)
    assert len(said.log_odds) == 1


async def test_loading_outlasts_the_caller(folder: Path) -> None:
    """Who does not wait is told to come back; the model is loaded once for all."""
    one = opened(folder)
    with pytest.raises(UpstreamUnavailable, match="still loading"):
        await one.probe(0.0)
    assert (await one.probe(60)).model == str(folder)
    await one.ping(1)
    await one.aclose()


async def test_a_call_that_is_given_up_ends_after_its_pass(adapter: CrossEncoderAdapter) -> None:
    """The thread is free for the next one."""
    await adapter.probe(60)
    call = asyncio.create_task(adapter.relevance("office", TEXTS * 100, 60))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert len((await adapter.relevance("office", TEXTS[:1], 60)).log_odds) == 1


async def test_what_is_no_reranker_is_refused(tmp_path: Path) -> None:
    """A folder without a model, or one with several labels; it is looked at again when it is asked again."""
    one = opened(tmp_path / "nothing")
    for _ in range(2):
        with pytest.raises(UpstreamRejected, match=r"cannot load its model; set `model` in \[backends.local\]"):
            await one.probe(60)
    await one.aclose()
    many = opened(make_tiny_cross_encoder(tmp_path / "many", labels=3))
    with pytest.raises(UpstreamRejected, match="has 3 labels; a reranker has one"):
        await many.probe(60)
    await many.aclose()
    with pytest.raises(MissingCapability, match="it cannot write"):
        await one.complete(None, 1)  # type: ignore[arg-type]


def test_it_needs_a_model(tmp_path: Path) -> None:
    """There is no default: which one is right depends on the language of the documents."""
    (tmp_path / "winnow.toml").write_text('[backends.local]\nkind = "cross_encoder"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"\[backends.local\] needs a model"):
        load_settings({}, tmp_path)


async def test_it_ranks_a_search(folder: Path, tmp_path: Path) -> None:
    """Through the whole service, at no cost; chats are refused."""
    settings = BackendSettings(kind="cross_encoder", model=str(folder), device="cpu", timeout_s=BRISK.timeout_s)
    async with client_of(services := services_for(tmp_path, {"local": settings})) as client:
        await fill(await services.store.get())
        await (await services.clients())["local"].known(60)
        found = (await client.post("/search", json={"query": "dental cover"})).json()
        assert {hit["ranked_by"] for hit in found["results"]} == {"local"}
        assert found["usage"]["cost_usd"] == 0
        assert found["usage"]["by_stage"]["rank"]["requests"] == 1
        refused = await client.post("/chat", json={"message": "hello", "backend": "local"})
        assert refused.status_code == 422
