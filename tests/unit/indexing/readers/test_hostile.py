"""Files that are broken, locked, or meant to harm: a refusal with a reason, never another exception."""

import io
import json
import os
import random
import tarfile
import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexing.documents import Document
from indexing.errors import UnreadableDocument
from indexing.readers import FORMATS, REASONS, ReadLimits, read
from indexing.readers.zip_xml import parse_xml
from tests.unit.indexing.readers.making import check_blocks, epub, odt, pdf, read_one, slides, word, workbook, zipped

EXTENSIONS = sorted(extension for entry in FORMATS.values() for extension in entry.extensions)
LIMITS = ReadLimits(max_expanded_bytes=2**24, max_bytes=2**22)


def reason(data: bytes, name: str, limits: ReadLimits = LIMITS, media_type: str | None = None) -> str:
    """The reason of the refusal."""
    with pytest.raises(UnreadableDocument) as refusal:
        read(data, name, limits, media_type)
    assert refusal.value.reason in REASONS
    assert refusal.value.detail.endswith(".")
    return refusal.value.reason


def outcome(data: bytes, name: str, limits: ReadLimits = LIMITS) -> tuple[str, list[Document]]:
    """("read", documents whose promises were checked) or (a known reason, [])."""
    try:
        documents = read(data, name, limits)
    except UnreadableDocument as refusal:
        return refusal.reason, []
    for document in documents:
        check_blocks(document)
    return "read", documents


SCHEMA = "http://schemas.openxmlformats.org"
KNOWN = {"read", *REASONS}


def samples() -> dict[str, bytes]:
    """A small sound file of every container format."""
    return {
        "a.docx": word(lambda document: document.add_paragraph("Hello world")),
        "a.xlsx": workbook(S=[("a", 1), ("b", 2)]),
        "a.pptx": slides(("Title", ["x"], "note")),
        "a.odt": odt("<text:p>Hello</text:p>"),
        "a.epub": epub({"one": "<p>Hello</p>"}),
        "a.pdf": pdf([(72, 72, "Hello world")]),
    }


SAMPLES = samples()


@pytest.mark.parametrize("extension", EXTENSIONS)
@pytest.mark.parametrize("data", [b"", b" \r\n\t ", b"\xef\xbb\xbf"])
def test_empty_files(extension: str, data: bytes) -> None:
    """Nothing to read is said in every format, a lone byte order mark included."""
    assert reason(data, f"a.{extension}") in ("empty", "corrupt")


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_truncated_files(name: str) -> None:
    """Cut anywhere, a container is refused as damaged; PDFium mends what it can of a PDF."""
    data = SAMPLES[name]
    for part in (0.2, 0.5, 0.9):
        if name.endswith(".pdf"):
            continue
        assert reason(data[: int(len(data) * part)], name) == "corrupt"


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_flipped_bytes(name: str) -> None:
    """Damage inside gives documents or a refusal, whatever it hits."""
    for seed in range(25):
        chance = random.Random(seed)
        data = bytearray(SAMPLES[name])
        for _ in range(chance.randint(1, 40)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        assert outcome(bytes(data), name)[0] in KNOWN


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.binary(max_size=400), extension=st.sampled_from([*EXTENSIONS, "", "bin"]))
def test_any_bytes_with_any_name(data: bytes, extension: str) -> None:
    """Documents that keep their promises, or a refusal; never another exception."""
    assert outcome(data, f"a.{extension}")[0] in KNOWN


TEXTS = ["txt", "md", "html", "csv", "tsv", "json", "jsonl", "rst", "adoc", "eml"]
PIECES = st.sampled_from(
    [
        "# ",
        "- ",
        "| a | b |\n",
        "|---|---|\n",
        "```\n",
        "> ",
        "\n",
        "\r\n",
        "\r",
        "<div>",
        "</p>",
        "<table><tr><td>",
        "<li>",
    ]
)
ODD_PIECES = st.sampled_from(
    [
        '"',
        ",",
        "\t",
        "{",
        '"text": "x"}',
        "[",
        "===\n",
        "Title\n----\n",
        "= A\n",
        "|===\n",
        "\u2028",
        "\x0b",
        "é",
        "日本",
    ]
)
OTHER_PIECES = st.sampled_from(
    ["<td rowspan='9' colspan='9'>", "&amp;", "&#0;", "&#xD800;", "\\ud800", "Subject: x\n\n", "--b\n", "  ", "1. "]
)


@settings(max_examples=500, deadline=None)
@given(pieces=st.lists(PIECES | ODD_PIECES | OTHER_PIECES, max_size=30), extension=st.sampled_from(TEXTS))
def test_any_markup_in_text_formats(pieces: list[str], extension: str) -> None:
    """Blocks are in order and cover the text, however crooked the markup is."""
    assert outcome("".join(pieces).encode(), f"a.{extension}")[0] in ("read", "corrupt", "empty", "binary")


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=200), extension=st.sampled_from(["txt", "md", "csv", "tsv", "adoc", "rst"]))
def test_text_formats_keep_the_text(text: str, extension: str) -> None:
    """Whatever can be written is read back unchanged, or refused for being binary or blank."""
    result, documents = outcome(text.encode(), f"a.{extension}")
    assert result in ("read", "binary", "empty")
    assert all(document.text == text.removeprefix("\ufeff") or "\0" in text for document in documents)


def test_random_bytes_are_binary() -> None:
    """So is anything with NULs in it that is no UTF-16."""
    assert reason(random.Random(1).randbytes(1024), "random.bin") == "binary"
    assert reason(random.Random(1).randbytes(1024), "notes.txt") == "binary"
    assert reason(b"\x7fELF\x02\x01\x01" + bytes(64), "tool") == "binary"
    assert reason(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(64), "picture.png") in ("corrupt", "no_text_layer")


def test_zip_bomb() -> None:
    """A few kilobytes that unpack to gigabytes are refused before they are unpacked."""
    bomb = zipped({"[Content_Types].xml": "<x/>", "word/document.xml": b"0" * (60 * 2**20)})
    assert len(bomb) < 100_000
    assert reason(bomb, "bomb.docx", ReadLimits()) == "zip_bomb"
    for name in ("b.xlsx", "b.pptx", "b.odt", "b.epub"):
        assert reason(bomb, name, ReadLimits()) == "zip_bomb"


def test_a_zip_that_lies_about_its_sizes() -> None:
    """Bytes are counted while they are unpacked: what the zip declares is not believed."""
    data = bytearray(zipped({"word/document.xml": b"<a/>" * 2**20}))
    declared = (4 * 2**20).to_bytes(4, "little")
    data = data.replace(declared, (10).to_bytes(4, "little"))
    assert reason(bytes(data), "lie.docx", ReadLimits(max_expanded_bytes=2**20)) in ("zip_bomb", "corrupt")


def test_too_many_zip_members() -> None:
    """A directory of countless empty files is a bomb as well."""
    assert reason(zipped({f"{number}": b"" for number in range(20_001)}), "many.docx") == "zip_bomb"


def test_xml_entities_are_not_expanded() -> None:
    """Neither a billion laughs nor a file of the host ends up in a document."""
    laughs = "".join(f'<!ENTITY l{n + 1} "{f"&l{n};" * 10}">' for n in range(9))
    body = f'<!DOCTYPE a [<!ENTITY l0 "lol">{laughs}<!ENTITY x SYSTEM "file:///etc/hostname">]>'
    word_part = (
        f'{body}<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body><w:p><w:r>'
        "<w:t>safe</w:t><w:t>&l9;&x;</w:t></w:r></w:p></w:body></w:document>"
    )
    result, documents = outcome(zipped({"word/document.xml": word_part}), "x.docx")
    assert (result, [document.text for document in documents]) in [("corrupt", []), ("read", ["safe"])]


def test_deep_xml_is_survived() -> None:
    """Nesting beyond any stack is a refusal, not a crash."""
    deep = "<text:section>" * 5000 + "<text:p>x</text:p>" + "</text:section>" * 5000
    assert reason(odt(deep + "<text:p></text:p>"), "deep.odt") in ("corrupt", "empty")
    parse_xml(b"<a>" * 200 + b"</a>" * 200)


def test_deep_json() -> None:
    """So is JSON."""
    assert reason(b"[" * 200_000, "deep.json") == "corrupt"


def test_huge_cells_are_cut() -> None:
    """A cell holds at most what Excel allows."""
    rows = zipped(
        {
            "[Content_Types].xml": _content_types(),
            "_rels/.rels": _relation("officeDocument", "xl/workbook.xml"),
            "xl/workbook.xml": f'<workbook xmlns="{SCHEMA}/spreadsheetml/2006/main" '
            f'xmlns:r="{SCHEMA}/officeDocument/2006/relationships"><sheets>'
            '<sheet name="S" sheetId="1" r:id="r1"/></sheets></workbook>',
            "xl/_rels/workbook.xml.rels": _relation("worksheet", "worksheets/sheet1.xml"),
            "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{SCHEMA}/spreadsheetml/2006/main"><sheetData>'
            f'<row r="1"><c r="A1" t="inlineStr"><is><t>{"word " * 100_000}</t></is></c></row></sheetData></worksheet>',
        }
    )
    assert len(read_one(rows, "huge.xlsx").text) < 33_000


def _relation(kind: str, target: str) -> str:
    return (
        f'<Relationships xmlns="{SCHEMA}/package/2006/relationships"><Relationship Id="r1" Target="{target}" '
        f'Type="{SCHEMA}/officeDocument/2006/relationships/{kind}"/></Relationships>'
    )


def _content_types() -> str:
    base = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    return (
        f'<Types xmlns="{SCHEMA}/package/2006/content-types"><Default Extension="rels" ContentType='
        '"application/vnd.openxmlformats-package.relationships+xml"/>'
        '<Override PartName="/xl/workbook.xml" ContentType="'
        f'{base}.sheet.main+xml"/><Override PartName="/xl/worksheets/sheet1.xml" ContentType="{base}.worksheet+xml"/>'
        "</Types>"
    )


def test_encrypted_office_files() -> None:
    """Office wraps an encrypted document in an OLE file; the refusal asks for one without a password."""
    wrapped = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600) + "EncryptedPackage".encode("utf-16-le")
    assert reason(wrapped, "secret.docx") == "password"


@pytest.mark.parametrize("name", ["notes.pages", "slides.key", "book.mobi", "drawing.vsd"])
def test_formats_that_are_not_read(name: str) -> None:
    """They are named together with the format to save them in."""
    data = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)
    with pytest.raises(UnreadableDocument, match="save it as") as refusal:
        read(data, name, LIMITS)
    assert refusal.value.reason == "unsupported"


def test_archives_in_archives_are_bounded() -> None:
    """By their depth, by all that they unpack to, and by the number of files."""
    nested = zipped({"a.txt": "hello"})
    for _ in range(5):
        nested = zipped({"inner.zip": nested})
    (refused,) = read(nested, "a.zip", LIMITS)
    assert (refused.part, refused.reason) == ("/inner.zip/inner.zip/inner.zip/inner.zip", "zip_bomb")
    bomb = zipped({f"{number}.txt": b"a " * 2**20 for number in range(9)})
    assert reason(bomb, "a.zip") == "zip_bomb"
    (refused,) = read(zipped({"a.zip": bomb}), "b.zip", LIMITS)
    assert (refused.part, refused.reason) == ("/a.zip", "zip_bomb")
    assert reason(zipped({f"{number}.txt": b"a" for number in range(10_001)}), "a.zip") == "too_many_pages"
    assert reason(tarred({"a.txt": b"a " * 2**24}, "w:gz"), "a.tar.gz") == "zip_bomb"
    assert reason(tarred({"a.txt": b"a " * 2**12}, "w:gz")[:60], "a.tar.gz") == "corrupt"


def tarred(members: dict[str, bytes], mode: str = "w") -> bytes:
    """A tar of these members."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


@pytest.mark.parametrize("mode", ["", "w", "w:gz", "w:bz2", "w:xz"])
def test_the_files_of_an_archive_are_documents(mode: str) -> None:
    """Under their names; one that cannot be read, or leads out of the archive, is refused; hidden ones are left out."""
    members = {
        "docs/a.txt": b"Alpha.",
        "docs/b.jsonl": b'{"id": "x", "text": "Beta."}\n{"id": "y", "text": null}\n',
        "c.bin": bytes(range(256)),
        "../d.txt": b"Delta.",
        "__MACOSX/docs/._a.txt": b"Hidden.",
        ".git/config": b"Hidden.",
    }
    suffix = {"": "zip", "w": "tar"}.get(mode, f"tar.{mode[2:]}")
    parts = read(tarred(members, mode) if mode else zipped(members), f"pack.{suffix}", LIMITS)
    documents = [part for part in parts if isinstance(part, Document)]
    assert [(one.key, one.title, one.text) for one in documents] == [
        ("#/docs/a.txt", "a", "Alpha."),
        ("#/docs/b.jsonl#x", "b", "Beta."),
    ]
    assert documents[0].metadata == {"archive": f"pack.{suffix}", "file": "docs/a.txt"}
    assert {part.part: part.reason for part in parts if not isinstance(part, Document)} == {
        "/docs/b.jsonl#y": "empty",
        "/c.bin": "binary",
        "/../d.txt": "unsupported",
    }


def test_a_snapshot_is_no_archive() -> None:
    """Whatever it is called: it holds the documents of an index."""
    snapshot = zipped({"documents/000000.jsonl": "{}", "sources.jsonl": "", "snapshot.json": "{}"})
    assert reason(snapshot, "default.snapshot.zip") == "unsupported"
    assert reason(snapshot, "download") == "unsupported"


def test_a_container_without_its_name() -> None:
    """The contents tell what a nameless file or one with a wrong name is."""
    for name, data in SAMPLES.items():
        expected = read_one(data, name)
        assert read_one(data, "download").text == expected.text
        assert read_one(data, "wrong.txt").media_type == expected.media_type


def test_a_text_with_a_containers_name_is_corrupt() -> None:
    """An error page saved as report.docx is no report."""
    for extension in ("docx", "pdf", "xlsx", "epub"):
        assert reason(b"<html>404 not found</html>", f"report.{extension}") == "corrupt"


def test_the_media_type_counts_where_the_name_says_nothing() -> None:
    """An upload may come without an extension."""
    (document,) = read(b"a,b\n1,2\n", "upload", LIMITS, "text/csv; charset=utf-8")
    assert document.media_type == "text/csv"
    (document,) = read(b"# Title\n", "notes.md", LIMITS, "text/plain")
    assert document.media_type == "text/markdown"


def test_too_large() -> None:
    """The limit is named in the refusal."""
    with pytest.raises(UnreadableDocument, match="the limit is 1 MiB") as refusal:
        read(b"x" * (2**20 + 1), "a.txt", ReadLimits(max_bytes=2**20))
    assert refusal.value.reason == "too_large"


def test_names_are_no_paths() -> None:
    """A reader never opens what a name points at."""
    (document,) = read(b"hello", os.fspath("/etc/passwd"), LIMITS)
    assert document.text == "hello"
    assert document.title == "passwd"


def test_reserved_member_names() -> None:
    """Members that point out of the archive are only names."""
    file = io.BytesIO(zipped({"../../etc/passwd": "x", "content.xml": "<a/>"}))
    assert zipfile.ZipFile(file).namelist()
    assert reason(file.getvalue(), "a.odt") == "corrupt"


def test_json_with_half_a_surrogate() -> None:
    """Text that UTF-8 cannot hold is refused or replaced, never passed on."""
    data = json.dumps({"text": "a \ud800 b"}).encode()
    assert outcome(data + b"\n", "a.jsonl")[0] in ("read", "corrupt")
