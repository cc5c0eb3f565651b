"""What the adapter finds out about an OpenAI-style server."""

import msgspec
import pytest

from app.backends.base import Probed
from app.backends.openai_compatible.messages import Model
from app.backends.status import NoSuchModel
from app.errors import UpstreamRejected, UpstreamUnavailable
from tests.fakes.faults import Fault
from tests.fakes.openai_model import FakeModel
from tests.fakes.openai_server import Dialect, OpenAIServer
from tests.unit.app.backends.openai_compatible.opening import TIMEOUT_S, asking, collected, opened

pytestmark = pytest.mark.anyio
DIALECTS = pytest.mark.parametrize("dialect", ["vllm", "ollama", "openai"])


async def probe(server: OpenAIServer, **settings: object) -> Probed:
    async with server, opened(server, probe=False, **settings) as adapter:
        return await adapter.probe(TIMEOUT_S)


@pytest.mark.parametrize(
    ("dialect", "name", "context"),
    [("vllm", "vLLM 0.32.0", 4096), ("ollama", "Ollama 0.32.0", 4096), ("openai", "", None)],
)
async def test_a_server_is_asked_who_it_is(dialect: Dialect, name: str, context: int | None) -> None:
    """The first model, its context and the server's name and version are told, as far as the server tells them."""
    found = await probe(OpenAIServer(dialect, others=("big",)))
    assert (found.model, found.server, found.context_tokens) == ("tiny", name, context)


@DIALECTS
async def test_what_a_server_can_do_is_found(dialect: Dialect) -> None:
    """Pictures, structured output, log-probabilities and thinking are found where they are, and only there."""
    able = await probe(OpenAIServer(dialect, FakeModel(thinks=True)))
    assert able.capabilities == {"chat", "structured", "images", "logprobs", "thinking"}
    blind = await probe(OpenAIServer(dialect, FakeModel(sees=False)))
    assert blind.capabilities == {"chat", "structured", "logprobs"}


@pytest.mark.parametrize("dialect", ["vllm", "openai"])
async def test_what_a_server_lacks_is_found(dialect: Dialect) -> None:
    """A server that refuses log-probabilities and structured output has neither, and no scorer."""
    server = OpenAIServer(dialect, lacks=frozenset({"logprobs", "structured"}))
    async with server, opened(server, probe=False) as adapter:
        found = await adapter.probe(TIMEOUT_S)
        assert adapter.scorer is None
    assert found.capabilities == {"chat", "images"}


async def test_a_server_that_ignores_a_schema_has_no_structured_output() -> None:
    """A plain server that takes a schema and answers in prose does not count as able."""
    server = OpenAIServer("openai")
    server.model.text = lambda schema, turns: "Dental."  # type: ignore[method-assign]
    assert "structured" not in (await probe(server)).capabilities


@DIALECTS
async def test_a_probe_costs_a_few_tokens(dialect: Dialect) -> None:
    """Finding out all makes the server write few tokens, which are told; Ollama's model is not even loaded."""
    server = OpenAIServer(dialect)
    found = await probe(server)
    assert server.billed.output < 100
    assert found.tokens.output == server.told.output
    assert bool(found.requests) is bool(server.billed.output)
    assert bool(server.billed.output) is (dialect != "ollama")


@DIALECTS
async def test_a_ping_costs_nothing(dialect: Dialect) -> None:
    """A ping is one GET of /v1/models."""
    server = OpenAIServer(dialect)
    async with server, opened(server, probe=False) as adapter:
        await adapter.ping(TIMEOUT_S)
    assert [(request.method, request.path) for request in server.requests] == [("GET", "/v1/models")]


@DIALECTS
async def test_a_probe_can_be_repeated(dialect: Dialect) -> None:
    """Probing again finds the same; after a restart with another model it finds that one, and the scorer follows."""
    server = OpenAIServer(dialect)
    async with server, opened(server, probe=False) as adapter:
        assert await adapter.probe(TIMEOUT_S) == await adapter.probe(TIMEOUT_S)
        server.model = FakeModel(name="other")
        assert (await adapter.probe(TIMEOUT_S)).model == "other"
        assert (await adapter.complete(asking(), TIMEOUT_S)).model == "other"
        assert adapter.scorer is not None
        await adapter.scorer.score([asking().messages], ("0", "1"), TIMEOUT_S)


@DIALECTS
async def test_a_configured_model_must_be_there(dialect: Dialect) -> None:
    """A model that the server does not have is refused with those that it has, and with a remedy."""
    remedy = "ollama pull nope" if dialect == "ollama" else r"set `model` in \[backends.gemma\]"
    with pytest.raises(UpstreamRejected, match=rf"'nope'; .*{remedy}.* It has tiny, big"):
        await probe(OpenAIServer(dialect, others=("big",)), model="nope")


async def test_the_configured_model_is_taken() -> None:
    """Where several are served, the configured one is asked."""
    server = OpenAIServer("vllm", others=("big",))
    async with server, opened(server, model="big") as adapter:
        assert (await adapter.complete(asking(), TIMEOUT_S)).model == "big"


async def test_a_server_without_models_says_what_to_do() -> None:
    """An Ollama that has nothing to chat with is told to pull something."""
    with pytest.raises(UpstreamRejected, match="serves no model yet; `ollama pull NAME` gets it"):
        await probe(OpenAIServer("ollama", FakeModel(name="embed-only")))


async def test_ollamas_embedding_models_are_passed_over() -> None:
    """Without a configured model, Ollama's first that can complete is chosen."""
    server = OpenAIServer("ollama", FakeModel(name="embed-only"), others=("chatty",))
    assert (await probe(server)).model == "chatty"


async def test_ollamas_latest_may_be_left_out() -> None:
    """A configured name without a tag means the one tagged latest, as Ollama has it."""
    assert (
        await probe(OpenAIServer("ollama", FakeModel(name="gemma3:latest")), model="gemma3")
    ).model == "gemma3:latest"


async def test_a_server_without_a_list_of_models_is_used_if_one_is_configured() -> None:
    """Where /v1/models is missing, a configured model is taken at its word; without one the probe fails."""
    lacks = frozenset({"models"})
    server = OpenAIServer("openai", lacks=lacks)
    async with server, opened(server, probe=False, model="tiny") as adapter:
        assert (await adapter.probe(TIMEOUT_S)).model == "tiny"
        await adapter.ping(TIMEOUT_S)
    with pytest.raises(UpstreamRejected, match="no such endpoint"):
        await probe(OpenAIServer("openai", lacks=lacks))


async def test_vllm_behind_a_gateway_is_found_all_the_same() -> None:
    """Where only /v1 is let through, vLLM's version stays unknown, and thinking shows in a small reply."""
    server = OpenAIServer("vllm", FakeModel(thinks=True), lacks=frozenset({"tokenize", "version"}))
    found = await probe(server)
    assert found.server == "vLLM"
    assert found.capabilities == {"chat", "structured", "images", "logprobs", "thinking"}


@pytest.mark.parametrize("fault", [Fault.SERVER_ERROR, Fault.DROPPED_BEFORE])
async def test_a_failing_server_fails_the_probe(fault: Fault) -> None:
    """A server that cannot answer the first small request is not called incapable but unavailable."""
    server = OpenAIServer("openai", script=(fault,))
    with pytest.raises(UpstreamUnavailable):
        await probe(server)


async def test_a_server_that_fails_on_pictures_has_none() -> None:
    """Some servers answer a picture that they cannot read with 500: as they still answer, they are just blind."""
    faults = (Fault.BAD_REQUEST, *(Fault.OK,) * 3, Fault.SERVER_ERROR)
    server = OpenAIServer("openai", script=faults)
    found = await probe(server)
    assert found.capabilities == {"chat", "structured", "logprobs"}


async def test_a_server_that_fails_on_log_probabilities_has_none() -> None:
    """A server that answers a request for log-probabilities with 500, and still answers, has none."""
    server = OpenAIServer("openai", script=(Fault.BAD_REQUEST, Fault.OK, Fault.SERVER_ERROR))
    assert (await probe(server)).capabilities == {"chat", "structured", "images"}


async def test_an_old_ollama_has_no_log_probabilities() -> None:
    """Ollama tells log-probabilities since 0.12.11."""
    for version, told in (("0.12.10", False), ("0.12.11", True), ("0.13.0-rc1", True)):
        found = await probe(OpenAIServer("ollama", version=version))
        assert ("logprobs" in found.capabilities) is told


async def test_a_model_that_cannot_but_think_is_used_as_it_is() -> None:
    """Where no switch stops the thinking, the model is asked plainly, and nobody claims that it was stopped."""
    server = OpenAIServer("openai", FakeModel(thinks=True), lacks=frozenset({"quiet"}))
    async with server, opened(server, probe=False) as adapter:
        assert "thinking" not in (await adapter.probe(TIMEOUT_S)).capabilities
        reply = await adapter.complete(asking(), TIMEOUT_S)
    assert reply.text == server.model.answer
    assert reply.tokens.thinking > 0


async def test_a_server_that_refuses_everything_fails_the_probe() -> None:
    """When no way of asking is taken, the refusal is raised, after every way was tried once."""
    server = OpenAIServer("openai", script=(Fault.FORBIDDEN,) * 4)
    with pytest.raises(UpstreamRejected, match="rejects the API key"):
        await probe(server)
    assert len(server.bodies()) == 4


async def test_an_older_server_is_given_its_own_name_for_the_limit() -> None:
    """Newer models of OpenAI insist on max_completion_tokens and older servers on max_tokens: each gets its own."""
    for lacks, name in ((frozenset(), "max_completion_tokens"), (frozenset({"modern"}), "max_tokens")):
        server = OpenAIServer("openai", lacks=lacks)
        async with server, opened(server) as adapter:
            await adapter.complete(asking(max_output_tokens=3), TIMEOUT_S)
        assert server.bodies()[0][name] == 3


async def test_a_server_that_replies_with_another_model_is_found_out() -> None:
    """llama.cpp's ignores the name in a request: after a restart it replies with what it has now."""
    server = OpenAIServer("openai", model=FakeModel(name="one"), others=("two",))
    async with server, opened(server) as adapter:
        await adapter.complete(asking(), TIMEOUT_S)
        adapter._traits = msgspec.structs.replace(adapter._known(), model="two")
        for call in (adapter.complete(asking(), TIMEOUT_S), collected(adapter, asking())):
            adapter._wire._answers_as = "one"
            with pytest.raises(NoSuchModel, match="has another model"):
                await call


@pytest.mark.parametrize("dialect", ["vllm", "ollama", "openai"])
async def test_a_ping_notices_that_the_model_is_gone(dialect: Dialect) -> None:
    """So `winnow doctor` says what /backends says; a model that needs no tag is there."""
    server = OpenAIServer(dialect, model=FakeModel(name="tiny:latest"))
    async with server, opened(server, probe=False, model="tiny") as adapter:
        await adapter.ping(TIMEOUT_S)
    async with server, opened(server, probe=False, model="huge") as adapter:
        with pytest.raises(NoSuchModel, match="'huge'; it has tiny:latest"):
            await adapter.ping(TIMEOUT_S)


@pytest.mark.parametrize(
    ("extra", "context"),
    [({"meta": {"n_ctx": 2048}}, 2048), ({"context_length": 8192}, 8192), ({"max_model_len": 512}, 512), ({}, None)],
)
def test_the_context_is_read_where_each_server_says_it(extra: dict[str, object], context: int | None) -> None:
    """Of llama.cpp, OpenRouter, vLLM, and of one that does not say."""
    assert msgspec.convert({"id": "m", **extra}, Model).context_tokens == context
