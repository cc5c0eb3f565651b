"""What a PDF holds beside its pages: files that are attached to it, and the data of a dynamic (XFA) form."""

import ctypes
from collections.abc import Iterator
from typing import Any

import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c

from indexing.errors import UnreadableDocument
from indexing.readers.builder import one_line
from indexing.readers.members import MOST, Member, distinct
from indexing.readers.zip_xml import child, descendants, local, parse_xml

_VALUES = 10_000
_UNNAMED = "attachment"


def attached_names(pdf: Any) -> list[str]:
    """The names of the attached files, each another."""
    count = min(pdf.count_attachments(), MOST)
    return list(distinct(pdf.get_attachment(number).get_name() or _UNNAMED for number in range(count)))


def attached_files(pdf: Any, names: list[str]) -> Iterator[Member]:
    """The attached files, one after the other; one that is damaged is empty."""
    for number, name in enumerate(names):
        try:
            data = bytes(pdf.get_attachment(number).get_data())
        except pdfium.PdfiumError:
            data = b""
        yield name, data


def form_values(pdf: Any) -> list[str]:
    """What is filled into a dynamic form, field by field as "name: value"; [] where there is none."""
    values: list[str] = []
    for packet in _packets(pdf):
        try:
            root = parse_xml(packet)
        except UnreadableDocument:
            continue
        for datasets in descendants(root, "datasets"):
            data = child(datasets, "data")
            for field in data.iter() if data is not None else ():
                value = one_line(field.text or "") if len(field) == 0 else ""
                if value and len(values) < _VALUES:
                    values.append(f"{local(field)}: {value}")
    return values


def _packets(pdf: Any) -> Iterator[bytes]:
    """The parts of the form's XML, each of which is an XML document; one alone is all of it."""
    for number in range(max(0, pdfium_c.FPDF_GetXFAPacketCount(pdf))):
        size = ctypes.c_ulong()
        pdfium_c.FPDF_GetXFAPacketContent(pdf, number, None, 0, size)
        buffer = (ctypes.c_char * size.value)()
        if size.value and pdfium_c.FPDF_GetXFAPacketContent(pdf, number, buffer, size.value, size):
            yield bytes(buffer)
