"""Large files of records, read in pieces."""

import json
from pathlib import Path

import pytest

from indexing.documents import Document, Refused
from indexing.errors import UnreadableDocument
from indexing.readers import ReadLimits, read, read_pieces

LARGE = 8 * 2**20
"""More than what is read as a whole."""

Parts = list[Document | Refused]


def pieces(path: Path, limits: ReadLimits | None = None) -> list[tuple[Parts, int]]:
    """What a file is read as."""
    with path.open("rb") as file:
        return list(read_pieces(file, path.name, limits or ReadLimits()))


def lines(*odd: bytes) -> bytes:
    """Records of 20 kB with little text, and these lines among them."""
    padding = {"ignored": ["x" * 20_000]}
    rows = [
        json.dumps({"id": f"r{number}", "text": f"Text {number}.", "n": number, "more": padding})
        for number in range(460)
    ]
    return b"\n".join([*(row.encode() for row in rows[:230]), *odd, *(row.encode() for row in rows[230:])])


def mail(number: int, text: str) -> bytes:
    """One mail of a mailbox."""
    head = f"From me@example.org Mon Nov 23 10:00:00 2026\nSubject: Mail {number}\nFrom: me@example.org\n\n"
    return f"{head}{text}\n\n".encode()


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_json_lines_are_the_same_in_pieces(tmp_path: Path, end: bytes) -> None:
    """The same documents and the same refusals in the same order as of the whole, and every byte is accounted for."""
    odd = (
        b"",
        b'{"text": ',
        b'{"id": "r3", "text": "again"}',
        b'{"title": "no text"}',
        b"[1]",
        '{"text": "zwölf"}'.encode(),
    )
    data = b"\xef\xbb\xbf" + lines(*odd).replace(b"\n", end)
    path = tmp_path / "a.jsonl"
    path.write_bytes(data)
    found = pieces(path)
    assert [part for parts, _ in found for part in parts] == read(data, "a.jsonl", ReadLimits())
    assert len(found) > 5
    assert sum(size for _, size in found) == len(data) > LARGE


def test_only_a_record_is_bounded(tmp_path: Path) -> None:
    """A file may be larger than the limit; a line that is larger is refused alone, and others keep their numbers."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(json.dumps({"text": "y" * 3_000_000}).encode()))
    parts = [part for parts, _ in pieces(path, ReadLimits(max_bytes=2**20)) for part in parts]
    refused = [part for part in parts if isinstance(part, Refused)]
    assert [(part.part, part.reason) for part in refused] == [("#231", "too_large")]
    assert len(parts) == 461


@pytest.mark.parametrize(
    "data",
    [
        lines().replace(b"Text 7.", "Müller".encode("latin-1")),
        b'{"title": "%s"}\n' % (b"x" * 20_000) * 450,
        lines().decode().encode("utf-16"),
    ],
    ids=["latin-1", "no records", "utf-16"],
)
def test_what_has_to_be_seen_whole_is_bounded(tmp_path: Path, data: bytes) -> None:
    """Other encodings and other JSON are read as before, up to the limit."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(data)
    ((parts, size),) = pieces(path)
    assert (parts, size) == (read(data, "a.jsonl", ReadLimits()), len(data))
    with pytest.raises(UnreadableDocument, match="the limit is"):
        pieces(path, ReadLimits(max_bytes=2**20))


def test_a_mailbox_is_the_same_in_pieces(tmp_path: Path) -> None:
    """Mails with quoted separators, small and large, are those of the whole mailbox."""
    sizes = [10, 5000, 300_000, 20, 2_500_000]
    data = b"".join(
        mail(number, "A line.\nFrom here on 2024 it goes\n" * (sizes[number % 5] // 35 + 1)) for number in range(20)
    )
    path = tmp_path / "a.mbox"
    path.write_bytes(data)
    found = pieces(path)
    whole = read(data, "a.mbox", ReadLimits())
    assert [part for parts, _ in found for part in parts] == whole
    assert (len(found) > 3, len(whole), len(data) > LARGE) == (True, 20, True)


def test_only_a_mail_is_bounded(tmp_path: Path) -> None:
    """A mail that is too large is refused alone."""
    path = tmp_path / "a.mbox"
    path.write_bytes(
        b"".join(mail(number, "Some text. " * (500_000 if number == 3 else 50_000)) for number in range(14))
    )
    parts = [part for parts, _ in pieces(path, ReadLimits(max_bytes=2**20)) for part in parts]
    assert [part.part for part in parts if isinstance(part, Refused)] == ["#4"]
    assert [part.title for part in parts if isinstance(part, Document)] == [f"Mail {n}" for n in range(14) if n != 3]


def test_a_large_file_without_text_is_empty(tmp_path: Path) -> None:
    """As a small one is."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": " ", "more": ["%s"]}\n' % (b"x" * 20_000) * 460)
    with pytest.raises(UnreadableDocument, match="no text"):
        pieces(path)


def test_a_file_is_what_its_first_bytes_say(tmp_path: Path) -> None:
    """A PDF that is called JSON lines is a PDF."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"%PDF-1.4\n" + b"x" * LARGE)
    with pytest.raises(UnreadableDocument, match=r"(?i)pdf|damaged"):
        pieces(path)


PAYLOAD = ("Qm9ndXMgYmFzZTY0IGRhdGEs+/aB3dE5" * 625)[:19_999]
"""A file in base64: it is left out of texts."""


def table(rows: int = 500, head: str = "id,name,payload\r\n") -> str:
    """A large table whose fields have commas and line breaks, with little text."""
    return head + "".join(f'{n},"Zürich, \n row {n} {"text " * 100}",{PAYLOAD}\r\n' for n in range(rows))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_a_large_table_is_parts_with_the_header(tmp_path: Path, encoding: str) -> None:
    """Whole records in their order, each part after the header; every byte is accounted for."""
    path = tmp_path / "places.csv"
    path.write_bytes(table().encode(encoding))
    found = pieces(path)
    documents = [part for parts, _ in found for part in parts if isinstance(part, Document)]
    assert sum(size for _, size in found) == path.stat().st_size > LARGE
    head, *rows = table().replace(PAYLOAD, "").splitlines(keepends=True)
    assert all(document.text.startswith(head) for document in documents)
    assert "".join(document.text.removeprefix(head) for document in documents) == "".join(rows)
    assert [document.key for document in documents] == ["#/1", "#/2", "#/3"]
    assert (documents[0].metadata["rows"][:2], documents[-1].metadata["rows"][-4:]) == ("2-", "-501")
    assert {(document.title, document.blocks[0].header) for document in documents} == {("places", True)}
    assert all(
        document.text[block.start : block.end].endswith(",") for document in documents for block in document.blocks[1:]
    )


def test_a_stated_delimiter_is_no_record(tmp_path: Path) -> None:
    """The first line that Excel writes for itself is left out, and decides."""
    path = tmp_path / "a.csv"
    path.write_text("sep=|\n" + table(head="id|name\n").replace(",", "|"), encoding="utf-8")
    documents = [part for parts, _ in pieces(path) for part in parts if isinstance(part, Document)]
    assert len(documents) == 3
    assert all(
        document.text.startswith("id|name\n0") or document.text.startswith("id|name\n") for document in documents
    )


def test_a_stray_quotation_mark_costs_no_records(tmp_path: Path) -> None:
    """What it would swallow is taken line by line."""
    path = tmp_path / "a.tsv"
    text = 'id\tname\n1\t"stray\n' + "".join(f"{n}\tName {n} {'text ' * 12}\n" for n in range(2, 120_000))
    path.write_text(text, encoding="utf-8")
    documents = [part for parts, _ in pieces(path) for part in parts if isinstance(part, Document)]
    assert "".join(document.text.removeprefix("id\tname\n") for document in documents) == text.removeprefix(
        "id\tname\n"
    )
    assert max(len(document.text) for document in documents) < 300_000


def test_a_refusal_names_the_setting(tmp_path: Path) -> None:
    """Who has a large file that is read whole sees what to raise."""
    path = tmp_path / "a.json"
    path.write_bytes(b"[" + b" " * 2**20 + b"]")
    with pytest.raises(UnreadableDocument, match=r"1.0 MiB; the limit is 0 MiB \(\[reading\] max_bytes\)"):
        pieces(path, ReadLimits(max_bytes=1000))
