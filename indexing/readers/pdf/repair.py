"""Damaged PDFs: one whose end is cut off, or whose table of objects is broken, gets a new end. Pure.

PDFium finds the objects of such a file by itself, but not which of them is the catalog, the root of all others.
"""

import re

_OBJECT = re.compile(
    rb"(?<![\d.])(\d{1,10})\s+(\d{1,5})\s+obj\b(.{0,2000}?)(?:endobj|stream\b|(?=\d+\s+\d+\s+obj\b))", re.DOTALL
)
_CATALOG = re.compile(rb"/Type\s*/Catalog\b")
_PAGE = re.compile(rb"/Type\s*/Page\b")
_PAGES = 10_000


def repaired(data: bytes) -> bytes | None:
    """The file with a trailer at its end, and a catalog if that is lost; None where not even pages are found."""
    data = data[: data.rfind(b"endobj") + len(b"endobj")]  # what follows may be half an object, without an end
    catalog, pages, highest = b"", [], 0
    for match in _OBJECT.finditer(data):
        reference = b"%s %s R" % match.group(1, 2)
        highest = max(highest, int(match[1]))
        if _CATALOG.search(match[3]):
            catalog = reference
        elif _PAGE.search(match[3]):
            pages.append(reference)
    if catalog:
        return data + _trailer(catalog, highest + 1)
    pages = list(dict.fromkeys(pages))[:_PAGES]
    if not pages:
        return None
    root, tree = highest + 1, highest + 2
    added = b"\n%d 0 obj\n<< /Type /Catalog /Pages %d 0 R >>\nendobj\n" % (
        root,
        tree,
    ) + b"%d 0 obj\n<< /Type /Pages /Count %d /Kids [%s] >>\nendobj\n" % (tree, len(pages), b" ".join(pages))
    return data + added + _trailer(b"%d 0 R" % root, highest + 3)


def _trailer(root: bytes, size: int) -> bytes:
    return b"\ntrailer\n<< /Root %s /Size %d >>\nstartxref\n0\n%%%%EOF\n" % (root, size)
