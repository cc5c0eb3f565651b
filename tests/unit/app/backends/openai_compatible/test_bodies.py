"""What is sent to an OpenAI-style server."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.backends.base import ChatRequest, Message
from app.backends.openai_compatible.messages import RUNAWAYS, Traits, chat_body, response_format

CLOSED: dict[str, Any] = {
    "type": "object",
    "properties": {"a": {"type": "array", "items": {"type": "integer"}}},
    "required": ["a"],
    "additionalProperties": False,
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "type", "items"]), inner),
)


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        (CLOSED, True),
        ({"type": "array", "items": CLOSED}, True),
        ({"type": "string"}, True),
        ({"type": "object"}, False),
        ({**CLOSED, "required": []}, False),
        ({**CLOSED, "additionalProperties": True}, False),
        ({"anyOf": [CLOSED, {"type": "object", "properties": {}}]}, False),
    ],
)
def test_openai_is_strict_with_closed_schemas_only(schema: dict[str, Any], strict: bool) -> None:
    """OpenAI refuses to be strict about an open object, and only about those; other servers are not told."""
    assert response_format(schema, "openai")["json_schema"].get("strict", False) is strict
    assert "strict" not in response_format(schema, "vllm")["json_schema"]


@given(JSON)
def test_a_schema_without_unique_items_is_sent_as_it_is(schema: Any) -> None:
    """Nothing but `uniqueItems` is taken from a schema, wherever it stands."""
    sent = response_format({"properties": {"x": schema}})["json_schema"]["schema"]
    assert sent == {"properties": {"x": schema}}
    marked = response_format({"uniqueItems": True, "allOf": [{"uniqueItems": False, "x": schema}]})
    assert marked["json_schema"]["schema"] == {"allOf": [{"x": schema}]}


@given(JSON, st.sampled_from([None, 2, 4, "\t"]))
def test_no_sane_document_runs_away(document: Any, indent: int | str | None) -> None:
    """The stop words against endless white space stand in no document, however it is indented."""
    text = json.dumps(document, indent=indent)
    assert not [word for word in RUNAWAYS if word in text]


@pytest.mark.parametrize("count", range(6))
def test_no_more_stops_are_added_than_servers_take(count: int) -> None:
    """vLLM and OpenAI refuse more than 4; those of the caller come first, and are left to the server."""
    stops = tuple(f"<{number}>" for number in range(count))
    request = ChatRequest(messages=(Message(role="user", content="a"),), schema={"type": "object"}, stop=stops)
    sent = chat_body(request, Traits(kind="vllm", model="tiny"))["stop"]
    assert sent[:count] == stops
    assert len(sent) == max(count, 4 if count else len(RUNAWAYS))
