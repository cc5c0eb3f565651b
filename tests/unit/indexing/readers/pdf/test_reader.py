"""PDF: from marks on paper back to text."""

import io
from collections.abc import Callable

import pypdf
import pytest
from pypdf.annotations import FreeText
from pypdf.generic import (
    ArrayObject,
    BooleanObject,
    DictionaryObject,
    NameObject,
    NumberObject,
    StreamObject,
    TextStringObject,
)
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas

from indexing.documents import Document, Refused
from indexing.errors import UnreadableDocument
from indexing.readers import ReadLimits, read
from indexing.readers.pdf.lines import HYPHEN, Fragment, Glyph, Vocabulary, fragments_of_line, joined
from tests.unit.indexing.readers.making import Line, encrypted, pdf, read_one, texts

PROSE = ["The mallard is a dabbling duck that breeds throughout the temperate and", "subtropical parts of the world."]


def _lines(*lines: str, x: float = 72, top: float = 100, step: float = 14) -> list[Line]:
    return [(x, top + step * index, line) for index, line in enumerate(lines)]


def test_paragraphs_and_pages() -> None:
    """Lines flow into paragraphs, and a page begins where its text begins."""
    first = [(72, 80, "Ducks"), *_lines(*PROSE, top=120), *_lines("They quack.", top=180)]
    document = read_one(pdf(first, [(72, 80, "Teal"), *_lines("Small.", top=120)], Ducks=22, Teal=16), "d.pdf")
    assert texts(document, "paragraph") == ["Ducks", " ".join(PROSE), "They quack.", "Teal", "Small."]
    assert [page.number for page in document.pages] == [1, 2]
    assert document.text[document.pages[1].start :].startswith("Teal")
    assert document.metadata["pages"] == 2


def test_what_the_outline_names_is_a_heading() -> None:
    """Where it stands on its page, over two lines too; what is only large is none."""
    long = ["2. Breeding, moulting and migration in the temperate and in the", "subtropical parts of the world"]

    def draw(canvas: Canvas) -> None:
        for page, (title, level) in enumerate([("1. Ducks", 0), (" ".join(long), 1), ("What stands nowhere", 0)]):
            canvas.bookmarkPage(str(page))
            canvas.addOutlineEntry(title, str(page), level)
            for place, line in enumerate(["1. Ducks", "They quack.", "", *long, "", "They breed."]):
                canvas.drawString(72, 600 - 16 * place, line)
            canvas.setFont("Helvetica", 30)
            canvas.drawString(72, 400, f"Large {page}")
            canvas.showPage()

    document = read_one(_drawn(draw), "o.pdf")
    headings = [block for block in document.blocks if block.kind == "heading"]
    assert [(document.text[block.start : block.end], block.level) for block in headings] == [
        ("1. Ducks", 1),
        (" ".join(long), 2),
    ]
    assert document.text.count("1. Ducks") == 3


@pytest.mark.parametrize(
    ("lines", "title"),
    [
        (["17", "The Mallard", "in the world"], "The Mallard in the world"),
        (["17"], "d"),
        (["x" * 200], "d"),
        ([], "d"),
    ],
)
def test_the_largest_lines_of_the_first_page_are_the_title(lines: list[str], title: str) -> None:
    """Not numbers, nor what is too long to be one; later pages do not count."""

    def draw(canvas: Canvas) -> None:
        canvas.setFont("Helvetica", 24)
        for place, line in enumerate(lines):
            canvas.drawString(72, 700 - 28 * place, line)
        canvas.setFont("Helvetica", 11)
        for place, line in enumerate(PROSE * 5):
            canvas.drawString(72, 400 - 14 * place, line)
        canvas.showPage()
        canvas.setFont("Helvetica", 40)
        canvas.drawString(72, 400, "A later page")

    assert read_one(_drawn(draw), "d.pdf").title == title


def test_running_headers_and_footers_stand_once_and_page_numbers_go() -> None:
    """What stands at the edge of most pages is content of the first of them alone."""
    pages = [
        [
            (72, 40, "Duck Handbook"),
            *_lines(f"Content of part {'abcde'[number]} only.", top=200),
            (290, 810, str(number + 1)),
        ]
        for number in range(5)
    ]
    document = read_one(pdf(*pages), "h.pdf")
    assert texts(document) == ["Duck Handbook", *(f"Content of part {letter} only." for letter in "abcde")]


def test_pages_that_are_built_alike_keep_their_own_numbers() -> None:
    """An invoice is not the header of the next one, even where it stands at the edge of its page."""
    pages = [
        [
            (72, 40, "Nordwerk AG, Page 1 of 4".replace("1", str(number + 1))),
            *_lines(f"Invoice number {20451 + number}", f"Total {150 * (7 * number % 5 + 1)}.00 EUR", top=70),
            (72, 800, f"Reference {2021 + number}"),
        ]
        for number in range(4)
    ]
    text = read_one(pdf(*pages), "i.pdf").text
    assert text.count("Nordwerk") == 1
    for number in range(4):
        assert f"number {20451 + number}" in text
        assert f"Total {150 * (7 * number % 5 + 1)}.00" in text
        assert f"Reference {2021 + number}" in text


def test_a_sign_for_a_number_is_not_a_number() -> None:
    """Lines at the edges of pages that differ in "#" and a figure are not compared number by number."""
    pages = [[(72, 40, line), *_lines("Text of the page.", top=200)] for line in ("# 1", "2 1", "# 3", "4 5")]
    assert [text for text in texts(read_one(pdf(*pages), "n.pdf")) if "Text" not in text] == [
        "# 1",
        "2 1",
        "# 3",
        "4 5",
    ]


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
    assert joined(lines, [False] * (len(lines) - 1), Vocabulary(["of-pocket"])) == whole


def test_right_to_left_ligatures_are_turned_back() -> None:
    """PDFium gives a lam-alef glyph as two characters in the wrong order; they share one box."""
    one: Glyph = ("ا", 10, 0, 20, 10, 0)
    line = [("س", 20, 0, 30, 10, 1), one, ("ل", 10, 0, 20, 10, 2), ("م", 0, 0, 10, 10, 3)]
    assert [fragment.text for fragment in fragments_of_line(line)] == ["سلام"]


def test_ligatures_are_spelled_out() -> None:
    """A search for "office" must find it."""
    line: list[Glyph] = [(char, 10.0 * n, 0, 10.0 * n + 10, 10, n) for n, char in enumerate("oﬃce")]
    (fragment,) = fragments_of_line(line)
    assert fragment == Fragment("office", 0, 0, 40, 10, 10, index=0)


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
        read(file.getvalue(), "scan.pdf", ReadLimits(ocr="off"))
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


def test_a_pdf_without_a_page_is_corrupt() -> None:
    """What is left of a file that was cut off early is nothing to read."""
    data = pdf(_lines("Whole."))
    with pytest.raises(UnreadableDocument) as refusal:
        read(data[: data.index(b"/Type /Page")], "half.pdf", ReadLimits())
    assert refusal.value.reason == "corrupt"


@pytest.mark.parametrize("end", [b"\nxref", b"/Type /Catalog", b"/Type /Pages"])
def test_a_file_that_was_cut_off_is_read_with_a_warning(end: bytes) -> None:
    """Without its end, or without the catalog and the list of its pages too, its pages are still there."""
    data = _with_contents_first(pdf(_lines("All that was written."), _lines("And its end.")))
    document = read_one(data[: data.rindex(end)], "cut.pdf")
    assert texts(document) == ["All that was written.", "And its end."]
    assert document.warnings == ("The file is damaged or cut off; what was found of its 2 pages is read.",)


def test_a_broken_table_of_objects_is_mended() -> None:
    """A line end that a program has changed moves everything."""
    data = pdf(_lines("Still here.")).replace(b"\nxref", b"\nyref").replace(b"trailer", b"tr ller")
    assert read_one(data, "b.pdf").text == "Still here."


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


def _with_contents_first(data: bytes) -> bytes:
    """The same PDF with the objects that hold its text before those that list them."""
    reader = pypdf.PdfReader(io.BytesIO(data))
    parts, order = [b"%PDF-1.4\n"], sorted(reader.xref[0], key=lambda number: _rank(reader, number))
    for number in order:
        file = io.BytesIO()
        reader.get_object(number).write_to_stream(file)  # type: ignore[union-attr]
        parts.append(b"%d 0 obj\n%s\nendobj\n" % (number, file.getvalue()))
    return b"".join([*parts, b"\nxref\n"])


def _rank(reader: pypdf.PdfReader, number: int) -> int:
    kind = reader.get_object(number)
    name = kind.get("/Type") if isinstance(kind, DictionaryObject) else None
    return {"/Page": 1, "/Pages": 2, "/Catalog": 3}.get(str(name), 0)


def _drawn(draw: Callable[[Canvas], object]) -> bytes:
    file = io.BytesIO()
    canvas = Canvas(file, pagesize=(600, 800))
    draw(canvas)
    canvas.showPage()
    canvas.save()
    return file.getvalue()


def _changed(data: bytes, change: Callable[[pypdf.PdfWriter], object]) -> bytes:
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(data))
    change(writer)
    file = io.BytesIO()
    writer.write(file)
    return file.getvalue()


def _form(canvas: Canvas) -> None:
    canvas.drawString(72, 700, "Surname:")
    canvas.acroForm.textfield(name="surname", value="Rosalindsen", x=160, y=694, width=200, height=20)
    canvas.drawString(72, 660, "Smoker:")
    canvas.acroForm.checkbox(name="smoker", checked=True, x=160, y=656, size=16)
    canvas.drawString(72, 620, "Diver:")
    canvas.acroForm.checkbox(name="diver", checked=False, x=160, y=616, size=16)
    canvas.drawString(72, 580, "Region:")
    canvas.acroForm.choice(name="region", value="North", options=["North", "South"], x=160, y=574, width=99, height=20)
    canvas.drawString(72, 540, "Signed in ink.")


def test_what_is_filled_into_a_form_is_text() -> None:
    """Typed and chosen values, and which boxes are ticked, stand beside their labels."""
    text = read_one(_drawn(_form), "f.pdf").text
    assert [line.replace(" |", "") for line in text.splitlines() if line] == [
        "Surname: Rosalindsen",
        "Smoker: ☑",
        "Diver: ☐",
        "Region: North",
        "Signed in ink.",
    ]


def test_text_boxes_of_annotations_are_text() -> None:
    """A free text that somebody put onto a page is read there; one that is hidden is not."""
    data = pdf(_lines("Above.", top=100), _lines("Second page."))

    def annotate(writer: pypdf.PdfWriter) -> None:
        for flags, content in ((0, "Rejected by Mr Oduya"), (2, "unseen")):
            note = FreeText(text=content, rect=(72, 600, 300, 640))
            note[NameObject("/F")] = NumberObject(flags)
            writer.add_annotation(0, note)

    assert texts(read_one(_changed(data, annotate), "a.pdf")) == ["Above.", "Rejected by Mr Oduya", "Second page."]


def _dynamic(*packets: bytes) -> bytes:
    """A form whose only page asks the reader to wait; the form itself is XFA, in one packet or in several."""

    def make_dynamic(writer: pypdf.PdfWriter) -> None:
        streams = []
        for packet in packets:
            streams.append(StreamObject())
            streams[-1].set_data(packet)
        parts = [item for one in streams for item in (TextStringObject("part"), writer._add_object(one))]
        form = DictionaryObject(
            {
                NameObject("/XFA"): ArrayObject(parts) if len(parts) > 2 else parts[1],
                NameObject("/Fields"): ArrayObject(),
            }
        )
        writer.root_object[NameObject("/AcroForm")] = form
        writer.root_object[NameObject("/NeedsRendering")] = BooleanObject(True)

    return _changed(pdf(_lines("Please wait...")), make_dynamic)


DATA = b"""<xfa:datasets xmlns:xfa="http://www.xfa.org/schema/xfa-data/1.0/"><xfa:data><form1>
<surname>Rosalindsen</surname><policy><number>PX-77812-B</number><empty/></policy></form1></xfa:data></xfa:datasets>"""


@pytest.mark.parametrize(
    "packets", [(b'<xdp:xdp xmlns:xdp="http://ns.adobe.com/xdp/">%s</xdp:xdp>' % DATA,), (b"<template>", DATA)]
)
def test_what_is_filled_into_a_dynamic_form_is_text(packets: tuple[bytes, ...]) -> None:
    """The page that asks to wait is not, and a warning says what is missing."""
    document = read_one(_dynamic(*packets), "x.pdf")
    assert document.text == "surname: Rosalindsen\nnumber: PX-77812-B"
    assert document.warnings == ("It is a dynamic XFA form: what is filled in is read, not the form itself.",)


@pytest.mark.parametrize("packet", [b"<xdp/>", b"<broken"])
def test_a_dynamic_form_that_is_empty_is_refused(packet: bytes) -> None:
    """No program but one shows it."""
    with pytest.raises(UnreadableDocument, match="XFA") as refusal:
        read(_dynamic(packet), "x.pdf", ReadLimits())
    assert refusal.value.reason == "unsupported"


def _with_files(data: bytes) -> bytes:
    def attach(writer: pypdf.PdfWriter) -> None:
        writer.add_attachment("offer.txt", b"The pump costs 400 EUR.")
        writer.add_attachment("offer.txt", b"The valve costs 40 EUR.")
        writer.add_attachment("photo.bin", b"\x00\x01\x02" * 9)

    return _changed(data, attach)


def test_files_that_are_attached_are_documents() -> None:
    """Beside the pages that they are attached to; one that cannot be read is refused alone."""
    letter, *attached, refused = read(_with_files(pdf(_lines("Our offer."))), "letter.pdf", ReadLimits())
    assert isinstance(letter, Document)
    assert (letter.text, letter.metadata["attachments"]) == (
        "Our offer.",
        ["offer.txt", "offer.txt (2)", "photo.bin"],
    )
    assert [(one.text, one.metadata) for one in attached if isinstance(one, Document)] == [
        ("The pump costs 400 EUR.", {"attached_to": "letter.pdf", "file": "offer.txt"}),
        ("The valve costs 40 EUR.", {"attached_to": "letter.pdf", "file": "offer.txt (2)"}),
    ]
    assert isinstance(refused, Refused)
    assert (refused.part, refused.reason) == ("/photo.bin", "binary")


def test_of_a_portfolio_the_files_are_read() -> None:
    """Its cover, which advertises a program, is none of them."""
    cover = pdf(_lines("For the best experience, open this PDF portfolio in Adobe Reader."))
    parts = read(_with_files(cover), "p.pdf", ReadLimits())
    assert [one.text for one in parts if isinstance(one, Document)] == [
        "The pump costs 400 EUR.",
        "The valve costs 40 EUR.",
    ]


@pytest.mark.parametrize("code", [b"FFFFFFFF", b"D800", b"0000", b"D83DDE00"])
def test_a_glyph_without_a_character_costs_no_other(code: bytes) -> None:
    """Fonts may map a glyph beyond Unicode, to half a pair or to nothing."""

    def map_q(writer: pypdf.PdfWriter) -> None:
        table = StreamObject()
        table.set_data(
            b"/CIDInit /ProcSet findresource begin begincmap 1 begincodespacerange <00> <FF> endcodespacerange "
            b"1 beginbfchar <71> <" + code + b"> endbfchar endcmap end"
        )
        for font in writer.pages[0]["/Resources"]["/Font"].values():
            font.get_object()[NameObject("/ToUnicode")] = writer._add_object(table)

    text = read_one(_changed(pdf(_lines("The pump q delivers 40 litres a minute.")), map_q), "g.pdf").text
    assert text.startswith("The pump ")
    assert text.endswith(" delivers 40 litres a minute.")


def test_a_file_with_hardly_any_text_has_a_warning() -> None:
    """Where nearly all pages are empty the document says so."""
    document = read_one(pdf(_lines("The only page with text."), *[[]] * 9), "e.pdf")
    assert document.warnings == ("9 of its 10 pages have no text.",)


def _with_unseen_text(canvas: Canvas) -> None:
    canvas.drawString(72, 700, "Seen by everybody.")
    canvas.drawString(72, 900, "Above the page, where no reader looks.")
    unseen = canvas.beginText(72, 600)
    unseen.setTextRenderMode(3)
    unseen.textLine("Invisible.")
    canvas.drawText(unseen)
    canvas.setFillColorRGB(1, 1, 1)
    canvas.drawString(72, 500, "White on white.")
    canvas.setFillColorRGB(0, 0, 0.4)
    canvas.rect(60, 390, 300, 40, fill=1)
    canvas.setFillColorRGB(1, 1, 1)
    canvas.drawString(72, 400, "White on blue.")


def test_text_that_nobody_sees_is_left_out_with_a_warning() -> None:
    """Beyond the page, invisible or white on white: whoever put it there did not mean it for readers."""
    document = read_one(_drawn(_with_unseen_text), "h.pdf")
    assert texts(document) == ["Seen by everybody.", "White on blue."]
    assert document.warnings == ("63 characters of text that nobody sees on its pages are left out.",)


def test_the_invisible_text_behind_a_scan_is_read() -> None:
    """OCR puts it there for searches."""

    def draw(canvas: Canvas) -> None:
        canvas.drawImage(ImageReader(io.BytesIO(b"P6\n1 1\n255\n\xff\xff\xff")), 0, 0, 600, 800)
        layer = canvas.beginText(72, 600)
        layer.setTextRenderMode(3)
        layer.textLine("What the scanned page says.")
        canvas.drawText(layer)

    document = read_one(_drawn(draw), "s.pdf")
    assert (document.text, document.warnings) == ("What the scanned page says.", ())


def test_letters_that_are_drawn_one_by_one_make_words() -> None:
    """PDFium sees gaps beside narrow letters; where all stand at one pitch, only a whole place is a space."""

    def draw(canvas: Canvas) -> None:
        canvas.setFont("Helvetica", 12)
        for shift in (0, 0.3):  # twice, for bold
            for place, letter in enumerate("Bolt M8"):
                if letter != " ":
                    canvas.drawString(72 + shift + 8 * place, 700, letter)

    assert read_one(_drawn(draw), "b.pdf").text == "Bolt M8"


def _numbered(canvas: Canvas, lines: list[str], x: float) -> None:
    for number, line in enumerate(lines, 1):
        canvas.drawRightString(x, 740 - 24 * number, str(number))
        canvas.drawString(72, 740 - 24 * number, line)


def test_numbers_of_lines_are_no_text() -> None:
    """In contracts and pleadings they stand in the margin, before each line."""
    lines = [
        *PROSE,
        "and of the Americas, Eurasia and",
        "the north of Africa; it has been",
        "introduced to New Zealand.",
    ] * 3
    document = read_one(_drawn(lambda canvas: _numbered(canvas, lines, 55)), "n.pdf")
    assert " ".join(document.text.split()) == " ".join(lines)


def test_the_numbers_of_a_table_are_text() -> None:
    """A table may number its rows."""
    rows = [
        f"{name} valve" for name in ("Ball", "Gate", "Globe", "Needle", "Butterfly", "Check", "Relief", "Plug", "Pinch")
    ]
    text = read_one(_drawn(lambda canvas: _numbered(canvas, rows, 55)), "t.pdf").text
    assert "7 Relief valve" in text.replace(" | ", " ")


def test_a_watermark_stands_once_and_is_no_title() -> None:
    """What runs askew across its pages is said of the whole document, however large it is."""

    def draw(canvas: Canvas) -> None:
        for page in ("First", "Second", "Third"):
            canvas.setFont("Helvetica", 11)
            canvas.drawString(72, 700, f"{page} page of the contract.")
            canvas.saveState()
            canvas.translate(150, 300)
            canvas.rotate(45)
            canvas.setFont("Helvetica", 60)
            canvas.drawString(0, 0, "CONFIDENTIAL")
            canvas.restoreState()
            canvas.showPage()

    document = read_one(_drawn(draw), "c.pdf")
    assert document.title == "c"
    assert document.text.count("CONFIDENTIAL") == 1


@pytest.mark.parametrize("title", ["0001018724-20-000004", "  ", "report_v7.docx", "---"])
def test_a_file_id_is_no_title(title: str) -> None:
    """Programs write into the title what is none."""
    data = _changed(pdf(_lines("Text.")), lambda writer: writer.add_metadata({"/Title": title}))
    assert read_one(data, "annual.pdf").title == "annual"
