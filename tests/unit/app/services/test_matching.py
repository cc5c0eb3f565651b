"""How well texts match a query, without an index."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.services.rerank import WordMatcher, both, match_vectors
from indexing.retrieval.bm25 import Lexical

pytestmark = pytest.mark.numeric

LEXICAL = Lexical()
MATCHER = WordMatcher(LEXICAL)
ODD = (
    *(
        "end-to-end",
        "mid-may 3, 2024,",
        "May 3, 2024",
        "3 may 2024",
        "(May 2024)",
        "de89",
        "3704",
        "0044",
        "0532",
        "013",
    ),
    *(
        "U.S.",
        "don't",
        "well–known",
        "naïve",
        "Straße",
        "C++",
        "§ 812",
        "1,234.50",
        "http://a.b/c?d=e",
        "x" * 50,
        "10\u00a0000",
    ),
    *(
        "日本",
        "Ωmega",
        "the",
        "“quoted”",
        "The",
        "cat",
        "cats",
        "2",
        "state-of-the-art",
        "AB-1234/5",
        "co2",
        "é",
        "v2.1",
    ),
)
WORDS = st.lists(st.sampled_from(["dental", "cover", "office", "the", "日本", "", "7"]), max_size=8).map(" ".join)


@given(WORDS, st.lists(WORDS, max_size=8))
def test_matches_by_words_are_within_bounds(query: str, texts: list[str]) -> None:
    """One in [0,1] for each text, 0 where no word is shared, equal for equal texts."""
    found = MATCHER.match(query, texts)
    assert len(found) == len(texts)
    assert all(0 <= match < 1 for match in found)
    assert len({(text, match) for text, match in zip(texts, found, strict=True)}) == len(set(texts))


@given(
    st.lists(st.sampled_from(ODD), max_size=8).map(" ".join), st.lists(st.sampled_from(ODD), min_size=1, max_size=30)
)
def test_words_match_as_in_an_index(query: str, pieces: list[str]) -> None:
    """What is remembered of the pieces of a text gives its terms the weights of an index, to the last bit."""
    text = " ".join(pieces)
    (found,) = MATCHER.match(query, [text])
    (again,) = _Plain(LEXICAL).match(query, [text])
    assert found == again


class _Plain(WordMatcher):
    """Weighs all texts as an index does."""

    def _weights(self, text: str, terms: frozenset[int]) -> dict[int, float]:
        return LEXICAL.matching(text, terms)


def test_more_of_the_query_is_a_better_match() -> None:
    """Both words beat one, the rare word beats the frequent one, and none is 0."""
    texts = ["dental cover", "dental plan", "cover page", "cover letter", "cover story", "parking"]
    whole, rare, frequent, *_, none = MATCHER.match("dental cover", texts)
    assert whole > rare > frequent > none == 0


def test_a_match_hardly_depends_on_the_others() -> None:
    """A text alone has nearly the score that it has among fifty."""
    (alone,) = MATCHER.match("dental cover", ["dental cover starts"])
    among = MATCHER.match("dental cover", ["dental cover starts", *(f"office {n}" for n in range(50))])[0]
    assert alone == pytest.approx(among, abs=0.02)


def test_vectors_count_from_what_is_unrelated() -> None:
    """A cosine of an unrelated text is 0, one unit above is 1, and what is beyond is cut."""
    texts = np.array([[0.1, 0], [0.35, 0], [0.6, 0], [0.9, 0], [-0.5, 0]], dtype=np.float32)
    query = np.array([1, 0], dtype=np.float32)
    assert match_vectors(query, texts, 0.1, 0.5) == pytest.approx([0, 0.5, 1, 1, 0], abs=1e-6)


def test_equal_texts_match_equally() -> None:
    """Wherever they stand in the list, to the last digit: ties are broken by their place alone."""
    random = np.random.default_rng(1)
    for count in range(1, 40):
        query, text = (vector / np.linalg.norm(vector) for vector in random.normal(size=(2, 64)).astype(np.float32))
        assert len(set(match_vectors(query, np.tile(text, (count, 1)), -1.0, 2.0))) == 1


def test_both_is_their_mean() -> None:
    """Neither side outweighs the other."""
    assert both([0.0, 1.0], [0.5, 1.0]) == [0.25, 1.0]


def test_vectors_may_count_for_less() -> None:
    """By their share."""
    assert both([0.0, 1.0], [1.0, 0.0], 0.25) == [0.25, 0.75]
