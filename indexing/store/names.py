"""What collections and their generations are called, in every store alike."""

import re
import secrets

from indexing.errors import InvalidName

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}")
_GENERATION = re.compile(r"(?P<name>.+)--(?P<generation>[0-9a-f]{12})")


def check_name(name: str) -> str:
    """`name`, if a collection may be called that; else InvalidName."""
    if not _NAME.fullmatch(name):
        raise InvalidName(
            f"{name!r}: a collection's name is 1 to 64 of A-Z a-z 0-9 _ . -, and does not start with a dot"
        )
    if _GENERATION.fullmatch(name):
        raise InvalidName(f"{name!r}: names that end in -- and twelve hex digits are kept for rebuilds")
    return name


def new_generation() -> str:
    """Twelve hex digits that were not drawn before."""
    return secrets.token_hex(6)


def generation_name(name: str, generation: str) -> str:
    """The name under which one generation of a collection is written to."""
    return f"{name}--{generation}"


def split_generation(physical: str) -> tuple[str, str] | None:
    """(name, generation) of a `generation_name`; None for any other text."""
    match = _GENERATION.fullmatch(physical)
    return (match["name"], match["generation"]) if match else None
