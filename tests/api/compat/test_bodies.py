"""Bodies as other products' clients write them."""

import gzip
import json
import re

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.compat.inputs import replace_lone_surrogates

pytestmark = pytest.mark.anyio

TYPE = {"Content-Type": "application/json"}
LONE = re.compile("[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]")

halves = st.sampled_from(["\ud83d", "\ude00", "\ud83d\ude00", "\\", "\\ud83d", "\\ude00", '"', "u", "\n", "a"])


@given(st.lists(halves).map("".join))
def test_half_a_character_is_replaced(text: str) -> None:
    """And nothing else is: neither whole pairs nor what looks like one behind a backslash."""
    mended = json.loads(replace_lone_surrogates(json.dumps(text).encode()))
    assert mended == json.loads(json.dumps(LONE.sub("\ufffd", text)))


def test_a_flood_of_halves_is_left_alone() -> None:
    """It would hold up everyone; the refusal is that of any other malformed body."""
    flood = rb"\ud83d" * 50_001 + rb"\uD83D" * 50_000
    assert replace_lone_surrogates(flood) is flood


async def test_a_text_that_was_cut_in_an_emoji_is_ranked(client: httpx.AsyncClient) -> None:
    """One bad document does not cost the whole call."""
    body = rb'{"query": "dental \ud83d", "documents": ["Dental cover \ude00", "Parking \ud83d\ude00"], "x": "\udc00"}'
    response = await client.post("/v1/rerank", content=body, headers=TYPE)
    assert response.status_code == 200, response.text
    assert [result["index"] for result in response.json()["results"]] == [0, 1]


async def test_a_packed_body_is_called_so(client: httpx.AsyncClient) -> None:
    """415, not a riddle about byte 0."""
    body = gzip.compress(b'{"query": "a", "documents": ["a"]}')
    response = await client.post("/v1/rerank", content=body, headers={**TYPE, "Content-Encoding": "gzip"})
    assert response.status_code == 415
    assert "Content-Encoding gzip is not supported" in response.json()["message"]
