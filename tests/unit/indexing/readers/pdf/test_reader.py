"""PDF: from marks on paper back to text."""

import io
from collections import Counter

import pytest
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas

from indexing.errors import UnreadableDocument
from indexing.readers import ReadLimits, read
from indexing.readers.pdf.lines import HYPHEN, Fragment, Glyph, fragments_of_line, joined
from tests.unit.indexing.readers.making import Line, encrypted, pdf, read_one, texts

PROSE = ["The mallard is a dabbling duck that breeds throughout the temperate and", "subtropical parts of the world."]


def _lines(*lines: str, x: float = 72, top: float = 100, step: float = 14) -> list[Line]:
    return [(x, top + step * index, line) for index, line in enumerate(lines)]


def test_headings_paragraphs_and_pages() -> None:
    """Larger type is a heading, lines flow into paragraphs, a page begins where its text begins."""
    first = [(72, 80, "Ducks"), *_lines(*PROSE, top=120), *_lines("They quack.", top=180)]
    document = read_one(pdf(first, [(72, 80, "Teal"), *_lines("Small.", top=120)], Ducks=22, Teal=16), "d.pdf")
    assert texts(document) == ["Ducks", " ".join(PROSE), "They quack.", "Teal", "Small."]
    assert [(block.kind, block.level) for block in document.blocks if block.kind == "heading"] == [
        ("heading", 1),
        ("heading", 2),
    ]
    assert [page.number for page in document.pages] == [1, 2]
    assert document.text[document.pages[1].start :].startswith("Teal")
    assert document.metadata["pages"] == 2


def test_running_headers_footers_and_page_numbers_go() -> None:
    """What stands at the edge of most pages is no content."""
    pages = [
        [
            (72, 40, "Duck Handbook"),
            *_lines(f"Content of part {'abcde'[number]} only.", top=200),
            (290, 810, str(number + 1)),
        ]
        for number in range(5)
    ]
    document = read_one(pdf(*pages), "h.pdf")
    assert texts(document) == [f"Content of part {letter} only." for letter in "abcde"]


def test_two_columns_written_across() -> None:
    """Columns are read one after the other, even where the file goes line by line over both."""
    left = [
        f"left column number {word} goes on here" for word in ["one", "two", "three", "four", "five", "six", "seven"]
    ]
    right = [line.replace("left", "right") for line in left]
    lines = [
        item
        for index, (one, other) in enumerate(zip(left, right, strict=True))
        for item in ((50.0, 100.0 + 14 * index, one), (320.0, 100.0 + 14 * index, other))
    ]
    text = " ".join(read_one(pdf(lines), "c.pdf").text.split())
    assert text == " ".join(left) + " " + " ".join(right)


def test_tables_become_rows() -> None:
    """Cells that stand under one another are rows; a missing cell leaves its place empty."""
    cells = [("Product", "Expected", "Status"), ("SKU-1", "450", "OK"), ("SKU-2", "", "LOW"), ("SKU-3", "12", "OK")]
    lines = [
        (72.0 + 120 * column, 100.0 + 20 * row, text)
        for row, values in enumerate(cells)
        for column, text in enumerate(values)
        if text
    ]
    document = read_one(pdf(lines), "t.pdf")
    assert texts(document, "table_row") == [
        "Product | Expected | Status",
        "SKU-1 | 450 | OK",
        "SKU-2 | | LOW",
        "SKU-3 | 12 | OK",
    ]
    assert document.blocks[0].header


def test_bullets_are_list_items() -> None:
    """Every bullet opens an item, which may go on over lines."""
    lines = _lines("• swims in lakes and rivers of the temperate parts of the whole wide", "world", "• quacks")
    assert [(block.kind) for block in read_one(pdf(lines), "b.pdf").blocks] == ["list_item", "list_item"]


def test_lines_broken_on_purpose_stay_apart() -> None:
    """An address keeps its lines."""
    wide = "A line that is as long as the column is wide, so that the edge of it is known."
    document = read_one(pdf(_lines("Ann Duck", "Lake Road 5", "Pond", wide)), "a.pdf")
    assert document.text.startswith("Ann Duck\nLake Road 5\nPond\n")


@pytest.mark.parametrize(
    ("lines", "whole"),
    [
        ([f"con{HYPHEN}", "tinued"], "continued"),
        (["con-", "tinued"], "continued"),
        (["out-of-", "pocket"], "out-of-pocket"),
        (["1990-", "2000"], "1990- 2000"),
        (["東京は日本の", "首都です"], "東京は日本の首都です"),
        (["감염", "증"], "감염증"),
        (["two", "words"], "two words"),
    ],
)
def test_lines_are_joined_as_their_script_wants(lines: list[str], whole: str) -> None:
    """Divided words are mended, compounds known from elsewhere keep their hyphen, scripts without spaces get none."""
    assert joined(lines, [False] * (len(lines) - 1), Counter({"of-pocket": 1})) == whole


def test_right_to_left_ligatures_are_turned_back() -> None:
    """PDFium gives a lam-alef glyph as two characters in the wrong order; they share one box."""
    one: Glyph = ("ا", 10, 0, 20, 10, 0)
    line = [("س", 20, 0, 30, 10, 1), one, ("ل", 10, 0, 20, 10, 2), ("م", 0, 0, 10, 10, 3)]
    assert [fragment.text for fragment in fragments_of_line(line, bold=False)] == ["سلام"]


def test_ligatures_are_spelled_out() -> None:
    """A search for "office" must find it."""
    line: list[Glyph] = [(char, 10.0 * n, 0, 10.0 * n + 10, 10, n) for n, char in enumerate("oﬃce")]
    (fragment,) = fragments_of_line(line, bold=False)
    assert fragment == Fragment("office", 0, 0, 40, 10, 10)


def test_an_empty_password_opens() -> None:
    """Many files are encrypted only against changes."""
    assert read_one(encrypted(pdf(_lines("Open to all readers.")), ""), "e.pdf").text == "Open to all readers."


def test_a_password_is_refused() -> None:
    """The refusal says what to do."""
    with pytest.raises(UnreadableDocument, match="without a password") as refusal:
        read(encrypted(pdf(_lines("Secret.")), "quack"), "e.pdf", ReadLimits())
    assert refusal.value.reason == "password"


def test_a_scan_is_refused() -> None:
    """Pictures of text are no text."""
    file = io.BytesIO()
    canvas = Canvas(file)
    canvas.drawImage(ImageReader(io.BytesIO(b"P6\n1 1\n255\n\xff\x00\x00")), 0, 0, 400, 600)
    canvas.showPage()
    canvas.save()
    with pytest.raises(UnreadableDocument, match="OCR") as refusal:
        read(file.getvalue(), "scan.pdf", ReadLimits())
    assert refusal.value.reason == "no_text_layer"


def test_a_blank_pdf_is_empty() -> None:
    """No pictures and no text: empty, not scanned."""
    with pytest.raises(UnreadableDocument) as refusal:
        read(pdf([]), "blank.pdf", ReadLimits())
    assert refusal.value.reason == "empty"


def test_too_many_pages() -> None:
    """The limit is checked before any page is read."""
    with pytest.raises(UnreadableDocument) as refusal:
        read(pdf(*[_lines("x")] * 3), "long.pdf", ReadLimits(max_pages=2))
    assert refusal.value.reason == "too_many_pages"


def test_a_truncated_pdf_is_corrupt() -> None:
    """Half a file is refused, not half read."""
    data = pdf(_lines("Whole."))
    with pytest.raises(UnreadableDocument) as refusal:
        read(data[: len(data) // 3], "half.pdf", ReadLimits())
    assert refusal.value.reason == "corrupt"


@pytest.mark.parametrize("angle", [0, 90, 180, 270])
@pytest.mark.parametrize("page_rotation", [0, 90])
def test_turned_text_reads_the_same(angle: int, page_rotation: int) -> None:
    """Text is laid out along its own direction, however the page or its contents are turned."""
    file = io.BytesIO()
    canvas = Canvas(file, pagesize=(600, 600))
    canvas.translate(300, 300)
    canvas.rotate(angle)
    for index, line in enumerate([*PROSE, "A second thought."]):
        canvas.drawString(-250, 200 - 14 * index - 40 * (index == 2), line)
    canvas.setPageRotation(page_rotation)
    canvas.save()
    assert texts(read_one(file.getvalue(), "turned.pdf")) == [" ".join(PROSE), "A second thought."]
