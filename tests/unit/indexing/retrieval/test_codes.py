import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexing.retrieval.codes import codes, names_code, normalized


def wholes(text: str) -> list[tuple[str, ...]]:
    return [code.wholes for code in codes(normalized(text))]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Invoice 4711 was paid.", ("4711",)),
        ("ab-1234/5", ("ab12345", "12345")),
        ("AB 1234/5", ("12345",)),
        ("INV4712", ("inv4712", "4712")),
        ("the M8 bolt", ("m8",)),
        ("at 192.168.1.1.", ("192.168.1.1",)),
        ("v2.13.5", ("2.13.5",)),
        ("Python 3.5", ("3.5",)),
        ("§ 812 BGB", ("§812",)),
        ("§§812", ("§812",)),
        ("ISBN 978-3-16-148410-0", ("9783161484100",)),
        ("pages 5-10", ("5-10",)),
        ("written in C++,", ("c++",)),
        ("0x80070057", ("0x80070057",)),
        ("2.13.5-rc1", ("2.13.5rc1",)),
        ("3.5GB", ("3.5gb", "3.5")),
        ("USD1,234.50", ("usd1,234.50", "1234.50")),
        ("ISO 9001:2015", ("90012015",)),
        ("de89 3704 0044 0532 0130 00", ("de89370400440532013000",)),
        ("AB\u20119876", ("ab9876", "9876")),
        ("978\u20133\u201316\u2013148410\u20130", ("9783161484100",)),
        ("\u0664\u0667\u0661\u0662", ("4712",)),
    ],
)
def test_a_code_is_one_term_however_it_is_written(text: str, expected: tuple[str, ...]) -> None:
    """Case, hyphens and the letters before it do not tell two codes apart; dots do."""
    assert wholes(text) == [expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,234.50", ("1234.50",)),
        ("1.234,50", ("1234.50",)),
        ("1'234.50", ("1234.50",)),
        ("12,40 EUR", ("12.40",)),
        ("1,234,567", ("1234567",)),
        ("1.234.567", ("1234567", "1.234.567")),
        ("1.234", ("1234", "1.234")),
        ("1,234", ("1234", "1.234")),
        ("1\u202f234,50", ("1234.50",)),
        ("1\u00a0234\u00a0567", ("1234567",)),
    ],
)
def test_a_number_is_read_where_its_separators_are_sure(text: str, expected: tuple[str, ...]) -> None:
    """Where a separator may stand before decimals or thousands, and where it may be a version, both readings count."""
    assert wholes(text) == [expected]


@pytest.mark.parametrize(
    "text",
    [
        "2024-05-03", "2024/5/3", "03.05.2024", "3.5.2024", "3 May 2024", "3. Mai 2024", "May 3rd, 2024", "3 mai 2024",
        "3 de mayo de 2024", "2024年5月3日", "２０２４年５月３日",
        "2024년 5월 3일", "2024-05-03T14:30:00Z",
    ],
)  # fmt: skip
def test_a_date_is_one_term_in_every_form(text: str) -> None:
    """With its year, month and day as parts, with and without zeros."""
    (code,) = codes(normalized(text))
    assert code.wholes == ("2024-05-03",)
    assert code.parts == ("2024", "05", "03", "5", "3")


def test_the_first_of_a_month_has_endings_of_its_own() -> None:
    """In French and in Spanish."""
    assert wholes("1er mai 2024") == wholes("1º de mayo de 2024") == wholes("May 1st, 2024") == [("2024-05-01",)]


@pytest.mark.parametrize("text", ["99 May 2024", "2024-13-40", "at 3 weeks 2024"])
def test_what_is_no_date_keeps_its_numbers(text: str) -> None:
    """Nothing is lost, and no date is made up."""
    found = codes(normalized(text))
    assert not any(whole.startswith("2024-05") for code in found for whole in code.wholes)
    assert any("2024" in (*code.wholes, *code.parts) for code in found)


def test_parts_and_words_of_a_code_are_terms_too() -> None:
    """Whoever types a part finds the whole; letters are words."""
    (code,) = codes("QP-4711/12")
    assert code.parts == ("4711", "12")
    assert code.words == ("qp",)
    (release,) = codes("2.13.5-rc1")
    assert release.parts[0] == "2.13.5"
    (socket,) = codes("192.168.7.1:8080")
    assert {"192.168.7.1", "8080"} <= set(socket.parts)
    (address,) = codes("192.168.7.1")
    assert address.parts == ("192.168", "192.168.7", "192", "168", "7", "1")


def test_a_number_in_an_unspaced_script_stands_alone() -> None:
    """Full-width forms are the same, and the characters around are no part of it."""
    assert wholes("型番ＡＢ－９８７６の在庫は１２個です。") == [("ab9876", "9876"), ("12",)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Wert\u00adpapier\u200bdepot", "Wertpapierdepot"),
        ("ｶﾒﾗ", "カメラ"),
        ("ﬁnd", "find"),
        ("⼈", "人"),
        ("葛\U000e0100", "葛"),
        ("ไทย\u200bไทย", "ไทย ไทย"),
        ("in 2024\u00b9", "in 2024 1"),
        ("10\u00bd", "10 1\u20442"),
        ("m\u00b2", "m2"),
        ("Winnow\u2122", "Winnow TM"),
    ],
)
def test_width_ligatures_and_invisible_characters_do_not_count(text: str, expected: str) -> None:
    """NFKC, and nothing that has no width; but a footnote's number does not run into the one before it."""
    assert normalized(text) == expected


@given(st.text())
def test_codes_lie_in_order_without_overlap(text: str) -> None:
    """Each contains a digit or names a language, and has a term for the whole."""
    text = normalized(text)
    end = 0
    for code in codes(text):
        assert end <= code.start < code.end <= len(text)
        assert code.wholes
        assert all(code.wholes)
        end = code.end


def test_a_long_encoding_gives_few_terms() -> None:
    """A path or base64 does not fill the index."""
    (code,) = codes("/".join(f"a{number}" for number in range(500)))
    assert not code.parts
    (dotted,) = codes(".".join(map(str, range(500))))
    assert len(dotted.parts) < 30
    assert all(part[0] != "." for part in dotted.parts)


def test_a_list_gives_each_of_its_numbers() -> None:
    """A comma joins digits only: it may be one number or two, and the cells of a row are apart."""
    (numbers,) = codes("4711,4712")
    assert {"4711", "4712"} <= set(numbers.parts)
    row = codes("QP-4711,Widget,2024-05-03,12.40")
    assert [code.wholes for code in row] == [("qp4711", "4711"), ("2024-05-03",), ("12.40",)]
    assert [code.wholes for code in codes("5,10,12")] == [("5",), ("10",), ("12",)]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("Who sent invoice 4712?", True), ("§ 812 BGB", True), ("Fehler E-17", True), ("on 3 May 2024", True),
        ("Who led the Panthers in 2015?", False), ("in the 1990s", False), ("the 16th century", False),
        ("Super Bowl 50", False), ("dental cover", False),
    ],
)  # fmt: skip
def test_years_and_small_numbers_are_no_names(text: str, named: bool) -> None:
    """Longer ones, and letters with digits, are."""
    assert names_code(text) is named


@pytest.mark.parametrize("unit", ["字", "a", "1.", "1-", "3 May 2024 ", "DE89 3704 0044 ", "1,", "§1"])
def test_a_long_text_takes_no_longer_than_its_length(unit: str) -> None:
    """Ten times the text has at most ten times the codes, found in a moment."""
    text = normalized("1 " + unit * 20_000)
    assert len(codes(text)) <= len(text)


@pytest.mark.parametrize("unit", ["1", "1.", "1,", "a1", "1-", "§ 8 ", "1a,"])
def test_takes_linear_time(unit: str) -> None:
    """300,000 characters of the same are no burden; quadratic time would run into the suite's limit."""
    assert codes(normalized(unit * (300_000 // len(unit))))
