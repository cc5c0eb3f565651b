"""Token ids of OpenAI's models as text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexing.embedding.token_ids import Vocabulary, openai_vocabulary
from indexing.errors import InvalidRequest

BYTES = Vocabulary([bytes([number]) for number in range(256)])


@given(st.text())
def test_bytes_spell_their_text(text: str) -> None:
    """Characters may be spread over tokens."""
    assert BYTES.text(list(text.encode("utf-8", "surrogatepass"))) == text.encode("utf-8", "surrogatepass").decode(
        "utf-8", "replace"
    )


@pytest.mark.parametrize("ids", [[256], [-1], [1, 10**12]])
def test_other_ids_are_refused(ids: list[int]) -> None:
    """The message says what to do instead."""
    with pytest.raises(InvalidRequest, match="check_embedding_ctx_length=False"):
        BYTES.text(ids)


def test_the_real_vocabulary() -> None:
    """What OpenAI's tokenizer makes of a text in several scripts comes back."""
    ids = [35, 6430, 3504, 8638, 2001, 76502, 22656, 45918, 252, 10709, 77, 38672, 1889, 11410, 236, 231]
    assert openai_vocabulary().text(ids) == "Dental cover starts — 日本語 ünïcode 🎉"
