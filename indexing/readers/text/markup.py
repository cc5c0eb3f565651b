"""XML (JATS, DocBook and others), LaTeX, notebooks, subtitles -> text, never as raw markup."""

import html
import re
from typing import Any

import msgspec
from lxml import etree

from indexing.documents import Document
from indexing.readers.builder import TextWriter, tidy
from indexing.readers.limits import ReadLimits
from indexing.readers.text.encoding import decoded
from indexing.readers.text.markdown import read_markdown
from indexing.readers.zip_xml import corrupt, descendants, local, parse_xml, tags

_TITLES = tags("title article-title book-title subtitle heading head")
_SECTIONS = tags("sec section chapter part appendix sect1 sect2 sect3 sect4 div article book abstract ref-list")
_PARAGRAPHS = tags("p para simpara ab caption label mixed-citation")
_CODE = tags("programlisting screen code literallayout")
_ITEMS = tags("list-item listitem item")
_ROWS = tags("tr row")
_CELLS = tags("td th entry")
_DEPTH = 100


def read_xml(data: bytes, name: str, limits: ReadLimits) -> list[Document]:
    """One document: headings, paragraphs, items and rows of JATS, DocBook and the like; of other XML its texts."""
    root = parse_xml(data)
    writer = TextWriter()
    _write(root, writer, 0, 0)
    title = next((_text(one) for one in descendants(root, "article-title", "title")), "")
    return [writer.document(title=title, media_type="application/xml", metadata={})]


def _write(element: etree._Element, writer: TextWriter, level: int, depth: int) -> None:
    name = local(element)
    if name in _TITLES:
        writer.add("heading", _text(element), level=max(1, level))
    elif name in _CODE:
        writer.add("code", "".join(map(str, element.itertext())))
    elif name in _ROWS:
        writer.add_table([[_text(cell) for cell in element if local(cell) in _CELLS]], header=False)
    elif name in _ITEMS:
        text = _text(element)
        writer.add("list_item", f"- {text}" if text else "")
    elif name in _PARAGRAPHS or not len(element) or (element.text or "").strip() or depth > _DEPTH:
        writer.add("paragraph", _text(element))
    else:
        for inner in element:
            if local(inner):  # a reference to an entity, such as a file of another chapter, is not followed
                _write(inner, writer, level + (local(inner) in _SECTIONS), depth + 1)
            writer.add("paragraph", " ".join((inner.tail or "").split()))


def _text(element: etree._Element) -> str:
    return " ".join("".join(map(str, element.itertext())).split())


_TEX_COMMENT = re.compile(r"(?<!\\)%.*")
_TEX_BODY = re.compile(r"\\begin\{document\}(.*?)(?:\\end\{document\}|\Z)", re.DOTALL)
_TEX_TITLE = re.compile(r"\\title\{([^{}]*)\}")
_TEX_HEADING = re.compile(r"\\(part|chapter|section|subsection|subsubsection|paragraph)\*?\{([^{}]*)\}")
_TEX_LEVELS = {"part": 1, "chapter": 1, "section": 1, "subsection": 2, "subsubsection": 3, "paragraph": 4}
_TEX_CODE = re.compile(r"\\begin\{(verbatim|lstlisting|minted)\}(.*?)\\end\{\1\}", re.DOTALL)
_TEX_UNSEEN = re.compile(
    r"\\(?:label|cite\w*|ref|eqref|vspace|hspace|bibliography\w*|usepackage|includegraphics)\*?(?:\[[^\]]*\])?\{[^{}]*\}"
)
_TEX_ENVIRONMENT = re.compile(r"\\(?:begin|end)\{[^{}]*\}(?:\[[^\]]*\])?")
_TEX_COMMAND = re.compile(r"\\[A-Za-z]+\*?(?:\[[^\]]*\])?[ \t]*")
_TEX_ESCAPED = re.compile(r"\\([%&$#_{}])")
_MATH = re.compile(r"\$\$.*?\$\$|\$[^$\n]*\$|\\\[.*?\\\]|\\\(.*?\\\)", re.DOTALL)


def read_tex(data: bytes, name: str, limits: ReadLimits) -> list[Document]:
    """One document: headings, paragraphs and items; formulas stay as they are written, commands go."""
    source, warnings = decoded(data)
    title = _TEX_TITLE.search(source)
    body = _TEX_BODY.search(source)
    writer = TextWriter()
    position, text = 0, body[1] if body else source
    for code in _TEX_CODE.finditer(text):
        _write_tex(text[position : code.start()], writer)
        writer.add("code", code[2])
        position = code.end()
    _write_tex(text[position:], writer)
    stated = _bare_tex(title[1]) if title else ""
    return [writer.document(title=stated, media_type="application/x-tex", metadata={}, warnings=warnings)]


def _write_tex(text: str, writer: TextWriter) -> None:
    text = _TEX_COMMENT.sub("", text)
    position = 0
    for heading in _TEX_HEADING.finditer(text):
        _write_tex_paragraphs(text[position : heading.start()], writer)
        writer.add("heading", _bare_tex(heading[2]), level=_TEX_LEVELS[heading[1]])
        position = heading.end()
    _write_tex_paragraphs(text[position:], writer)


def _write_tex_paragraphs(text: str, writer: TextWriter) -> None:
    for paragraph in re.split(r"\n\s*\n", text):
        first, *items = re.split(r"\\item\b(?:\[[^\]]*\])?", paragraph)
        writer.add("paragraph", _bare_tex(first))
        for item in items:
            writer.add("list_item", f"- {_bare_tex(item)}" if _bare_tex(item) else "")


def _bare_tex(text: str) -> str:
    """The text without commands, but for formulas."""
    pieces, position = [], 0
    for formula in _MATH.finditer(text):
        pieces += [_without_commands(text[position : formula.start()]), formula[0]]
        position = formula.end()
    return " ".join("".join([*pieces, _without_commands(text[position:])]).split())


def _without_commands(text: str) -> str:
    text = _TEX_ENVIRONMENT.sub(" ", _TEX_UNSEEN.sub("", text))
    text = _TEX_COMMAND.sub("", _TEX_ESCAPED.sub("\x01\\1", text).replace("\\\\", "\n"))
    return re.sub(r"(?<!\x01)[{}]", "", text).replace("\x01", "").replace("~", " ")


def read_notebook(data: bytes, name: str, limits: ReadLimits) -> list[Document]:
    """One document: the text of a Jupyter notebook, its code, and what the code printed."""
    source, warnings = decoded(data)
    try:
        cells = msgspec.json.decode(source)["cells"]
    except (msgspec.DecodeError, KeyError, TypeError) as exc:
        raise corrupt("It is no notebook of version 4.") from exc
    writer = TextWriter()
    for cell in cells if isinstance(cells, list) else ():
        text = _joined(cell.get("source"))
        if cell.get("cell_type") == "markdown":
            (part,) = read_markdown(text.encode(), name, limits)
            for block in part.blocks:
                words = part.text[block.start : block.end]
                writer.add(block.kind, words.lstrip("# ") if block.kind == "heading" else words, level=block.level)
            continue
        writer.add("code" if cell.get("cell_type") == "code" else "paragraph", text)
        for output in cell.get("outputs", ()):
            printed = output.get("text") or (output.get("data") or {}).get("text/plain")
            writer.add("code", _joined(printed)[:_PRINTED_CHARACTERS])
    return [writer.document(title="", media_type="application/x-ipynb+json", metadata={}, warnings=warnings)]


_PRINTED_CHARACTERS = 2000


def _joined(lines: Any) -> str:
    return "".join(map(str, lines)) if isinstance(lines, list) else str(lines or "")


_CUE_TIME = re.compile(r"^\s*(?:\d+:)?\d{1,2}:\d{2}[.,]\d{3}\s*-->.*$")
_CUE_MARKUP = re.compile(r"<[^>]*>|\{\\[^}]*\}")
_CUES_OF_A_PARAGRAPH = 12
_SENTENCE_END = (".", "!", "?", "…", "。", "！", "？")


def read_subtitles(data: bytes, name: str, limits: ReadLimits) -> list[Document]:
    """One document: what is said, in paragraphs of some cues, without times and numbers."""
    source, warnings = decoded(data)
    spoken: list[str] = []
    inside = False
    for line in source.splitlines():
        if _CUE_TIME.match(line):
            inside = True
        elif not line.strip():
            inside = False
        elif inside and (text := tidy(html.unescape(_CUE_MARKUP.sub("", line)))) and text not in spoken[-2:]:
            spoken.append(text)
    writer = TextWriter()
    waiting: list[str] = []
    for text in spoken:
        waiting.append(text)
        if len(waiting) >= _CUES_OF_A_PARAGRAPH and text.endswith(_SENTENCE_END):
            writer.add("paragraph", " ".join(waiting))
            waiting = []
    writer.add("paragraph", " ".join(waiting))
    return [writer.document(title="", media_type="text/vtt", metadata={}, warnings=warnings)]
