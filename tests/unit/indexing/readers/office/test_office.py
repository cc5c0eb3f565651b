"""Word, PowerPoint, Excel and OpenDocument."""

import base64
import datetime
import io
import struct
import zipfile
import zlib

import openpyxl
import openpyxl.chart
import pptx
import pptx.chart.data
import pptx.enum.chart
import pptx.util
import pytest
from docx.document import Document as WordDocument
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls

from indexing.documents import PageStart
from indexing.errors import UnreadableDocument
from indexing.readers import ReadLimits, read
from tests.unit.indexing.readers.making import odt, read_one, slides, texts, word, workbook, zipped

NUMBERED = '<a:buAutoNum xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main" type="arabicPeriod"/>'
MATH = 'xmlns:m="http://schemas.openxmlformats.org/officeDocument/2006/math"'


def _report(document: WordDocument) -> None:
    document.core_properties.title = "Report"
    document.core_properties.author = "Jo"
    document.add_heading("Ducks", 1)
    document.add_paragraph("A duck swims.")
    document.add_heading("Kinds", 2)
    document.add_paragraph("Mallard", style="List Bullet")
    document.add_paragraph("male", style="List Bullet 2")
    document.add_paragraph("first", style="List Number")
    document.add_paragraph("second", style="List Number")
    table = document.add_table(rows=3, cols=3)
    for row, values in zip(table.rows, [("Duck", "cm", "kg"), ("Mallard", "50", "1"), ("", "60", "2")], strict=True):
        for cell, value in zip(row.cells, values, strict=True):
            cell.text = value
    table.cell(1, 0).merge(table.cell(2, 0))
    document.add_paragraph("Said once.", style="Quote")


def test_word_structure() -> None:
    """Headings, bullets, numbers, table rows with merged cells, and quotes come out in order."""
    document = read_one(word(_report), "r.docx")
    assert texts(document) == [
        "Ducks",
        "A duck swims.",
        "Kinds",
        "- Mallard",
        "- male",
        "1. first",
        "2. second",
        "Duck | cm | kg",
        "Mallard | 50 | 1",
        "Mallard | 60 | 2",
        "Said once.",
    ]
    assert [block.level for block in document.blocks if block.kind == "heading"] == [1, 2]
    assert [block.header for block in document.blocks if block.kind == "table_row"] == [True, False, False]
    assert document.blocks[-1].kind == "quote"
    assert document.title == "Report"
    assert document.metadata["author"] == "Jo"


def test_word_code_paragraphs_are_one_block() -> None:
    """Consecutive lines in typewriter face are code, with their indentation."""

    def build(document: WordDocument) -> None:
        for line in ("def quack():", "    return 1"):
            document.add_paragraph().add_run(line).font.name = "Courier New"
        document.add_paragraph("Prose.")

    document = read_one(word(build), "c.docx")
    assert [(block.kind, text) for block, text in zip(document.blocks, texts(document), strict=True)] == [
        ("code", "def quack():\n    return 1"),
        ("paragraph", "Prose."),
    ]


def test_word_equations_text_boxes_and_revisions() -> None:
    """Equations read like TeX, a text box is read once, inserted text is kept and deleted text is not."""

    def build(document: WordDocument) -> None:
        paragraph = document.add_paragraph("Area ")
        square = "<m:sSup><m:e><m:r><m:t>r</m:t></m:r></m:e><m:sup><m:r><m:t>2</m:t></m:r></m:sup></m:sSup>"
        paragraph._p.append(parse_xml(f"<m:oMath {MATH}><m:r><m:t>A=π</m:t></m:r>{square}</m:oMath>"))
        box = "<w:txbxContent><w:p><w:r><w:t>In the box</w:t></w:r></w:p></w:txbxContent>"
        paragraph._p.append(parse_xml(f"<w:r {nsdecls('w')}><w:pict>{box}</w:pict></w:r>"))
        changed = document.add_paragraph("Kept ")
        changed._p.append(parse_xml(f"<w:ins {nsdecls('w')}><w:r><w:t>new</w:t></w:r></w:ins>"))
        changed._p.append(parse_xml(f"<w:del {nsdecls('w')}><w:r><w:delText>old</w:delText></w:r></w:del>"))

    assert texts(read_one(word(build), "e.docx")) == ["Area A=πr^2", "In the box", "Kept new"]


def test_slides_are_pages() -> None:
    """A slide starts a page with its title as heading; speaker notes follow."""
    document = read_one(slides(("One", ["a", "b"], "Say hello."), ("Two", ["c"], "")), "s.pptx")
    assert texts(document) == ["One", "- a", "- b", "Say hello.", "Two", "c"]
    assert document.pages == (PageStart(0, 1), PageStart(document.text.index("Two"), 2))


def test_slide_tables_and_charts() -> None:
    """Both are rows: a chart is the table that it was drawn from."""
    deck = pptx.Presentation()
    slide = deck.slides.add_slide(deck.slide_layouts[6])
    inch = pptx.util.Inches(1)
    table = slide.shapes.add_table(2, 2, inch, inch, inch, inch).table
    for index, text in enumerate(("a", "b", "1", "2")):
        table.cell(index // 2, index % 2).text = text
    data = pptx.chart.data.CategoryChartData()
    data.categories = ["2019", "2020"]
    data.add_series("Ducks", (120, 130))
    slide.shapes.add_chart(pptx.enum.chart.XL_CHART_TYPE.COLUMN_CLUSTERED, inch, inch, inch, inch, data)
    file = io.BytesIO()
    deck.save(file)
    rows = texts(read_one(file.getvalue(), "t.pptx"), "table_row")
    assert rows[:2] == ["a | b", "1 | 2"]
    assert rows[3:] == ["2019 | 120", "2020 | 130"]
    assert "Ducks" in rows[2]


def test_sheets_are_pages() -> None:
    """A sheet starts a page with its name as heading; cells read as people see them."""
    day = datetime.date(2024, 5, 1)
    moment = datetime.datetime(2024, 5, 1, 12, 30)
    document = read_one(
        workbook(
            Stock=[("Duck", "when", "n"), ("Mallard", day, 3.0), ("Teal", moment, 0.1 + 0.2)],
            Flags=[("on", True), ("off", False)],
        ),
        "stock.xlsx",
    )
    assert texts(document) == [
        "Stock",
        "Duck | when | n",
        "Mallard | 2024-05-01 | 3",
        "Teal | 2024-05-01 12:30:00 | 0.3",
        "Flags",
        "on | TRUE",
        "off | FALSE",
    ]
    assert [page.number for page in document.pages] == [1, 2]
    assert (document.title, document.metadata["sheets"]) == ("stock", ["Stock", "Flags"])


def test_a_sheet_holds_tables_between_empty_rows() -> None:
    """Each has its own header row; a lone line above a table is its caption; empty columns are left out."""
    rows = [(None, "Ducks per year"), (None, "year", None, "n"), (None, 2019, None, 5), (), (None, "a"), (None, "b")]
    document = read_one(workbook(S=rows), "s.xlsx")
    assert [(block.kind, block.header) for block in document.blocks[1:]] == [
        ("paragraph", False),
        ("table_row", True),
        ("table_row", False),
        ("table_row", True),
        ("table_row", False),
    ]
    assert texts(document)[1:4] == ["Ducks per year", "year | n", "2019 | 5"]


def test_a_lone_cell_far_out_costs_nothing() -> None:
    """A sheet with a cell in its very last corner is billions of blank cells wide, and read all the same."""
    book = openpyxl.Workbook()
    book.active["A1"] = "near"
    book.active["XFD1048576"] = "far"
    file = io.BytesIO()
    book.save(file)
    assert texts(read_one(file.getvalue(), "far.xlsx"))[1:] == ["near", "far"]


def test_reading_twice_gives_the_same_hash() -> None:
    """Nothing of the moment of reading enters a document: the index would think that it changed."""
    data = workbook(S=[("a", "b")])
    assert read_one(data, "s.xlsx").content_hash() == read_one(data, "s.xlsx").content_hash()
    assert "modified" in read_one(data, "s.xlsx").metadata


def test_too_many_slides_or_sheets() -> None:
    """The page limit counts both."""
    for data, name in ((slides(("a", [], ""), ("b", [], "")), "s.pptx"), (workbook(a=[(1,)], b=[(1,)]), "s.xlsx")):
        with pytest.raises(UnreadableDocument) as refusal:
            read(data, name, ReadLimits(max_pages=1))
        assert refusal.value.reason == "too_many_pages"


def test_open_document() -> None:
    """Headings, lists, tables, notes and text boxes; repeated blank cells add nothing."""
    body = (
        '<text:h text:outline-level="2">Ducks</text:h><text:p>Two<text:s/>words<text:line-break/>and more'
        "<text:note><text:note-citation>1</text:note-citation><text:note-body><text:p>aside</text:p></text:note-body>"
        "</text:note></text:p><text:list><text:list-item><text:p>one</text:p><text:list><text:list-item><text:p>deep"
        "</text:p></text:list-item></text:list></text:list-item></text:list><table:table><table:table-row>"
        '<table:table-cell><text:p>a</text:p></table:table-cell><table:table-cell table:number-columns-repeated="2">'
        "<text:p>b</text:p></table:table-cell><table:table-cell "
        'table:number-columns-repeated="16000"/></table:table-row><table:table-row><table:table-cell><text:p>1</text:p>'
        "</table:table-cell></table:table-row></table:table>"
    )
    document = read_one(odt(body), "m.odt")
    assert texts(document) == ["Ducks", "Two words\nand more (aside)", "- one", "- deep", "a | b | b", "1"]
    assert document.blocks[0].level == 2
    assert document.title == "Minutes"


def test_tables_side_by_side() -> None:
    """Two tables in the same rows are read one after the other."""
    rows = [("a", "b", None, "c", "d"), (1, 2, None, 3, 4), (None, None, None, 5, 6)]
    assert texts(read_one(workbook(S=rows), "s.xlsx"))[1:] == ["a | b", "1 | 2", "c | d", "3 | 4", "5 | 6"]


def test_lists_in_text_boxes() -> None:
    """Outside the body placeholder a paragraph is a list item when it asks for a bullet or a number."""
    deck = pptx.Presentation()
    slide = deck.slides.add_slide(deck.slide_layouts[6])
    inch = pptx.util.Inches(1)
    frame = slide.shapes.add_textbox(inch, inch, inch, inch).text_frame
    frame.text = "Steps:\nrinse\nrepeat"
    for paragraph in frame.paragraphs[1:]:
        paragraph._p.get_or_add_pPr().append(parse_xml(NUMBERED))
    file = io.BytesIO()
    deck.save(file)
    assert texts(read_one(file.getvalue(), "l.pptx")) == ["Steps:", "1. rinse", "2. repeat"]


def test_numbered_headings_keep_their_numbers() -> None:
    """A style may say which list its headings count in, and at which depth."""

    def build(document: WordDocument) -> None:
        numbering = document.part.numbering_part.element
        levels = "".join(f'<w:lvl w:ilvl="{depth}"><w:numFmt w:val="decimal"/></w:lvl>' for depth in range(2))
        abstract = f'<w:abstractNum {nsdecls("w")} w:abstractNumId="77">{levels}</w:abstractNum>'
        numbering.insert(0, parse_xml(abstract))
        numbering.append(parse_xml(f'<w:num {nsdecls("w")} w:numId="77"><w:abstractNumId w:val="77"/></w:num>'))
        for depth in range(2):
            counted = f'<w:numPr {nsdecls("w")}><w:ilvl w:val="{depth}"/><w:numId w:val="77"/></w:numPr>'
            document.styles[f"Heading {depth + 1}"].element.get_or_add_pPr().append(parse_xml(counted))
        for level, text in ((1, "Ducks"), (2, "Mallard"), (2, "Teal"), (1, "Geese")):
            document.add_heading(text, level)

    assert texts(read_one(word(build), "n.docx")) == ["1. Ducks", "1.1 Mallard", "1.2 Teal", "2. Geese"]


W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
R = 'xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"'


def word_parts(body: str, *, slash: str = "/", **parts: tuple[str, str, str]) -> bytes:
    """A docx of this body; `parts` are relation id -> (kind, member, content)."""
    relations = "".join(
        f'<Relationship Id="{identifier}" Type="http://x/{kind}" Target="{member}"/>'
        for identifier, (kind, member, _) in parts.items()
    )
    members: dict[str, str | bytes] = {
        "word/document.xml": f"<w:document {W} {R}><w:body>{body}</w:body></w:document>",
        "word/_rels/document.xml.rels": f"<Relationships>{relations}</Relationships>",
        **{f"word/{member}": content for _, member, content in parts.values()},
    }
    return zipped({name.replace("/", slash): content for name, content in members.items()})


def paragraph(text: str, properties: str = "") -> str:
    """A paragraph of one run."""
    return f"<w:p><w:r>{properties}<w:t>{text}</w:t></w:r></w:p>"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (paragraph("Seen.") + paragraph("Unseen.", "<w:rPr><w:vanish/></w:rPr>"), "Seen."),
        (paragraph("Seen.", '<w:rPr><w:vanish w:val="0"/></w:rPr>'), "Seen."),
        ('<w:p><w:r><w:sym w:font="Wingdings" w:char="F0FE"/><w:t> Yes</w:t></w:r></w:p>', "☑ Yes"),
        ('<w:p><w:r><w:t>90</w:t><w:sym w:font="Symbol" w:char="F0B0"/><w:t>, so</w:t></w:r></w:p>', "90°, so"),
        ('<w:p><w:r><w:t>At</w:t><w:sym w:font="Webdings" w:char="zz"/></w:r></w:p>', "At"),
        (
            "<w:p><w:r><w:ruby><w:rt><w:r><w:t>とうきょう</w:t></w:r></w:rt><w:rubyBase><w:r><w:t>東京</w:t></w:r>"
            "</w:rubyBase></w:ruby></w:r></w:p>",
            "東京",
        ),
    ],
)
def test_word_shows_signs_and_hides_the_hidden(body: str, text: str) -> None:
    """Signs of symbol fonts are characters; hidden text and the readings over characters are left out."""
    assert read_one(word_parts(body), "a.docx").text == text
    assert read_one(word_parts(body, slash="\\"), "a.docx").text == text


def test_word_parts_beside_the_body() -> None:
    """Files that are shown as a part, charts, diagrams, comments in their places, and what pages bear, once."""
    drawing = (
        '<w:p><w:r><w:drawing><c:chart xmlns:c="http://c" r:id="r3"/></w:drawing></w:r></w:p>'
        '<w:p><w:r><w:drawing><d:relIds xmlns:d="http://d" r:dm="r4"/></w:drawing></w:r></w:p>'
    )
    chart = (
        '<c:chartSpace xmlns:c="http://c"><c:chart><c:title><c:t>Sales</c:t></c:title><c:ser><c:tx><c:v>kg</c:v></c:tx>'
        "<c:cat><c:v>May</c:v></c:cat><c:val><c:v>7</c:v></c:val></c:ser></c:chart></c:chartSpace>"
    )
    mark = '<w:r><w:commentReference w:id="1"/></w:r>'
    marked = f"<w:p><w:r><w:t>For imported parts:</w:t></w:r>{mark}</w:p>"
    head = f"<w:hdr {W}>{paragraph('Procedure QP-4711')}</w:hdr>"
    data = word_parts(
        paragraph("Cover.") + marked + '<w:altChunk r:id="r1"/>' + drawing + paragraph("End."),
        r1=("aFChunk", "chunk.html", "<p>The warranty is 36 months.</p>"),
        r3=("chart", "chart1.xml", chart),
        r4=("diagramData", "data1.xml", '<d:m xmlns:d="http://d"><d:pt><d:t>Plan</d:t></d:pt></d:m>'),
        r5=(
            "comments",
            "c.xml",
            f'<w:comments {W}><w:comment w:id="1" w:author="Jo">{paragraph("Why?")}</w:comment>'
            f'<w:comment w:id="2">{paragraph("Not here.")}</w:comment></w:comments>',
        ),
        r6=("header", "header1.xml", head),
        r7=("header", "header2.xml", head),
        r8=("footer", "footer1.xml", f"<w:ftr {W}>{paragraph('17')}</w:ftr>"),
    )
    assert texts(read_one(data, "a.docx")) == [
        "Cover.",
        "For imported parts:",
        "Comment by Jo: Why?",
        "The warranty is 36 months.",
        "Sales",
        "| kg",
        "May | 7",
        "Plan",
        "End.",
        "Comment by somebody: Not here.",
        "Procedure QP-4711",
    ]


@pytest.mark.parametrize(
    ("value", "number_format", "text"),
    [
        (1234, "00000", "01234"),
        (0.25, "0%", "25%"),
        (0.1234, "0.0%", "12.3%"),
        (1.5, "General", "1.5"),
        (1234.5, '#,##0.00 "EUR"', "1234.50 EUR"),
        (1234.5678, '"$"#,##0.00', "$1234.5678"),
        (-3, "[$€-407] #,##0.00;[Red]-[$€-407] #,##0.00", "-€3.00"),
        (3, "#,##0.00\\ [$CHF-807]", "3.00 CHF"),
        (12, '_("£"* #,##0_)', "£12"),
        (7.25, '0.0 "kg"', "7.25 kg"),
        (1234.5, "#,##0.00", "1234.5"),
        (5, '"Total: "0', "5"),
        (datetime.timedelta(hours=26, minutes=30), "[hh]:mm:ss", "26:30:00"),
        (True, "General", "TRUE"),
        (10**18, "0", "1000000000000000000"),
    ],
)
def test_cells_are_read_as_they_are_shown(value: object, number_format: str, text: str) -> None:
    """Leading zeros, shares, durations, money and measures; all digits that a number has."""
    book = openpyxl.Workbook()
    book.active["A1"] = value
    book.active["A1"].number_format = number_format
    file = io.BytesIO()
    book.save(file)
    assert texts(read_one(file.getvalue(), "a.xlsx"))[-1] == text


def test_merged_cells_stand_in_each_of_their_rows() -> None:
    """Down and across, but a title over a table alone; empty rows stay empty."""
    book = openpyxl.Workbook()
    sheet = book.active
    for row in (["Sales 2025"], ["Region", "2024", None, "Sum"], ["North", 1, 2, 3], [None, 4, 5, 9], [], ["End", 0]):
        sheet.append(row)
    for cells in ("A1:D1", "B2:C2", "A3:A5", "F2:XFD9"):
        sheet.merge_cells(cells)
    file = io.BytesIO()
    book.save(file)
    assert texts(read_one(file.getvalue(), "a.xlsx")) == [
        "Sheet",
        "Sales 2025",
        "Region | 2024 | 2024 | Sum",
        "North | 1 | 2 | 3",
        "North | 4 | 5 | 9",
        "End | 0",
    ]


def test_a_chart_may_be_a_sheet_of_its_own() -> None:
    """It is a page with its name as heading, after the others, and its text is there once."""
    book = openpyxl.Workbook()
    book.active.append(["kg", 7])
    chart = openpyxl.chart.BarChart()
    chart.title = "Sales in May"
    chart.add_data(openpyxl.chart.Reference(book.active, min_col=2, min_row=1))
    book.create_chartsheet("Curves").add_chart(chart)
    file = io.BytesIO()
    book.save(file)
    document = read_one(file.getvalue(), "a.xlsx")
    assert texts(document) == ["Sheet", "kg | 7", "Curves", "Sales in May"]
    assert [page.number for page in document.pages] == [1, 2]
    assert document.metadata["sheets"] == ["Sheet", "Curves"]


def test_formulas_that_were_never_computed_are_said() -> None:
    """Programs write formulas without values: they stand as formulas, with a warning."""
    document = read_one(workbook(S=[("a", "b"), (1, "=A2*2"), ("=SUM(A2)", None)]), "a.xlsx")
    assert texts(document) == ["S", "a | b", "1 | =A2*2", "=SUM(A2)"]
    assert document.warnings[0].startswith("2 formulas were never computed")
    single = read_one(workbook(S=[("a", "=A2*2")]), "a.xlsx")
    assert single.warnings[0].startswith("1 formula was never computed")


@pytest.mark.parametrize("broken", ["<fill/>", '<fill><patternFill patternType="nonsense"/></fill>'])
def test_a_broken_style_is_no_reason_to_refuse(broken: str) -> None:
    """The cells are read, with their number formats."""
    members = zipfile.ZipFile(io.BytesIO(workbook(S=[("a", "b"), (1, 2)])))
    parts = {name: members.read(name) for name in members.namelist()}
    parts["xl/styles.xml"] = parts["xl/styles.xml"].replace(b"<fill>", f"{broken}<fill>".encode(), 1)
    assert texts(read_one(zipped(parts), "a.xlsx")) == ["S", "a | b", "1 | 2"]


OLD_WORKBOOK = zlib.decompress(
    base64.b85decode(
        "c-rk)O=uHA6#izDZGLFdO-+SXD4}3&YcJ}hm%6r~IkiMDiU^vvdngTwthwkxt2IYa@TBxo=*3Ibi$CZ=ZyuD29t1&5^yo=Y@z7@b"
        "=4F<qnnMG&sLZ#_o44=1nR&bO=FQH&UQU!3?srx23l1WHsuw{^olH=P_%{|v?|G8->o65h<DWt#OcU8+;z{gfNY0_0?+Ogu3qB_b"
        "e4=s+XE9#LJE?8NDEp8V(uZN90`nw^qm#XAXFADr2h+Q3`IPA)mRw^xOtxil63h1Zz>tdK6Gji~;*kA5<TmeFvJV}2A*1-x4N<c-"
        "G2%{VbAP9zJJ^av(7dIcyyIqbWh7|=7xCRo0pI+U`Yfg8+bb6!`Ol5=Py_i*BM8jGJHr89LJY40Qez^Mb&Ka#&<`^3i<FsExzm#l"
        "&G~2{S4@o!ktFT@_~=Asa^}TsZCK1P4)Ru_Q)pv8!J%$Zx?Z{S_08Bs#y-uGSx(@!G{0MV1`n5I3u+u^4LirS15Ecay~4fjV!n%M"
        "lAeI--b{yLj?A&mRo3>>I0qPS?LBpTAMvFxM;~>UKHL4oFQqFNl1uOG1@zFiGezy?HHSelC~n`9cx?N%P$}U9)6U=0L)fsC@1EMr"
        "+OUc!vk9iPJNb5mvKI~P1>4IWFB(zyCxPqA-e_QNuzf(;*WUhqxxE_gcp#OOtkw~QhK7cQhK7cQhQ^jcs1N#pI%k;b*bq|xbylfV"
        "^>32@7ROMat4Iga!^l(Z;(Sx_vlFK9`x2XM<Nq&|I8LLxn85`5G1GMX(y>p}KhLHcT7PZ{H9LN_89%pp{52CF$M6"
    )
)


def test_sheets_of_other_programs() -> None:
    """Excel 97, binary Excel and OpenDocument: a page and a heading per sheet, a row per line."""
    for name in ("parts.xlsb", "download"):
        document = read_one(xlsb(("Bolt M8", 0.35), ("Größe", 12)), name)
        assert texts(document) == ["Parts", "Bolt M8 | 0.35", "Größe | 12"]
        assert document.metadata == {"sheets": ["Parts"]}
    document = read_one(OLD_WORKBOOK, "parts.xls")
    assert texts(document) == ["Parts", "Part | Price", "Bolt M8 | 0.35", "Größe | 12"]
    assert (document.pages[0].number, document.metadata) == (1, {"sheets": ["Parts"]})
    cells = "".join(
        f'<table:table-row><table:table-cell office:value-type="string"><text:p>{name}</text:p></table:table-cell>'
        f'<table:table-cell office:value-type="float" office:value="{number}"/></table:table-row>'
        for name, number in (("Bolt", 0.35), ("Nut", 2))
    )
    assert texts(read_one(ods(cells), "parts.ods")) == ["Parts", "Bolt | 0.35", "Nut | 2"]
    assert texts(read_one(ods(cells), "download")) == ["Parts", "Bolt | 0.35", "Nut | 2"]


def test_a_panic_of_a_library_is_a_refusal() -> None:
    """It would end the reader's process, and with an archive all that is in it."""
    members = zipfile.ZipFile(io.BytesIO(xlsb(("Bolt M8", 0.35))))
    parts = {name: members.read(name) for name in members.namelist()}
    sheet = parts["xl/worksheets/sheet1.bin"]
    parts["xl/worksheets/sheet1.bin"] = sheet.replace(b"\x94\x01\x10", b"\x94\x01\x00")  # a size without its bytes
    with pytest.raises(UnreadableDocument) as refusal:
        read(zipped(parts), "parts.xlsb", ReadLimits())
    assert refusal.value.reason == "corrupt"


def xlsb(*rows: tuple[str, float]) -> bytes:
    """A binary workbook of one sheet (MS-XLSB): records of a number, a length and their bytes."""

    def record(number: int, data: bytes = b"") -> bytes:
        head = bytes([number]) if number < 128 else bytes([number & 127 | 128, number >> 7])
        return head + bytes([len(data)]) + data

    def wide(text: str) -> bytes:
        return struct.pack("<I", len(text)) + text.encode("utf-16-le")

    sheet = record(156, struct.pack("<II", 0, 1) + wide("rId1") + wide("Parts"))
    book = record(131) + record(143) + sheet + record(144) + record(132)
    cells = b"".join(
        record(0, struct.pack("<IIHHBI", number, 0, 300, 0, 0, 0))
        + record(6, struct.pack("<II", 0, 0) + wide(name))
        + record(5, struct.pack("<IId", 1, 0, value))
        for number, (name, value) in enumerate(rows)
    )
    size = record(148, struct.pack("<IIII", 0, len(rows) - 1, 0, 1))
    relation = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet"
    return zipped(
        {
            "[Content_Types].xml": "<Types/>",
            "xl/workbook.bin": book,
            "xl/_rels/workbook.bin.rels": f'<Relationships><Relationship Id="rId1" Type="{relation}" '
            'Target="worksheets/sheet1.bin"/></Relationships>',
            "xl/worksheets/sheet1.bin": record(129) + size + record(145) + cells + record(146) + record(130),
        }
    )


def ods(rows: str) -> bytes:
    """An OpenDocument workbook of one sheet."""
    names = " ".join(
        f'xmlns:{prefix}="urn:oasis:names:tc:opendocument:xmlns:{prefix}:1.0"' for prefix in ("office", "text", "table")
    )
    content = (
        f"<office:document-content {names}><office:body><office:spreadsheet>"
        f'<table:table table:name="Parts">{rows}</table:table></office:spreadsheet></office:body>'
        "</office:document-content>"
    )
    manifest = '<m:manifest xmlns:m="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0"/>'
    kind = "application/vnd.oasis.opendocument.spreadsheet"
    return zipped({"mimetype": kind, "content.xml": content, "META-INF/manifest.xml": manifest})
