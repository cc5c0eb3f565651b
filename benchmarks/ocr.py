"""OCR: how much of scanned pages is read rightly by tesseract and by rapidocr, and what it costs.

    python -m benchmarks.ocr [--scans DIR] [--engines tesseract rapidocr]

Pages are made: prose of the licence, and rows of figures, drawn at 10 points, scanned at 200 dots per inch, turned by
up to half a degree, blurred and specked; seeded. DIR may hold more: NAME.pdf, of pictures, beside NAME.txt, its text.
Printed: character and word errors (edits over the length of the text, after white space and table bars are levelled),
the share of the text's words that were read at all (order left aside), and seconds of CPU a page, all threads and
children together. An engine that is not installed is named and left out. Exit status 1 where more than 2 % of the made
pages' characters are wrong.
"""

import argparse
import contextlib
import importlib.util
import io
import os
import random
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy
import pypdfium2
from PIL import Image, ImageFilter
from rapidfuzz.distance import Levenshtein
from reportlab.lib.pagesizes import A4
from reportlab.lib.utils import simpleSplit
from reportlab.pdfgen.canvas import Canvas

from indexing.readers.builder import TextWriter
from indexing.readers.limits import ReadLimits
from indexing.readers.pdf.layout import write_pages
from indexing.readers.pdf.ocr import DOTS_PER_INCH, Reading

ROOT = Path(__file__).parents[1]
DOTS = 200
LINES = 52
ALLOWED = 0.02
GOODS = ("Ball valve", "Gasket set", "Drive shaft", "Bearing 6204", "Hex bolt M8", "Filter cartridge", "O-ring")

Scan = tuple[str, str, list[Image.Image], int]
"""Name, text, pages, dots per inch."""


def main() -> int:
    """Scan, read, compare."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n")[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scans", type=Path, help="further scans, each beside its text")
    parser.add_argument("--engines", nargs="+", default=("tesseract", "rapidocr"))
    options = parser.parse_args()
    scans = [*made(), *(given(options.scans) if options.scans else ())]
    print(f"{'engine':11}{'scan':20}{'pages':>6}{'characters':>12}{'words':>8}{'found':>8}{'CPU s a page':>14}")
    worst = 0.0
    for engine in options.engines:
        if not is_installed(engine):
            print(f"{engine} is not installed")
            continue
        for name, text, pages, dots in scans:
            seconds = -cpu_seconds()
            read = text_of(engine, pages, dots)
            seconds += cpu_seconds()
            characters, words, found = errors(text, read)
            worst = max(worst, characters if name.startswith("made") else 0.0)
            print(
                f"{engine:11}{name:20}{len(pages):6}{characters:12.2%}{words:8.2%}{found:8.2%}"
                f"{seconds / len(pages):14.2f}",
                flush=True,
            )
    return int(worst > ALLOWED)


def is_installed(engine: str) -> bool:
    """Whether the engine can be run."""
    return bool(shutil.which(engine) if engine == "tesseract" else importlib.util.find_spec(engine))


def made() -> Iterator[Scan]:
    """Scans of pages whose text is known."""
    dice = random.Random(1)
    licence = " ".join((ROOT / "LICENSE").read_text(encoding="utf-8").split())
    prose = simpleSplit(licence, "Times-Roman", 10, 430)
    rows = [
        f"{dice.randrange(10**5, 10**6)} {dice.choice(GOODS)} {dice.randrange(1, 400)} "
        f"{dice.randrange(1, 9999)}.{dice.randrange(100):02} EUR {dice.randrange(1, 29)}.{dice.randrange(1, 13)}.2025"
        for _ in range(2 * LINES)
    ]
    for name, lines, font in (("made, prose", prose[: 3 * LINES], "Times-Roman"), ("made, rows", rows, "Helvetica")):
        yield name, " ".join(lines), [worn(page, dice) for page in drawn(lines, font)], DOTS


def drawn(lines: Sequence[str], font: str) -> Iterator[Image.Image]:
    """Pages of these lines."""
    file = io.BytesIO()
    canvas = Canvas(file, pagesize=A4)
    for start in range(0, len(lines), LINES):
        canvas.setFont(font, 10)
        for place, line in enumerate(lines[start : start + LINES]):
            canvas.drawString(80, 770 - 13.5 * place, line)
        canvas.showPage()
    canvas.save()
    with contextlib.closing(pypdfium2.PdfDocument(file.getvalue())) as pdf:
        for page in pdf:
            yield page.render(scale=DOTS / 72, grayscale=True).to_pil()


def worn(page: Image.Image, dice: random.Random) -> Image.Image:
    """As a scanner gives it."""
    turned = page.rotate(dice.uniform(-0.5, 0.5), Image.Resampling.BICUBIC, fillcolor=255)
    grey = numpy.asarray(turned.filter(ImageFilter.GaussianBlur(0.7)), numpy.float32)
    noise = numpy.random.default_rng(dice.randrange(2**32)).normal(-8, 14, grey.shape)
    return Image.fromarray(numpy.clip(grey + noise, 0, 255).astype(numpy.uint8))


def given(folder: Path) -> Iterator[Scan]:
    """The scans of a folder that have their text beside them."""
    for path in sorted(folder.glob("*.pdf")):
        if (text := path.with_suffix(".txt")).exists():
            with contextlib.closing(pypdfium2.PdfDocument(path)) as pdf:
                pages = [page.render(scale=DOTS_PER_INCH / 72, grayscale=True).to_pil() for page in pdf]
            yield path.stem, text.read_text(encoding="utf-8"), pages, DOTS_PER_INCH


def text_of(engine: str, pages: Sequence[Image.Image], dots: int) -> str:
    """What the reader makes of the pages with this engine."""
    reading = Reading(ReadLimits(max_seconds=3600))
    reading.engine = "tesseract" if engine == "tesseract" else "rapidocr"
    writer = TextWriter()
    write_pages([page for one in pages if (page := reading.page(one, dots))], writer)
    return writer.document(title="", media_type="", metadata={}).text


def errors(text: str, read: str) -> tuple[float, float, float]:
    """Of the characters, of the words, and the share of the words that were read anywhere."""
    wanted, ours = text.split(), read.replace("|", " ").split()
    characters = Levenshtein.distance(" ".join(wanted), " ".join(ours)) / len(" ".join(wanted))
    found = (Counter(wanted) & Counter(ours)).total() / len(wanted)
    return characters, Levenshtein.distance(wanted, ours) / len(wanted), found


def cpu_seconds() -> float:
    """Used by this process and its children."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


if __name__ == "__main__":
    sys.exit(main())
