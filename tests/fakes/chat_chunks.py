"""What a stream of chat completion chunks says, as a client reads it."""

import json
from typing import Any


def read_chunks(text: str, prefix: str = "data: ") -> list[Any]:
    """The chunks, without comments. The stream must end in [DONE], once."""
    events = [block for block in text.split("\n\n") if block and not block.startswith(":")]
    assert all(event.startswith(prefix) for event in events), text
    *chunks, done = (event.removeprefix(prefix) for event in events)
    assert done == "[DONE]"
    return [json.loads(chunk) for chunk in chunks]


def deltas(chunks: list[Any], field: str = "content") -> list[Any]:
    """What the deltas have of it, where they have something."""
    found = (choice["delta"].get(field) for chunk in chunks for choice in chunk.get("choices", ()))
    return [part for part in found if part]
