"""Chunks: nothing lost, nothing invented, nothing that the model would not read, and cut where a reader would."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from indexing.chunking import ChunkOptions, chunk, embedding_text
from indexing.documents import Block, BlockKind, Document, PageStart

Spans = list[tuple[int, int]]


def word_tokens(text: str) -> Spans:
    """As WordPiece on short words: a token per word or mark; an unknown word of any length is one token."""
    return [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)]


def piece_tokens(text: str) -> Spans:
    """As SentencePiece: tokens of up to four characters that begin with the space before."""
    return [match.span() for match in re.finditer(r"\s?\S{1,4}|\s", text)]


def byte_tokens(text: str) -> Spans:
    """As a byte-level model at its worst: a token per byte, several of them over one character."""
    return [(at, at + 1) for at, char in enumerate(text) for _ in char.encode("utf-8", "replace")]


WORDY = [
    "One two three.",
    "Dr. No said: 3.5!",
    "汉字没有空格，只有标点。",
    "「はい。」と言った。",
    "هل هذا صحيح؟ نعم.",
    "👨‍👩‍👧👍🏽",
    "e\u0301\u0327\u0308",
    "שלום עולם",
]
EDGY = [" ", "\n", "\r\n", "\n\n", "\t", "\u00a0", "\ud800", "\u200d", "\u0301"]
LONG = st.sampled_from(["x", "漢", "word ", "é", "👍🏽", "a. ", " ", "\u0301"])
PIECES = st.one_of(
    st.sampled_from(WORDY),
    st.sampled_from(EDGY),
    st.builds(lambda unit, times: unit * times, LONG, st.integers(1, 600)),
    st.text(max_size=20),
)
KINDS: list[BlockKind] = ["heading", "paragraph", "list_item", "table_row", "code", "quote"]


@st.composite
def documents(draw: st.DrawFn) -> Document:
    """Random texts with random but lawful blocks over all, some or none of them, and random pages."""
    text, blocks, pages = "", [], []
    for _ in range(draw(st.integers(0, 12))):
        content = "".join(draw(st.lists(PIECES, max_size=6)))
        trimmed = content.strip()
        start = len(text) + len(content) - len(content.lstrip())
        if trimmed and draw(st.integers(0, 9)):
            kind = draw(st.sampled_from(KINDS))
            level = draw(st.integers(1, 6)) if kind == "heading" else 0
            blocks.append(Block(kind, start, start + len(trimmed), level, kind == "table_row" and draw(st.booleans())))
        if draw(st.booleans()):
            pages.append(PageStart(len(text), len(pages) + 1))
        text += content + draw(st.sampled_from(["\n", "\n\n", "\r\n\r\n", "\n \n"]))
    title = draw(st.one_of(st.just(""), PIECES))
    return Document(text=text, title=title, blocks=tuple(blocks), pages=tuple(pages))


OPTIONS = st.builds(
    lambda target, minimum, room: ChunkOptions(max_tokens=128 + room, target=target, minimum=min(minimum, target)),
    st.integers(1, 128), st.integers(1, 60), st.integers(0, 200),
)  # fmt: skip
TOKENS = st.sampled_from([word_tokens, piece_tokens, byte_tokens])


@given(documents(), TOKENS, OPTIONS)
@settings(max_examples=300, deadline=None)
def test_holds_for_any_document(document: Document, tokens, options: ChunkOptions) -> None:  # type: ignore[no-untyped-def]
    """Text and offsets agree, nothing is lost or doubled, nothing is blank, and the model reads all of it."""
    chunks = chunk(document, tokens, options)
    position = 0
    for ordinal, piece in enumerate(chunks):
        assert piece.ordinal == ordinal
        assert piece.text == document.text[piece.start : piece.end]
        assert piece.text == piece.text.strip() != ""
        assert not document.text[position : piece.start].strip()
        assert piece.start >= position
        assert len(tokens(embedding_text(document.title, piece))) <= options.max_tokens
        position = piece.end
    assert not document.text[position:].strip()
    assert chunks == chunk(document, tokens, options)
