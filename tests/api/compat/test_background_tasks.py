"""Open WebUI's requests beside the chat."""

import json
from typing import Any

import pytest

from app.api.compat.openai.chat import has_its_sources, is_background_task, without_a_model
from app.api.compat.openai.requests import ChatCompletionBody, MessageBody
from tests.api.compat import webui_prompts as prompts


def asking(text: str, metadata: Any = None) -> ChatCompletionBody:
    return ChatCompletionBody(model="winnow", messages=[MessageBody(role="user", content=text)], metadata=metadata)


@pytest.mark.parametrize("prompt", prompts.ALL)
def test_its_prompts_are_known(prompt: str) -> None:
    """Every default template is recognised."""
    assert is_background_task(asking(prompt))


@pytest.mark.parametrize(
    "text",
    [
        "When does dental cover start?",
        "### Task:\nSummarise the handbook.",
        "What does <chat_history> mean in a template?",
        "Generate a title for my talk",
        "",
    ],
)
def test_questions_of_people_are_not(text: str) -> None:
    """A question that only looks a little like it is answered from the documents."""
    assert not is_background_task(asking(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (prompts.WITH_SOURCES, True),
        (prompts.WITH_SOURCES.partition("<context>")[0], False),
        ("What does <context> mean, and <source id=1>?", False),
        (prompts.TITLE, False),
    ],
)
def test_sources_that_it_brings_are_seen(text: str, expected: bool) -> None:
    """By its template around them; its words alone, or a question about such words, bring none."""
    assert has_its_sources(asking(text)) is expected


def test_a_task_that_is_told_is_one() -> None:
    """`metadata.task` says so where a pipeline passes it on; other metadata is its sender's own."""
    assert is_background_task(asking("Name this chat", {"task": "title_generation"}))
    assert not is_background_task(asking("Name this chat", {"user_id": "7", "task": "support"}))


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        (prompts.TITLE, {"title": "When does the dental cover of…"}),
        (prompts.TAGS, {"tags": ["General"]}),
        (prompts.FOLLOW_UPS, {"follow_ups": []}),
        (prompts.QUERIES, {"queries": []}),
        (prompts.AUTOCOMPLETE, {"text": ""}),
        (prompts.IMAGE, {"prompt": ""}),
        (prompts.EMOJI, {}),
    ],
)
def test_without_a_model_it_gets_the_json_that_it_wants(prompt: str, expected: dict[str, Any]) -> None:
    """A title is the user's first words; of the rest there is nothing, in the shape that is read."""
    assert json.loads(without_a_model(asking(prompt))) == expected


@pytest.mark.parametrize(("said", "title"), [("", "Chat"), ("Hi", "Hi"), ("字" * 80, "字" * 60 + "…")])
def test_a_title_is_short_and_never_empty(said: str, title: str) -> None:
    """Also where the user said next to nothing, or much without a space."""
    prompt = prompts.TITLE.replace("When does the dental cover of new staff start, please tell me?", said)
    assert json.loads(without_a_model(asking(prompt)))["title"] == title
