"""What Gemini accepts: the checks of the fake server, and the words and tokens in a request."""

import base64
import binascii
import re
from typing import Any

from tests.fakes.gemini_refusals import Refusal

_TOP = {"contents", "systemInstruction", "generationConfig", "serviceTier", "safetySettings", "store"}
_CONFIG = {
    "temperature",
    "topP",
    "topK",
    "maxOutputTokens",
    "stopSequences",
    "seed",
    "responseMimeType",
    "responseJsonSchema",
    "thinkingConfig",
}
_MEDIA = {"image/png", "image/jpeg", "image/webp"}
_LEVELS = {"MINIMAL", "LOW", "MEDIUM", "HIGH"}
_IMAGE_TOKENS = 258
_AS_THEY_ARE = {"responseJsonSchema"}
"""Their keys are the user's."""


def camel(value: Any) -> Any:
    """All keys in camelCase, whichever way they were spelled."""
    return _renamed(value, lambda key: re.sub(r"_([a-z])", lambda match: match[1].upper(), key))


def snake(value: Any) -> Any:
    """All keys in snake_case."""
    return _renamed(value, lambda key: re.sub(r"[A-Z]", lambda match: "_" + match[0].lower(), key))


def check_request(model: str, body: dict[str, Any]) -> None:
    """Raises Refusal(400) as Gemini would."""
    config = body.get("generationConfig", {})
    contents = body.get("contents", [])
    _require(set(body) <= _TOP and set(config) <= _CONFIG)
    _require(bool(contents) and contents[-1]["role"] == "user")
    for content in contents:
        _require(content["role"] in ("user", "model") and bool(content["parts"]))
        _require(all(_is_part(part) for part in content["parts"]))
    _require("systemInstruction" not in body or bool(text_of(body["systemInstruction"])))
    _require(body.get("serviceTier") in (None, "standard", "flex", "priority"))
    _check_config(model, config)


def _check_config(model: str, config: dict[str, Any]) -> None:
    _require(0 <= config.get("temperature", 1) <= 2)
    _require(config.get("maxOutputTokens", 1) >= 1)
    _require(len(config.get("stopSequences", [])) <= 5)
    _require("responseJsonSchema" not in config or config.get("responseMimeType") == "application/json")
    thinking = config.get("thinkingConfig", {})
    _require(not {"thinkingLevel", "thinkingBudget"} <= set(thinking))
    _require(thinking.get("thinkingLevel", "LOW") in _LEVELS)
    _require("thinkingLevel" not in thinking or not model.startswith("gemini-2"))


def _is_part(part: dict[str, Any]) -> bool:
    if "text" in part:
        return isinstance(part["text"], str) and part["text"] != ""
    picture = part.get("inlineData", {})
    return picture.get("mimeType") in _MEDIA and _is_base64(picture.get("data", ""))


def _is_base64(text: str) -> bool:
    try:
        return bool(base64.urlsafe_b64decode(text))
    except binascii.Error:
        return False


def _require(holds: bool) -> None:
    if not holds:
        raise Refusal(400)


def text_of(content: dict[str, Any]) -> str:
    """The text parts of a content."""
    return " ".join(part["text"] for part in content["parts"] if "text" in part)


def prompt_tokens(body: dict[str, Any]) -> int:
    """A token for a word, and what Google counts for a small picture."""
    contents = [*body.get("contents", []), *([body["systemInstruction"]] if "systemInstruction" in body else [])]
    pictures = sum("inlineData" in part for content in contents for part in content["parts"])
    return sum(len(text_of(content).split()) for content in contents) + _IMAGE_TOKENS * pictures


def json_for(schema: dict[str, Any]) -> Any:
    """The smallest value that fits a JSON Schema of the kinds that we use."""
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type"):
        case "object":
            return {key: json_for(value) for key, value in schema.get("properties", {}).items()}
        case "array":
            return [json_for(schema["items"])] * schema.get("minItems", 1)
        case "integer" | "number":
            return schema.get("minimum", 0)
        case "boolean":
            return True
        case _:
            return "text"


def _renamed(value: Any, rename: Any) -> Any:
    if isinstance(value, list):
        return [_renamed(item, rename) for item in value]
    if not isinstance(value, dict):
        return value
    return {rename(key): value[key] if rename(key) in _AS_THEY_ARE else _renamed(value[key], rename) for key in value}
