"""The vocabulary of OpenAI's embedding models (cl100k_base): clients made for these send token ids instead of text."""

import base64
import hashlib
import importlib.util
import struct
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from indexing.errors import InvalidRequest

PACKAGE = "quicktok"
"""Carries the vocabulary. Of its code nothing is run."""

SHA256 = "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"
"""Of cl100k_base.tiktoken, as OpenAI published it."""

_HOW = "send text; LangChain's OpenAIEmbeddings does with check_embedding_ctx_length=False"


def decode_tokens(ids: Sequence[int], tokens: Sequence[bytes] | None = None) -> str:
    """The text that the ids spell; a character that was cut in two is replaced.

    `tokens` are the bytes of each token, by default those of cl100k_base. Raises InvalidRequest for ids that are not
    among them, or if the vocabulary is not installed.
    """
    tokens = _vocabulary() if tokens is None else tokens
    if not all(0 <= number < len(tokens) for number in ids):
        raise InvalidRequest(f"the token ids are not all of cl100k_base (0 to {len(tokens) - 1}); {_HOW}")
    return b"".join(tokens[number] for number in ids).decode("utf-8", "replace")


@cache
def _vocabulary() -> list[bytes]:
    """The bytes of each token, by its id; read once, in about 0.2 s."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise InvalidRequest(f"token ids cannot be read here: pip install '.[quickstart]', or {_HOW}")
    tokens = list(_read(Path(spec.submodule_search_locations[0], "data", "cl100k.vocab")))
    if _digest(tokens) != SHA256:
        raise InvalidRequest(f"the vocabulary in the package {PACKAGE} is not OpenAI's cl100k_base; {_HOW}")
    return tokens


def _read(path: Path) -> Iterator[bytes]:
    """In order of their ids. The file: how many tokens there are, then each one's length, bytes and id."""
    data = path.read_bytes() if path.exists() else b""
    at = 4
    while at < len(data):
        (length,) = struct.unpack_from("<H", data, at)
        yield data[at + 2 : at + 2 + length]
        at += length + 6


def _digest(tokens: Sequence[bytes]) -> str:
    """Of the vocabulary as OpenAI writes it."""
    lines = (base64.b64encode(token) + b" %d\n" % number for number, token in enumerate(tokens))
    return hashlib.sha256(b"".join(lines)).hexdigest()
