"""Reads Markdown, and the front matter before it."""

import re
from collections.abc import Iterator

from markdown_it import MarkdownIt
from markdown_it.token import Token

from indexing.documents import Block, BlockKind, Document
from indexing.readers.builder import covering, line_spans, one_line, trimmed
from indexing.readers.limits import ReadLimits
from indexing.readers.text.encoding import decoded

Scalar = str | int | float | bool
Fields = dict[str, Scalar | list[Scalar]]

_HEAD = re.compile(r"---[ \t]*\r?\n(.*?)\r?\n(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_FIELD = re.compile(r"(\w[\w -]{0,63}?)[ \t]*:(?:[ \t]+(.*))?")
_ITEM = re.compile(r"[ \t]*-[ \t]+(?![\w-]+:(?:[ \t]|$))(\S.*)")
_LISTED = re.compile(r"""\s*("[^"]*"|'[^']*'|[^,]+)""")
_COMMENT = re.compile(r"(?:^|[ \t])#.*")
_WHOLE = re.compile(r"[+-]?(?:0|[1-9]\d{0,14})", re.ASCII)
_DECIMAL = re.compile(r"[+-]?\d{1,15}\.\d{1,15}", re.ASCII)
_NOTHING = ("", "~", "null", "|", ">", "|-", ">-")
_BOOLEANS = {"true": True, "false": False}


def front_matter(text: str) -> tuple[int, Fields]:
    """Where the front matter ends, 0 if there is none; and its fields: texts, numbers, booleans and lists of them."""
    head = _HEAD.match(text)
    return (head.end(), _fields(head[1])) if head else (0, {})


def _fields(head: str) -> Fields:
    fields: Fields = {}
    items: list[Scalar] = []
    for line in head.splitlines():
        if field := _FIELD.fullmatch(line):
            value, items = _value((field[2] or "").strip()), []
            fields[field[1]] = items if value is None else value
        elif item := _ITEM.fullmatch(line):
            items.append(_scalar(item[1].strip()))
    return {name: value for name, value in fields.items() if value != []}


def _value(text: str) -> Scalar | list[Scalar] | None:
    """None for an empty value, after which a list may follow."""
    bare = _COMMENT.sub("", text).strip()
    if bare.startswith("[") and bare.endswith("]"):
        return [_scalar(part.strip()) for part in _LISTED.findall(bare[1:-1]) if part.strip()]
    return None if bare in _NOTHING else _scalar(text)


def _scalar(text: str) -> Scalar:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    bare = _COMMENT.sub("", text).strip()
    if _WHOLE.fullmatch(bare):
        return int(bare)
    return float(bare) if _DECIMAL.fullmatch(bare) else _BOOLEANS.get(bare.lower(), bare)


_LEAVES: dict[str, BlockKind] = {
    "heading_open": "heading",
    "paragraph_open": "paragraph",
    "fence": "code",
    "code_block": "code",
    "html_block": "paragraph",
    "tr_open": "table_row",
}
_MARKUP = re.compile(r"[*_`]+|!?\[([^\]]*)\]\([^)]*\)")


def read_markdown(data: bytes, name: str, limits: ReadLimits) -> list[Document]:
    """One document: the decoded file. Front matter gives title and metadata."""
    text, warnings = decoded(data)
    start, metadata = front_matter(text)
    blocks = covering(text, _blocks(text, start))
    title = str(metadata.pop("title", "")) or _first_heading(text, blocks)
    return [
        Document(
            text=text, title=title, blocks=blocks, media_type="text/markdown", metadata=metadata, warnings=warnings
        )
    ]


def _first_heading(text: str, blocks: tuple[Block, ...]) -> str:
    headings = [block for block in blocks if block.kind == "heading"]
    if not headings:
        return ""
    best = min(headings, key=lambda block: block.level)
    first_line = text[best.start : best.end].splitlines()[0]
    return one_line(_MARKUP.sub(lambda match: match[1] or "", first_line.strip("# \t")))


def _blocks(text: str, start: int) -> Iterator[Block]:
    if start and (front := trimmed(text, 0, start, "code")):
        yield front
    # Only the block rules run: the inline ones would cost most of the time and say nothing about structure.
    parser = MarkdownIt("commonmark", {"maxNesting": 60}).enable("table")
    parser.core.ruler.enableOnly(["normalize", "block"])
    lines = [(begin + start, end + start) for begin, end in line_spans(text[start:])]
    for kind, first, last, level, header in _leaves(parser.parse(text[start:])):
        if first < len(lines):
            block = trimmed(text, lines[first][0], lines[min(last, len(lines)) - 1][1], kind, level, header=header)
            if block:
                yield block


def _leaves(tokens: list[Token]) -> Iterator[tuple[BlockKind, int, int, int, bool]]:
    """(kind, first line, line after the last, level, header) of every token that holds text itself."""
    inside: list[str] = []
    item_starts: list[int] = []
    for token in tokens:
        if token.nesting < 0:
            inside.pop()
        kind = _LEAVES.get(token.type)
        if token.type == "list_item_open" and token.map:
            item_starts.append(token.map[0])
        if kind and token.map:
            first, last = token.map
            if kind == "paragraph" and (context := _context(inside)):
                kind = context
            # The first paragraph of a list item begins at the item's bullet.
            if item_starts:
                first = min(first, item_starts.pop())
                item_starts.clear()
            header = kind == "table_row" and "thead_open" in inside
            yield kind, first, last + header, int(token.tag[1]) if kind == "heading" else 0, header
        if token.nesting > 0:
            inside.append(token.type)


def _context(inside: list[str]) -> BlockKind | None:
    if "list_item_open" in inside:
        return "list_item"
    return "quote" if "blockquote_open" in inside else None
