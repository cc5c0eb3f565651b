from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.backends.router import Backends, Router
from app.backends.settings import RoutingSettings
from app.config.settings import AnswerSettings
from app.domain import ANONYMOUS, AnswerDone, CitationMade, Query, Question, SourcesFound, TextDelta, Turn
from app.errors import InvalidRequest, MissingCapability, UnknownBackend
from app.services.answer import Answerer
from tests.fakes.answering import FoundPassages, WordVectors

pytestmark = pytest.mark.anyio
BENEFITS = ("Dental cover starts on day one.[3] It is free.", "Parental leave lasts 16 weeks. Ask HR.")


def ask(text: str, query: dict[str, Any] | None = None, **fields: Any) -> Question:
    return Question(search=Query(text=text, **(query or {})), **fields)


def answerer(*passages: str) -> tuple[Answerer, FoundPassages]:
    search = FoundPassages(*passages)
    return Answerer(
        search, Backends(), no_models, WordVectors().embed, deadline_s=10, settings=AnswerSettings(min_relevance=0.5)
    ), search


async def no_models() -> Router:
    return Router((), RoutingSettings())


async def test_an_answer_quotes_its_source_and_says_where_it_stands() -> None:
    """The sentence, its marker, and a citation with the document's offsets."""
    service, _ = answerer(*BENEFITS)
    answer = await service.answer(ask("How long does parental leave last?"), ANONYMOUS)
    [citation] = answer.citations
    assert answer.answer == "Parental leave lasts 16 weeks [1]."
    assert (answer.answerable, answer.abstain_reason, answer.unsupported) == (True, None, ())
    assert (citation.document_id, citation.result_id, citation.source) == ("d1", "p1", "1.txt")
    assert (citation.start, citation.end, citation.quote) == (1000, 1030, "Parental leave lasts 16 weeks.")
    assert answer.answer[citation.answer_start : citation.answer_end] == "Parental leave lasts 16 weeks"


async def test_what_the_search_reported_is_passed_on() -> None:
    """Backend, degradations and timings of the search, and our own timings beside them."""
    service, _ = answerer(*BENEFITS)
    answer = await service.answer(ask("How long does parental leave last?"), ANONYMOUS)
    assert (answer.backend.used, answer.degraded) == ("none", ("a search's own note",))
    assert set(answer.timings_ms) == {"embed", "retrieve", "answer", "total"}
    assert answer.timings_ms["total"] >= answer.timings_ms["answer"] > 0
    assert answer.usage.requests == 0


@pytest.mark.parametrize(
    ("question", "language", "says"),
    [
        ("Wer gewann 1966 das Endspiel?", None, "In den Dokumenten"),
        ("Who won the cup final?", None, "I found no answer"),
        ("Who won the cup final?", "fr-CA", "Je n'ai pas trouvé"),
    ],
)
async def test_an_abstention_is_in_the_language_of_the_question_or_the_one_asked_for(
    question: str, language: str | None, says: str
) -> None:
    """Nothing relevant: no citation, a reason, and a sentence that the asker understands."""
    service, _ = answerer(*BENEFITS)
    answer = await service.answer(ask(question, language=language), ANONYMOUS)
    assert answer.answer.startswith(says)
    assert (answer.answerable, answer.abstain_reason, answer.citations) == (False, "below_min_relevance", ())
    assert len(answer.results) == 2


@pytest.mark.parametrize(
    ("before", "says"),
    [
        ((), "I found no answer"),
        ((Turn("user", "Wann ist Urlaub im Jahr?"), Turn("assistant", "In May."), Turn("user", "GPU")), "In den Dok"),
        ((Turn("user", "Wann ist Urlaub im Jahr?"), Turn("user", "Où est le parking ?")), "Je n'ai pas trouvé"),
    ],
)
async def test_a_few_letters_are_in_the_language_that_the_user_spoke_before(
    before: tuple[Turn, ...], says: str
) -> None:
    """Not in the assistant's; the latest turn that tells one counts."""
    service, _ = answerer(*BENEFITS)
    answer = await service.answer(ask("Hi", messages=before), ANONYMOUS)
    assert not answer.answerable
    assert answer.answer.startswith(says)


async def test_the_threshold_of_the_request_goes_before_the_settings() -> None:
    """`min_relevance` of the request decides when it is given, also when it is 0."""
    service, _ = answerer(*BENEFITS)
    assert (await service.answer(ask("Who won the cup?", min_relevance=0.0), ANONYMOUS)).answerable
    assert not (
        await service.answer(ask("How long does parental leave last?", min_relevance=1.0), ANONYMOUS)
    ).answerable


async def test_texts_are_fetched_for_answering_and_hidden_when_not_wanted() -> None:
    """`include_text: false` is about the reply; the answerer needs the texts."""
    service, search = answerer(*BENEFITS)
    answer = await service.answer(ask("How long does parental leave last?", {"include_text": False}), ANONYMOUS)
    assert search.queries[0].include_text
    assert answer.answerable
    assert [hit.text for hit in answer.results] == [None, None]


async def test_only_the_passages_that_fit_are_read() -> None:
    """`context_tokens` bounds the passages that the answerer is given, and these are the results."""
    service, _ = answerer("Dental cover starts on day one.", "Parental leave lasts 16 weeks.")
    answer = await service.answer(ask("How long does parental leave last?", context_tokens=12), ANONYMOUS)
    assert [hit.id for hit in answer.results] == ["p0"]
    assert not answer.answerable


@pytest.mark.parametrize(
    ("backend", "answer_backend", "requested", "ranking"),
    [
        (None, None, "auto", None),
        ("none", None, "extractive", "none"),
        ("extractive", None, "extractive", "none"),
        ("auto", None, "auto", "auto"),
        ("none", "auto", "auto", "none"),
        ("auto", "extractive", "extractive", "auto"),
    ],
)
async def test_who_answers_and_who_ranks(
    backend: str | None, answer_backend: str | None, requested: str, ranking: str | None
) -> None:
    """`answer_backend` falls back on `backend`, which says who ranks; without a model "auto" means quoting."""
    service, search = answerer(*BENEFITS)
    answer = await service.answer(
        ask("How long is leave?", {"backend": backend}, answer_backend=answer_backend), ANONYMOUS
    )
    assert (answer.answer_backend.requested, answer.answer_backend.used) == (requested, "extractive")
    assert (answer.answer_backend.model, answer.answer_backend.fallbacks) == (None, ())
    assert search.queries[0].backend == ranking


@pytest.mark.parametrize(
    ("query", "fields", "error", "pointer", "says"),
    [
        ({}, {"answer_backend": "none"}, MissingCapability, "/answer_backend", "extractive"),
        ({}, {"answer_backend": "gpt"}, UnknownBackend, "/answer_backend", "auto, none, extractive"),
        ({"backend": "gpt"}, {}, UnknownBackend, "/backend", "extractive"),
        ({}, {"check_citations": "model"}, MissingCapability, "/check_citations", "no language model"),
    ],
)
async def test_what_cannot_be_done_is_refused_before_any_work(
    query: dict[str, Any], fields: dict[str, Any], error: type[InvalidRequest], pointer: str, says: str
) -> None:
    """The error points at the field and names what there is; nothing is searched, streamed or not."""
    service, search = answerer(*BENEFITS)
    with pytest.raises(error, match=says) as caught:
        await service.answer(ask("How long is leave?", query, **fields), ANONYMOUS)
    with pytest.raises(error):
        await anext(service.stream(ask("How long is leave?", query, **fields), ANONYMOUS))
    assert [problem.pointer for problem in caught.value.problems] == [pointer]
    assert search.queries == []


async def test_a_follow_up_is_searched_together_with_the_question_before_it() -> None:
    """The previous question helps to find, and a warning says so."""
    service, search = answerer(*BENEFITS)
    answer = await service.answer(
        ask("How long does it last?", messages=(Turn("user", "Tell me about parental leave"),)), ANONYMOUS
    )
    assert search.queries[0].text == "How long does it last? Tell me about parental leave"
    assert answer.citations[0].quote == "Parental leave lasts 16 weeks."
    assert any("previous" in warning for warning in answer.warnings)


@pytest.mark.parametrize(
    ("fields", "ignored"),
    [
        ({"instructions": "Be brief."}, ["`instructions`"]),
        ({"temperature": 0.7, "language": "de"}, ["`temperature`", "`language`"]),
        ({"language": "en-GB", "max_output_tokens": 50, "min_relevance": 0.3}, []),
    ],
)
async def test_what_quoting_cannot_honour_is_said(fields: dict[str, Any], ignored: list[str]) -> None:
    """Each field without effect is one warning, and only those."""
    service, _ = answerer(*BENEFITS)
    answer = await service.answer(ask("How long does parental leave last?", **fields), ANONYMOUS)
    assert answer.answerable
    assert [warning.split()[0] for warning in answer.warnings] == ignored


@pytest.mark.parametrize(("language", "warnings"), [("sw", 1), ("zh-Hans", 0)])
async def test_an_abstention_that_is_not_in_the_language_asked_for_is_said(language: str, warnings: int) -> None:
    """It is in English where we have no words in that language."""
    service, _ = answerer(*BENEFITS)
    answer = await service.answer(ask("Who won the cup final?", language=language, temperature=0.0), ANONYMOUS)
    assert (answer.answerable, len(answer.warnings)) == (False, warnings)


async def test_a_stream_gives_the_sources_then_text_and_citations_then_the_whole() -> None:
    """Sources first, each citation after the text that carries its marker, the finished answer last."""
    service, _ = answerer(*BENEFITS)
    events = [event async for event in service.stream(ask("How long does parental leave last?"), ANONYMOUS)]
    assert [type(event) for event in events] == [SourcesFound, TextDelta, CitationMade, AnswerDone]
    assert isinstance(events[-1], AnswerDone)
    assert 0 < events[-1].answer.timings_ms["first_token"] <= events[-1].answer.timings_ms["total"]


TEXT = st.text("ab leave 12.?!\n牙科。🙂[]", max_size=50)


@settings(deadline=None)  # the first example loads the tables that tell languages apart
@given(st.lists(TEXT, max_size=4), TEXT, st.booleans())
async def test_a_stream_is_the_answer_in_pieces(texts: list[str], question: str, eager: bool) -> None:
    """The concatenated deltas, the citations and the sources of a stream are those of the answer."""
    service, _ = answerer(*texts)
    asked = ask(question, min_relevance=0.0 if eager else 0.6)
    events = [event async for event in service.stream(asked, ANONYMOUS)]
    whole = await service.answer(asked, ANONYMOUS)
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == whole.answer != ""
    assert tuple(event.citation for event in events if isinstance(event, CitationMade)) == whole.citations
    assert events[0] == SourcesFound(whole.results)
