import pytest

from indexing.retrieval.bm25 import Lexical


@pytest.fixture(scope="module")
def lexical() -> Lexical:
    return Lexical()


def shared(lexical: Lexical, query: str, document: str) -> int:
    """How many terms of the query the document has."""
    asked, held = lexical.query(query), lexical.document(document)
    return 0 if asked is None or held is None else len(set(asked.indices) & set(held.indices))


@pytest.mark.parametrize(
    ("query", "document", "terms"),
    [
        ("returned shoes", "Customers return a shoe.", 2),
        ("cafe", "The Café is open", 1),
        ("企鹅", "企鹅生活在南极洲。", 1),
        ("ペンギン", "ペンギンは南極に住んでいます。", 1),
        ("Rückgabe", "Die Rückgabe dauert lange", 1),
        ("penguin", "Nothing of that kind", 0),
        ("4712", "Invoice 4712 was paid.", 1),
        ("4712", "Invoice 4711 was paid.", 0),
        ("AB-9876", "型番ＡＢ－９８７６の在庫は１２個です。", 1),
        ("12個", "型番ＡＢ－９８７６の在庫は１２個です。", 1),
        ("カメラ", "ｶﾒﾗの電池は別売です。", 1),
        ("Wertpapierdepot", "Das Wert\u00adpapier\u00addepot kostet nichts.", 1),
        ("1.234,50 Euro", "The offer comes to 1,234.50.", 1),
        ("Winnow", "Winnow\u2122 ranks.", 1),
    ],
)
def test_words_are_found_in_their_forms_and_scripts(lexical: Lexical, query: str, document: str, terms: int) -> None:
    """Stems and accents fold in English; Chinese and Japanese are cut into words; numbers and widths have one form."""
    assert shared(lexical, query, document) >= terms
    assert bool(shared(lexical, query, document)) == bool(terms)


def test_a_query_counts_each_term_once(lexical: Lexical) -> None:
    """Weight 1 for every distinct term, however often it is said."""
    vector = lexical.query("dental dental cover")
    assert vector is not None
    assert len(vector.indices) == len(set(vector.indices)) == 2
    assert vector.values == [1.0, 1.0]


def test_a_term_weighs_more_the_more_often_it_is_said_but_not_without_end(lexical: Lexical) -> None:
    """The frequency saturates at k1 + 1 = 2.2."""
    weights = []
    for count in (1, 2, 50):
        vector = lexical.document(" ".join(["dental"] * count))
        assert vector is not None
        weights += vector.values
    assert 0 < weights[0] < weights[1] < weights[2] < 2.2


def test_the_whole_code_weighs_more_than_all_its_parts(lexical: Lexical) -> None:
    """So the passage that has it is before one that shares its parts."""
    vector = lexical.query("4711-12/7")
    whole, parts = lexical.query("4711127"), lexical.query("4711 12 7")
    assert vector is not None
    assert whole is not None
    assert parts is not None
    weights = dict(zip(vector.indices, vector.values, strict=True))
    assert weights[whole.indices[0]] == 1.0 == pytest.approx(2 * sum(weights[term] for term in parts.indices))


@pytest.mark.parametrize("text", ["", "  \n", "?!…"])
def test_a_text_without_a_word_has_no_vector(lexical: Lexical, text: str) -> None:
    """None, for a query as for a document."""
    assert lexical.document(text) is None
    assert lexical.query(text) is None


@pytest.mark.parametrize("query", ["aspirin in adults", "dose of 5mg aspirin", "AB-1234", "", "2024-05-03"])
@pytest.mark.parametrize(
    "document", ["Aspirin, 5 mg or AB-1234, for adults on 3 May 2024.", "No code, but aspirin.", "4711", " "]
)
def test_the_weights_of_a_querys_terms_are_those_of_the_whole_vector(
    lexical: Lexical, query: str, document: str
) -> None:
    """Whether or not codes are asked for, and whether or not the text has any."""
    asked, whole = lexical.query(query), lexical.document(document)
    terms = frozenset(asked.indices if asked else ())
    expected = dict(zip(whole.indices, whole.values, strict=True)) if whole else {}
    assert lexical.matching(document, terms) == {term: expected[term] for term in terms & expected.keys()}
