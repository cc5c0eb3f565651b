"""POST /chat with servers that reply and refuse in shapes of their own, as a client and as the log sees it."""

import json
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from structlog.testing import capture_logs

from tests.fakes.http_server import answering
from tests.fakes.models import BRISK, client_of, services_for

pytestmark = pytest.mark.anyio

THOUGHT = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}


def said(content: Any, finish_reason: Any = "stop") -> dict[str, Any]:
    return {"choices": [{"message": {"content": content}, "finish_reason": finish_reason}], "usage": "none"}


async def chat(home: Path, body: Any, status: int = 200) -> httpx.Response:
    """What comes of a chat whose backend answers everything with this."""
    with answering(status, json.dumps(body).encode()) as url:
        settings = msgspec.structs.replace(BRISK, kind="openai", url=f"{url}/v1", model="m")
        async with client_of(services_for(home, {"x": settings})) as client:
            return await client.post("/chat", json={"message": "How many?", "backend": "x"})


@pytest.mark.parametrize(
    "body",
    [
        said([THOUGHT, {"type": "text", "text": "Forty-two."}]),
        said("Let me see\n</think>\n\nForty-two."),
        said("Forty-two.", None),
        said("Forty-two.", {"type": "eos"}),
    ],
)
async def test_the_answer_is_read_in_every_shape(tmp_path: Path, body: Any) -> None:
    """A list of parts, a thought without its beginning, an odd usage and an odd end cost no text."""
    response = await chat(tmp_path, body)
    assert (response.status_code, response.json()["text"]) == (200, "Forty-two.")


async def test_ollamas_missing_model_is_named(tmp_path: Path) -> None:
    """The model is missing, not the endpoint."""
    response = await chat(tmp_path, {"error": "model 'm' not found, try pulling it first"}, 404)
    assert response.status_code == 502
    assert "does not have the model 'm'" in response.json()["detail"]


async def test_a_reason_is_logged_and_not_sent(tmp_path: Path) -> None:
    """What the provider wrote helps the operator, and is none of the client's business."""
    body = {"detail": [{"loc": ["body", "max_completion_tokens"], "msg": "extra fields not permitted"}]}
    with capture_logs() as logs:
        response = await chat(tmp_path, body, 422)
    assert response.status_code == 502
    assert "extra fields" not in response.text
    assert any("max_completion_tokens: extra fields not permitted" in str(line.get("reason")) for line in logs)


async def test_an_error_with_a_status_of_success_is_one(tmp_path: Path) -> None:
    """503 for a rate limit, as with its own status."""
    response = await chat(tmp_path, {"error": {"message": "rate limit", "code": 429}})
    assert response.status_code == 503
    assert "too many requests" in response.json()["detail"]
