import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from app.answering.evidence import judge, lexical_clues, promising, split
from app.answering.questions import read
from tests.fakes.answering import hit

TEXTS = st.lists(st.text("ab 12.?!\n牙科。", max_size=40), max_size=4)
QUESTION = read("When was the bridge over the river built?")
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


@given(TEXTS)
def test_clues_are_finite_and_within_their_ranges(texts: list[str]) -> None:
    """Five clues for each sentence, each in [-1, 1]."""
    sentences = split([hit(text, number) for number, text in enumerate(texts)])
    clues = lexical_clues(QUESTION, sentences)
    assert clues.shape == (len(sentences), 5)
    assert np.isfinite(clues).all()
    assert (np.abs(clues) <= 1).all()


@given(TEXTS, st.integers(0, 5))
def test_the_promising_sentences_are_few_and_in_order(texts: list[str], limit: int) -> None:
    """At most `limit` different sentences, in the order of the text."""
    sentences = split([hit(text, number) for number, text in enumerate(texts)])
    kept = promising(lexical_clues(QUESTION, sentences), limit)
    assert len(kept) == min(limit, len(sentences))
    assert kept == sorted(set(kept))


def test_the_sentence_that_answers_scores_best() -> None:
    """With equal vectors the words, the sentence before and the date decide."""
    sentences = split([hit("Trains are fast. Boats are slow."), hit(PASSAGE, 1)])
    clues = lexical_clues(QUESTION, sentences)
    scores = judge(QUESTION, sentences, clues, np.full(len(sentences), 0.5)).scores
    assert sentences[int(np.argmax(scores))].text == "It was built in 1889."


def test_relevance_rises_with_closeness_and_with_shared_words() -> None:
    """Both kinds of evidence count, and neither the rank nor the number of passages enters."""
    near, far = split([hit(PASSAGE)]), split([hit("Bread is baked in 20 minutes.")])

    def relevance(sentences: list, cosine: float) -> float:
        return judge(QUESTION, sentences, lexical_clues(QUESTION, sentences), np.full(len(sentences), cosine)).relevance

    assert relevance(far, 0.1) < 0.05 < relevance(near, 0.1) < relevance(near, 0.7)
    assert relevance(far, 0.1) < relevance(far, 0.7) < relevance(near, 0.7)


def test_a_question_about_nothing_is_not_relevant() -> None:
    """Without content words and closeness there is no evidence."""
    question = read("?")
    sentences = split([hit(PASSAGE)])
    clues = lexical_clues(question, sentences)
    assert judge(question, sentences, clues, np.zeros(len(sentences))).relevance < 0.01
