"""Files made with the libraries that people make them with, for tests to read back."""

import io
import struct
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import docx
import openpyxl
import pptx
import pptx.util
import pypdf
from docx.document import Document as WordDocument
from reportlab.lib.pagesizes import A4
from reportlab.pdfgen.canvas import Canvas

from indexing.documents import Document
from indexing.readers import ReadLimits, read


def read_one(data: bytes, name: str, **limits: Any) -> Document:
    """The only document in the file, with its invariants checked."""
    (document,) = read(data, name, ReadLimits(**limits))
    check_blocks(document)
    return document


def check_blocks(document: Document) -> None:
    """What `documents.Block` and `PageStart` promise."""
    position = 0
    for block in document.blocks:
        assert position <= block.start < block.end <= len(document.text)
        assert not document.text[position : block.start].strip()
        assert document.text[block.start : block.end].strip() == document.text[block.start : block.end]
        assert (1 <= block.level <= 6) == (block.kind == "heading")
        position = block.end
    assert not document.text[position:].strip()
    starts = [page.start for page in document.pages]
    assert starts == sorted(starts)
    assert all(0 <= start <= len(document.text) for start in starts)
    document.text.encode("utf-8")
    assert document.content_hash()


def texts(document: Document, kind: str | None = None) -> list[str]:
    """The texts of all blocks, or of those of one kind."""
    return [document.text[block.start : block.end] for block in document.blocks if kind in (None, block.kind)]


def word(build: Callable[[WordDocument], object]) -> bytes:
    """A docx."""
    document = docx.Document()
    build(document)
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


def workbook(**sheets: Sequence[Sequence[Any]]) -> bytes:
    """An xlsx with rows per sheet."""
    book = openpyxl.Workbook()
    book.remove(book.worksheets[0])
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(list(row))
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def slides(*contents: tuple[str, Sequence[str], str]) -> bytes:
    """A pptx of slides with title, bullets and speaker notes."""
    deck = pptx.Presentation()
    for title, bullets, notes in contents:
        slide = deck.slides.add_slide(deck.slide_layouts[1])
        slide.shapes.title.text = title
        slide.placeholders[1].text = "\n".join(bullets)
        if notes:
            slide.notes_slide.notes_text_frame.text = notes
    file = io.BytesIO()
    deck.save(file)
    return file.getvalue()


Line = tuple[float, float, str]


def pdf(*pages: Sequence[Line], size: float = 11, **headings: float) -> bytes:
    """A PDF of lines (x, y from the top, text); a text named in `headings` has that size."""
    file = io.BytesIO()
    canvas = Canvas(file, pagesize=A4)
    for lines in pages:
        for x, y, text in lines:
            canvas.setFont("Helvetica", headings.get(text, size))
            canvas.drawString(x, A4[1] - y, text)
        canvas.showPage()
    canvas.save()
    return file.getvalue()


def encrypted(data: bytes, user_password: str) -> bytes:
    """The PDF, encrypted."""
    writer = pypdf.PdfWriter(io.BytesIO(data))
    writer.encrypt(user_password=user_password, owner_password="owner", algorithm="AES-256")
    file = io.BytesIO()
    writer.write(file)
    return file.getvalue()


def zipped(members: dict[str, str | bytes]) -> bytes:
    """A zip of these members."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            # As the standards want it, and as file types are told apart by.
            packing = zipfile.ZIP_STORED if name == "mimetype" else zipfile.ZIP_DEFLATED
            archive.writestr(name, content, packing)
    return file.getvalue()


def epub(chapters: dict[str, str], rename: dict[str, str] | None = None) -> bytes:
    """An EPUB with these XHTML chapters, the spine in their order; `rename` gives members other names than it says."""
    items = "".join(f'<item id="{name}" href="{name}.xhtml" media-type="application/xhtml+xml"/>' for name in chapters)
    spine = "".join(f'<itemref idref="{name}"/>' for name in chapters)
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata>'
        "<dc:title>The Book</dc:title><dc:creator>A. Writer</dc:creator><dc:language>en</dc:language></metadata>"
        f"<manifest>{items}</manifest><spine>{spine}</spine></package>"
    )
    container = '<container><rootfiles><rootfile full-path="OEBPS/content.opf"/></rootfiles></container>'
    members: dict[str, str | bytes] = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": container,
        "OEBPS/content.opf": package,
    }
    # Written in reverse: the spine, not the zip, says which chapter comes first.
    for name, body in reversed(chapters.items()):
        members[f"OEBPS/{name}.xhtml"] = f"<html><head><title>{name}</title></head><body>{body}</body></html>"
    return zipped({(rename or {}).get(name, name): content for name, content in members.items()})


def odt(body: str) -> bytes:
    """An ODT with this content of office:text."""
    names = " ".join(
        f'xmlns:{prefix}="urn:oasis:names:tc:opendocument:xmlns:{prefix}:1.0"'
        for prefix in ("office", "text", "table", "draw", "meta")
    )
    content = (
        f"<office:document-content {names}><office:body><office:text>{body}</office:text></office:body>"
        "</office:document-content>"
    )
    meta = (
        f'<office:document-meta {names} xmlns:dc="http://purl.org/dc/elements/1.1/"><office:meta>'
        "<dc:title>Minutes</dc:title></office:meta></office:document-meta>"
    )
    return zipped({"mimetype": "application/vnd.oasis.opendocument.text", "content.xml": content, "meta.xml": meta})


def presentation(*slides: str) -> bytes:
    """An ODP of slides with these shapes."""
    names = " ".join(
        f'xmlns:{prefix}="urn:oasis:names:tc:opendocument:xmlns:{prefix}:1.0"'
        for prefix in ("office", "text", "table", "draw", "presentation")
    )
    pages = "".join(f"<draw:page>{shapes}</draw:page>" for shapes in slides)
    content = (
        f"<office:document-content {names}><office:body><office:presentation>{pages}</office:presentation>"
        "</office:body></office:document-content>"
    )
    return zipped({"mimetype": "application/vnd.oasis.opendocument.presentation", "content.xml": content})


_SECTOR, _MINI, _NOTHING, _END = 512, 64, 0xFFFFFFFF, 0xFFFFFFFE


def ole(streams: dict[str, bytes]) -> bytes:
    """The container of Office before 2007 and of Outlook, with these streams; slashes part storages (MS-CFB)."""
    names = sorted(
        {"/".join(path.split("/")[:depth]) for path in streams for depth in range(1, path.count("/") + 2)},
        key=lambda path: (path.count("/"), len(path), path.upper()),
    )
    small = {path: data for path, data in streams.items() if len(data) < 4096}
    mini, mini_fat, starts = b"", [], {}
    for path, data in small.items():
        starts[path] = len(mini_fat) if data else _END
        count = -(-len(data) // _MINI)
        mini_fat += [*range(len(mini_fat) + 1, len(mini_fat) + count), *([_END] if data else [])]
        mini += data.ljust(count * _MINI, b"\0")
    entries = [_ole_entry("Root Entry", 5, _children(names, "", names)[0], _NOTHING, 0, len(mini))]
    body, fat = b"", []

    def place(data: bytes) -> int:
        nonlocal body, fat
        start, count = len(fat), -(-len(data) // _SECTOR)
        fat += [*range(start + 1, start + count), *([_END] if data else [])]
        body += data.ljust(count * _SECTOR, b"\0")
        return start if data else _END

    starts |= {path: place(data) for path, data in streams.items() if path not in small}
    for path in names:
        siblings = _children(names, path.rpartition("/")[0], names)
        following = siblings[siblings.index(names.index(path) + 1) + 1 :]
        inner = _children(names, path, names) if path not in streams else []
        entries.append(
            _ole_entry(
                path.rpartition("/")[2],
                2 if path in streams else 1,
                inner[0] if inner else _NOTHING,
                following[0] if following else _NOTHING,
                starts.get(path, 0),
                len(streams.get(path, b"")),
            )
        )
    mini_start, mini_fat_start = place(mini), place(struct.pack(f"<{len(mini_fat)}I", *mini_fat))
    entries[0] = _ole_entry("Root Entry", 5, _children(names, "", names)[0], _NOTHING, mini_start, len(mini))
    directory = place(b"".join(entries).ljust(-(-len(entries) // 4) * _SECTOR, b"\0"))
    fat.append(0xFFFFFFFD)
    table = struct.pack("<128I", *fat, *[_NOTHING] * (128 - len(fat)))
    head = struct.pack(
        "<8s16sHHHHH6xIIIIIIIII109I",
        *(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", bytes(16), 0x3E, 3, 0xFFFE, 9, 6, 0, 1, directory, 0, 4096),
        *(mini_fat_start, 1 if mini_fat else 0, _END, 0, len(fat) - 1, *[_NOTHING] * 108),
    )
    return head + body + table


def _children(names: list[str], folder: str, order: list[str]) -> list[int]:
    """The numbers of the entries right inside of a storage."""
    return [order.index(path) + 1 for path in names if path.rpartition("/")[0] == folder]


def _ole_entry(name: str, kind: int, child: int, right: int, start: int, size: int) -> bytes:
    text = name.encode("utf-16-le") + b"\0\0"
    fields = (text, len(text), kind, 1, _NOTHING, right, child, bytes(16), 0, bytes(16), start, size)
    return struct.pack("<64sHBBIII16sI16sIQ", *fields)


def outlook(texts: dict[int, str], files: dict[str, bytes] | None = None, page: bytes = b"", sent: int = 0) -> bytes:
    """An Outlook message with these properties and attachments; `sent` in 100 ns since 1601."""
    return ole(_message_streams("", texts, files or {}, page, sent))


def _message_streams(
    folder: str, texts: dict[int, str], files: dict[str, bytes], page: bytes, sent: int
) -> dict[str, bytes]:
    head = bytes(24 if folder else 32)
    streams = {f"{folder}__properties_version1.0": head + struct.pack("<HHIQ", 0x40, 0x39, 6, sent)}
    streams |= {f"{folder}__substg1.0_{number:04X}001F": text.encode("utf-16-le") for number, text in texts.items()}
    if page:
        streams[f"{folder}__substg1.0_10130102"] = page
    for number, (name, data) in enumerate(files.items()):
        storage = f"{folder}__attach_version1.0_#{number:08X}/"
        streams[f"{storage}__properties_version1.0"] = bytes(8)
        streams[f"{storage}__substg1.0_3707001F"] = name.encode("utf-16-le")
        if name.endswith(".inner"):
            inner = {0x37: name, 0x1000: data.decode()}
            streams |= _message_streams(f"{storage}__substg1.0_3701000D/", inner, {}, b"", sent)
        else:
            streams[f"{storage}__substg1.0_37010102"] = data
    return streams
