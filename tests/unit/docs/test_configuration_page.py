"""docs/configuration.md lists every setting with its default."""

import re
from pathlib import Path
from typing import Any

import msgspec

from app.config.settings import SECTIONS, SHORT_NAMES, Settings

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "configuration.md").read_text(encoding="utf-8")

_SECTION = re.compile(r"^## `\[([\w.]+)\]`\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_ROW = re.compile(r"^\| `(\w+)` \| (?:`([^`]+)`|(none|required)) \|", re.MULTILINE)


def test_every_key_is_listed_with_its_default() -> None:
    """The page has each section with its keys in their order, and the defaults of the settings."""
    (backend,) = [field.type for field in msgspec.structs.fields(Settings) if field.name == "backends"]
    expected = {name: _defaults(kind) for name, kind in SECTIONS.items()}
    expected["backends.NAME"] = _defaults(backend.__args__[1])
    listed = {
        name: [(key, code or word) for key, code, word in _ROW.findall(text)] for name, text in _SECTION.findall(PAGE)
    }
    assert listed == expected


def test_every_short_name_is_listed() -> None:
    """The variables that the general rule does not give are named."""
    assert [name for name in SHORT_NAMES.values() if f"`{name}`" not in PAGE] == []


def _defaults(kind: type[msgspec.Struct]) -> list[tuple[str, str]]:
    return [(field.name, _default(field)) for field in msgspec.structs.fields(kind)]


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.default_factory is not msgspec.NODEFAULT:
        return "{}"
    if field.required:
        return "required"
    default: Any = str(field.default) if isinstance(field.default, Path) else field.default
    return "none" if default is None else msgspec.json.encode(default).decode()
