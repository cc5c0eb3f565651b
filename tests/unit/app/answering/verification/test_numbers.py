import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.answering.verification.numbers import claimed_counts, claimed_figures, quoted_readings


@pytest.mark.parametrize(
    ("claimed", "quoted"),
    [
        ("1,000 people", "1000 people"),
        ("1.000 Menschen", "1,000 people"),
        ("10 000 euros", "10,000 euros"),
        ("1,5 Prozent", "1.5 percent"),
        ("3.7 million", "3,700,000"),
        ("3,7 Millionen", "3.7 million"),
        ("370万", "3.7 million"),
        ("1,234.50", "1.234,5"),
        ("٣٫٧ مليون", "3.7 million"),
        ("５％", "5 percent"),
        ("5 days", "five days"),
        ("5 Tage", "fünf Tage"),
        ("12 people", "十二个人"),
        ("25 people", "twenty-five people"),
        ("2021年5月3日", "3 May 2021"),
        ("2021-05-03", "3. Mai 2021"),
        ("May 3, 2021", "2021年5月3日"),
        ("03.05.2021", "on the 3rd of May 2021"),
        ("03/05/2021", "May 3, 2021"),
        ("3 مايو 2021", "2021-05-03"),
        ("二〇二一年 2021", "二〇二一年"),
        ("1995", "1990–95"),
        ("the 1990s", "in 1990"),
        ("20世纪90年代", "the 1990s"),
        ("COVID-19", "covid 19"),
        ("version 2.3.1", "2.3.1"),
        ("370,000", "370000"),
        ("1'000'000", "1 million"),
        ("0.50", ".5 or 0,5"),
        ("7 hundred", "700"),
        ("4 Mrd", "4,000 million"),
        ("2.5 billionen", "2500 billion"),
        ("3 of May", "3 May"),
        ("16000", "sixteen thousand or 16 thousand"),
        ("35 years", "thirty five years"),
        ("30 years", "thirty five years"),
        ("205", "二百五"),
        ("20 days", "二十天"),
        ("2008", "二零零八年"),
        ("200 people", "两百人"),
        ("2021年12月", "二〇二一年十二月"),
        ("in 1/12/2021", "1 December 2021"),
    ],
)
def test_figures_agree_however_they_are_written(claimed: str, quoted: str) -> None:
    """Digits of any script, separators of any country, scales, words, and dates of many formats."""
    figures = claimed_figures(claimed)
    assert figures
    assert all(figure & quoted_readings(quoted) for figure in figures)


@pytest.mark.parametrize(
    ("claimed", "quoted"),
    [
        ("1990", "1991"),
        ("12", "1.2"),
        ("1,000", "100"),
        ("3.7 million", "3.7 billion"),
        ("5 May 2021", "5 June 2021"),
        ("2021-05-03", "2021-06-03"),
        ("2021年5月", "2021年6月"),
        ("5%", "15%"),
        ("1234.567", "1234567"),
        ("12,34", "1234"),
        ("1.2.3", "123"),
        ("2 million", "2"),
        ("3 millions", "3 thousand"),
        ("25", "twenty years in five cities"),
        ("41", "thirty, eleven"),
        ("30", "twenty, ten"),
        ("6", "in five cities"),
        ("5月", "五人"),
        ("6", "five"),
    ],
)
def test_other_figures_are_other_figures(claimed: str, quoted: str) -> None:
    """One figure at least is not in the quotation."""
    assert not all(figure & quoted_readings(quoted) for figure in claimed_figures(claimed))


def test_words_that_only_look_like_figures_need_no_support() -> None:
    """You may march; "sep" is short for many things; one of them, or two, are no counts."""
    assert claimed_figures("You may march there.") == []
    assert claimed_figures("Use sep here, dec there.") == []
    assert claimed_counts("One of the two.", "en") == []
    assert claimed_counts("Three of the six.", "en") == [{"3"}, {"6"}]


def test_a_month_is_claimed_beside_a_number_or_where_it_means_nothing_else() -> None:
    """The number may stand before or after it, with a word between."""
    assert claimed_figures("in April") == claimed_figures("by april") == [{"m4"}]
    assert claimed_figures("5 of May") == [{"5"}, {"m5"}]
    assert claimed_figures("May 3") == [{"3"}, {"m5"}]
    assert claimed_figures("dec 3") == [{"3"}, {"m12"}]
    assert claimed_figures("It has 5 wings that may move.") == [{"5"}]


def test_a_number_has_the_readings_of_all_conventions() -> None:
    """A single separator may part thousands or decimals; two of them say which is which."""
    assert claimed_figures("1.000") == [{"1000", "1"}]
    assert claimed_figures("1,5") == [{"1.5"}]
    assert claimed_figures("1,234.50") == [{"1234.5"}]
    assert claimed_figures("10 000") == [{"10000", "10", "0"}]
    assert claimed_figures("1234.567") == [{"1234.567"}]
    assert claimed_figures("007") == [{"7"}]
    assert claimed_figures("1'500") == [{"1500"}]
    assert claimed_figures("1.000.000") == [{"1000000"}]


@given(st.text(alphabet="0123456789.,'万亿十百一二 -/年月日millon", max_size=60))
def test_a_figure_is_among_its_own_readings(text: str) -> None:
    """What is claimed in the quotation's own words is found there."""
    readings = quoted_readings(text)
    assert all(figure & readings for figure in claimed_figures(text))
