"""What a model is asked about texts and labels."""

import pytest

from app.classification import (
    LETTERS,
    MOST_TEXTS,
    Labelling,
    choice_prompt,
    label_prompt,
    labelling_of,
    stated_request,
)
from app.domain import Label
from app.errors import InvalidRequest

FENCE = "abcdefgh"


def _labelling(*names: str, exclusive: bool = True) -> Labelling:
    return labelling_of(tuple(Label(name=name) for name in names), exclusive=exclusive)


def test_a_choice_names_a_letter_for_each_label() -> None:
    """The labels stand in the rules, which all texts share; the fenced text and the question follow."""
    labelling = labelling_of((Label(name="praise", description="likes it"), Label(name="complaint")), "Of hotels.")
    rules, asked = choice_prompt(labelling, "A fine bed.", FENCE)
    assert "A = praise: likes it\nB = complaint" in rules.content
    assert "Of hotels." in rules.content
    assert asked.content.startswith(f"The text stands between the two lines {FENCE}.\n{FENCE}\nA fine bed.\n{FENCE}\n")
    assert asked.content.endswith("Reply with one letter: A or B.")


def test_there_are_no_more_labels_than_letters() -> None:
    """Each letter is one token; what comes after Z is not."""
    with pytest.raises(ValueError, match="27 labels for 26 letters"):
        choice_prompt(_labelling(*(f"label {number}" for number in range(len(LETTERS) + 1))), "text", FENCE)


def test_a_label_comes_after_the_text() -> None:
    """The prompts of one text share all but their end, which a server keeps from one to the next."""
    labelling = _labelling("one", "two", exclusive=False)
    first, second = (label_prompt(labelling, label, "A text.", FENCE) for label in labelling.labels)
    assert first[0] == second[0]
    assert first[1].content.partition("Label:")[0] == second[1].content.partition("Label:")[0]


def test_stated_labels_are_those_that_there_are() -> None:
    """The schema allows the given names and the numbers of the given texts alone."""
    request = stated_request(_labelling("one", "two"), ["a", "b"], FENCE)
    assert request.schema is not None
    result = request.schema["properties"]["results"]["items"]["properties"]
    assert result["text"]["enum"] == [1, 2]
    assert result["labels"]["items"]["properties"]["label"]["enum"] == ["one", "two"]
    assert f"{FENCE} 1\na\n{FENCE} 2\nb\n{FENCE} end" in request.messages[-1].content


def test_more_texts_have_more_room_in_the_reply() -> None:
    """The limit on the reply grows with the texts and with the labels' length."""
    few = stated_request(_labelling("one", "two"), ["a"], FENCE).max_output_tokens
    assert stated_request(_labelling("one", "two"), ["a"] * MOST_TEXTS, FENCE).max_output_tokens > 4 * few
    assert stated_request(_labelling("one" * 30, "two"), ["a"], FENCE).max_output_tokens > few


@pytest.mark.parametrize("count", [0, MOST_TEXTS + 1])
def test_a_prompt_takes_some_texts(count: int) -> None:
    """Neither none nor more than a model keeps apart."""
    with pytest.raises(ValueError, match="it takes 1 to"):
        stated_request(_labelling("one", "two"), ["a"] * count, FENCE)


def test_a_text_cannot_close_its_fence() -> None:
    """A text with the fence in it is refused: it could pretend to be another one."""
    labelling = _labelling("one", "two")
    for ask in (
        lambda: choice_prompt(labelling, f"x {FENCE}", FENCE),
        lambda: label_prompt(labelling, labelling.labels[0], f"x {FENCE}", FENCE),
        lambda: stated_request(labelling, [f"x {FENCE}"], FENCE),
    ):
        with pytest.raises(ValueError, match="fence"):
            ask()


def test_labels_are_made_safe() -> None:
    """Control tokens in names, descriptions and instructions are broken up, and each label is one line."""
    labelling = labelling_of((Label(name="a\n<end_of_turn>", description="b <|im_end|>"), Label(name="c")), "</s>")
    assert labelling.names[0] == "a < end_of_turn>"
    assert labelling.labels[0].description == "b < |im_end|>"
    assert labelling.instructions == "< /s>"


@pytest.mark.parametrize("names", [("a", "a "), ("a", "\u200b"), ("a", "\u00ada")])
def test_names_differ_in_what_a_model_sees(names: tuple[str, str]) -> None:
    """Two that look the same, and one that is invisible, are refused by their place."""
    with pytest.raises(InvalidRequest) as caught:
        _labelling(*names)
    assert caught.value.problems[0].pointer == "/labels/1"
