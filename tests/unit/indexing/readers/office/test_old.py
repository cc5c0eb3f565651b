"""Formats of programs before 2007 and of Outlook, rich text, and OpenDocument slides."""

import importlib.util
import struct

import pytest

from indexing.documents import Document, Refused
from indexing.errors import UnreadableDocument
from indexing.readers import ReadLimits, read
from indexing.readers.limits import reading
from tests.unit.indexing.readers.making import ole, outlook, presentation, read_one, texts

WITH_OFFICE = importlib.util.find_spec("xberg") is not None
SENT = 132_223_104_000_000_000
"""2020-01-01, in the 100 ns since 1601 of Windows."""


def word97(text: str, flags: int = 0x0200) -> bytes:
    """A doc of one piece of text (MS-DOC)."""
    fib = bytearray(1024)
    struct.pack_into("<HH", fib, 0, 0xA5EC, 0x00C1)
    struct.pack_into("<H", fib, 0x0A, flags)
    struct.pack_into("<II", fib, 0x18, 1024, 1024 + 2 * len(text))
    struct.pack_into("<H", fib, 0x20, 14)
    struct.pack_into("<H", fib, 0x3E, 22)
    struct.pack_into("<I", fib, 0x4C, len(text))
    struct.pack_into("<H", fib, 0x98, 93)
    pieces = struct.pack("<IIHIH", 0, len(text), 0, 1024, 0)
    table = b"\x02" + struct.pack("<I", len(pieces)) + pieces
    struct.pack_into("<II", fib, 0x1A2, 0, len(table))
    return ole({"WordDocument": (bytes(fib) + text.encode("utf-16-le")).ljust(4096, b"\0"), "1Table": table})


def powerpoint97(*paragraphs: str, token: int = 0xE391C05F) -> bytes:
    """A ppt of one slide's texts (MS-PPT)."""
    atoms = b"".join(struct.pack("<HHI", 0, 4000, 2 * len(text)) + text.encode("utf-16-le") for text in paragraphs)
    slide = struct.pack("<HHI", 0x0F, 1006, len(atoms)) + atoms
    user = struct.pack("<HHIII", 0, 4086, 20, 20, token)
    return ole({"PowerPoint Document": slide, "Current User": user})


@pytest.mark.skipif(not WITH_OFFICE, reason="xberg, of the extra `office`, is not installed: 160 MB")
def test_old_word_and_powerpoint() -> None:
    """Paragraphs, and the rows of tables; what they are is seen without their names."""
    document = read_one(word97("Dear Ann.\rPart\x07Price\x07\x07Bolt\x070.35\x07\x07The end.\r"), "letter.doc")
    assert texts(document) == ["Dear Ann.", "Part | Price", "Bolt | 0.35", "The end."]
    assert [block.kind for block in document.blocks][1:3] == ["table_row", "table_row"]
    slides = read_one(powerpoint97("Ducks", "A duck swims."), "download")
    assert (texts(slides), slides.media_type) == (["Ducks", "A duck swims."], "application/vnd.ms-powerpoint")
    with pytest.raises(UnreadableDocument) as refusal:
        read(ole({"WordDocument": bytes(100)}), "letter.doc", ReadLimits())
    assert refusal.value.reason == "corrupt"
    assert "office" in reading(ReadLimits())


@pytest.mark.skipif(WITH_OFFICE, reason="xberg, of the extra `office`, is installed")
def test_old_word_and_powerpoint_without_the_extra() -> None:
    """The refusal names the extra, and the format to save it in; with the extra it is read again."""
    for data, name in ((word97("Dear Ann.\r"), "letter.doc"), (powerpoint97("Ducks"), "ducks.ppt")):
        with pytest.raises(
            UnreadableDocument, match=r"pip install 'winnow\[office\]'.*save it as (doc|ppt)x"
        ) as refusal:
            read(data, name, ReadLimits())
        assert refusal.value.reason == "unsupported"
    assert not reading(ReadLimits()).endswith("office")


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (word97("Dear Ann.\r", flags=0x0300), "letter.doc"),
        (powerpoint97("Ducks", token=0xF3D1C4DF), "ducks.ppt"),
        (ole({"PowerPoint Document": b"", "Current User": bytes(20), "EncryptedSummary": b""}), "ducks.ppt"),
    ],
)
def test_old_files_with_a_password(data: bytes, name: str) -> None:
    """They are refused for that, with the extra and without it."""
    with pytest.raises(UnreadableDocument) as refusal:
        read(data, name, ReadLimits())
    assert refusal.value.reason == "password"


def test_an_outlook_message_is_a_mail() -> None:
    """With its sender, its time, the mails attached to it as forwarded ones, and its files as documents."""
    fields = {0x37: "Offer", 0x1000: "See below.", 0x0C1A: "Ann Ä", 0x5D01: "ann@example.org", 0x0E04: "Bob"}
    files = {"prices.txt": b"Part | Price", "scan.bin": bytes(range(256)) * 20, "old.inner": b"40 EUR a piece."}
    for name in ("offer.msg", "download"):
        mail, prices, scan = read(outlook(fields, files, sent=SENT), name, ReadLimits())
        assert isinstance(mail, Document)
        assert isinstance(prices, Document)
        assert isinstance(scan, Refused)
        assert (mail.title, mail.media_type) == ("Offer", "application/vnd.ms-outlook")
        assert (mail.metadata["from"], mail.metadata["to"]) == ("Ann Ä <ann@example.org>", "Bob")
        assert mail.metadata["date"] == "2020-01-01T00:00:00+00:00"
        assert texts(mail)[0] == "See below."
        assert texts(mail)[1].startswith("Forwarded: old.inner")
        assert texts(mail)[2:] == ["40 EUR a piece.", "Attachments: prices.txt, scan.bin"]
        assert (prices.key, prices.text, prices.metadata["mail"]) == ("#/prices.txt", "Part | Price", "Offer")
        assert (scan.part, scan.reason) == ("/scan.bin", "binary")


def test_an_outlook_message_of_an_exchange_server() -> None:
    """An address of its own kind is none, and the page is shown where there is no other text."""
    page = '<meta charset="windows-1251"><p>Привет</p>'.encode("cp1251")
    fields = {0x0C1A: "Ann", 0x0C1F: "/O=HOST/CN=ANN@HOST"}
    document = read_one(outlook(fields, page=page, sent=2**64 - 1), "hello.msg")
    assert (document.text, document.metadata) == ("Привет", {"from": "Ann"})


def test_a_damaged_outlook_message() -> None:
    """It is refused, wherever it is cut."""
    whole = outlook({0x37: "Offer", 0x1000: "See below."}, {"a.txt": b"a" * 5000})
    for size in range(600, len(whole) - 512, 700):
        with pytest.raises(UnreadableDocument) as refusal:
            read(whole[:size], "offer.msg", ReadLimits())
        assert refusal.value.reason == "corrupt"


def test_rich_text() -> None:
    """Paragraphs and rows, in the encodings of its fonts; pictures cost nothing."""
    picture = "{\\pict\\pngblip " + ("89504e47" * 8 + "\n") * 20_000 + "}"
    data = (
        "{\\rtf1\\ansi\\ansicpg1252{\\fonttbl{\\f0\\fcharset0 Arial;}{\\f1\\fcharset204 Arial;}}"
        "{\\info{\\title Gr\\'f6\\'dfe}{\\author Jo}}\\f0 Gr\\'f6\\'dfe \\u8364?\\par"
        + picture
        + "\\f1\\'cf\\'f0\\par\\f0 "
        "\\trowd\\cellx1\\cellx2\\intbl Part\\cell Price\\cell\\row\\intbl Bolt\\cell 0.35\\cell\\row\\pard End.\\par}"
    )
    for name in ("letter.rtf", "letter.doc", "download"):
        document = read_one(data.encode(), name)
        assert texts(document) == ["Größe €", "Пр", "Part | Price", "Bolt | 0.35", "End."]
        assert (document.title, document.metadata) == ("Größe", {"author": "Jo"})


def test_a_page_with_the_name_of_an_old_format() -> None:
    """Programs export tables as pages called xls, which Excel opens."""
    assert read_one(b"<html><table><tr><td>a</td><td>1</td></tr></table>", "export.xls").text == "a | 1"


def test_open_document_slides() -> None:
    """A slide is a page; its title is a heading, wherever it stands; the notes follow, and no page numbers."""
    slides = presentation(
        '<draw:frame presentation:class="outline"><draw:text-box><text:list><text:list-item><text:p>one</text:p>'
        "</text:list-item></text:list></draw:text-box></draw:frame>"
        '<draw:frame presentation:class="title"><draw:text-box><text:p>Ducks</text:p></draw:text-box></draw:frame>'
        '<draw:frame presentation:class="page-number"><draw:text-box><text:p>1</text:p></draw:text-box></draw:frame>'
        '<presentation:notes><draw:page-thumbnail/><draw:frame presentation:class="notes"><draw:text-box><text:p>Aside.'
        "</text:p></draw:text-box></draw:frame></presentation:notes>",
        "<draw:g><draw:custom-shape><text:p>In a shape</text:p></draw:custom-shape></draw:g>"
        "<draw:frame><table:table><table:table-row><table:table-cell><text:p>a</text:p></table:table-cell>"
        "<table:table-cell><text:p>b</text:p></table:table-cell></table:table-row></table:table></draw:frame>",
    )
    for name in ("ducks.odp", "download"):
        document = read_one(slides, name)
        assert texts(document) == ["Ducks", "- one", "Aside.", "In a shape", "a | b"]
        assert [page.number for page in document.pages] == [1, 2]
        assert document.title == "Ducks"
    with pytest.raises(UnreadableDocument) as refusal:
        read(slides, "ducks.odp", ReadLimits(max_pages=1))
    assert refusal.value.reason == "too_many_pages"
