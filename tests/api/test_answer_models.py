"""POST /answer with models that write; they are fake servers on real sockets, and read the real prompts."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from app.backends.settings import BudgetSettings, PriceSettings
from app.domain import Answer
from tests.api.conftest import SharedStore
from tests.fakes.answering_model import AnsweringModel
from tests.fakes.answering_service import KINDS, PATIENT, AnsweringService, answering_service, server_of, text_of
from tests.fakes.faults import Fault
from tests.fakes.openai_server import SECRET, OpenAIServer

pytestmark = pytest.mark.anyio

Answering = Callable[..., AbstractAsyncContextManager[AnsweringService]]


@pytest.fixture
def answering(tmp_path: Path, store: SharedStore) -> Answering:
    """`answering_service` over HANDBOOK."""
    return partial(answering_service, tmp_path, store=store)


DENTAL = "When does dental cover start?"
STARTS = "Dental cover starts on the first day of work [1]."
REFUSAL = "I found no answer to this question in the documents."


def model(kind: str = "vllm", mind: AnsweringModel | None = None, **fields: Any) -> dict[str, Any]:
    return {"tiny": server_of(kind, mind or AnsweringModel(), **fields)}


def saying(text: str) -> AnsweringModel:
    """Says this whatever it is asked, if only it is shown a passage with the question's words."""
    return AnsweringModel(dress=lambda _: text)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_model_answers_in_every_dialect(answering: Answering, kind: str) -> None:
    """A quote that is verbatim at its offsets, who wrote it, what it cost, and where the time went."""
    async with answering(model(kind)) as service:
        answer = await service.ask(DENTAL)
        assert (answer["answer"], answer["answerable"], answer["abstain_reason"]) == (STARTS, True, None)
        [citation] = answer["citations"]
        assert (citation["document_id"], citation["verified"], citation["support"]) == ("dental", True, "structural")
        assert citation["quote"] == "Dental cover starts on the first day of work."
        assert answer["answer"][citation["answer_start"] : citation["answer_end"]] == STARTS.removesuffix(" [1].")
        assert (answer["answer_backend"]["requested"], answer["answer_backend"]["used"]) == ("auto", "tiny")
        assert answer["backend"]["used"] == "none"
        assert answer["usage"]["by_stage"].keys() == {"answer"}
        assert answer["usage"]["requests"] == 1
        assert answer["usage"]["input_tokens"] > 100
        assert answer["timings_ms"].keys() == {"embed", "retrieve", "answer", "total"}
        assert (answer["warnings"], answer["degraded"], answer["unsupported"]) == ([], [], [])


async def test_a_cut_answer_says_so_in_a_warning(answering: Answering) -> None:
    """Whole and streamed, and in no field of its own."""
    endless = saying("Dental cover starts on the first day of work [1.1]. It is" + " so" * 99)
    async with answering(model(mind=endless)) as service:
        whole = await service.ask(DENTAL, max_output_tokens=50)
        done = (await service.stream(DENTAL, max_output_tokens=50))[-1][1]
        assert whole["warnings"] == done["warnings"] == ["The answer was cut off: it used up max_output_tokens."]
        assert {*whole} == {*done, "answer"} == {*Answer.__struct_fields__}


@pytest.mark.parametrize("kind", KINDS)
async def test_the_stream_is_the_answer_in_pieces(answering: Answering, kind: str) -> None:
    """Sources, text, citations and the whole; the deltas are the answer, whatever pieces the model spoke in."""
    async with answering(model(kind)) as service:
        for query in (DENTAL, "Who won the cup final?", "Is parking free for staff?"):
            whole, events = await service.ask(query), await service.stream(query)
            assert text_of(events) == whole["answer"]
            assert events[0] == ("sources", {"results": whole["results"]})
            assert [data for name, data in events if name == "citation"] == whole["citations"]
            done = events[-1][1]
            assert events[-1][0] == "done"
            assert done.keys() == whole.keys() - {"answer"}
            assert {key: done[key] for key in done if key not in ("usage", "timings_ms")} == {
                key: whole[key] for key in done if key not in ("usage", "timings_ms")
            }
            assert 0 < done["timings_ms"]["first_token"] <= done["timings_ms"]["total"]


async def test_ranking_and_answering_are_on_one_bill(answering: Answering) -> None:
    """One backend ranks and answers; each stage has its own line, and the sum is the servers'."""
    async with answering(model()) as service:
        answer = await service.ask(DENTAL, backend="tiny", answer_backend=None)
        usage, stages = answer["usage"], answer["usage"]["by_stage"]
        assert list(answer["timings_ms"]) == ["retrieve", "embed", "rank", "answer", "total"]
        assert stages.keys() == {"rank", "answer"}
        for field in ("requests", "input_tokens", "output_tokens"):
            assert usage[field] == sum(stage[field] for stage in stages.values())
        # Of a batch the server does not tell what it found in its cache, so nobody knows the sum.
        assert (stages["rank"]["cached_tokens"], usage["cached_tokens"]) == (None, None)
        assert stages["answer"]["cached_tokens"] is not None
        assert answer["backend"]["used"] == answer["answer_backend"]["used"] == "tiny"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("NO_ANSWER", "model_declined"),
        (" **No_Answer.** ", "model_declined"),
        ("`NO\\_ANSWER`", "model_declined"),
        ("no answer", "model_declined"),
        ("NO_ANSWER. But cover starts [1.1].", "model_declined"),
        ("I cannot tell: NO_ANSWER", "model_declined"),
        (" \n", "model_declined"),
        ("It starts on the first day.", "unsupported"),
        ("It starts on the first day [7.1].", "unsupported"),
        ("It starts on 4 May 2031 [1.1].", "unsupported"),
    ],
)
async def test_what_rests_on_nothing_is_not_said(answering: Answering, said: str, reason: str) -> None:
    """However a model declines, or talks without support: not a word of it gets out, streamed or not."""
    async with answering(model(mind=saying(said))) as service:
        whole, events = await service.ask(DENTAL), await service.stream(DENTAL)
        assert (whole["answerable"], whole["abstain_reason"]) == (False, reason)
        assert (whole["citations"], whole["unsupported"]) == ([], [])
        assert text_of(events) == whole["answer"]
        assert whole["answer"] == (REFUSAL if reason == "model_declined" else whole["answer"])
        assert "day" not in whole["answer"]
        assert [name for name, _ in events] == ["sources", "delta", "done"]


async def test_a_word_of_declining_within_an_answer_is_left_out(answering: Answering) -> None:
    """What was said before it stands."""
    said = "Dental cover starts on the first day of work [1.1]. NO_ANSWER\n"
    async with answering(model(mind=saying(said))) as service:
        whole, events = await service.ask(DENTAL), await service.stream(DENTAL)
        assert whole["answer"] == text_of(events) == STARTS


async def test_a_refusal_is_in_the_language_of_the_question(answering: Answering) -> None:
    """Or in the one that is asked for."""
    async with answering(model(mind=saying("NO_ANSWER"))) as service:
        assert (await service.ask("Wann beginnt der Urlaub im Jahr?"))["answer"].startswith("In den Dokumenten")
        assert (await service.ask(DENTAL, language="fr"))["answer"].startswith("Je n'ai pas")


async def test_nobody_is_asked_about_what_is_not_there(answering: Answering) -> None:
    """Below `min_relevance`, and without any result, the answer is known before a model is called."""
    async with answering(model()) as service:
        below = await service.ask("Who won the cup final?", min_relevance=0.9)
        nothing = await service.ask(DENTAL, filter={"lang": "xx"})
        ranked = await service.ask(DENTAL, backend="tiny", min_relevance=1)
        reasons = [one["abstain_reason"] for one in (below, nothing, ranked)]
        assert reasons == ["below_min_relevance", "no_results", "below_min_relevance"]
        assert below["usage"]["requests"] == nothing["usage"]["requests"] == 0
        assert ranked["usage"]["by_stage"].keys() == {"rank"}
        assert below["answer_backend"] == {"requested": "auto", "used": "none", "model": None, "fallbacks": []}
        assert len(below["results"]) == 4


async def test_markers_of_nothing_are_removed_and_counted(answering: Answering) -> None:
    """The rest of the answer stands."""
    said = "Dental cover starts on the first day of work [1.1][9.9]."
    async with answering(model(mind=saying(said))) as service:
        answer = await service.ask(DENTAL)
        assert answer["answer"] == STARTS
        assert answer["warnings"] == ["Citation markers that refer to no passage were removed: 1."]


async def test_an_answer_that_is_cut_says_so(answering: Answering) -> None:
    """`max_output_tokens` is the model's, and a cut is a warning."""
    said = "Dental cover starts on the first day of work [1.1]. " + "It is long. " * 50
    async with answering(model(mind=saying(said))) as service:
        answer = await service.ask(DENTAL, max_output_tokens=30)
        assert answer["answerable"]
        assert any("max_output_tokens" in warning for warning in answer["warnings"])
        assert len(answer["answer"]) < 120


async def test_what_cites_nothing_is_left_out_and_what_cites_wrongly_is_listed(answering: Answering) -> None:
    """The answer holds what stands on citations alone; those that do not hold are pointed at."""
    founded = "The company was founded in Boston in 1920"
    said = f"Dental cover starts on the first day of work [1.1]. {founded}. {founded} [1.1]."
    async with answering(model(mind=saying(said))) as service:
        answer = await service.ask(DENTAL)
        [span] = answer["unsupported"]
        assert answer["answer"] == f"{STARTS} {founded} [1]."
        assert answer["answer"][span["start"] : span["end"]] == founded
        assert answer["warnings"] == ["Statements without a citation were left out: 1."]


async def test_the_same_request_is_the_same_prompt(answering: Answering) -> None:
    """Ten times, byte by byte, so that a server finds its beginning in the cache, ranked and answered."""
    async with answering(model()) as service:
        for _ in range(10):
            await service.ask(DENTAL, backend="tiny", ranking={"strategy": "listwise"})
        sent = [call.body for call in service.server.requests if call.path == "/v1/chat/completions"]  # type: ignore[union-attr]
    asked = [body for body in sent if b'"Answer with 1 or 0: 1"' not in body and b"image_url" not in body]
    assert len(asked) == 20
    assert len(set(asked)) == 2


async def test_texts_can_be_left_out_of_the_reply(answering: Answering) -> None:
    """`include_text: false`: the model reads them, the client need not."""
    async with answering(model()) as service:
        answer = await service.ask(DENTAL, include_text=False)
        assert answer["answer"] == STARTS
        assert {hit["text"] for hit in answer["results"]} == {None}


async def test_a_small_window_shows_fewer_passages(answering: Answering) -> None:
    """A server that reads little is shown what fits, the best first, and asked for no more than it can write."""
    mind = AnsweringModel()
    server = server_of("vllm", mind)
    assert isinstance(server, OpenAIServer)
    server.model.context = 700
    async with answering({"tiny": server}) as service:
        answer = await service.ask(DENTAL)
        assert answer["answer"] == STARTS
        assert len(answer["results"]) < 4
        assert server.bodies()[-1]["max_tokens"] <= 350


async def test_the_operators_instructions_and_the_language_reach_the_model(answering: Answering) -> None:
    """In the system turn and beside the question; control tokens in them are broken up."""
    mind = AnsweringModel()
    async with answering(model(mind=mind)) as service:
        await service.ask(DENTAL, instructions="Be formal.<end_of_turn>", language="de")
        (_, system), (_, prompt) = mind.asked[-1]
        assert "Be formal.< end_of_turn>" in system
        assert "'de'" in prompt


EARLY = {
    Fault.BAD_REQUEST: 502,
    Fault.UNAUTHORIZED: 502,
    Fault.UNKNOWN_MODEL: 502,
    Fault.RATE_LIMITED: 503,
    Fault.RATE_LIMITED_WITH_DELAY: 503,
    Fault.SERVER_ERROR: 503,
    Fault.UNAVAILABLE: 503,
    Fault.BLOCKED_PROMPT: 502,
    Fault.DROPPED_BEFORE: 503,
    Fault.EMPTY_REPLY: 502,
}


async def known(service: AnsweringService) -> None:
    """The probes are over, so that the next call is ours."""
    for line in (await service.services.pool.get()).router.clients.values():
        await line.known()


def expect(service: AnsweringService, *faults: Fault) -> None:
    server = service.server
    server.expect(*faults) if isinstance(server, OpenAIServer) else server.script.extend(faults)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", ["gemini", "vllm"])
async def test_an_early_failure_keeps_its_status(answering: Answering, kind: str, stream: bool) -> None:
    """What a model's server does wrong before its first word is a problem with its own status, not a stream."""
    async with answering(model(kind)) as service:
        for fault, status in EARLY.items():
            await known(service)  # a model that was not there is looked for again
            expect(service, fault)
            response = await service.client.post(
                "/answer", json={"query": DENTAL, "backend": "none", "answer_backend": "tiny", "stream": stream}
            )
            assert (response.status_code, SECRET in response.text) == (status, False), (fault, response.text)
            assert response.headers["content-type"] == "application/problem+json"
            (await service.services.pool.get()).router.clients["tiny"].replicas.first.breaker.close()
        await service.idle()


@pytest.mark.parametrize("kind", ["gemini", "vllm"])
@pytest.mark.parametrize("fault", [Fault.DROPPED_MIDWAY, Fault.ERROR_IN_STREAM, Fault.TRUNCATED_STREAM])
async def test_a_late_failure_is_an_event(answering: Answering, kind: str, fault: Fault) -> None:
    """The status is sent by then; the stream ends with the problem, and nobody made up an answer."""
    async with answering(model(kind)) as service:
        await known(service)
        expect(service, fault)
        events = await service.stream(DENTAL)
        assert (events[0][0], events[-1][0]) == ("sources", "error")
        assert events[-1][1]["status"] in (502, 503)
        assert "done" not in [name for name, _ in events]
        await service.idle()


async def test_another_backend_takes_over(answering: Answering) -> None:
    """For "auto": the response says who failed and why."""
    servers = {"first": server_of("gemini", AnsweringModel()), "second": server_of("vllm", AnsweringModel())}
    async with answering(servers) as service:
        await known(service)
        for ask in (service.ask, service.stream):
            expect(service, Fault.SERVER_ERROR)
            told: Any = await ask(DENTAL)
            use = (told if isinstance(told, dict) else told[-1][1])["answer_backend"]
            assert use["used"] == "second"
            assert use["fallbacks"] == [{"backend": "first", "reason": "unavailable"}]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("body", "kind", "pointer"),
    [
        ({"answer_backend": "gpt"}, "unknown-backend", "/answer_backend"),
        ({"answer_backend": None, "backend": "gpt"}, "unknown-backend", "/backend"),
        ({"answer_backend": "none"}, "missing-capability", "/answer_backend"),
        ({"answer_backend": "plain", "check_citations": "model"}, "missing-capability", "/answer_backend"),
    ],
)
async def test_who_cannot_answer_is_refused_before_any_work(
    answering: Answering, body: dict[str, Any], kind: str, pointer: str, stream: bool
) -> None:
    """422 that points at the field and lists the names; nothing was asked of a model."""
    mind = AnsweringModel()
    plain_one = server_of("openai", mind, lacks=frozenset({"logprobs", "structured"}))
    async with answering({"plain": plain_one}) as service:
        await known(service)
        told = {"query": DENTAL, "backend": "none", "stream": stream, **body}
        response = await service.client.post("/answer", json=told)
        assert response.status_code == 422, response.text
        assert response.json()["type"] == f"urn:winnow:problem:{kind}"
        assert [problem["pointer"] for problem in response.json()["errors"]] == [pointer]
        assert "plain" in response.json()["detail"]
        assert mind.asked == []


async def test_a_spent_budget_is_402(answering: Answering) -> None:
    """Streamed or not, before the first word."""
    told = msgspec.structs.replace(PATIENT, price=PriceSettings(input=1000.0, output=1000.0))
    budgets = BudgetSettings(daily_usd=1e-6)
    async with answering(model(), told=told, budgets=budgets) as service:
        assert "$" in (await service.ask(DENTAL, status=402))["detail"]
        assert "$" in (await service.ask(DENTAL, status=402, stream=True))["detail"]
        assert (await service.ask(DENTAL, answer_backend="extractive"))["answerable"]


async def test_answers_are_in_the_ledger(answering: Answering) -> None:
    """Each stage under the request's id."""
    async with answering(model()) as service:
        body = {"query": "and when does it start?", "messages": [{"role": "user", "content": "dental cover"}]}
        await service.client.post("/answer", json=body, headers={"X-Request-Id": "req-4711"})
        rows = map(msgspec.json.decode, (await service.client.get("/usage/export")).text.splitlines())
        stages = [row["stage"] for row in rows if row["request_id"] == "req-4711"]
        assert sorted(stages) == ["answer", "condense", "rank"]
