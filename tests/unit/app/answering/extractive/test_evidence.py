import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.answering.extractive.evidence import lexical_features, promising, score_sentences, split
from app.answering.questions import parse_question
from app.domain import Hit, Scores
from tests.fakes.answering import hit

pytestmark = pytest.mark.numeric

TEXTS = st.lists(st.text("ab 12.?!\n牙科。", max_size=40), max_size=4)
QUESTION = parse_question("When was the bridge over the river built?")
PASSAGE = "The bridge is long. It was built in 1889. Trains use it."


def test_sentences_know_where_they_stand() -> None:
    """A sentence is the passage's text at its offsets."""
    hits = [hit(PASSAGE), hit("Ferries stopped.", 1)]
    assert [s.text for s in split(hits)] == [
        "The bridge is long.",
        "It was built in 1889.",
        "Trains use it.",
        "Ferries stopped.",
    ]
    assert all((hits[s.hit].text or "")[s.start : s.end] == s.text for s in split(hits))


def test_a_sentence_that_came_before_is_left_out() -> None:
    """Overlapping passages do not give the same sentence twice, even when its line breaks differ."""
    assert len(split([hit(PASSAGE), hit("It was built\nin 1889. It rusts.", 1)])) == 4


def test_a_sentence_is_read_in_the_light_of_what_stands_before_it_and_above() -> None:
    """The context of a sentence has the words of the sentence before and of the title."""
    sentence = split([hit(PASSAGE, title="Loire")])[1]
    assert {"bridg", "loire"} <= sentence.context
    assert not {"bridg", "loire"} & sentence.terms


def test_a_title_line_of_plain_text_is_apart_from_the_sentence_below_it() -> None:
    """It is a heading, and its words are above what follows, up to the next; a line broken early is none."""
    first, licence, limit, second, weight = split(
        [
            hit(
                "1. Forklifts\nOnly people with a licence and the badge drive. The limit is 8 km/h.\n\n"
                "2. Loads and shelves\nA shelf carries 900 kg, and no more than that."
            )
        ]
    )
    assert (first.text, first.heading, second.text, second.heading) == (
        "1. Forklifts",
        True,
        "2. Loads and shelves",
        True,
    )
    assert licence.text == "Only people with a licence and the badge drive."
    assert "forkl" in licence.context & limit.context
    assert "forkl" not in weight.context
    assert len(split([hit("The forklift of\nHarrow Quay is slow.")])) == 1


@given(TEXTS)
def test_features_are_finite_and_within_their_ranges(texts: list[str]) -> None:
    """Five features for each sentence, each in [-1, 1]."""
    sentences = split([hit(text, number) for number, text in enumerate(texts)])
    features = lexical_features(QUESTION, sentences)
    assert features.shape == (len(sentences), 5)
    assert np.isfinite(features).all()
    assert (np.abs(features) <= 1).all()


@given(TEXTS, st.integers(0, 5))
def test_the_promising_sentences_are_few_and_in_order(texts: list[str], limit: int) -> None:
    """At most `limit` different sentences, in the order of the text."""
    sentences = split([hit(text, number) for number, text in enumerate(texts)])
    kept = promising(lexical_features(QUESTION, sentences), limit)
    assert len(kept) == min(limit, len(sentences))
    assert kept == sorted(set(kept))


def test_the_sentence_that_answers_scores_best() -> None:
    """With equal vectors the words, the sentence before and the date decide."""
    hits = [hit("Trains are fast. Boats are slow."), hit(PASSAGE, 1)]
    sentences = split(hits)
    features = lexical_features(QUESTION, sentences)
    scores = score_sentences(QUESTION, hits, sentences, features, np.full(len(sentences), 0.5))[0]
    assert sentences[int(np.argmax(scores))].text == "It was built in 1889."


def relevance(hits: list[Hit], cosine: float) -> float:
    sentences = split(hits)
    features = lexical_features(QUESTION, sentences)
    return score_sentences(QUESTION, hits, sentences, features, np.full(len(sentences), cosine))[1]


def scored(passage: str, dense: float | None = None, sparse: float | None = None, number: int = 0) -> Hit:
    return msgspec.structs.replace(hit(passage, number), scores=Scores(dense=dense, sparse=sparse))


def test_relevance_rises_with_the_cosine_and_with_shared_words() -> None:
    """Both kinds of evidence count."""
    near, far = [hit(PASSAGE)], [hit("Bread is baked in 20 minutes.")]
    assert relevance(far, 0.1) < 0.01 < relevance(near, 0.1) < 0.1 < relevance(near, 0.7)
    assert relevance(far, 0.1) < relevance(far, 0.7) < relevance(near, 0.7)


def test_relevance_rises_with_what_retrieval_found() -> None:
    """A passage that lies near, and one that leads by its words, are evidence."""
    assert relevance([scored(PASSAGE, dense=0.2)], 0.2) < relevance([scored(PASSAGE, dense=0.6)], 0.2)
    assert relevance([scored(PASSAGE, sparse=1.0)], 0.2) < relevance([scored(PASSAGE, sparse=9.0)], 0.2)


def test_words_that_all_passages_hold_are_no_lead() -> None:
    """The same BM25 points count less when passages further down have as many."""
    first = scored(PASSAGE, sparse=9.0)
    behind = [scored(f"Passage {number}.", sparse=8.0, number=number) for number in range(1, 6)]
    assert relevance([first, *behind], 0.2) < relevance([first], 0.2)


def test_a_search_without_a_dense_side_costs_no_relevance() -> None:
    """The sentence's own cosine stands in for its passage's."""
    assert relevance([scored(PASSAGE)], 0.6) == relevance([scored(PASSAGE, dense=0.6)], 0.6)


def test_a_sentence_is_read_in_the_light_of_the_heading_inside_its_passage() -> None:
    """What follows a heading is about it until the next one; a heading is marked as such."""
    sentences = split([hit("## Forklifts\n\nDrive slowly. Nobody rides along.\n\n## Fire\n\nLeave at once.")])
    assert [sentence.heading for sentence in sentences] == [True, False, False, True, False]
    assert ["forkl" in sentence.context for sentence in sentences] == [True, True, True, False, False]


def test_the_title_repeated_in_the_text_is_a_heading() -> None:
    """Whatever its case and its colon."""
    assert [sentence.heading for sentence in split([hit("Help desk:\n\nCall us.", title="Help Desk")])] == [True, False]


def test_near_relatives_of_a_word_count_in_part() -> None:
    """A compound that holds the word is better than nothing and less than the word itself."""
    question = parse_question("Was kostet der Versand?")
    texts = ("Der Versand.", "Die Eilversandgebühren.", "Die Öffnungszeiten.")
    exact, variant, none = (float(lexical_features(question, split([hit(text)]))[0, 3]) for text in texts)
    assert exact > variant > none == 0


def test_a_question_about_nothing_is_not_relevant() -> None:
    """Without content words and cosine there is no evidence."""
    question = parse_question("?")
    hits = [hit(PASSAGE)]
    sentences = split(hits)
    features = lexical_features(question, sentences)
    assert score_sentences(question, hits, sentences, features, np.zeros(len(sentences)))[1] < 0.01


RULES = [hit("Dogs are welcome on the ground floor. Reptiles are not permitted. The bar closes at midnight.")]


@pytest.mark.parametrize(
    ("question", "cosines", "ruled"),
    [
        ("Are snakes allowed?", (0.1, 0.6, 0.0), True),
        ("Are snakes allowed?", (0.4, 0.6, 0.0), False),
        ("Are bicycles allowed?", (0.1, 0.3, 0.0), False),
        ("What do snakes eat?", (0.1, 0.6, 0.0), False),
        ("Are guests welcome after one?", (0.1, 0.2, 0.6), False),
    ],
)
def test_a_rule_about_the_kind_answers_without_a_shared_word(
    question: str, cosines: tuple[float, ...], ruled: bool
) -> None:
    """Where it is asked what may be, and one sentence that says so is far nearer than all others."""
    parsed, sentences = parse_question(question), split(RULES)
    features = lexical_features(parsed, sentences)
    scores, relevance = score_sentences(parsed, RULES, sentences, features, np.array(cosines))
    assert (relevance == max(cosines)) is ruled
    assert not ruled or int(np.argmax(scores)) == 1
