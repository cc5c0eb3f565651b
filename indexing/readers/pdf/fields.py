"""What is written onto a PDF page beside its content: the values of form fields, and text boxes of annotations."""

import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import pypdfium2.raw as pdfium_c

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in points, y upwards."""

_UNSEEN = pdfium_c.FPDF_ANNOT_FLAG_HIDDEN | pdfium_c.FPDF_ANNOT_FLAG_NOVIEW
_PASSWORD = 1 << 13  # a flag of text fields
_TICKED, _NOT_TICKED = "☑", "☐"
_TICKS = (pdfium_c.FPDF_FORMFIELD_CHECKBOX, pdfium_c.FPDF_FORMFIELD_RADIOBUTTON)
_TYPED = (pdfium_c.FPDF_FORMFIELD_TEXTFIELD, pdfium_c.FPDF_FORMFIELD_COMBOBOX, pdfium_c.FPDF_FORMFIELD_LISTBOX)


def fields_of(pdf: Any, page: Any) -> Iterator[tuple[Box, str]]:
    """The text of each filled field, a tick or an empty box for each one to tick, and the text of free text boxes."""
    for number in range(pdfium_c.FPDFPage_GetAnnotCount(page)):
        annotation = pdfium_c.FPDFPage_GetAnnot(page, number)
        if not annotation:
            continue
        try:
            content = _content(pdf.formenv, annotation)
            box = pdfium_c.FS_RECTF()
            if content.strip() and pdfium_c.FPDFAnnot_GetRect(annotation, box):
                yield (box.left, box.top, box.right, box.bottom), content
        finally:
            pdfium_c.FPDFPage_CloseAnnot(annotation)


def _content(form: Any, annotation: Any) -> str:
    if pdfium_c.FPDFAnnot_GetFlags(annotation) & _UNSEEN:
        return ""
    kind = pdfium_c.FPDFAnnot_GetSubtype(annotation)
    if kind == pdfium_c.FPDF_ANNOT_FREETEXT:
        return _text(lambda *buffer: pdfium_c.FPDFAnnot_GetStringValue(annotation, b"Contents", *buffer))
    if kind != pdfium_c.FPDF_ANNOT_WIDGET or form is None:
        return ""
    field = pdfium_c.FPDFAnnot_GetFormFieldType(form, annotation)
    if field in _TICKS:
        return _TICKED if pdfium_c.FPDFAnnot_IsChecked(form, annotation) else _NOT_TICKED
    if field not in _TYPED or pdfium_c.FPDFAnnot_GetFormFieldFlags(form, annotation) & _PASSWORD:
        return ""
    return _text(lambda *buffer: pdfium_c.FPDFAnnot_GetFormFieldValue(form, annotation, *buffer))


def _text(get: Callable[[Any, int], int]) -> str:
    """A text that PDFium gives as UTF-16 with a zero at its end, in a buffer of the size that it says first."""
    size = get(None, 0)
    buffer = (ctypes.c_ushort * (size // 2 + 1))()
    get(buffer, size)
    return bytes(buffer)[: max(0, size - 2)].decode("utf-16-le", "replace")
