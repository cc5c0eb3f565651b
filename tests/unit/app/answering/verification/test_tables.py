from app.answering.verification.tables import all_number_words, ambiguous_months, months, number_words, scales


def test_lists_count_from_their_beginning() -> None:
    """Numbers from zero, months from one, words in folded form."""
    assert (number_words("de")["funf"], number_words("xx")) == (5, {})
    assert (months()["mar"], months()["marz"], months()["декабря"]) == (3, 3, 12)
    assert ambiguous_months() <= months().keys()


def test_english_decides_what_a_word_of_several_languages_counts() -> None:
    """ "Six" is French too and means the same; ordinals and tens are English."""
    words = all_number_words()
    assert (words["six"], words["third"], words["twenty"], words["once"]) == (6, 3, 20, 11)


def test_the_higher_power_is_tried_first() -> None:
    """ "mil millones" begins with "mil"."""
    match = scales().match("mil millones")
    assert match
    assert match.lastgroup == "p9"
