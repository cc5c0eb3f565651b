"""Rows of tables, and what of them answers."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.answering.extractive.rows import Row, answering, pieces
from app.answering.questions import parse_question
from tests.fakes.answering import hit

SITES = "site,employees,head\nBautzen,97,Ruth Adler\nGörlitz,214,Marek Nowak\n"
MARKDOWN = "# Cities\n\n| City | Population |\n|---|---|\n| Osaka | 2,750,000 |\n| Kyoto | 1,440,000 |\n\nSee there."
FRUIT = "Obst\tPreis pro Kilo\tHerkunft\nAprikosen\t4,80 €\tWachau\nMirabellen\t3,90 €\tLothringen\n"
HALLS = "Raum;Plätze;Miete pro Tag\nSaal Elbe;120;340 €\nSaal Mulde;45;160 €\n"


GUARANTEES = "Product | Guarantee\nLark kettles | 5 years\nWren travel kettle | 3 years\n\nAsk us."
PRICES = "article,name,price_eur\nFL-1702,Lark 17 Vario,129.00\nFL-1001,Lark 10,64.00\n"


def told(question: str, text: str, heading: tuple[str, ...] = (), start: int = 0) -> list[str]:
    """What the rows of a text tell."""
    rows = [row for _, row in pieces(msgspec.structs.replace(hit(text, start=start), heading=heading)) if row]
    table = [row for row in rows if not row.header]
    return [text for text in answering(parse_question(question), table, " ".join(heading)) if text]


@pytest.mark.parametrize(
    ("question", "text", "answer"),
    [
        ("How many employees are there in Görlitz?", SITES, "site: Görlitz; employees: 214"),
        ("Wie viele Mitarbeiter gibt es in Görlitz?", SITES, "site: Görlitz; employees: 214"),
        ("Tell me about Bautzen", SITES, "site: Bautzen; employees: 97; head: Ruth Adler"),
        ("population of Kyoto?", MARKDOWN, "City: Kyoto; Population: 1,440,000"),
        ("Was kostet ein Kilo Mirabellen?", FRUIT, "Obst: Mirabellen; Preis pro Kilo: 3,90 €"),
        ("Wie viele Plätze hat der Saal Mulde?", HALLS, "Raum: Saal Mulde; Plätze: 45"),
        ("What is the guarantee on the Wren?", GUARANTEES, "Product: Wren travel kettle; Guarantee: 3 years"),
        ("How much does the Lark Vario cost?", PRICES, "name: Lark 17 Vario; price eur: 129.00"),
        ("青岛有多少员工？", "城市,员工人数,经理\n大连,86,王芳\n青岛,142,李强\n", "城市: 青岛; 员工人数: 142"),
    ],
)
def test_a_row_answers_with_the_column_that_is_asked_for(question: str, text: str, answer: str) -> None:
    """By its name or by that of the attribute, in whatever language; with all columns if none is asked for."""
    assert told(question, text) == [answer]


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("How many employees are there in Dresden?", SITES),
        ("What does Görlitz cost?", SITES),
        ("What is the address of the site in Görlitz?", SITES),
        ("Was kostet ein Kilo Quitten?", FRUIT),
        ("Wie hoch ist die Miete für den Saal Spree?", HALLS),
    ],
)
def test_a_row_of_another_name_or_without_the_column_is_no_answer(question: str, text: str) -> None:
    """What all rows share ("Saal") names none of them."""
    assert told(question, text) == []


def test_all_rows_answer_where_the_question_names_what_they_share() -> None:
    """And nothing that is nowhere in the table."""
    assert len(told("What is the guarantee on a kettle?", GUARANTEES)) == 2
    assert told("What is the guarantee on a copper kettle?", GUARANTEES) == []


def test_the_head_of_a_table_is_above_the_passage() -> None:
    """In the passages after its first one."""
    rows = "Görlitz,214,Marek Nowak\nZittau,61,Ines Kuhn"
    assert told("Who is the head in Zittau?", rows, ("site,employees,head",), 400) == ["site: Zittau; head: Ines Kuhn"]
    assert told("population of Kyoto?", "| Kyoto | 1,440,000 |", ("Cities", "| City | Population |"), 400) == [
        "City: Kyoto; Population: 1,440,000"
    ]


def test_a_quoted_field_may_hold_line_breaks_and_delimiters() -> None:
    """The row is one piece, at its place."""
    text = 'name,note,year\nAda,"first,\nsecond",1843\nBo,none,1901\n'
    spans = [(text[span.start : span.end], row) for span, row in pieces(hit(text))]
    assert spans[1] == ('Ada,"first,\nsecond",1843', Row(("Ada", "first,\nsecond", "1843"), ("name", "note", "year")))


@pytest.mark.parametrize(
    "text",
    [
        "Cats, dogs and birds may stay.\nSnakes, frogs and toads may not.\nAsk, if in doubt, at the desk.",
        "We saw it, alas.\nIt fell, alas.",
        "Press a | b to choose. Then wait.",
        "",
    ],
)
def test_prose_has_no_rows(text: str) -> None:
    """Commas and bars alone make no table."""
    assert [row for _, row in pieces(hit(text)) if row] == []


@given(st.text(alphabet="ab1,;\t|-\n\r\" \u2028'", max_size=60), st.sampled_from(["", "a,b", "a | b", "a\tb"]))
def test_pieces_are_in_order_and_cover_all_but_rules_and_blanks(text: str, above: str) -> None:
    """Whatever the text is."""
    found = pieces(msgspec.structs.replace(hit(text), heading=(above,) if above else ()))
    end = 0
    for span, _ in found:
        gap = text[end : span.start]
        assert span.end > span.start >= end
        assert not any(map(str.isalnum, gap))
        end = span.end
    assert not any(map(str.isalnum, text[end:]))
