"""What a chat's messages become."""

import pytest

from app.api.compat.openai.requests import ChatCompletionBody, ImageURL, MessageBody, Part
from app.domain import Turn


def user(text: str) -> MessageBody:
    return MessageBody(role="user", content=text)


def test_a_long_conversation_is_cut_to_what_an_answer_takes() -> None:
    """The last 50 turns before the question, and of the question its first 8,192 characters."""
    earlier = [user(f"turn {number}") for number in range(60)]
    body = ChatCompletionBody(model="winnow", messages=[*earlier, user("q" * 9000)])
    question = body.to_question("default", None)
    assert question.messages == tuple(Turn("user", f"turn {number}") for number in range(10, 60))
    assert question.search.text == "q" * 8192


@pytest.mark.parametrize(
    ("asked", "given"),
    [({}, 1024), ({"max_tokens": 0}, 1024), ({"max_tokens": 7}, 7), ({"max_completion_tokens": 9, "max_tokens": 7}, 9)],
)
def test_how_long_an_answer_may_be(asked: dict[str, int], given: int) -> None:
    """By either name, the newer one first; 1,024 tokens where nobody says."""
    body = ChatCompletionBody(model="winnow", messages=[user("Does it?")], **asked)  # type: ignore[arg-type]
    assert body.to_question("default", None).max_output_tokens == given


def test_a_model_hears_two_sides_in_turn() -> None:
    """Messages of one side are joined, empty ones left out, and what a tool said is the user's."""
    messages = [
        MessageBody(role="developer", content="Be brief."),
        user("One."),
        MessageBody(role="tool", content="42"),
        MessageBody(role="assistant"),
        MessageBody(role="assistant", content="Well."),
        MessageBody(role="user", content=[Part(text="Two."), Part(type="refusal"), Part(text="Three.")]),
    ]
    task = ChatCompletionBody(model="tiny", messages=messages).to_task("gemma", 100)
    assert task.messages == (Turn("user", "One.\n\n42"), Turn("assistant", "Well."), Turn("user", "Two.\nThree."))
    assert (task.system, task.max_output_tokens) == ("Be brief.", 100)


def test_a_picture_knows_its_place() -> None:
    """By its message and its part, through the joining of turns; for errors."""
    pictures = [Part(text="This?"), Part(image_url="https://site.example/a.png"), Part(image_url=ImageURL("data:,x"))]
    messages = [user("Look."), MessageBody(role="user", content=pictures)]
    [turn] = ChatCompletionBody(model="tiny", messages=messages).to_task("gemma", 100).messages
    assert [(source.pointer, source.content) for source in turn.images] == [
        ("/messages/1/content/1/image_url", "https://site.example/a.png"),
        ("/messages/1/content/2/image_url", "data:,x"),
    ]
