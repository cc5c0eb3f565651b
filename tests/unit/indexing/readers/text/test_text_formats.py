"""Formats whose text is the decoded file itself."""

import codecs

import pytest

from indexing.errors import UnreadableDocument
from indexing.readers import ReadLimits, read
from indexing.readers.text.encoding import known_encoding
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
        ("Гарантия на насос составляет два года.", "koi8-r"),
        ("Гарантия на насос составляет два года.", "cp866"),
        ("Гарантія на насос: два роки, її надає завод.", "koi8-u"),
        ("ราคาสินค้า ๕๐ บาท ค่าขนส่งฟรี", "cp874"),
        ("Garanti süresi iki yıldır. İade otuz gün içinde yapılır.", "cp1254"),
        ("Glāžšķūņa rūķīši", "cp1257"),
        ("Įlinkdama fechtuotojo špaga sublykčiojusi", "cp1257"),
        ("Η εγγύηση είναι δύο χρόνια.", "cp1253"),
        ("האחריות היא שנתיים", "cp1255"),
        ("الضمان لمدة سنتين", "cp1256"),
        ("Die Größe der Tür beträgt fünf Meter.", "cp850"),
        ("Það er gott veður í dag", "cp1252"),
        ("保修期为两年", "gb18030"),
        ("保証期間は2年です。", "euc_jp"),
    ],
)
def test_encodings_are_found_out(text: str, encoding: str) -> None:
    """Text in a common encoding comes back as it was written, without anyone naming it. A guess is warned of."""
    document = read_one(text.encode(encoding), "a.txt")
    assert document.text == text
    assert bool(document.warnings) == (not encoding.startswith("utf"))


@pytest.mark.parametrize(
    ("label", "encoding"),
    [
        ("windows-874", "cp874"),
        ("cp-850", "cp850"),
        ("x-mac-cyrillic", "mac_cyrillic"),
        ("TIS-620", "cp874"),
        ("hex", None),
    ],
)
def test_labels_that_python_does_not_know(label: str, encoding: str | None) -> None:
    """What browsers and mail programs write means what they mean by it."""
    found = known_encoding(label)
    assert (found and codecs.lookup(found).name) == (encoding and codecs.lookup(encoding).name)


def test_characters_that_are_lost_are_counted() -> None:
    """No letter is wrong in silence."""
    document = read_one(("Grüße aus Köln. " * 30).encode() + b"\xff Ende", "a.txt")
    assert document.warnings == ("1 character is no valid utf-8, and stands as \ufffd in the text.",)


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
    ("source", "part", "reason", "said"),
    [
        (b'{"text": "a"}\n{"text": "b\n', "#2", "corrupt", "Line 2"),
        (b'{"_id": "x", "text": "a"}\n{"_id": "x", "text": "b"}\n', "#2", "duplicate_id", "'x'"),
        (b'{"text": "a"}\n{"_id": "n", "text": null}\n', "#n", "empty", "'text'"),
        (b'{"text": "a"}\n{"_id": "n", "text": " "}\n', "#n", "empty", "no text"),
        (b'{"text": "a"}\n{"title": "n"}\n', "#2", "empty", "none of the fields"),
        (b'{"text": "a"}\n["b"]\n', "#2", "corrupt", "no JSON object"),
    ],
)
def test_broken_records_are_refused_alone(source: bytes, part: str, reason: str, said: str) -> None:
    """By their ids or their places, in JSON lines and in an array; the others are read."""
    array = b"[" + b",".join(source.splitlines()) + b"]"
    for data in (source, array) if reason != "corrupt" or b"[" in source else (source,):
        document, refused = read(data, "a.json", ReadLimits())
        assert document.text == "a"
        assert (refused.part, refused.reason, said in refused.detail) == (part, reason, True)


def test_lines_that_are_mostly_broken_refuse_the_file() -> None:
    """And the first one is named."""
    with pytest.raises(UnreadableDocument, match="Line 2") as refusal:
        read(b'{"text": "a"}\n{"text": \n{"x": \n', "a.jsonl", ReadLimits())
    assert refusal.value.reason == "corrupt"


def test_numbers_that_are_none_are_left_out() -> None:
    """NaN, Infinity and numbers beyond all floats, which other programs write into JSON, are no metadata."""
    numbers = ("NaN", "-Infinity", "1e999")
    lines = "".join(
        f'{{"id": {place}, "text": "a", "n": {number}, "m": 2}}\n' for place, number in enumerate(numbers, 1)
    )
    assert [(one.key, dict(one.metadata)) for one in read(lines.encode(), "a.jsonl", ReadLimits())] == [
        (place, {"m": 2}) for place in ("1", "2", "3")
    ]


def test_a_stated_delimiter_is_no_record() -> None:
    """Excel's first line `sep=;` says how to read the file."""
    document = read_one(b"sep=;\r\nName;Price\r\nM8, zinc;0,35\r\n", "a.csv")
    assert (texts(document), document.blocks[0].header) == (["Name;Price", "M8, zinc;0,35"], True)


PAYLOAD = "iVBORw0KGgo+AAAANSUhEUg/a" * 60


@pytest.mark.parametrize(
    ("source", "name", "text"),
    [
        (f"A ![f](data:image/png;base64,{PAYLOAD}) b.", "a.md", "A ![f](data:image/png) b."),
        (f'{{"text": "A data:a/b;charset=x;base64,{PAYLOAD}== b."}}', "a.jsonl", "A data:a/b b."),
        ("Key:\n\n" + "\n".join(PAYLOAD[:76] for _ in range(9)) + "==\n\nEnd.", "a.txt", "Key:\n\nEnd."),
        ("\n".join(["word/list", "Word2"] * 200), "a.txt", None),
    ],
)
def test_files_in_base64_are_no_text(source: str, name: str, text: str | None) -> None:
    """A picture in a text is thousands of words that say nothing; a list of words is a text."""
    assert read_one(source.encode(), name).text == (source if text is None else text)


def test_an_integer_that_no_store_can_hold_becomes_a_text() -> None:
    """Beyond 64 bits, at any depth; the records around it are read."""
    lines = b'{"text": "a", "n": 18446744073709551616}\n{"text": "b", "metadata": {"m": [-9223372036854775809, 7]}}'
    documents = read(lines, "a.jsonl", ReadLimits())
    assert [dict(document.metadata) for document in documents] == [
        {"n": "18446744073709551616"},
        {"m": ["-9223372036854775809", 7]},
    ]
