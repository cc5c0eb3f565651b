"""Markers in RAGFlow's form."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from app.api.compat.ragflow.chat import Renumbering, renumbered
from app.domain import Citation
from tests.api.test_answer import CITATION
from tests.fakes.answering import hit

HITS = tuple(hit(f"passage {number}", number) for number in range(4))

Event = str | Citation


def citation(marker: int, place: int) -> Citation:
    return msgspec.structs.replace(CITATION, marker=marker, result_id=HITS[place].id)


CITATIONS = tuple(citation(marker, place) for marker, place in enumerate((2, 0, 2, 3), start=1))


def told(events: list[Event]) -> list[str]:
    """What can be said after each event, and in the end."""
    renumbering = Renumbering()
    renumbering.learn(HITS)
    said = [renumbering.feed(event) if isinstance(event, str) else renumbering.cite(event) for event in events]
    return [*said, renumbering.finish()]


def test_a_marker_is_the_place_of_its_passage() -> None:
    """The second citation, of the first passage, is [ID:0]; quotes of one passage side by side are one marker."""
    assert renumbered("One [1][3]. Two [2][4].", HITS, CITATIONS) == "One [ID:2]. Two [ID:0][ID:3]."


def test_text_goes_out_as_it_comes() -> None:
    """Only what may be a marker that nobody knows yet is held back, and no longer than until it is known."""
    events: list[Event] = ["One ", "[", "1]", CITATIONS[0], ". Tw", "o"]
    assert told(events) == ["One ", "", "", "", "[ID:2]. Tw", "o", ""]


def test_what_nobody_cites_stays() -> None:
    """A number in brackets without a citation is the text's own, also at its end."""
    assert renumbered("See [7] and [1", HITS, CITATIONS) == "See [7] and [1"


@given(
    st.lists(st.sampled_from(["One", " ", "[1]", "[2]", "[3]", "[4]", ".", "[", "]", "12", "[9]"]), max_size=12),
    st.data(),
)
def test_the_pieces_do_not_matter(parts: list[str], data: st.DataObject) -> None:
    """However the text is cut, and wherever citations come after their markers, it becomes the same."""
    text = "".join(parts)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)))))
    pieces: list[Event] = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    cited = [made for made in CITATIONS if f"[{made.marker}]" in text]
    late = data.draw(st.permutations(cited))
    assert "".join(told([*pieces, *late])) == renumbered(text, HITS, CITATIONS)
    early: list[Event] = [*CITATIONS, *pieces]
    assert "".join(told(early)) == renumbered(text, HITS, CITATIONS)
