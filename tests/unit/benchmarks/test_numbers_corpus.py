from benchmarks.numbers_corpus import LANGUAGES, make_set
from indexing.retrieval.codes import codes, normalized


def test_the_same_seed_makes_the_same_set() -> None:
    """So that figures of two days can be compared."""
    assert make_set(7) == make_set(7) != make_set(8)


def test_each_question_has_one_document_and_the_absent_have_none() -> None:
    """Ids are distinct, the answer is in the document, and no document of the kind has an absent code."""
    made = make_set()
    assert len({item.id for item in [*made.items, *made.absent]}) == len(made.items) + len(made.absent)
    assert all(item.answer in item.text and item.code in item.question for item in made.items)
    held = {
        (item.kind, item.language, whole)
        for item in made.items
        for code in codes(normalized(item.text))
        for whole in code.wholes
    }
    for item in made.absent:
        (code,) = codes(normalized(item.code))[:1]
        assert not any((item.kind, item.language, whole) in held for whole in code.wholes), item.question
    assert {item.language for item in made.items} == set(LANGUAGES)
