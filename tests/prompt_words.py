"""What prompts say, whatever fields their structs have."""

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from app.backends.base import ChatRequest, Message


def digest_of(asked: Sequence[Any]) -> str:
    """Of the words and the schemas of conversations and requests, nested as they are; 16 hexadecimal digits."""
    return hashlib.sha256(msgspec.json.encode(_words(asked))).hexdigest()[:16]


def _words(asked: Any) -> Any:
    match asked:
        case ChatRequest(messages=messages, schema=schema):
            return [_words(messages), schema]
        case Message(role=role, content=content):
            return [role, content]
        case _:
            return [_words(one) for one in asked]
