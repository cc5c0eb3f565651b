"""What Open WebUI asks a chat's model beside the chat: a title, tags, follow-up questions. That needs no documents, and
without a model it gets a minimal reply. A question that comes with its own documents needs none of ours either. Pure.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from app.api.compat.openai.requests import ChatCompletionBody

TITLE_WORDS = 6
TITLE_CHARACTERS = 60

_TASK = "### Task:"
_HISTORY = re.compile(r"<chat_history>\s*(?P<turns>.*?)\s*</chat_history>", re.DOTALL)
_USER_TURN = re.compile(r"^USER:[^\S\n]*(?P<said>.*\S)", re.MULTILINE)
_WANTED = re.compile(r'\{\s*"(?P<key>title|tags|follow_ups|queries|text|prompt)"\s*:')
_UNFENCED = (
    "Your task is to reflect the speaker's likely facial expression through a fitting emoji.",
    "You have been provided with a set of responses from various models to the latest user query:",
    "Available Tools: ",
)
"""How its prompts without a heading begin: for an emoji, to merge several models' answers, to choose a tool."""

_TASKS = (
    *("title_generation", "tags_generation", "follow_up_generation", "emoji_generation", "query_generation"),
    *("image_prompt_generation", "autocomplete_generation", "function_calling", "moa_response_generation"),
)
"""Its names for these tasks: it does not send them, but pipelines between it and us may."""

_EMPTY: Mapping[str, Any] = {"tags": ["General"], "follow_ups": [], "queries": [], "text": "", "prompt": ""}


def is_background_task(body: ChatCompletionBody) -> bool:
    """Recognised by the form of its prompt, which users seldom change, or by the task's name if it is sent."""
    if isinstance(body.metadata, dict) and body.metadata.get("task") in _TASKS:
        return True
    first, last = body.messages[0].text.lstrip(), body.messages[-1].text.lstrip()
    if first.startswith(_UNFENCED) or last.startswith(_UNFENCED):
        return True
    return last.startswith(_TASK) and ("<chat_history>" in last or ("<type>" in last and "<text>" in last))


def has_its_sources(body: ChatCompletionBody) -> bool:
    """Whether it searched by itself and put what it found into the question: a file that the user attached, a page of
    the web. It counts its own sources then, from [1] on, to which ours would be added.
    """
    last = body.messages[-1].text.lstrip()
    return last.startswith(_TASK) and "<source id=" in last.partition("<context>")[2].rpartition("</context>")[0]


def without_a_model(body: ChatCompletionBody) -> str:
    """The JSON that the prompt asks for: a title from the user's first words, anything else empty."""
    prompt = body.messages[-1].text
    key_match = _WANTED.search(prompt)
    if key_match is None:
        return "{}"
    key = key_match["key"]
    return json.dumps({key: _title(prompt) if key == "title" else _EMPTY[key]}, ensure_ascii=False)


def _title(prompt: str) -> str:
    history = _HISTORY.search(prompt)
    first_turn = _USER_TURN.search(history["turns"]) if history else None
    words = first_turn["said"].split() if first_turn else []
    title = " ".join(words[:TITLE_WORDS])
    cut = title[:TITLE_CHARACTERS].rstrip()
    return f"{cut}…" if len(cut) < len(title) or len(words) > TITLE_WORDS else cut or "Chat"
