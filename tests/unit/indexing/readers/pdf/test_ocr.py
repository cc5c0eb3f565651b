"""Scans and pictures: read where something is installed to read them."""

import io
import shutil
from collections.abc import Sequence
from importlib.util import find_spec

import pytest
from PIL import Image, ImageDraw, ImageFont
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas

from indexing.errors import UnreadableDocument
from indexing.readers import ReadLimits, read
from indexing.readers.limits import on_page
from tests.unit.indexing.readers.making import read_one, texts

needs_rapidocr = pytest.mark.skipif(find_spec("rapidocr") is None, reason="the extra ocr is not installed")
needs_tesseract = pytest.mark.skipif(shutil.which("tesseract") is None, reason="tesseract is not installed")

LETTER = ("The warranty of the pump", "Article 4711 is covered for 36 months.", "Claims go to the service in Ghent.")


def page(*lines: str) -> Image.Image:
    """A scanned page of A4 at 150 dots per inch."""
    picture = Image.new("L", (1240, 600), "white")
    draw = ImageDraw.Draw(picture)
    for number, line in enumerate(lines):
        draw.text((100, 80 + 90 * number), line, fill="black", font=ImageFont.load_default(40))
    return picture


def saved(picture: Image.Image, kind: str, further: Sequence[Image.Image] = ()) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, dpi=(150, 150), **({"save_all": True, "append_images": further} if further else {}))
    return file.getvalue()


def scanned(*pages: Image.Image | str) -> bytes:
    """A PDF of pictures, and of pages with text."""
    file = io.BytesIO()
    canvas = Canvas(file, pagesize=(595, 288))
    for one in pages:
        if isinstance(one, str):
            canvas.drawString(72, 200, one)
        else:
            canvas.drawImage(ImageReader(one), 0, 0, 595, 288)
        canvas.showPage()
    canvas.save()
    return file.getvalue()


def refusal(data: bytes, name: str, limits: ReadLimits) -> tuple[str, str]:
    with pytest.raises(UnreadableDocument) as raised:
        read(data, name, limits)
    return raised.value.reason, raised.value.detail


@needs_tesseract
def test_pages_without_text_are_read_among_the_others() -> None:
    """Only pictures of text cost OCR, and a document says which of its pages it was."""
    document = read_one(scanned("A page of letters, typed on a machine.", page(*LETTER)), "scan.pdf")
    first, *others = texts(document)
    assert first == "A page of letters, typed on a machine."
    assert " ".join(" ".join(others).split()) == " ".join(LETTER)
    assert document.metadata["pages_by_ocr"] == [2]
    assert (document.warnings, document.title) == ((), "scan")


@needs_tesseract
@pytest.mark.parametrize("kind", ["pdf", "tiff"])
def test_each_page_of_a_scan_is_reported(kind: str) -> None:
    """Those that have text are none of it."""
    sheets = page("First sheet of the fax"), page("Second sheet of the fax")
    typed = "A page of letters, typed on a machine."
    data = scanned(sheets[0], typed, sheets[1]) if kind == "pdf" else saved(sheets[0], "TIFF", sheets[1:])
    heard: list[tuple[int, int]] = []
    earlier = on_page.set(lambda *pages: heard.append(pages))
    read_one(data, f"scan.{kind}")
    on_page.reset(earlier)
    assert heard == [(1, 2), (2, 2)]


@needs_tesseract
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_a_picture_is_a_document(kind: str) -> None:
    """Whatever its name says, its first bytes say that it is one."""
    document = read_one(saved(page(*LETTER), kind), "photo")
    assert " ".join(document.text.split()) == " ".join(LETTER)
    assert document.media_type == f"image/{kind.lower()}"
    assert document.metadata == {"read_by": "tesseract"}


@needs_tesseract
def test_the_pages_of_a_fax_are_pages() -> None:
    """A TIFF may have several."""
    document = read_one(saved(page("First sheet of the fax"), "TIFF", [page("Second sheet of the fax")]), "fax.tiff")
    assert texts(document) == ["First sheet of the fax", "Second sheet of the fax"]
    assert [one.number for one in document.pages] == [1, 2]
    assert refusal(saved(page("a"), "TIFF", [page("b")]), "fax.tiff", ReadLimits(max_pages=1))[0] == "too_many_pages"


@needs_rapidocr
def test_rapidocr_reads_where_tesseract_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of PDFs and pictures, the same text."""
    monkeypatch.setenv("PATH", "")
    letter = read_one(saved(page(*LETTER), "PNG"), "photo.png")
    assert " ".join(letter.text.split()) == " ".join(LETTER)
    assert letter.metadata["read_by"] == "rapidocr"
    assert " ".join(read_one(scanned(page(*LETTER)), "scan.pdf").text.split()) == " ".join(LETTER)


@needs_tesseract
def test_a_photograph_without_text_is_empty() -> None:
    """It is no failure of a folder to have one."""
    assert refusal(saved(page(), "PNG"), "sky.png", ReadLimits()) == ("empty", "OCR finds no text in it.")


@needs_tesseract
def test_a_language_that_is_not_installed_is_named() -> None:
    """With the package that has it."""
    reason, detail = refusal(saved(page("x"), "PNG"), "a.png", ReadLimits(ocr_languages="eng+tlh"))
    assert reason == "no_text_layer"
    assert "eng+tlh" in detail
    assert "apt-get install tesseract-ocr-" in detail


@needs_tesseract
def test_what_ocr_does_not_read_in_time_is_said() -> None:
    """The pages that have text are read all the same."""
    typed = "A page of letters, typed on a machine."
    document = read_one(scanned(typed, page(*LETTER)), "scan.pdf", max_seconds=1e-9)
    assert document.text == typed
    (warning,) = document.warnings
    assert warning.startswith("1 of its 2 pages are pictures that OCR did not read within")
    assert refusal(scanned(page(*LETTER)), "scan.pdf", ReadLimits(max_seconds=1e-9))[0] == "no_text_layer"


@pytest.mark.parametrize("name", ["a.png", "a.pdf"])
def test_where_nothing_reads_pictures_the_refusal_says_what_to_install(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what to set where OCR is off."""
    data = scanned(page(*LETTER)) if name.endswith("pdf") else saved(page(*LETTER), "PNG")
    assert 'set ocr = "auto"' in refusal(data, name, ReadLimits(ocr="off"))[1]
    monkeypatch.setenv("PATH", "")
    reason, detail = refusal(data, name, ReadLimits())
    assert reason == "no_text_layer"
    assert "apt-get install tesseract-ocr" in detail
    assert "winnow[ocr]" in detail
