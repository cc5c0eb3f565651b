import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.answering.verification.support import NameIndex, claimed_names, opening_name, verify


def supported(claim: str, quote: str, context: str = "") -> bool:
    [verified] = verify(claim, [quote], context)
    return verified


@pytest.mark.parametrize(
    ("claim", "language", "names"),
    [
        ("It was Barack Obama, born in Hawaii in May.", "en", [("barack", "obama"), ("hawaii",)]),
        ("The NFL plays in the United States.", "en", [("nfl",), ("united", "states")]),
        ("Barack Obama won.", "en", [("barack", "obama")]),
        ("Employees start early.", "en", []),
        ("Der Vertrag nennt Angela Merkel und die Versicherung.", "de", [("angela", "merkel")]),
        ("東京のスカイツリーは高い。", "ja", [("スカイツリー",)]),
        ("他写了《红楼梦》。", "zh", [("红楼梦",)]),
        ("他在IBM工作。", "zh", [("ibm",)]),
        ("مدينة برلين كبيرة.", "ar", []),
    ],
)
def test_names_are_told_by_their_shape(claim: str, language: str, names: list[tuple[str, ...]]) -> None:
    """Capitals within a sentence, acronyms, katakana, titles in their marks."""
    assert claimed_names(claim, language) == names


@pytest.mark.parametrize(
    ("name", "quote", "held"),
    [
        ("Germany", "the German chancellor", True),
        ("Obama", "Obama's house", True),
        ("NFL", "the National Football League", True),
        ("National Football League", "the NFL", True),
        ("Apple Talk", "AppleTalk", True),
        ("José", "Jose", True),
        ("Austria", "Australia", False),
        ("Iran", "Iraq", False),
        ("Iran", "the Iranian government", True),
        ("Rome", "a Roman road", False),
        ("Barack Obama", "Michelle Obama", False),
        ("スカイツリー", "東京スカイツリーは", True),
        ("スカイツリー", "東京タワーは", False),
    ],
)
def test_a_name_is_found_in_its_forms(name: str, quote: str, held: bool) -> None:
    """Inflected, without accents, as an acronym; a similar name is another one."""
    [claimed] = claimed_names(f"It is {name}." if name.isascii() or name == "José" else name, "en")
    assert NameIndex(quote).contains(claimed) is held


def test_an_acronym_has_two_to_six_letters() -> None:
    """One letter is the initial of too many words, seven are no acronym."""
    index = NameIndex("Alpha Beta Gamma Delta Epsilon Zeta Eta.")
    lengths = [length for length in range(1, 8) if index.contains(("abgdeze"[:length],))]
    assert lengths == [2, 3, 4, 5, 6]


def test_what_begins_a_sentence_may_be_a_name() -> None:
    """Singular, without an article, before a verb."""
    assert opening_name("Rollo was the leader.", "en") == ("rollo",)
    assert opening_name("Employees are insured.", "en") is None
    assert opening_name("The leader was Rollo.", "en") is None
    assert opening_name("May was warm.", "en") is None


NORSE = "The Norse leader was Rollo, who swore fealty to King Charles III in 911."


@pytest.mark.parametrize(
    ("claim", "quote"),
    [
        ("Rollo led the Norse.", NORSE),
        ("In 911 Rollo swore fealty to Charles III.", NORSE),
        ("Their leader Rollo swore fealty.", NORSE),
        ("Insurance is free from the first day.", "Dental cover: free from day one; insurance by Acme."),
        ("There are three kinds of cells.", "The cells are neutrophils, monocytes and mast cells."),
        ("Rollo 率领诺曼人，公元911年宣誓效忠。", NORSE),
        ("911 schwor der Anführer dem König die Treue.", NORSE),
        ("柏林有370万人口。", "Berlin has 3.7 million people."),
        ("Berlin has 3.7 million people.", "柏林有370万人口。"),
        ("柏林是德国的首都。", "柏林是德国的首都和最大城市。"),
        ("Its capital is Beijing, says Li Wei.", "李伟说首都是北京。"),
        ("The Danube flows through Vienna to Budapest.", "Die Donau fließt durch Wien nach Budapest."),
        ("برلين هي عاصمة ألمانيا.", "برلين هي عاصمة ألمانيا وأكبر مدنها."),
        ("Die Abdeckung beginnt am 3. Mai 2021.", "Am 03.05.2021 beginnt die Abdeckung."),
        ("保険は5月3日に始まります。", "保険の開始は2021年5月3日です。"),
    ],
)
def test_true_claims_are_verified(claim: str, quote: str) -> None:
    """Said in other words, in another order or in another language."""
    assert supported(claim, quote)


@pytest.mark.parametrize(
    ("claim", "quote"),
    [
        ("Rollo swore fealty in 912.", NORSE),
        ("The Norse leader was Harald.", NORSE),
        ("Harald was the leader of the Norse.", NORSE),
        ("Their king was Charles IV.", NORSE),
        ("Cheese melts slowly in warm ovens.", NORSE),
        ("Berlin has 3.7 million people.", "柏林有360万人口。"),
        ("柏林有370万人口。", "Berlin has 3.6 million people."),
        ("The Rhine flows through Cologne to Rotterdam.", "Die Donau fließt durch Wien nach Budapest."),
        ("The river flows past Cologne and then past Bonn.", "Die Donau fließt durch Wien nach Budapest."),
        ("他从一九九〇年起在IBM工作。", "他从一九九〇年起在谷歌工作。"),
        ("苹果很好吃。", "柏林是德国的首都。"),
        ("Die Abdeckung beginnt am 3. Juni 2021.", "Am 03.05.2021 beginnt die Abdeckung."),
        ("Five days are free.", "6 days are free."),
    ],
)
def test_false_claims_are_not(claim: str, quote: str) -> None:
    """A number, a date or a name that is not in the quotation, or nothing in common at all."""
    assert not supported(claim, quote)


def test_a_sentence_without_an_end_is_not_verified() -> None:
    """Up to 2,000 characters are compared."""
    claim = "Rollo led the Norse " * 100
    assert supported(claim, NORSE)
    assert not supported(claim + "x", NORSE)


def test_a_third_of_the_words_must_be_quoted() -> None:
    """Three of ten are enough, two of ten are not."""
    claim = "fresh cheese melts slowly inside every warm brick oven daily"
    assert supported(claim, "cheese, oven, brick.")
    assert not supported(claim, "cheese, oven.")


def test_names_may_stand_in_the_context_and_numbers_may_not() -> None:
    """ "He" is somebody whom the title or the sentence before names; a figure must be cited itself."""
    assert supported("Obama was born in 1961.", "He was born in 1961.", "Barack Obama")
    assert not supported("Obama was born in 1961.", "He was born in Hawaii.", "Obama, 1961")


def test_quotations_support_a_claim_together() -> None:
    """Each that contributes is verified, one that does not is not; if something is missing, none is."""
    claim = "Berlin is the capital of Germany and has 3.7 million people."
    capital, people = "Berlin is Germany's capital.", "It has 3.7 million people."
    other = "Cheese melts."
    assert verify(claim, [capital, people]) == (True, True)
    assert verify(claim, [capital, people, other]) == (True, True, False)
    assert verify(claim, [capital, other]) == (False, False)
    assert verify("柏林是德国的首都。", [capital, people]) == (True, True)
    assert verify(claim, []) == ()


@given(st.text(max_size=80), st.lists(st.text(max_size=80), max_size=3))
def test_no_text_is_too_odd(claim: str, quotes: list[str]) -> None:
    """There is a verdict for every quotation."""
    assert len(verify(claim, quotes)) == len(quotes)
