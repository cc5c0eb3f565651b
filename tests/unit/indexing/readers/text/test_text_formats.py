"""Formats whose text is the decoded file itself."""

import pytest

from indexing.errors import UnreadableDocument
from indexing.readers import ReadLimits, read
from tests.unit.indexing.readers.making import check_blocks, read_one, texts

JAPANESE = "これは日本語の文章です。東京は日本の首都であり、世界最大の都市の一つです。"
CHINESE = "这是一个中文文档。北京是中华人民共和国的首都。我们使用它来测试编码检测。"
FRENCH = "Le café est fermé – « à côté de la forêt où le garçon rêve », l’été."
CZECH = "Příliš žluťoučký kůň úpěl ďábelské ódy."


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (JAPANESE, "utf-8"),
        (JAPANESE, "utf-16"),
        (FRENCH, "utf-16-le"),
        (FRENCH, "utf-16-be"),
        (FRENCH, "utf-32"),
        (JAPANESE, "cp932"),
        (JAPANESE, "euc_jp"),
        (CHINESE, "gb18030"),
        ("這是一個中文文件。臺北是中華民國的首都,我們用它來測試編碼。", "big5"),
        ("이것은 한국어 문서입니다. 서울은 대한민국의 수도입니다.", "cp949"),
        (FRENCH, "cp1252"),
        (CZECH, "cp1250"),
        ("Это русский текст для проверки определения кодировки.", "cp1251"),
    ],
)
def test_encodings_are_found_out(text: str, encoding: str) -> None:
    """Text in a common encoding comes back as it was written, without anyone naming the encoding."""
    assert read_one(text.encode(encoding), "a.txt").text == text


def test_text_is_the_file_unchanged() -> None:
    """Line ends, tabs and trailing spaces stay, so that offsets hold in the file; the byte order mark goes."""
    text = "One\r\n\r\n  two \t three  \rfour\n\n\n"
    document = read_one(b"\xef\xbb\xbf" + text.encode(), "notes.txt")
    assert document.text == text
    assert texts(document) == ["One", "two \t three  \rfour"]
    assert document.title == "notes"


def test_a_utf8_file_with_a_few_broken_bytes_stays_utf8() -> None:
    """A stray byte is replaced; the rest is not misread in another encoding."""
    document = read_one(("Grüße aus Köln. " * 30).encode() + b"\xff Ende", "a.txt")
    assert document.text.startswith("Grüße aus Köln.")
    assert document.text.endswith("\ufffd Ende")


def test_a_file_cut_inside_a_character_stays_utf8() -> None:
    """Only the last character is lost."""
    assert read_one("日本語"[:3].encode()[:-1], "a.txt").text == "日本\ufffd"


def test_markdown_structure() -> None:
    """Headings with levels, list items, table rows with their header, code and quotes are told apart."""
    source = (
        "---\ntitle: The Title\nauthor: Jo\n---\n\n# One\n\nText *here*\nand here.\n\n- a\n  - b\n\n"
        "| x | y |\n|---|---|\n| 1 | 2 |\n\n```py\n# no heading\n```\n\n> said\n\nTwo\n---\n"
    )
    document = read_one(source.encode(), "a.md")
    assert document.text == source
    assert (document.title, document.metadata) == ("The Title", {"author": "Jo"})
    assert [(block.kind, block.level, block.header) for block in document.blocks] == [
        ("code", 0, False),
        ("heading", 1, False),
        ("paragraph", 0, False),
        ("list_item", 0, False),
        ("list_item", 0, False),
        ("table_row", 0, True),
        ("table_row", 0, False),
        ("code", 0, False),
        ("quote", 0, False),
        ("heading", 2, False),
    ]
    assert texts(document, "table_row") == ["| x | y |\n|---|---|", "| 1 | 2 |"]


def test_markdown_title_is_its_first_top_heading() -> None:
    """Without front matter the highest heading names the document, without its markup."""
    assert read_one(b"## Small\n\n# The **Big** [One](x.md)\n", "a.md").title == "The Big One"


def test_asciidoc_and_rst_headings() -> None:
    """Section titles of both are headings, with levels."""
    adoc = read_one(b"= Doc\n\nText.\n\n== Part\n\n* item\n", "a.adoc")
    assert [block.level for block in adoc.blocks if block.kind == "heading"] == [1, 2]
    assert adoc.title == "Doc"
    rst = read_one(b"====\nTop\n====\n\nText.\n\nPart\n----\n\n- item\n\nNext\n----\n", "a.rst")
    assert [block.level for block in rst.blocks if block.kind == "heading"] == [1, 2, 2]
    assert rst.title == "Top"


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_csv_records_are_rows(delimiter: str) -> None:
    """A record is one block even where a quoted field holds a line break; the first one is the header."""
    source = delimiter.join(["name", "note"]) + "\r\n" + delimiter.join(["Ann", '"two\nlines"']) + "\r\n"
    document = read_one(source.encode(), "a.csv")
    assert document.text == source
    assert [block.header for block in document.blocks] == [True, False]
    assert texts(document)[1] == delimiter.join(["Ann", '"two\nlines"'])


def test_tsv() -> None:
    """Tabs delimit, whatever else the fields hold."""
    assert texts(read_one(b"a,b\tc\n1,2\t3\n", "a.tsv")) == ["a,b\tc", "1,2\t3"]


def test_json_lines_records_become_documents() -> None:
    """Each record is a document with its id (or its place) as key, its title, and its other fields as metadata."""
    source = (
        b'{"_id": "d1", "title": "T", "text": "First.", "year": 2020, "metadata": {"lang": "en"}, "nested": {"x": 1}}\n'
        b'\n{"text": "Second.", "tags": ["a", "b"]}\n'
    )
    first, second = read(source, "corpus.jsonl", ReadLimits())
    assert (first.key, first.title, first.text, first.metadata) == ("d1", "T", "First.", {"year": 2020, "lang": "en"})
    assert (second.key, second.title, second.metadata) == ("#3", "", {"tags": ["a", "b"]})
    check_blocks(first)


def test_a_json_array_of_records_becomes_documents() -> None:
    """So does a top-level array."""
    documents = read(b'[{"id": 7, "text": "A"}, {"content": "B"}]', "a.json", ReadLimits())
    assert [(document.key, document.text) for document in documents] == [("7", "A"), ("#2", "B")]


def test_other_json_stands_as_it_is() -> None:
    """JSON that is no list of records is one document: the file."""
    source = '{"a": [1, 2], "text": "x"}\n'
    assert read_one(source.encode(), "a.json").text == source
    lines = '{"event": "start"}\n{"event": "stop"}\n'
    document = read_one(lines.encode(), "log.jsonl")
    assert document.text == lines
    assert len(document.blocks) == 2


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (b'{"text": "a"}\n{"text": "b\n', "Line 2"),
        (b'{"_id": "x", "text": "a"}\n{"_id": "x", "text": "b"}\n', "'x'"),
    ],
)
def test_broken_records_are_pointed_at(source: bytes, said: str) -> None:
    """A line that is no JSON, or an id used twice, refuses the file and says where."""
    with pytest.raises(UnreadableDocument, match=said) as refusal:
        read(source, "a.jsonl", ReadLimits())
    assert refusal.value.reason == "corrupt"


def test_an_integer_that_no_store_can_hold_becomes_a_text() -> None:
    """Beyond 64 bits, at any depth; the records around it are read."""
    lines = b'{"text": "a", "n": 18446744073709551616}\n{"text": "b", "metadata": {"m": [-9223372036854775809, 7]}}'
    documents = read(lines, "a.jsonl", ReadLimits())
    assert [dict(document.metadata) for document in documents] == [
        {"n": "18446744073709551616"},
        {"m": ["-9223372036854775809", 7]},
    ]
