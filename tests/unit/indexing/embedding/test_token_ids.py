"""Token ids of OpenAI's models as text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexing.embedding.token_ids import decode_tokens
from indexing.errors import InvalidRequest

pytestmark = pytest.mark.numeric

BYTES = [bytes([number]) for number in range(256)]


@given(st.text())
def test_bytes_spell_their_text(text: str) -> None:
    """Characters may be spread over tokens."""
    encoded = text.encode("utf-8", "surrogatepass")
    assert decode_tokens(list(encoded), BYTES) == encoded.decode("utf-8", "replace")


@pytest.mark.parametrize("ids", [[256], [-1], [1, 10**12]])
def test_other_ids_are_refused(ids: list[int]) -> None:
    """The message says what to do instead."""
    with pytest.raises(InvalidRequest, match="check_embedding_ctx_length=False"):
        decode_tokens(ids, BYTES)


def test_the_real_vocabulary() -> None:
    """What OpenAI's tokenizer makes of a text in several scripts comes back."""
    ids = [35, 6430, 3504, 8638, 2001, 76502, 22656, 45918, 252, 10709, 77, 38672, 1889, 11410, 236, 231]
    assert decode_tokens(ids) == "Dental cover starts — 日本語 ünïcode 🎉"
