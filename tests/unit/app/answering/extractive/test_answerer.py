import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.answering.extractive.answerer import MAX_EMBEDDED, ExtractiveSettings, Selection, select_sentences
from app.answering.prompts import estimate_tokens
from app.answering.questions import parse_question
from tests.fakes.answering import BlindVectors, WordVectors, hit

pytestmark = [pytest.mark.anyio, pytest.mark.numeric]
LEAVE = "Dental cover starts on day one. Parental leave lasts 16 weeks. It is paid in full. Ask HR."


SETTINGS = ExtractiveSettings(min_relevance=0.5, max_sentences=3, margin=0.5)


async def chosen(question: str, *texts: str, max_tokens: int = 1024, **changes: float) -> Selection:
    hits = [hit(text, number) for number, text in enumerate(texts)]
    settings = msgspec.structs.replace(SETTINGS, **changes)
    return await select_sentences(parse_question(question), hits, WordVectors().embed, settings, max_tokens)


def shown(selection: Selection) -> list[str]:
    return [sentence.text for sentence in selection.sentences]


async def test_the_sentence_that_answers_is_chosen_alone() -> None:
    """One sentence answers, so one is given."""
    assert shown(await chosen("How long does parental leave last?", LEAVE)) == ["Parental leave lasts 16 weeks."]


async def test_the_words_of_a_title_line_do_not_make_the_next_sentence_the_answer() -> None:
    """What is asked for decides: a speed stands in the sentence after it."""
    text = "1. Forklifts\nOnly people with a licence and the yellow badge drive. The limit is 8 km/h inside."
    assert shown(await chosen("How fast may a forklift go?", text, min_relevance=0.0)) == [
        "The limit is 8 km/h inside."
    ]


async def test_without_passages_there_are_no_results() -> None:
    """Nothing was found: say so."""
    assert (await chosen("How long is parental leave?")).abstain_reason == "no_results"


async def test_passages_about_something_else_are_not_relevant_enough() -> None:
    """Something was found, as always; it is not about the question."""
    choice = await chosen("Who won the cup final in 1966?", LEAVE)
    assert (choice.abstain_reason, choice.sentences) == ("below_min_relevance", ())


@pytest.mark.parametrize("passage", ["How long does parental leave last?", "Parental leave last", "***", ""])
async def test_a_passage_that_only_repeats_the_question_does_not_support_an_answer(passage: str) -> None:
    """Headings, questions and ornaments are not answers, however close they are."""
    choice = await chosen("How long does parental leave last?", passage, min_relevance=0.0)
    assert (choice.abstain_reason, choice.sentences) == ("unsupported", ())


async def test_a_threshold_of_nought_answers_whatever_there_is_and_one_of_one_never_does() -> None:
    """`min_relevance` spans from always to never."""
    assert shown(await chosen("Who won the cup final?", LEAVE, min_relevance=0.0))
    assert not shown(await chosen("How long does parental leave last?", LEAVE, min_relevance=1.0))


async def test_words_alone_carry_where_the_embedder_cannot_read() -> None:
    """With an embedder that finds all texts alike, the question's own words still answer and still abstain."""
    passages = [hit("牙科保险从第一天开始生效。产假为十六周。", 0), hit("员工可以申请培训。", 1)]
    embed = BlindVectors().embed
    answered = await select_sentences(parse_question("产假为多少周？"), passages, embed, SETTINGS, 1024)
    refused = await select_sentences(parse_question("世界杯决赛的冠军是谁？"), passages, embed, SETTINGS, 1024)
    assert shown(answered) == ["产假为十六周。"]
    assert refused.abstain_reason == "below_min_relevance"


async def test_sentences_of_a_passage_keep_their_order() -> None:
    """Within a passage the order is the text's, whichever sentence is the better one."""
    texts = shown(await chosen("How long does parental leave last?", LEAVE, margin=99))
    assert texts == [text for text in ("Dental cover starts on day one.", *shown_all(LEAVE)[1:]) if text in texts]
    assert len(texts) == 3


def shown_all(passage: str) -> list[str]:
    return [f"{text}." for text in passage.rstrip(".").split(". ")]


async def test_the_answer_keeps_within_its_tokens() -> None:
    """Further sentences are left out; a single one that is too long is cut, its quote still a part of the passage."""
    assert len(shown(await chosen("How long does parental leave last?", LEAVE, margin=99, max_tokens=14))) == 1
    assert shown(await chosen("How long does parental leave last?", LEAVE, max_tokens=9)) == ["Parental leave lasts"]


async def test_few_sentences_are_embedded_and_in_one_call() -> None:
    """A long passage costs no more embedding than a short one."""
    vectors = WordVectors()
    passage = " ".join(f"Rule {number} is about leave." for number in range(200))
    await select_sentences(parse_question("What are the rules about?"), [hit(passage)], vectors.embed, SETTINGS, 1024)
    assert vectors.texts == MAX_EMBEDDED + 1


TEXT = st.text("ab 12.?!\n牙科。é🙂مر\u202e[]", max_size=60)


@given(st.lists(TEXT, max_size=4), TEXT, st.integers(1, 40))
async def test_what_is_chosen_is_always_cut_from_the_passages(texts: list[str], question: str, budget: int) -> None:
    """Any text: either a reason, or one to three different sentences, verbatim, within the tokens."""
    hits = [hit(text, number) for number, text in enumerate(texts)]
    settings = msgspec.structs.replace(SETTINGS, min_relevance=0, margin=5)
    choice = await select_sentences(parse_question(question), hits, WordVectors().embed, settings, budget)
    assert bool(choice.sentences) == (choice.abstain_reason is None)
    assert len({s.text for s in choice.sentences}) == len(choice.sentences) <= 3
    assert all((hits[s.hit].text or "")[s.start : s.end] == s.text for s in choice.sentences)
    assert len(choice.sentences) <= 1 or sum(estimate_tokens(s.text) for s in choice.sentences) <= budget
    assert choice == await select_sentences(parse_question(question), hits, WordVectors().embed, settings, budget)
