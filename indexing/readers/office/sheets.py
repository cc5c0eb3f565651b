"""Excel 97 (xls), binary Excel (xlsb) and OpenDocument sheets (ods) -> text, by calamine."""

import io

from indexing.documents import Document
from indexing.errors import UnreadableDocument
from indexing.readers.builder import TextWriter, stem
from indexing.readers.limits import ReadLimits
from indexing.readers.office.xlsx import shown, write_sheet
from indexing.readers.zip_xml import Package, corrupt

_MEDIA_TYPES = {"xls": "application/vnd.ms-excel", "xlsb": "application/vnd.ms-excel.sheet.binary.macroEnabled.12"}


def read_sheets(data: bytes, name: str, limits: ReadLimits) -> list[Document]:
    """One document, a page per sheet. Number formats are not known: a share of 25 % is 0.25."""
    import python_calamine  # a library of 7 MB that only old sheets need

    if data.startswith(b"PK"):
        Package(data, limits)  # refuses what unpacks to too much
    try:
        workbook = python_calamine.load_workbook(io.BytesIO(data))
    except python_calamine.PasswordError as exc:
        raise UnreadableDocument("password", "It is encrypted; save it without a password and index it again.") from exc
    except (python_calamine.CalamineError, OSError, ValueError) as exc:  # OSError for one that is cut off
        raise corrupt("Its workbook cannot be read.") from exc
    if len(workbook.sheet_names) > limits.max_pages:
        raise UnreadableDocument(
            "too_many_pages", f"It has {len(workbook.sheet_names)} sheets; at most {limits.max_pages} are read."
        )
    writer = TextWriter()
    for number, title in enumerate(workbook.sheet_names, 1):
        writer.page(number)
        sheet = workbook.get_sheet_by_name(title)
        write_sheet(title, ([shown(value) for value in row] for row in sheet.iter_rows()), writer)
    media_type = _MEDIA_TYPES.get(name.rpartition(".")[2].lower(), "application/vnd.oasis.opendocument.spreadsheet")
    return [writer.document(title=stem(name), media_type=media_type, metadata={"sheets": workbook.sheet_names})]
