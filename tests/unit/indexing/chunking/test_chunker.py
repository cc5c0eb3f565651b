"""Chunks: nothing lost, nothing invented, nothing that the model would not read, and cut where a reader would."""

import re
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexing.chunking.chunker import ChunkOptions, chunk, embedding_text
from indexing.documents import Block, BlockKind, Chunk, Document, PageStart, page_at

Spans = list[tuple[int, int]]
Tokens = Callable[[str], Spans]


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
    text = ""
    blocks: list[Block] = []
    pages: list[PageStart] = []
    for _ in range(draw(st.integers(0, 12))):
        content = "".join(draw(st.lists(PIECES, max_size=6)))
        trimmed = content.strip()
        start = len(text) + len(content) - len(content.lstrip())
        if trimmed and draw(st.integers(0, 9)):
            kind = draw(st.sampled_from(KINDS))
            level = draw(st.integers(1, 6)) if kind == "heading" else 0
            blocks.append(Block(kind, start, start + len(trimmed), level, kind == "table_row" and draw(st.booleans())))
        for _ in range(draw(st.integers(0, 2))):  # a page without text begins where the next one does
            pages.append(PageStart(len(text), len(pages) + 1))
        text += content + draw(st.sampled_from(["\n", "\n\n", "\r\n\r\n", "\n \n"]))
    title = draw(st.one_of(st.just(""), PIECES))
    return Document(text=text, title=title, blocks=tuple(blocks), pages=tuple(pages))


OPTIONS = st.builds(
    lambda target, minimum, room: ChunkOptions(max_tokens=128 + room, target=target, minimum=min(minimum, target)),
    st.integers(1, 128), st.integers(1, 60), st.integers(0, 200),
)  # fmt: skip
TOKENS = st.sampled_from([word_tokens, piece_tokens, byte_tokens])


@pytest.mark.slow
@given(documents(), TOKENS, OPTIONS)
@settings(max_examples=300, deadline=None)
def test_holds_for_any_document(document: Document, tokens: Tokens, options: ChunkOptions) -> None:
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


@given(documents(), TOKENS, OPTIONS)
@settings(max_examples=100, deadline=None)
def test_knows_the_page_of_each_character(document: Document, tokens: Tokens, options: ChunkOptions) -> None:
    """As the document tells it: the page that begins last, at the character or before."""
    for piece in chunk(document, tokens, options):
        for offset in range(piece.start, piece.end):
            begun = [page.number for page in document.pages if page.start <= offset]
            assert page_at(piece.later_pages, offset, piece.page) == (begun[-1] if begun else None)


def paragraph(sentences: int, about: str = "rivers") -> str:
    return " ".join(f"Sentence {number} says a few more words about {about}." for number in range(sentences))


def markdown(*blocks: tuple[BlockKind, str]) -> Document:
    """A document of these blocks; a heading's level is the number of its marks."""
    text = ""
    found: list[Block] = []
    for kind, content in blocks:
        level = len(content) - len(content.lstrip("#")) if kind == "heading" else 0
        header = kind == "table_row" and (not found or found[-1].kind != "table_row")
        found.append(Block(kind, len(text), len(text) + len(content), level, header))
        text += content + "\n\n"
    return Document(text=text, title="Waters", blocks=tuple(found))


def cut(document: Document, target: int = 60, minimum: int = 20) -> list[Chunk]:
    return chunk(document, word_tokens, ChunkOptions(max_tokens=256, target=target, minimum=minimum))


@pytest.mark.parametrize("text", ["", " ", "\r\n \n\t"])
def test_blank_documents_have_no_chunks(text: str) -> None:
    """A document without a visible character has nothing to find."""
    assert cut(Document(text=text)) == []


def test_cuts_between_sentences() -> None:
    """A long paragraph is cut where sentences end, near the target."""
    pieces = cut(Document(text=paragraph(60)))
    assert all(piece.text.startswith("Sentence") and piece.text.endswith("rivers.") for piece in pieces)
    assert all(45 <= len(word_tokens(piece.text)) <= 75 for piece in pieces)


def test_prefers_the_end_of_a_paragraph() -> None:
    """A paragraph a little above or below the target stays whole."""
    blocks = [paragraph(5), paragraph(7), paragraph(5), paragraph(6)]
    pieces = cut(Document(text="\n\n".join(blocks)))
    assert [piece.text for piece in pieces] == blocks


def test_small_paragraphs_of_a_section_are_joined() -> None:
    """Neighbours that are far below the target share a chunk."""
    pieces = cut(Document(text="\n\n".join([paragraph(1)] * 12)))
    assert all(len(word_tokens(piece.text)) > 40 for piece in pieces)


def test_no_chunk_crosses_into_another_section() -> None:
    """A section of fair size shares no chunk with the next one, and each chunk knows the path of its headings."""
    document = markdown(
        ("heading", "# Guide"),
        ("heading", "## Nile #"),
        ("paragraph", paragraph(14)),
        ("heading", "## Rhine"),
        ("paragraph", paragraph(4)),
        ("heading", "# Notes"),
        ("paragraph", paragraph(3)),
    )
    found = [(piece.heading, piece.text.splitlines()[0]) for piece in cut(document)]
    assert [heading for heading, _ in found] == [("Guide", "Nile"), ("Guide", "Nile"), ("Guide", "Rhine"), ("Notes",)]
    assert [line for _, line in found][::2] == ["# Guide", "## Rhine"]


def test_tiny_sections_share_a_chunk() -> None:
    """Questions and answers of one line each do not become chunks of one line; their common heading is the path."""
    blocks: list[tuple[BlockKind, str]] = [("heading", "# Answers")]
    for n in range(20):
        blocks += [("heading", f"## Why {n}?"), ("paragraph", f"Because of the number {n}.")]
    pieces = cut(markdown(*blocks))
    assert all(len(word_tokens(piece.text)) >= 20 for piece in pieces)
    assert {piece.heading for piece in pieces} == {("Answers",)}


def test_a_tiny_section_does_not_swallow_the_next() -> None:
    """A one-line section before a long one stays a chunk of its own."""
    document = markdown(
        ("heading", "# One"), ("paragraph", "Short."), ("heading", "# Two"), ("paragraph", paragraph(20))
    )  # fmt: skip
    assert [piece.heading for piece in cut(document)][:2] == [("One",), ("Two",)]


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 12), st.integers(1, 12)), min_size=1, max_size=10))
@settings(deadline=None)
def test_a_heading_stays_with_its_text(sections: list[tuple[int, int, int]]) -> None:
    """No chunk ends in a heading, unless nothing but headings follows."""
    blocks: list[tuple[BlockKind, str]] = []
    for level, sentences, words in sections:
        blocks.append(("heading", "#" * level + " Part" * words))
        blocks += [("paragraph", paragraph(sentences))] if sentences else []
    document = markdown(*blocks)
    text_ends = max((block.end for block in document.blocks if block.kind != "heading"), default=0)
    heading_ends = {block.end for block in document.blocks if block.kind == "heading"}
    for piece in cut(document):
        assert piece.end not in heading_ends or piece.end > text_ends


def test_a_long_heading_goes_with_the_start_of_its_text() -> None:
    """Where a heading and its first sentence are too long together, the sentence is cut, not the two apart."""
    document = markdown(("heading", "# " + "Part " * 150), ("paragraph", "word " * 180))
    first, *_ = cut(document, target=140)
    assert first.text.startswith("# Part")
    assert first.text.endswith("word")


def test_the_lead_is_what_stands_before() -> None:
    """A chunk is embedded with the sentences of its section right before it; the first of a section has none."""
    document = markdown(
        ("heading", "# One"), ("paragraph", paragraph(14)), ("heading", "# Two"), ("paragraph", paragraph(14))
    )  # fmt: skip
    pieces = cut(document)
    assert [bool(piece.lead) for piece in pieces] == [False, True, False, True]
    for piece in pieces:
        assert document.text[: piece.start].endswith(piece.lead)
        assert len(word_tokens(piece.lead)) <= ChunkOptions().lead
        assert piece.lead.startswith("Sentence") or not piece.lead
        assert piece.lead + piece.text in embedding_text("", piece)


def test_rows_carry_the_header_of_their_table() -> None:
    """Rows in a later chunk than their header row have it at the end of their path, and so in what is embedded."""
    rows: list[tuple[BlockKind, str]] = [("table_row", f"| River {n} | {n} km |") for n in range(30)]
    document = markdown(("heading", "# Lengths"), ("table_row", "| Name | Length |\n|---|---|"), *rows)
    first, *others = cut(document)
    assert first.heading == ("Lengths",)
    assert {piece.heading for piece in others} == {("Lengths", "| Name | Length |")}
    assert all(piece.text.startswith("| River") and piece.text.endswith("km |") for piece in others)
    assert embedding_text("Waters", others[0]).startswith("Waters > Lengths > | Name | Length |\n| River")


def test_the_columns_of_a_header_stay_apart() -> None:
    """By the tabs between them: an answer names the column of a later row."""
    rows: list[tuple[BlockKind, str]] = [("table_row", f"River {n}\t{n} km") for n in range(30)]
    *_, last = cut(markdown(("table_row", "Name  of river\tLength"), *rows))
    assert last.heading == ("Name of river\tLength",)


def test_code_is_cut_between_lines() -> None:
    """A long listing keeps its lines whole."""
    lines = [f"value_{n} = compute(a, b, {n})  # 1. first! 2. second?" for n in range(30)]
    document = markdown(("code", "\n".join(lines)))
    assert [line for piece in cut(document) for line in piece.text.split("\n")] == lines


def test_pages() -> None:
    """A chunk's page is the one on which it starts; a new page is a good place to cut."""
    text = paragraph(6) + "\n\n" + paragraph(6) + "\n\n" + paragraph(6)
    starts = [match.start() for match in re.finditer("Sentence 0", text)]
    pages = tuple(PageStart(start, number) for number, start in enumerate(starts[1:], 2))
    assert [piece.page for piece in cut(Document(text=text, pages=pages))] == [None, 2, 3]


def test_words_and_characters_stay_whole() -> None:
    """A sentence that is too long is cut between words, and a word that is too long between visible characters."""
    words = " ".join(f"word{n}" for n in range(2_000))
    assert " ".join(piece.text for piece in cut(Document(text=words))) == words
    emoji, accents = "👩‍👩‍👧‍👧", "e\u0301\u0327"
    for unit in (emoji, accents):
        pieces = chunk(Document(text=unit * 500), byte_tokens, ChunkOptions(max_tokens=128))
        assert len(pieces) > 5
        assert all(piece.text == unit * (len(piece.text) // len(unit)) for piece in pieces)


def test_text_without_spaces_is_cut_at_its_punctuation() -> None:
    """Chinese without a full stop is cut after commas."""
    text = "这条河流很长，" * 200
    assert all(piece.text.endswith("，") for piece in cut(Document(text=text)))


def test_the_context_says_only_what_the_text_does_not() -> None:
    """Title and headings stand before the text, once each, and never when the text has them already."""
    piece = Chunk(ordinal=0, start=0, end=4, text="## Nile\nLong.", heading=("Waters", "Rivers", "Nile"))
    assert embedding_text("Waters", piece) == "Waters > Rivers\n## Nile\nLong."
    assert embedding_text("", Chunk(ordinal=0, start=0, end=5, text="Plain")) == "Plain"


def test_the_context_is_bounded() -> None:
    """Endless titles and headings are clipped, and the outermost headings go first."""
    piece = Chunk(ordinal=0, start=0, end=1, text="x", heading=("甲" * 40, "乙" * 40, "last"))
    text = embedding_text("Τίτλος " * 100, piece)
    assert len(text.encode()) < 260
    assert text.endswith("> last\nx")
    assert "甲" not in text


def test_long_headings_leave_the_context_before_the_text_is_cut() -> None:
    """Where text and path do not fit together, the path gives way and the text stays one chunk."""
    document = markdown(("heading", "# " + "Ω" * 55), ("paragraph", paragraph(30)))
    options = ChunkOptions(max_tokens=300, target=250, minimum=20)
    pieces = chunk(document, byte_tokens, options)
    assert any(not piece.heading for piece in pieces)
    assert max(len(piece.text) for piece in pieces) > 170


@pytest.mark.parametrize("options", [{"max_tokens": 64}, {"target": 0}, {"minimum": 200}, {"lead": -1}, {"minimum": 0}])
def test_impossible_sizes_are_refused(options: dict[str, int]) -> None:
    """Sizes that contradict one another are an error at once."""
    with pytest.raises(ValueError, match="chunk sizes"):
        ChunkOptions(**options)


@pytest.mark.parametrize(
    "unit",
    [
        "x",
        "漢",
        "汉字。",
        "a ",
        "\n",
        "- a\n",
        "Some words here. ",
        "a. ",
        "👩‍👩‍👧",
        "\u0301",
        "# a\n\n",
        "| a | b |\n",
    ],
)
def test_takes_linear_time(unit: str) -> None:
    """100,000 characters of anything are cut in a moment."""
    text = unit * (100_000 // len(unit))
    started = time.process_time()
    pieces = chunk(Document(text=text), word_tokens, ChunkOptions())
    assert time.process_time() - started < 3
    assert "".join("".join(piece.text.split()) for piece in pieces) == "".join(text.split())
