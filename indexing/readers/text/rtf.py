"""Rich text (rtf) -> text: paragraphs and the rows of tables."""

import re

from striprtf.striprtf import rtf_to_text

from indexing.documents import Document
from indexing.readers.builder import TextWriter
from indexing.readers.limits import ReadLimits
from indexing.readers.zip_xml import corrupt

_START = re.compile(rb"\s*\{\\rtf")
_CODE_PAGE = re.compile(rb"\\ansicpg(\d{1,5})")
_HEX = re.compile(r"(?>[0-9A-Fa-f]{32,}+\s*+){4,}+")
"""Pictures and embedded files: megabytes that the library would read digit by digit."""
_INFO = re.compile(r"\{\\(title|author) ((?:[^{}\\]|\\[^{}])*)\}")


def read_rtf(data: bytes, name: str, limits: ReadLimits) -> list[Document]:
    """One document. Rows of a table stand on lines of their own."""
    if not _START.match(data):
        raise corrupt("It does not begin as an rtf file does.")
    source = _HEX.sub(" ", data.decode("latin-1"))
    code_page = _CODE_PAGE.search(data)
    charset = f"cp{int(code_page[1])}" if code_page else "cp1252"
    text = rtf_to_text(source, encoding=charset, errors="replace")
    writer = TextWriter()
    rows: list[list[str]] = []
    for line in [*text.split("\n"), ""]:
        if line.endswith("|"):  # the end of a cell
            rows.append([cell.strip() for cell in line.split("|")[:-1]])
            continue
        writer.add_table(rows, header=len(rows) > 1)
        rows = []
        writer.add("paragraph", line)
    information = {
        field: rtf_to_text(f"{{\\rtf1 {value}}}", encoding=charset, errors="replace").strip()
        for field, value in _INFO.findall(source)
    }
    title = information.pop("title", "")
    return [writer.document(title=title, media_type="application/rtf", metadata=information)]
